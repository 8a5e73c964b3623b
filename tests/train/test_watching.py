"""A pretraining that watches itself: what is measured when, what is noted, and that locked packs stay closed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import tiny_pretraining as tiny

from gristmill.context import context_of
from gristmill.data.packs import Item, read_pack, write_pack
from gristmill.errors import Interrupted
from gristmill.graph.machine import Machine
from gristmill.graph.step import StepContext
from gristmill.model.weights import load_model
from gristmill.recipe.schema.recipe import Recipe
from gristmill.store.fingerprint import fingerprint
from gristmill.store.jsonl import read_log
from gristmill.tokens.shards import TokenShard
from gristmill.tokens.tokenizer import Tokenizer
from gristmill.train import pretrain
from gristmill.train.events import AboveGuessingEvent, read_events
from gristmill.train.scorer import BitsPerByte, PackScore, Score, bits_per_byte, part_of, score_pack
from gristmill.train.watch import pace, watching
from gristmill.train.watch.gold import gold_bits_per_byte
from gristmill.train.watch.long_context import LongContext, Needles
from gristmill.train.watch.positions import read_long
from gristmill.train.watch.watched import read_watched

PACKS = ("choices", "letters", "writing", "wider", "locked")
WEIGHTS = "model/model.safetensors"
MODEL_SCORE = score_pack


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Artefacts of the steps before, and five packs."""
    folder = tmp_path_factory.mktemp("inputs")
    tiny.write_inputs(folder)
    for name in ("choices", "wider", "locked"):
        places = (
            1 if name == "wider" else 2
        )  # where the model does not see the places, one place for all teaches nothing
        items = [Item(id=f"i{n}", prompt="one", choices=(" two", " three"), answer=n % places) for n in range(8)]
        write(folder / name, items, group="knowledge")
    letters = [Item(id=f"i{n}", prompt="one\nA. two\nB. six", choices=(" A", " B"), answer=n % 2) for n in range(8)]
    write(folder / "letters", letters, group="knowledge")
    write(folder / "writing", [Item(id="w", prompt="one", target="two")], kind="generate", group="maths")
    write(folder / "many", [Item(id=f"i{n}", prompt="one", choices=(" two", " six"), answer=n % 2) for n in range(400)])
    return folder


def write(folder: Path, items: list[Item], *, kind: str = "multiple_choice", group: str = "") -> None:
    write_pack(
        folder,
        name=folder.name,
        version=1,
        kind=kind,
        metric="acc",
        chance=0.5 * (kind != "generate"),
        items=items,
        group=group,
    )


def recipe(
    watch: Mapping[str, Any], *, evaluated: tuple[str, ...] = (), packs: tuple[str, ...] = PACKS, **pretrain: Any
) -> Recipe:
    data = tiny.recipe(**pretrain).model_dump(exclude_unset=True)
    data["pretrain"] |= {"watch": {"validation_bytes": 100, **watch}, "sample_prompts": []}
    data["packs"] = {name: {"path": name, "locked": name == "locked"} for name in packs}
    data["evaluate"] = {"packs": list(evaluated)}
    return Recipe.model_validate(data)


