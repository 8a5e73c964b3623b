"""The order of training: pure, elastic, counted in closed form, each window once an epoch, documents apart."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gristmill.errors import DataError, RecipeError
from gristmill.planning.budget import Reading, epochs_read
from gristmill.planning.budget import Selection as Drawn
from gristmill.tokens.batch import Batch, concatenate
from gristmill.tokens.shards import TokenShard
from gristmill.tokens.stream import Draw, Origin, Stream, StreamStage
from gristmill.tokens.window_batch import segments
from gristmill.tokens.windows import Selection

MakeShard = Callable[..., TokenShard]
G = 24  # tokens in a step: 6 sequences of 4, 4 of 6, 3 of 8


def numbered_documents(first: int, lengths: Sequence[int]) -> list[list[int]]:
    """Documents of the given lengths (eos not counted) with ids that tell where each token stood."""
    starts = np.cumsum([0, *lengths]) + first
    return [list(range(start, start + length)) for start, length in zip(starts.tolist(), lengths)]


@pytest.fixture
def shards(make_shard: MakeShard) -> dict[str, TokenShard]:
    rng = np.random.default_rng(3)
    return {
        "web": make_shard("web", numbered_documents(1, rng.integers(1, 12, size=30).tolist())),
        "code": make_shard("code", numbered_documents(300, rng.integers(3, 30, size=6).tolist())),
        "book": make_shard("book", numbered_documents(600, [70])),
    }


STAGES = [
    StreamStage(
        name="one", num_samples=60, seq_len=4, draws=(Draw(source="web", weight=0.7), Draw(source="code", weight=0.3))
    ),
    StreamStage(
        name="two",
        num_samples=40,
        seq_len=6,
        draws=(
            Draw(source="web", weight=0.25),
            Draw(source="web", weight=0.25, min_document_tokens=6),
            Draw(source="book", weight=0.5),
        ),
    ),
    StreamStage(
        name="three", num_samples=48, seq_len=4, draws=(Draw(source="code", weight=0.5), Draw(source="web", weight=0.5))
    ),
]
NUM_STEPS = 10 + 10 + 8


def rows(batch: Batch) -> tuple[list[float], ...]:
    names = ("tokens_N", "targets_N", "positions_N", "document_lengths", "loss_mask_N", "source_N")
    return tuple(getattr(batch, name).tolist() for name in names)


# ---- windows and documents


@pytest.mark.parametrize(
    ("windows", "lengths"),
    [
        ([[5, 6, 0, 7, 0], [0, 8, 9, 0, 4]], [2, 2, 3, 1]),
        ([[5, 6, 7]], [2]),
        ([[0, 0, 0]], [1, 1]),
        ([[5, 0], [0, 5], [5, 5]], [1, 1, 1]),
    ],
)
def test_a_segment_begins_at_each_window_and_each_eos(windows: list[list[int]], lengths: list[int]) -> None:
    ids = np.array(windows, dtype=np.uint16)
    assert segments(ids, 0, np.empty(ids.shape, dtype=bool))[1].tolist() == lengths


def test_eos_begins_the_next_documents_segment(make_shard: MakeShard) -> None:
    """One window over documents [5 6 7], [8], [9 10 11 …]: the last text token aims at eos, eos at the next first token."""
    stage = StreamStage(name="s", num_samples=1, seq_len=8, draws=(Draw(source="a", weight=1),))
    batch = Stream({"a": make_shard("a", [[5, 6, 7], [8], [9, 10, 11]])}, [stage], seed=0).sequences(0, 1)
    assert batch.tokens_N.tolist() == [5, 6, 7, 0, 8, 0, 9, 10]
    assert batch.targets_N.tolist() == [6, 7, 0, 8, 0, 9, 10, 11]
    assert batch.document_lengths.tolist() == [3, 2, 3]
    assert batch.positions_N.tolist() == [0, 1, 2, 0, 1, 0, 1, 2]
    assert batch.loss_mask_N.tolist() == [1.0] * 8


def test_a_window_that_begins_inside_a_document_counts_positions_from_0(make_shard: MakeShard) -> None:
    stage = StreamStage(name="s", num_samples=2, seq_len=3, draws=(Draw(source="a", weight=1),))
    batch = Stream({"a": make_shard("a", [[5, 6, 7, 8, 9, 10]])}, [stage], seed=0).sequences(0, 2)
    assert sorted(batch.tokens_N.reshape(2, 3).tolist()) == [[5, 6, 7], [8, 9, 10]]
    assert batch.positions_N.tolist() == [0, 1, 2, 0, 1, 2]
    assert batch.document_lengths.tolist() == [3, 3]


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=12),
    limit=st.none() | st.integers(1, 8),
    seq_len=st.integers(1, 7),
)
def test_windows_tile_the_selected_documents(
    make_shard: MakeShard, lengths: list[int], limit: int | None, seq_len: int
) -> None:
    documents = numbered_documents(1, lengths)
    selection = Selection(make_shard("a", documents), min_document_tokens=limit)
    chosen = [document for document in documents if limit is None or len(document) + 1 >= limit]
    flat = [token for document in chosen for token in [*document, 0]]
    assert selection.num_tokens == len(flat)
    assert selection.num_windows(seq_len) == max(0, (len(flat) - 1) // seq_len)
    for window in range(selection.num_windows(seq_len)):
        out = np.frombuffer(selection.read(window * seq_len, seq_len + 1), dtype=np.uint16)
        assert out.tolist() == flat[window * seq_len : window * seq_len + seq_len + 1]
        parts = selection.parts(window * seq_len, seq_len)
        read = [token for part in parts for token in [*documents[part.document], 0][part.first : part.end]]
        assert read == out[:-1].tolist()
        assert sum(part.end - part.first for part in parts) == seq_len
    places = [selection.place_of(number) for number in range(len(documents))]
    assert [place is not None for place in places] == [document in chosen for document in documents]
    for document, place in zip(documents, places, strict=True):
        assert place is None or flat[place[0] : place[1]] == [*document, 0]


@pytest.mark.parametrize("seed", range(5))
def test_the_sequences_of_a_document_are_all_that_read_it_and_no_other(
    shards: dict[str, TokenShard], seed: int
) -> None:
    stream = Stream(shards, STAGES, seed=seed)
    readers: dict[tuple[str, int], list[int]] = {}
    for origin in stream.origins(0, stream.num_samples):
        for number in sorted(set(origin.documents)):
            readers.setdefault((origin.source, number), []).append(origin.sample)
    found = {
        (source, number): sequences
        for source, shard in shards.items()
        for number in range(shard.num_documents)
        if (sequences := stream.sequences_of(source, number))
    }
    assert found == readers


# ---- the order is pure


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stop=st.integers(1, NUM_STEPS - 1), seed=st.integers(0, 5))
def test_stop_and_resume_anywhere_equals_never_stopping(shards: dict[str, TokenShard], stop: int, seed: int) -> None:
    never = Stream(shards, STAGES, seed=seed)
    straight = [rows(never.batch(step, G)) for step in range(NUM_STEPS)]
    before, after = Stream(shards, STAGES, seed=seed), Stream(shards, STAGES, seed=seed)
    assert [rows(before.batch(step, G)) for step in range(stop)] == straight[:stop]
    assert [rows(after.batch(step, G)) for step in range(stop, NUM_STEPS)] == straight[stop:]


@pytest.mark.parametrize("world_size", [1, 2, 3, 6])
def test_ranks_together_equal_one_rank(shards: dict[str, TokenShard], world_size: int) -> None:
    stream = Stream(shards, STAGES, seed=1)
    for step in [0, 3, 9, 20, 27]:  # stages of 6 sequences a step
        parts = [Stream(shards, STAGES, seed=1).batch(step, G, rank, world_size) for rank in range(world_size)]
        assert {part.num_tokens for part in parts} == {G // world_size}
        assert rows(concatenate(parts)) == rows(stream.batch(step, G))


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(1, 147), max_size=6, unique=True))
def test_any_slicing_of_the_samples_gives_the_same_tokens(shards: dict[str, TokenShard], cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), 148]
    parts = [Stream(shards, STAGES, seed=1).sequences(a, b) for a, b in itertools.pairwise(edges)]
    assert rows(concatenate(parts)) == rows(Stream(shards, STAGES, seed=1).sequences(0, 148))


def test_another_seed_is_another_order_of_the_same_windows(shards: dict[str, TokenShard]) -> None:
    stage = StreamStage(name="s", num_samples=40, seq_len=4, draws=(Draw(source="web", weight=1),))
    one, two = (Stream(shards, [stage], seed=seed).sequences(0, 40).tokens_N.reshape(40, 4).tolist() for seed in (1, 2))
    assert one != two
    assert Stream(shards, [stage], seed=1).sequences(0, 40).tokens_N.reshape(40, 4).tolist() == one


def test_changing_stages_that_lie_ahead_changes_nothing_behind(shards: dict[str, TokenShard]) -> None:
    """An intervention after 30 sequences: the stage ends there, and another mixture goes on."""
    first = StreamStage(name="one", num_samples=30, seq_len=4, draws=STAGES[0].draws)
    other = StreamStage(name="more", num_samples=30, seq_len=4, draws=(Draw(source="web", weight=1),))
    changed = Stream(shards, [first, other], seed=1)
    assert rows(changed.sequences(0, 30)) == rows(Stream(shards, STAGES, seed=1).sequences(0, 30))
    drawn = [origin.window for origin in changed.origins(0, 60) if (origin.source, origin.epoch) == ("web", 0)]
    assert len(drawn) == len(set(drawn))  # the new stage goes on where the old one was in the permutation


# ---- reshuffles


def reshuffled(at: int, number: int | None, stages: Sequence[StreamStage] = STAGES) -> list[StreamStage]:
    return [replace(stage, reshuffle=number if place == at else None) for place, stage in enumerate(stages)]


@pytest.mark.parametrize("at", range(3))
def test_a_reshuffle_leaves_all_before_it_and_another_number_is_another_order(
    shards: dict[str, TokenShard], at: int
) -> None:
    orders = [Stream(shards, reshuffled(at, number), seed=1) for number in (None, 1, 2)]
    begins = sum(stage.num_samples for stage in STAGES[:at])
    ends = begins + STAGES[at].num_samples
    if begins:
        assert rows(orders[0].sequences(0, begins)) == rows(orders[1].sequences(0, begins))
    windows = [[origin.window for origin in stream.origins(begins, ends)] for stream in orders]
    assert windows[0] != windows[1] != windows[2] != windows[0]
    assert orders[0].sequences(begins, ends).source_N.tolist() == orders[1].sequences(begins, ends).source_N.tolist()


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.integers(1, 60), min_size=2, max_size=4), at=st.integers(0, 3), number=st.integers(0, 2**63 - 1)
)
def test_with_a_reshuffle_too_every_window_comes_once_an_epoch(
    make_shard: MakeShard, sizes: list[int], at: int, number: int
) -> None:
    """By counting the windows that are drawn, and by looking each of them up again."""
    shard = make_shard("a", numbered_documents(1, [3, 9, 20, 1, 6]))
    num_windows = (shard.num_tokens - 1) // 4
    draws = (Draw(source="a", weight=1),)
    plain = [StreamStage(name=f"s{n}", num_samples=size, seq_len=4, draws=draws) for n, size in enumerate(sizes)]
    stream = Stream({"a": shard}, reshuffled(min(at, len(sizes) - 1), number, plain), seed=1)
    drawn = origins_of(stream)
    for epoch in range(-(-stream.num_samples // num_windows)):
        windows = [origin.window for origin in drawn if origin.epoch == epoch]
        assert len(windows) == len(set(windows)) == min(num_windows, stream.num_samples - epoch * num_windows)
    for document in range(shard.num_documents):
        met = [origin.sample for origin in drawn if document in origin.documents]
        assert stream.sequences_of("a", document) == met


def test_a_reshuffle_is_another_order_of_all_of_every_later_epoch(make_shard: MakeShard) -> None:
    """It begins late in an epoch; the next ones are in another order from their first window on."""
    shard = make_shard("a", numbered_documents(1, [80, 90]))
    num_windows = (shard.num_tokens - 1) // 4
    draws = (Draw(source="a", weight=1),)
    sizes = (num_windows - 5, 5 + 2 * num_windows)
    stages = [StreamStage(name=f"s{n}", num_samples=size, seq_len=4, draws=draws) for n, size in enumerate(sizes)]
    one, two = (origins_of(Stream({"a": shard}, reshuffled(1, number, stages), seed=1)) for number in (1, 2))
    for epoch in (1, 2):
        heads = [
            [origin.window for origin in drawn if origin.epoch == epoch][: num_windows // 2] for drawn in (one, two)
        ]
        assert heads[0] != heads[1]


def test_two_reshuffles_are_refused(shards: dict[str, TokenShard]) -> None:
    stages = [replace(stage, reshuffle=1) for stage in STAGES[:2]]
    with pytest.raises(RecipeError, match="'one', 'two' reshuffle"):
        Stream(shards, stages, seed=1)


def test_blocks_of_resolved_sequences_leave_no_seam(make_shard: MakeShard) -> None:
    shard = make_shard("a", [list(range(1, 900))])
    stage = StreamStage(name="s", num_samples=3000, seq_len=1, draws=(Draw(source="a", weight=1),))
    whole = Stream({"a": shard}, [stage], seed=0).sequences(0, 3000).tokens_N
    stream = Stream({"a": shard}, [stage], seed=0)
    assert (
        np.concatenate([stream.sequences(k, k + 100).tokens_N for k in range(0, 3000, 100)]).tolist() == whole.tolist()
    )
    across = [origin.window for origin in stream.origins(1000, 1050)]
    assert stream.sequences(1000, 1050).tokens_N.tolist() == [window + 1 if window < 899 else 0 for window in across]


# ---- counts


def origins_of(stream: Stream) -> list[Origin]:
    return stream.origins(0, stream.num_samples)


def test_every_window_of_an_epoch_is_drawn_exactly_once(shards: dict[str, TokenShard]) -> None:
    num_windows = (shards["web"].num_tokens - 1) // 4
    stage = StreamStage(name="s", num_samples=3 * num_windows, seq_len=4, draws=(Draw(source="web", weight=1),))
    stream = Stream(shards, [stage], seed=1)
    orders = []
    for epoch in range(3):
        origins = stream.origins(epoch * num_windows, (epoch + 1) * num_windows)
        assert {origin.epoch for origin in origins} == {epoch}
        orders.append([origin.window for origin in origins])
        assert sorted(orders[-1]) == list(range(num_windows))
        tokens = stream.sequences(epoch * num_windows, (epoch + 1) * num_windows).tokens_N
        assert Counter(tokens.tolist()) == Counter(shards["web"].tokens[: 4 * num_windows].tolist())
    assert orders[0] != orders[1] != orders[2]


def test_epochs_go_on_across_stages_with_one_sequence_length(shards: dict[str, TokenShard]) -> None:
    drawn: dict[tuple[str, int], list[int]] = {}
    stream = Stream(shards, STAGES, seed=1)
    for origin in origins_of(stream):
        if origin.stage != "two":
            drawn.setdefault((origin.source, origin.epoch), []).append(origin.window)
    for (source, epoch), windows in drawn.items():
        num_windows = (shards[source].num_tokens - 1) // 4
        assert len(set(windows)) == len(windows)
        if (source, epoch + 1) in drawn:
            assert len(windows) == num_windows
    assert ("code", 1) in drawn  # the test would show nothing without a second epoch


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(step=st.integers(0, NUM_STEPS))
def test_tokens_drawn_in_closed_form_equal_counting(shards: dict[str, TokenShard], step: int) -> None:
    stream = Stream(shards, STAGES, seed=1)
    counted = Counter[str]()
    for earlier in range(step):
        for source, count in Counter(stream.batch(earlier, G).source_N.tolist()).items():
            counted[stream.source_names[source]] += count
    sample = stream.sample_at(step, G)
    assert drawn_before(stream, sample) == counted


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sample=st.integers(1, 148))
def test_counts_stay_within_one_sequence_per_stage_of_the_asked_share(
    shards: dict[str, TokenShard], sample: int
) -> None:
    stream = Stream(shards, STAGES, seed=1)
    counts = Counter((origin.stage, origin.source) for origin in stream.origins(0, sample))
    start = 0
    for stage in STAGES:
        inside = min(max(sample - start, 0), stage.num_samples)
        asked = Counter[str]()
        draws = Counter(draw.source for draw in stage.draws)
        for draw in stage.draws:
            asked[draw.source] += float(draw.weight) * inside
        for source, share in asked.items():
            assert abs(counts[stage.name, source] - share) < draws[source]
        start += stage.num_samples


def test_uses_say_what_each_selection_gave(shards: dict[str, TokenShard]) -> None:
    found = Stream(shards, STAGES, seed=1).uses_before(148)
    uses = {(use.source, use.min_document_tokens, use.seq_len): use for use in found}
    assert {key: use.tokens_drawn for key, use in uses.items()} == {
        ("web", None, 4): 42 * 4 + 24 * 4,
        ("web", None, 6): 10 * 6,
        ("code", None, 4): 18 * 4 + 24 * 4,
        ("web", 6, 6): 10 * 6,
        ("book", None, 6): 20 * 6,
    }
    assert uses["book", None, 6].unique_tokens == 71
    lengths = shards["web"].document_lengths()
    assert uses["web", 6, 6].unique_tokens == lengths[lengths >= 6].sum()


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sample=st.integers(0, 148), edges=st.lists(st.integers(0, 148), max_size=6, unique=True))
def test_sequences_that_were_passed_over_are_left_out_of_the_account(
    shards: dict[str, TokenShard], sample: int, edges: list[int]
) -> None:
    stream, ends = Stream(shards, STAGES, seed=1), sorted(edges)
    skipped = [range(start, stop) for start, stop in zip(ends[::2], ends[1::2])]
    counted = Counter[str]()
    for origin in stream.origins(0, sample):
        if not any(origin.sample in passed for passed in skipped):
            counted[origin.source] += 6 if origin.stage == "two" else 4
    assert drawn_before(stream, sample, skipped) == counted


def drawn_before(stream: Stream, sample: int, skipped: Sequence[range] = ()) -> Counter[str]:
    """Tokens of each source in all sequences before `sample` that were not passed over."""
    drawn = Counter[str]()
    for use in stream.uses_before(sample, skipped=skipped):
        drawn[use.source] += use.tokens_drawn
    return drawn


def times_read(stream: Stream, shard: TokenShard, limit: int | None) -> list[int]:
    """For each token of the shard's documents of at least `limit` tokens, how often the stream has it as an input."""
    read = Counter[int]()
    for origin, stage in ((origin, stage) for origin in origins_of(stream) for stage in stream.stages):
        if origin.stage == stage.name:
            selection = Selection(shard, min_document_tokens=stage.draws[0].min_document_tokens)
            for start, stop in selection.pieces(origin.window * stage.seq_len, stage.seq_len):
                read.update(range(start, stop))
    chosen = Selection(shard, min_document_tokens=limit)
    return [read[at] for start, stop in chosen.pieces(0, chosen.num_tokens) for at in range(start, stop)]


