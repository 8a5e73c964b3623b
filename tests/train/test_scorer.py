"""The scorer against the plain formula; rigged and random models; windows; choices and bits per byte."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tiny_run as tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from gristmill.data.packs import Item, Pack, write_pack
from gristmill.errors import DataError
from gristmill.model.transformer import Llama
from gristmill.statistics import ratio_of_sums
from gristmill.tokens.shards import ShardWriter, TokenShard
from gristmill.tokens.tokenizer import Tokenizer
from gristmill.train import scorer
from gristmill.train.scorer import (
    Likelihood,
    bits_per_byte,
    encode_pair,
    judge_choices,
    loglikelihoods,
    part_of,
    rolling_windows,
    score_pack,
)


@pytest.fixture(scope="module")
def model() -> Llama:
    found: Llama = tiny.tiny_model(seed=3)
    return found


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    found: Tokenizer = tiny.tiny_tokenizer()
    return found


def plain_logp(model: Llama, context: list[int], continuation: list[int]) -> tuple[float, bool]:
    """One document, all logits, float64 softmax: the formula as written."""
    ids = torch.tensor([*context, *continuation])
    with torch.no_grad():
        x_ND = model.hidden(ids[:-1], torch.arange(len(ids) - 1), [len(ids) - 1])
        logits = model.logits(x_ND)[-len(continuation) :].double()
    logps = torch.log_softmax(logits, dim=-1)
    targets = torch.tensor(continuation)
    return float(logps[torch.arange(len(continuation)), targets].sum()), bool((logits.argmax(-1) == targets).all())


ids = st.lists(st.integers(0, 275), min_size=1, max_size=12)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(ids, ids), min_size=1, max_size=7), st.integers(1, 60))
def test_likelihoods_equal_the_plain_formula_however_they_are_batched(
    model: Llama, pairs: list[tuple[list[int], list[int]]], max_tokens: int
) -> None:
    found = loglikelihoods(model, pairs, max_tokens=max_tokens)
    for (context, continuation), likelihood in zip(pairs, found, strict=True):
        logp, is_greedy = plain_logp(model, context, continuation)
        assert likelihood.logp == pytest.approx(logp, rel=1e-6)
        assert likelihood.is_greedy == is_greedy


def test_what_does_not_fit_is_cut_on_the_left(model: Llama) -> None:
    limit = model.config.max_position_embeddings
    context, continuation = list(range(100)), [5, 6, 7]
    (found,) = loglikelihoods(model, [(context, continuation)])
    assert found.logp == pytest.approx(plain_logp(model, context[-(limit - 2) :], continuation)[0], rel=1e-6)


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (([], [1]), "empty context"),
        (([1], []), "empty continuation"),
        (([1], [1] * 65), "65 tokens, the model's context is 64"),
    ],
)
def test_impossible_pairs_are_refused(model: Llama, pair: tuple[list[int], list[int]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        loglikelihoods(model, [pair])


def test_pair_is_cut_at_the_length_of_the_encoded_context(tokenizer: Tokenizer) -> None:
    context, continuation = encode_pair(tokenizer, "one two", " three")
    assert tokenizer.decode([*context, *continuation]) == "one two three"
    assert context == tokenizer.encode("one two")


def test_trailing_space_of_the_context_goes_to_the_continuation(tokenizer: Tokenizer) -> None:
    assert encode_pair(tokenizer, "one two ", "three") == encode_pair(tokenizer, "one two", " three")


def test_empty_context_becomes_the_end_of_text_token(tokenizer: Tokenizer) -> None:
    assert encode_pair(tokenizer, "", "one") == ([tokenizer.eos_id], tokenizer.encode("one"))


@given(st.integers(0, 60), st.integers(1, 9))
def test_windows_score_each_token_once_in_order_with_context_that_fits(num_tokens: int, window: int) -> None:
    tokens = list(range(100, 100 + num_tokens))
    pairs = rolling_windows(tokens, 7, window)
    assert [token for _, continuation in pairs for token in continuation] == tokens
    padded = [7, *tokens]
    for context, continuation in pairs:
        assert context
        assert len(context) + len(continuation) - 1 <= window
        end = padded.index(continuation[-1]) + 1
        assert padded[end - len(context) - len(continuation) : end] == [*context, *continuation]


def test_last_window_takes_all_the_context_that_fits() -> None:
    assert rolling_windows(list(range(10)), 99, 4) == [
        ([99], [0, 1, 2, 3]),
        ([3], [4, 5, 6, 7]),
        ([5, 6, 7], [8, 9]),
    ]


# ── packs ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def pack(folder: Path, items: list[Item], kind: str = "multiple_choice") -> Pack:
    return write_pack(folder, name="p", version=1, kind=kind, metric="acc", chance=0.5, items=items)


def item(number: int, answer: int) -> Item:
    return Item(id=f"i{number}", prompt=f"{number} one", choices=(" two", " three four"), answer=answer)


def rigged(model: Llama, tokenizer: Tokenizer, word: str) -> Llama:
    """A copy whose head gives the first token of `word` the highest score everywhere."""
    copy: Llama = tiny.tiny_model(seed=3)
    copy.load_state_dict(model.state_dict())
    favourite = tokenizer.encode(word)[0]
    with torch.no_grad():
        copy.model.norm.weight.fill_(0.0)
    original = copy.hidden

    def hidden(*arguments: object, **named: object) -> torch.Tensor:
        x_ND = original(*arguments, **named)  # type: ignore[arg-type]
        return x_ND + functional.normalize(copy.output_weight_VD[favourite], dim=0) * 20

    copy.hidden = hidden  # type: ignore[method-assign]
    return copy


def test_model_rigged_to_be_right_scores_one_and_rigged_to_be_wrong_zero(
    tmp_path: Path, model: Llama, tokenizer: Tokenizer
) -> None:
    knows = rigged(model, tokenizer, " two")
    right = score_pack(knows, tokenizer, pack(tmp_path / "r", [item(n, 0) for n in range(9)]))
    wrong = score_pack(knows, tokenizer, pack(tmp_path / "w", [item(n, 1) for n in range(9)]))
    assert (right.accuracy.value, wrong.accuracy.value) == (1.0, 0.0)
    assert right.accuracy.low < 1.0 < right.accuracy.high + 1e-9
    assert right.accuracy.num_items == 9


def test_random_model_scores_chance_within_its_interval(tmp_path: Path, model: Llama, tokenizer: Tokenizer) -> None:
    answers = np.random.default_rng(0).integers(0, 2, size=60)
    score = score_pack(model, tokenizer, pack(tmp_path, [item(n, int(a)) for n, a in enumerate(answers)])).accuracy
    assert score.low <= 0.5 <= score.high
    assert score.chance == 0.5


def test_per_byte_accuracy_divides_by_the_bytes_of_the_choice(
    tmp_path: Path, model: Llama, tokenizer: Tokenizer
) -> None:
    (found,) = score_pack(model, tokenizer, pack(tmp_path, [item(1, 0)])).items
    logps = [plain_logp(model, *encode_pair(tokenizer, "1 one", choice))[0] for choice in (" two", " three four")]
    assert found.logps == pytest.approx(logps, rel=1e-6)
    assert found.right == judge_choices(item(1, 0), logps)


@pytest.mark.parametrize(
    ("logps", "right"),
    [
        ([-6.0, -5.0, -9.0], {"acc": False, "acc_norm": True, "acc_bytes": True}),
        ([-4.0, -5.0, -9.0], {"acc": True, "acc_norm": True, "acc_bytes": True}),
        ([-7.0, -9.0, -5.0], {"acc": False, "acc_norm": False, "acc_bytes": True}),
        ([-3.0, -3.0, -3.0], {"acc": True, "acc_norm": True, "acc_bytes": True}),
    ],
)
def test_choices_are_judged_whole_per_character_and_per_byte(logps: list[float], right: dict[str, bool]) -> None:
    assert judge_choices(Item(id="a", prompt="one", choices=("üüüü", "abc", "abc"), answer=0), logps) == right


def test_fewer_items_are_the_same_in_every_run_and_a_larger_part_holds_the_smaller() -> None:
    items = [item(n, 0) for n in range(50)]
    parts = [part_of(items, size) for size in range(51)]
    assert [len(part) for part in parts] == [*range(51)]
    assert all(set(less) < set(more) for less, more in pairwise([{one.id for one in part} for part in parts]))
    assert all(part == [one for one in items if one in part] for part in parts)
    assert {one.id for one in part_of(items[::-1], 7)} == {one.id for one in part_of(items, 7)}
    assert part_of(items, 100) == part_of(items, None) == items
    assert [one.id for one in part_of(items, 4)] == ["i5", "i28", "i30", "i47"]  # by sha256sum and sort


@pytest.mark.parametrize("period", [2, 4, 5, 10])
def test_a_part_of_items_that_repeat_a_pattern_holds_the_whole_pattern(period: int) -> None:
    """Right answers that go round, sources by turns: every place is as often in a part as chance has it."""
    items = [item(n, n % period) for n in range(1000)]
    for size in (100, 200, 500):
        found = Counter(one.answer for one in part_of(items, size))
        expected = size / period
        # of a draw without replacement the variance is that of the hypergeometric distribution
        deviation = (expected * (1 - 1 / period) * (1000 - size) / 999) ** 0.5
        assert all(abs(found[place] - expected) < 4 * deviation for place in range(period))


def test_generate_pack_is_refused(tmp_path: Path, model: Llama, tokenizer: Tokenizer) -> None:
    written = pack(tmp_path, [Item(id="a", prompt="one", target="two")], kind="generate")
    with pytest.raises(DataError, match="kind 'generate'"):
        score_pack(model, tokenizer, written)


# ── bits per byte ────────────────────────────────────────────────────────────────────────────────────────────────────


def shard(folder: Path, tokenizer: Tokenizer, texts: list[str]) -> TokenShard:
    with ShardWriter(folder / "v", tokenizer_sha256="0" * 64, vocab_size=tokenizer.vocab_size, eos_id=0) as writer:
        for text in texts:
            writer.add(tokenizer.encode(text), num_bytes=len(text.encode()))
    return TokenShard(folder / "v")


def test_uniform_model_needs_the_bits_of_its_vocabulary_for_each_token(tmp_path: Path, tokenizer: Tokenizer) -> None:
    uniform = tiny.tiny_model()
    with torch.no_grad():
        uniform.model.norm.weight.fill_(0.0)
    texts = ["one two three", "ü", "four" * 50]
    found = bits_per_byte(uniform, tokenizer, shard(tmp_path, tokenizer, texts))
    num_tokens = sum(len(tokenizer.encode(text)) for text in texts)
    assert found.num_tokens == num_tokens
    assert found.num_bytes == sum(len(text.encode()) for text in texts)
    assert found.value == pytest.approx(num_tokens * math.log2(276) / found.num_bytes, rel=1e-9)


def test_each_document_begins_after_the_end_of_text_token(tmp_path: Path, model: Llama, tokenizer: Tokenizer) -> None:
    texts = ["one two", "three four five"]
    found = bits_per_byte(model, tokenizer, shard(tmp_path, tokenizer, texts))
    nats = -sum(plain_logp(model, [0], tokenizer.encode(text))[0] for text in texts)
    assert found.nats == pytest.approx(nats, rel=1e-6)


def test_whole_documents_from_the_front_until_there_are_enough_bytes(
    tmp_path: Path, model: Llama, tokenizer: Tokenizer
) -> None:
    written = shard(tmp_path, tokenizer, ["one", "two", "three", "four"])
    found = bits_per_byte(model, tokenizer, written, max_bytes=4)
    assert (found.num_documents, found.num_bytes) == (2, 6)


@pytest.mark.parametrize("max_bytes", [1, 3, 4, 5, 30, 47, 48, 1000])
def test_the_last_document_is_cut_at_the_token_that_reaches_the_bytes(
    max_bytes: int, tmp_path: Path, model: Llama, tokenizer: Tokenizer
) -> None:
    texts = ["one", "the two of them", "three four five six seven eig"]
    written = shard(tmp_path, tokenizer, texts)
    found = bits_per_byte(model, tokenizer, written, max_bytes=max_bytes, cuts_last=True)
    longest = max(tokenizer.num_bytes([one]) for text in texts for one in tokenizer.encode(text))
    all_bytes = sum(map(len, texts))
    assert min(max_bytes, all_bytes) <= found.num_bytes < min(max_bytes + longest, all_bytes + 1)
    assert found.document_bytes[:-1] == tuple(map(len, texts))[: found.num_documents - 1]
    last = tokenizer.encode(texts[found.num_documents - 1])
    cut = next(n for n in range(1, len(last) + 1) if tokenizer.num_bytes(last[:n]) == found.document_bytes[-1])
    assert found.document_bits[-1] == pytest.approx(-plain_logp(model, [0], last[:cut])[0] / math.log(2), rel=1e-6)


def test_shard_without_text_is_refused(tmp_path: Path, model: Llama, tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match="no text to score"):
        bits_per_byte(model, tokenizer, shard(tmp_path, tokenizer, [""]))


def test_interval_is_that_of_the_ratio_of_bits_to_bytes(tmp_path: Path, model: Llama, tokenizer: Tokenizer) -> None:
    texts = ["a", "bb" * 30, "the end", "one two three four " * 9]
    found = bits_per_byte(model, tokenizer, shard(tmp_path, tokenizer, texts))
    assert found.document_bytes == tuple(map(len, texts))
    assert sum(found.document_bits) == pytest.approx(found.nats / math.log(2))
    ratio = ratio_of_sums(found.document_bits, found.document_bytes)
    assert (found.value, found.stderr, found.low, found.high) == (ratio.value, ratio.stderr, ratio.low, ratio.high)


@pytest.mark.parametrize(("nats", "has_interval"), [((9.0, 10.0, 11.0), True), ((1.0, 1.0, 60.0), False)])
def test_there_is_no_interval_where_it_would_reach_below_zero(
    nats: tuple[float, ...], has_interval: bool, tmp_path: Path, model: Llama, tokenizer: Tokenizer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(
        scorer, "loglikelihoods", lambda _model, pairs: [Likelihood(logp=-one, is_greedy=False) for one in nats]
    )
    found = bits_per_byte(model, tokenizer, shard(tmp_path, tokenizer, ["abcdefgh"] * 3))
    assert (found.low > 0, math.isinf(found.low), math.isinf(found.high)) == (has_interval, *[not has_interval] * 2)