def context(
    inputs: Path,
    out: Path,
    recipe: Recipe,
    *,
    say: Callable[[str], None] = lambda line: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> StepContext:
    return context_of(
        recipe,
        "pretrain",
        folders={"tokenizer": inputs / "tokenizer", "tokenize": inputs / "tokenize"},
        recipe_dir=inputs,
        out=out,
        machine=Machine(processes=1, threads=1, device="cpu", micro_batch_tokens=128),
        say=say,
        should_stop=should_stop,
    )


def measured(out: Path) -> dict[str, list[int]]:
    """What was measured → the steps."""
    found: dict[str, list[int]] = {}
    for line in read_log(out / "metrics.jsonl"):
        for key in {key.split("/")[1] for key in line if key.startswith("eval/")}:
            found.setdefault(key, []).append(line["step"])
    return found


@pytest.fixture(autouse=True)
def all_time_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine passes over nothing."""
    monkeypatch.setattr(pace, "FREE_SECONDS", 1e9)


@pytest.fixture(scope="module")
def watched_run(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """56 steps in two stages, watched by two packs, and evaluated on two more in the end."""
    out = tmp_path_factory.mktemp("watched")
    asked = recipe({"packs": ["choices", "writing"]}, evaluated=("choices", "wider", "locked"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pace, "FREE_SECONDS", 1e9)
        pretrain.run(context(inputs, out, asked))
    return out


def test_text_is_scored_every_hundredth_packs_every_twentieth_and_the_others_at_stage_ends(watched_run: Path) -> None:
    twentieth = sorted({*range(0, 57, 3), 40, 56})
    assert measured(watched_run) == {
        "web": [*range(57)],
        "code": [*range(57)],
        "choices": twentieth,
        "writing": twentieth,
        "wider": [40, 56],
    }


def test_written_answers_are_scored_by_the_bits_of_the_right_one(watched_run: Path, inputs: Path) -> None:
    last = [line for line in read_log(watched_run / "metrics.jsonl") if line["kind"] == "eval"][-1]
    model, tokenizer = load_model(watched_run / "model"), Tokenizer.load(watched_run / "model")
    found = gold_bits_per_byte(model, tokenizer, read_pack(inputs / "writing"))
    assert found is not None
    assert last["eval/writing/gold_bits_per_byte"] == found.value
    assert last["throughput/watching_seconds"] > 0


def test_what_is_measured_is_noted_for_who_shows_it(watched_run: Path) -> None:
    found = read_watched(watched_run)
    assert found is not None
    packs = {pack.name: (pack.group, pack.metric, pack.guessing, pack.is_of_letters) for pack in found.packs}
    assert packs == {
        "choices": ("knowledge", "accuracy", 0.5, False),
        "writing": ("maths", "gold_bits_per_byte", None, False),
        "wider": ("knowledge", "accuracy", 0.5, False),
    }
    assert [(end.name, end.step, end.tokens) for end in found.stage_ends] == [
        ("stable", 40, 40 * 128),
        ("decay", 56, 56 * 128),
    ]


# ── locked packs ─────────────────────────────────────────────────────────────────────────────────────────────────────

LISTENERS: list[list[Path]] = []


def _opened(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and isinstance(arguments[0], str | bytes | Path):
        for heard in LISTENERS:
            heard.append(Path(str(arguments[0])).absolute())


@contextmanager
def listening() -> Iterator[list[Path]]:
    """The files that this process opens; the interpreter never lets a hook go, so it is one that can be told to be quiet."""
    if not getattr(sys, "_gristmill_listens", False):
        sys.addaudithook(_opened)
        sys._gristmill_listens = True  # type: ignore[attr-defined]
    heard: list[Path] = []
    LISTENERS.append(heard)
    yield heard
    LISTENERS.remove(heard)


def test_while_a_model_trains_no_file_of_a_locked_pack_is_opened(inputs: Path, tmp_path: Path) -> None:
    asked = recipe({"packs": ["choices"]}, evaluated=("wider", "locked"))
    with listening() as heard:
        pretrain.run(context(inputs, tmp_path, asked))
    opened = {path.parent.name for path in heard if path.name == "items.jsonl"}
    assert opened == {"choices", "wider"}


def test_a_training_that_reads_a_locked_pack_fails(inputs: Path, tmp_path: Path) -> None:
    """Its items are no pack any more, which who reads them tells; a pack that is not locked and broken stops the training."""
    for name in ("locked", "wider"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "pack.yaml").write_bytes((inputs / name / "pack.yaml").read_bytes())
        (folder / "items.jsonl").write_text("not for you")
    for name in ("tokenizer", "tokenize"):
        (tmp_path / name).symlink_to(inputs / name)
    pretrain.run(context(tmp_path, tmp_path / "out", recipe({}, evaluated=("locked",))))
    with pytest.raises(Exception, match="the items were changed"):
        pretrain.run(context(tmp_path, tmp_path / "other", recipe({}, evaluated=("wider", "locked"))))


# ── the share ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_where_the_share_is_small_fewer_items_are_scored_and_that_is_said(inputs: Path, tmp_path: Path) -> None:
    said: list[str] = []
    asked = recipe({"packs": ["many"]}, packs=("many",))
    pretrain.run(context(inputs, tmp_path, asked, say=said.append))
    found = read_watched(tmp_path)
    assert found is not None
    many = read_pack(inputs / "many")
    assert (found.packs[0].items, found.packs[0].items_sha256) == (
        100,
        fingerprint({"pack": many.sha256, "items": [item.id for item in part_of(many.items, 100)]}),
    )
    line = next(line for line in said if line.startswith("Watching is to take 0.03 of the time"))
    assert line.endswith(": 100 of 400 items of a pack are scored.")
    last = [line for line in read_log(tmp_path / "metrics.jsonl") if line["kind"] == "eval"][-1]
    model, tokenizer = load_model(tmp_path / "model"), Tokenizer.load(tmp_path / "model")
    expected = score_pack(model, tokenizer, many, max_items=100)
    assert last["eval/many/accuracy"] == expected.accuracy.value


def test_where_there_is_no_time_only_stage_ends_are_measured_and_the_weights_are_the_same(
    inputs: Path, tmp_path: Path, watched_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "FREE_SECONDS", 0.0)
    said: list[str] = []
    asked = recipe({"packs": ["choices", "writing"], "max_share": 1e-6}, evaluated=("choices", "wider", "locked"))
    pretrain.run(context(inputs, tmp_path, asked, say=said.append))
    found = measured(tmp_path)
    assert (found["web"], found["choices"], found["wider"]) == ([0, 40, 56], [0, 40, 56], [40, 56])
    assert sum(line.startswith("Watching: at step 1 nothing or not all is measured") for line in said) == 1
    assert (tmp_path / WEIGHTS).read_bytes() == (watched_run / WEIGHTS).read_bytes()


def test_what_is_scored_whatever_it_takes_is_counted_in_full(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Text and packs before the first step and at both stage ends, the other packs at the ends; the prompt once for each choice."""
    counted: list[float] = []
    monkeypatch.setattr(watching, "affordable_part", lambda scored_tokens, **_: counted.append(scored_tokens) or 1.0)
    pretrain.run(context(inputs, tmp_path, recipe({"packs": ["choices", "writing"]}, evaluated=("wider",))))
    shards = [TokenShard(path.with_suffix("")) for path in (inputs / "tokenize").rglob("validation.bin")]
    shards = [shard for shard in shards if shard.num_documents]
    choices = 8 * (len("one two") + len("one three"))
    num_bytes = 3 * (sum(min(100, shard.num_bytes) for shard in shards) + choices + len("onetwo")) + 2 * choices
    per_token = sum(shard.num_bytes for shard in shards) / sum(shard.num_tokens for shard in shards)
    assert counted == [pytest.approx(num_bytes / per_token)]


def test_of_long_documents_no_more_is_read_than_was_counted(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A document may be longer than all that is to be read of its source."""
    read: list[BitsPerByte] = []

    def measure(*arguments: Any, **options: Any) -> BitsPerByte:
        read.append(bits_per_byte(*arguments, **options))
        return read[-1]

    monkeypatch.setattr(watching, "bits_per_byte", measure)
    pretrain.run(context(inputs, tmp_path, recipe({"validation_bytes": 7, "packs": []})))
    assert read
    longest = max(map(len, tiny.WORDS)) + 1  # of a token: a word and the blank before it
    assert all(7 <= one.num_bytes < 7 + longest and one.num_documents == 1 for one in read)


def test_a_resumed_training_knows_what_its_measurements_took_before(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint is saved before what is measured after its step: that is measured again."""
    begun: list[dict[str, Any]] = []
    monkeypatch.setattr(watching, "Pace", lambda **given: begun.append(given) or pace.Pace(**given))
    asked, calls = recipe({"packs": ["choices"]}), iter(range(10**6))
    with pytest.raises(Interrupted):
        pretrain.run(context(inputs, tmp_path, asked, should_stop=lambda: next(calls) == 44))
    first = [line for line in read_log(tmp_path / "metrics.jsonl") if line["kind"] == "eval"]
    pretrain.run(context(inputs, tmp_path, asked))
    assert not begun[0].keys() & {"seconds_at_ends", "seconds_between", "last"}
    spent = begun[1]["seconds_at_ends"] + sum(begun[1]["seconds_between"].values())
    assert begun[1]["seconds_at_ends"] > 0
    assert spent == pytest.approx(sum(line["throughput/watching_seconds"] for line in first))


# ── a longer context ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_positions_are_read_before_and_after_an_extension_and_needles_asked_after_it(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second stage reads 32 tokens in place of 16, from step 40 on: what is found at a step is what the model is at that step."""
    asked_at: list[tuple[int, int]] = []
    monkeypatch.setattr(
        watching,
        "find_needles",
        lambda *_, old, new, **__: asked_at.append((old, new)) or (Needles(length=new, depth=0.5, right=3, asked=10),),
    )
    pretrain.run(context(inputs, tmp_path, recipe({}, packs=())))
    log = tmp_path / "positions.jsonl"
    before, after = (LongContext.from_json(line, where=log) for line in read_log(log))
    assert [(line.step, line.tokens, line.is_after, line.stage) for line in (before, after)] == [
        (40, 40 * 128, False, "decay"),
        (56, 56 * 128, True, "decay"),
    ]
    assert asked_at == [(16, 32)]
    assert (before.needles, len(after.needles)) == ((), 1)
    model, tokenizer = load_model(tmp_path / "model"), Tokenizer.load(tmp_path / "model")
    text = {name: TokenShard(inputs / "tokenize" / name / "validation") for name in ("web", "code")}
    assert list(after.documents) == list(read_long(model, tokenizer, text, old=16, new=32))
    assert after.documents != before.documents


# ── guessing ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def planted(scores: Mapping[int, float]) -> Callable[..., PackScore]:
    """Accuracies of the letters by the number of the measurement, with an interval of a tenth to each side."""
    calls = iter(range(10**6))

    def score(model: Any, tokenizer: Any, pack: Any, *, max_items: int | None) -> PackScore:
        if pack.name != "letters":
            return MODEL_SCORE(model, tokenizer, pack, max_items=max_items)
        value = scores.get(next(calls), 0.5)
        found = Score(value=value, stderr=0.05, low=value - 0.1, high=value + 0.1, num_items=8, chance=0.5)
        return PackScore(pack="letters", accuracy=found, accuracy_per_byte=found, items=())

    return score


def test_the_step_at_which_letters_leave_guessing_is_an_event(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measured at steps 0, 10, … 50 and the two stage ends; above at 10, then from 30 on."""
    monkeypatch.setattr(watching, "score_pack", planted({1: 0.9, 3: 0.7, 4: 0.8, 5: 0.8, 6: 0.9}))
    said: list[str] = []
    asked = recipe({"packs": ["letters", "choices"], "packs_every_tokens": 1280})
    pretrain.run(context(inputs, tmp_path, asked, say=said.append))
    events = [event for event in read_events(tmp_path / "events.jsonl") if isinstance(event, AboveGuessingEvent)]
    assert [(event.pack, event.step, event.tokens, event.guessing, event.value) for event in events] == [
        ("letters", 30, 30 * 128, 0.5, 0.7)
    ]
    assert "letters is answered better than by guessing from step 30 on: 0.700, at least 0.600, against 0.500" in said


def test_a_stopped_and_resumed_training_tells_it_once(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = recipe({"packs": ["letters"], "packs_every_tokens": 1280})
    above = dict.fromkeys(range(100), 0.9)
    monkeypatch.setattr(watching, "score_pack", planted(above))
    calls = iter(range(10**6))
    with pytest.raises(Interrupted):
        pretrain.run(context(inputs, tmp_path, asked, should_stop=lambda: next(calls) == 45))
    pretrain.run(context(inputs, tmp_path, asked))
    events = [event for event in read_events(tmp_path / "events.jsonl") if isinstance(event, AboveGuessingEvent)]
    assert [event.step for event in events] == [0]


# ── an earlier run ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_curves_of_an_earlier_run_are_noted_where_items_and_text_are_the_same(
    inputs: Path, tmp_path: Path, watched_run: Path
) -> None:
    said: list[str] = []
    asked = recipe({"packs": ["choices", "letters"], "reference": str(watched_run)}, optimizer={"peak_lr": 2e-2})
    pretrain.run(context(inputs, tmp_path, asked, say=said.append))
    found = read_watched(tmp_path)
    assert found is not None
    assert found.reference is not None
    assert found.reference.curves.keys() == {
        "eval/choices/accuracy",
        "eval/web/bits_per_byte",
        "eval/code/bits_per_byte",
    }
    lines = [line for line in read_log(watched_run / "metrics.jsonl") if "eval/web/bits_per_byte" in line]
    points = found.reference.curves["eval/web/bits_per_byte"]
    assert [point.value for point in points] == [line["eval/web/bits_per_byte"] for line in lines]
    assert any("did not measure the same items or text: letters/accuracy" in line for line in said)


def test_less_of_the_same_text_is_not_held_against_an_earlier_run(
    inputs: Path, tmp_path: Path, watched_run: Path
) -> None:
    """Other documents are harder or easier: bits per byte of the first of them are no curve to be compared with those of all."""
    asked = recipe({"packs": ["choices"], "validation_bytes": 20, "reference": str(watched_run)})
    pretrain.run(context(inputs, tmp_path, asked))
    found = read_watched(tmp_path)
    assert found is not None
    assert found.reference is not None
    assert found.reference.curves.keys() == {"eval/choices/accuracy"}