def epochs_of(stream: Stream, limit: int | None) -> float:
    uses = stream.uses_before(stream.num_samples)
    readings = [Reading(Drawn(use.source, use.min_document_tokens), use.seq_len, use.tokens_drawn) for use in uses]
    unique = {Drawn(use.source, use.min_document_tokens): use.unique_tokens for use in uses}
    return epochs_read(readings, unique)[Drawn("a", limit)]


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(0, 9), min_size=2, max_size=12),
    readings=st.lists(
        st.tuples(st.sampled_from([None, 4]), st.integers(1, 9), st.integers(1, 40)), min_size=1, max_size=4
    ),
    in_whole_epochs=st.booleans(),
)
def test_epochs_are_how_often_each_token_is_really_read(
    make_shard: MakeShard, lengths: list[int], readings: list[tuple[int | None, int, int]], in_whole_epochs: bool
) -> None:
    """By counting: in whole epochs exactly so often, else less than one time more for each length and selection."""
    shard = make_shard("a", numbered_documents(1, lengths))
    stages = []
    for number, (limit, seq_len, size) in enumerate(readings):
        windows = Selection(shard, min_document_tokens=limit).num_windows(seq_len)
        if windows:
            draw = Draw(source="a", weight=1, min_document_tokens=limit)
            samples = windows * -(-size // 10) if in_whole_epochs else size
            stages.append(StreamStage(name=f"s{number}", num_samples=samples, seq_len=seq_len, draws=(draw,)))
    if not stages:
        return
    stream = Stream({"a": shard}, stages, seed=1)
    narrowest = 4 if any(stage.draws[0].min_document_tokens for stage in stages) else None
    counts, epochs = times_read(stream, shard, narrowest), epochs_of(stream, narrowest)
    kinds = {(stage.draws[0].min_document_tokens, stage.seq_len) for stage in stages}
    assert max(counts) < epochs + len(kinds)
    if in_whole_epochs:
        assert max(counts) <= round(epochs, 9)
        if len(kinds) == 1:
            assert set(counts) <= {round(epochs, 9), 0}
    if any(stage.draws[0].min_document_tokens is None for stage in stages):
        everything = times_read(stream, shard, None)
        assert sum(everything) / len(everything) <= epochs_of(stream, None) + 1e-9


def test_one_window_that_is_read_nine_times_is_nine_epochs(make_shard: MakeShard) -> None:
    shard = make_shard("a", [list(range(1, 191))])
    stage = StreamStage(name="s", num_samples=9, seq_len=100, draws=(Draw(source="a", weight=1),))
    stream = Stream({"a": shard}, [stage], seed=1)
    assert times_read(stream, shard, None) == [9] * 100 + [0] * 91
    assert epochs_of(stream, None) == 9.0


def test_describe_names_the_documents_that_a_batch_holds(shards: dict[str, TokenShard]) -> None:
    stream = Stream(shards, STAGES, seed=1)
    for step in range(NUM_STEPS):
        batch, origins = stream.batch(step, G), stream.describe(step, G)
        sequences = batch.tokens_N.reshape(len(origins), -1)
        for origin, tokens in zip(origins, sequences.tolist(), strict=True):
            shard = shards[origin.source]
            held = {token for number in origin.documents for token in shard.document(number).tolist()}
            assert set(tokens) <= held
            assert all(set(shard.document(number).tolist()) & set(tokens) for number in origin.documents)


def test_a_minimum_length_leaves_short_documents_out(make_shard: MakeShard) -> None:
    documents = [[1, 2, 3], [900, 901], [4, 5, 6, 7], [902], [8, 9, 10]]
    stage = StreamStage(name="s", num_samples=6, seq_len=2, draws=(Draw(source="a", weight=1, min_document_tokens=4),))
    batch = Stream({"a": make_shard("a", documents)}, [stage], seed=0).sequences(0, 6)
    assert sorted(batch.tokens_N.tolist()) == [0, 0, *range(1, 11)]
    assert 3 in batch.tokens_N[batch.targets_N == 0]


# ---- steps and errors


def test_steps_and_samples(shards: dict[str, TokenShard]) -> None:
    stream = Stream(shards, STAGES, seed=1)
    assert stream.num_steps(G) == NUM_STEPS
    assert [stream.sample_at(step, G) for step in (0, 1, 9, 10, 11, 19, 20, 28)] == [0, 6, 54, 60, 64, 96, 100, 148]
    assert [stream.stage_at(sample) for sample in (0, 59, 60, 99, 100, 147)] == [0, 0, 1, 1, 2, 2]
    with pytest.raises(IndexError):
        stream.sample_at(NUM_STEPS + 1, G)
    with pytest.raises(IndexError):
        stream.batch(NUM_STEPS, G)


def test_a_batch_can_start_at_a_sample_of_its_own(shards: dict[str, TokenShard]) -> None:
    stream = Stream(shards, STAGES, seed=1)
    assert rows(stream.batch_at(8, G)) == rows(stream.sequences(8, 14))


def test_budgets_that_are_no_whole_steps_are_refused(shards: dict[str, TokenShard]) -> None:
    stream = Stream(shards, STAGES, seed=1)
    with pytest.raises(RecipeError, match="multiple of seq_len 4 of stage 'one'"):
        stream.batch(0, 26)
    with pytest.raises(RecipeError, match="stage 'one' has 60 sequences, expected a multiple of the 18"):
        stream.num_steps(72)
    with pytest.raises(RecipeError, match="6 sequences, which 4 ranks cannot share"):
        stream.batch(0, G, 0, 4)


@pytest.mark.parametrize(
    ("draws", "error", "problem"),
    [
        ((Draw(source="maths", weight=1),), RecipeError, "draws from source 'maths', expected one of web, code, book"),
        ((Draw(source="web", weight=0.5), Draw(source="code", weight=0.4)), RecipeError, "stage 's': .* sum to 0.9"),
        ((Draw(source="web", weight=0.5),) * 2, RecipeError, "lists source 'web' twice"),
        ((), RecipeError, "from 0 sources"),
        ((Draw(source="web", weight=1, min_document_tokens=99),), DataError, "has 0 tokens in documents of 99 tokens"),
    ],
)
def test_a_stage_that_cannot_be_drawn_is_refused(
    shards: dict[str, TokenShard], draws: tuple[Draw, ...], error: type[Exception], problem: str
) -> None:
    with pytest.raises(error, match=problem):
        Stream(shards, [StreamStage(name="s", num_samples=4, seq_len=4, draws=draws)], seed=0)


def test_shards_of_two_tokenizers_never_meet(make_shard: MakeShard) -> None:
    shards = {"a": make_shard("a", [[5, 6]]), "b": make_shard("b", [[5, 6]], tokenizer_sha256="b" * 64)}
    with pytest.raises(DataError, match="'b' was tokenized by bbbbbbbbbbbb"):
        Stream(shards, STAGES, seed=0)
