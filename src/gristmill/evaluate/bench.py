"""What a run was measured on, read back out of its artefacts, so that any other model can be measured on the same.

    packs           the items as evaluate kept them, in their order, with metric and chance of the figures
    held-out text   the documents that evaluate read, as select wrote them: as text, so that each model has its own tokenizer

Nothing of the recipe is needed: a copy of a run (`cp -rL`) will do. Each task that was measured is kept as a file, so that a measurement that
was interrupted goes on, and the same question is answered at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gristmill.data.document import read_batches
from gristmill.data.packs import Item, Pack
from gristmill.errors import ArtifactError
from gristmill.evaluate.adapter import MAX_NEW_TOKENS
from gristmill.evaluate.compare import ItemScores
from gristmill.evaluate.evaluate import bits_figure, pack_figure, said, scores_of_pack, scores_of_text
from gristmill.evaluate.harness import score_packs
from gristmill.evaluate.outputs import YARDSTICK, Evaluated, Figure
from gristmill.evaluate.pieces import PieceTimes
from gristmill.graph.machine import Machine
from gristmill.model.weights import load_model
from gristmill.select.outputs import Selected
from gristmill.store.durable import read_json, write_json
from gristmill.store.jsonl import read_jsonl
from gristmill.store.store import RunLinks, Store
from gristmill.tokens.tokenizer import Tokenizer
from gristmill.train.outputs import BITS
from gristmill.train.runtime import choose_device
from gristmill.train.scorer import bits_of_documents, encode_pair


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What the run in `folder` was measured on. texts: source → held-out documents; window: of tokens, the longest input."""

    folder: Path
    packs: Mapping[str, Pack]
    held_out: Mapping[str, bool]
    texts: Mapping[str, Sequence[str]]
    window: int | None

    @classmethod
    def of(cls, folder: Path) -> Bench:
        """Raises ArtifactError where the run has other held-out text now than it was measured on."""
        evaluated = Evaluated(folder / "evaluate")
        packs, is_held_out, texts, windows = dict[str, Pack](), dict[str, bool](), dict[str, list[str]](), set[int]()
        figures = evaluated.figures
        measured = dict.fromkeys(figure.model for figure in figures if figure.model != YARDSTICK)
        scores_of = {model: evaluated.scores_of(model) for model in measured}
        for figure in figures:
            if figure.pack_sha256 is not None and figure.task not in packs:
                scores = scores_of[figure.model][figure.task]
                packs[figure.task] = _pack(evaluated.items / figure.model / f"{figure.task}.jsonl", figure, scores)
                is_held_out[figure.task] = figure.kind == "held_out"
            if figure.metric == BITS and figure.model != YARDSTICK and figure.task not in texts:
                sizes = scores_of[figure.model][figure.task]["sizes"]
                texts[figure.task] = list(measured_texts(folder, figure.task, sizes))
                windows |= set() if figure.window is None else {figure.window}
        return cls(
            folder=folder, packs=packs, held_out=is_held_out, texts=texts, window=max(windows) if windows else None
        )

    @property
    def num_bytes(self) -> int:
        """Of all held-out text."""
        return sum(len(text.encode()) for texts in self.texts.values() for text in texts)

    def seconds(self, model_dir: Path, machine: Machine, *, window: int | None) -> float:
        """What a measurement of that model takes, by the ratios that `plan` uses."""
        times = PieceTimes.of(model_dir, machine, window=window or self.window or 1)
        sizes = [sum(len(text.encode()) for text in texts) for texts in self.texts.values()]
        return sum(times.of_model(self.packs.values(), sizes, chat=False))


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A model on a bench: by task, its figure and the scores of items. left_out: why a task cannot be asked; note: what was read otherwise."""

    figures: Mapping[str, Figure]
    scores: Mapping[str, ItemScores]
    left_out: Mapping[str, str]
    note: str | None


def measure(
    bench: Bench,
    model_dir: Path,
    machine: Machine,
    *,
    name: str,
    window: int | None,
    keep_in: Path,
    say: Callable[[str], None],
) -> Measurement:
    """The model on everything of the bench. window: the longest input, the bench's unless given; the model's context where that is less.

    keep_in: a folder for this model on this bench. Generated answers are asked through the chat template where the model's end token is that of a
    turn. Raises ArtifactError where the folder is no plain Llama with a tokenizer that keeps every byte.
    """
    model = load_model(model_dir, device=choose_device(machine.device)).eval()
    tokenizer = Tokenizer.load(model_dir)
    context = model.config.max_position_embeddings
    asked = window or bench.window or context
    longest, chat = min(asked, context), model.config.ends_at(tokenizer.im_end_id)
    figures, scores = dict[str, Figure](), dict[str, ItemScores]()

    def on_pack(pack: Pack) -> tuple[Figure, ItemScores]:
        (result,) = score_packs(model, tokenizer, [pack], chat=chat)
        return pack_figure(name, pack.name, result, held_out=bench.held_out[pack.name]), scores_of_pack(result)

    def on_text(source: str) -> tuple[Figure, ItemScores]:
        bits = bits_of_documents(model, tokenizer, tokenizer.encode_batch(bench.texts[source]), window=longest)
        if bits.num_bytes != sum(len(text.encode()) for text in bench.texts[source]):
            raise ArtifactError(
                f"the tokenizer in {model_dir} does not give the held-out text of {source} back byte for byte, so bits per byte of it mean "
                "nothing. Only byte-level tokenizers without a normalizer are supported, such as SmolLM2's."
            )
        return bits_figure(name, source, bits, window=longest), scores_of_text(bits)

    asks: dict[str, Callable[[], tuple[Figure, ItemScores]]] = {
        **{task: lambda pack=pack: on_pack(pack) for task, pack in bench.packs.items()},  # type: ignore[misc]
        **{task: lambda source=task: on_text(source) for task in bench.texts},  # type: ignore[misc]
    }
    left_out = {
        task: f"{task}, of which an answer has {length} tokens to {name}, and its context {context}"
        for task, pack in bench.packs.items()
        if (length := _longest_answer(pack, tokenizer)) > context
    }
    keep_in.mkdir(parents=True, exist_ok=True)
    for task in [task for task in asks if task not in left_out]:
        kept = keep_in / f"{task}.json"
        if not kept.is_file():
            figure, found = asks[task]()
            write_json(kept, {"figure": figure.to_json(), "scores": found})
        row = read_json(kept)
        figures[task], scores[task] = Figure.from_json(row["figure"], where=kept), row["scores"]
        say(f"{name} on {task}: {said(figures[task])}")
    note = (
        f"{name} reads windows of {longest:,} tokens, all its context, and not of {asked:,}"
        if longest < asked
        else None
    )
    return Measurement(figures=figures, scores=scores, left_out=left_out, note=note)


def _longest_answer(pack: Pack, tokenizer: Tokenizer) -> int:
    """Tokens that a model's context has to hold of one answer: those of the longest choice, or of what is written and one before it."""
    if pack.kind == "generate":
        return MAX_NEW_TOKENS + 1
    return max(len(encode_pair(tokenizer, item.prompt, choice)[1]) for item in pack.items for choice in item.choices)


def measured_texts(run: Path, source: str, sizes: Sequence[int]) -> Iterator[str]:
    """The documents of held-out text of a source that a run was measured on, of so many bytes each.

    Raises ArtifactError where the run's selection is not the one that was measured.
    """
    found = held_out_texts(run, source)
    for size in sizes:
        text = next(found, "")
        if len(text.encode()) != size:
            raise ArtifactError(
                f"{run} was evaluated on other held-out text of {source} than it has now.\n  `gristmill run` with its recipe "
                "evaluates it again."
            )
        yield text


def held_out_texts(run: Path, source: str) -> Iterator[str]:
    """All held-out text of a source of a run."""
    links = RunLinks(Store(run.absolute().parent), run.name)
    select = links.made_from("tokenize").get("select", run / "select")
    for path in Selected(select, source=source).validation:
        for batch in read_batches(path, columns=["text"]):
            yield from (text for text in batch.column("text").to_pylist() if text)


def _pack(path: Path, figure: Figure, scores: Mapping[str, Any]) -> Pack:
    """A pack as evaluate kept its items, each with the number of its passage where several share one."""
    clusters = scores.get("clusters")
    items = tuple(
        Item(
            id=row["id"],
            prompt=row["prompt"],
            choices=tuple(row.get("choices", ())),
            answer=row.get("answer"),
            target=row.get("target"),
            passage="" if clusters is None else str(clusters[number]),
        )
        for number, row in enumerate(read_jsonl(path))
    )
    return Pack(
        name=figure.task,
        version=1,
        kind="generate" if items[0].answer is None else "multiple_choice",
        metric=figure.metric,
        chance=figure.chance or 0.0,
        items=items,
        sha256=figure.pack_sha256 or "",
        path=path,
    )
