"""`gristmill trace`: the documents of a step of pretraining, and the steps that read a document.

The order of training is a function of recipe, seed and shards (tokens/stream.py), so nothing was logged for this and no tensor is
read: the same order is worked out again, for past and coming steps alike. Steps are counted from 1, as everywhere on a screen.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from gristmill.commands.run_folder import refuse_broken_links
from gristmill.display import plain_table
from gristmill.errors import ArtifactError, DataError, RecipeError
from gristmill.graph.share import Share
from gristmill.recipe.interventions import RUN_RECIPE
from gristmill.recipe.load import load_recipe, named_nearly
from gristmill.select.outputs import Selected
from gristmill.store.store import RunLinks, Store
from gristmill.tokens.outputs import TokenizerFiles
from gristmill.tokens.stages import Origin
from gristmill.tokens.tokenizer import Tokenizer
from gristmill.train.batch_text import Files, Part, parts_of
from gristmill.train.order import Order as TrainingOrder
from gristmill.units import counted

EXCERPT_CHARS = 200


@dataclass(frozen=True, kw_only=True)
class Order(TrainingOrder):
    """The order of a run's pretraining, with the texts that it reads."""

    folder: Path

    @classmethod
    def of(cls, folder: Path) -> Order:
        """Of a run's folder. Raises RecipeError when it does not exist, ArtifactError when nothing is tokenized there."""
        if not folder.is_dir():
            raise RecipeError(
                f"{folder} does not exist. {named_nearly(folder)}Name a run's folder, such as runs/quickstart."
            )
        refuse_broken_links(folder)
        if not (folder / RUN_RECIPE).is_file() or not (folder / "tokenize").is_dir():
            raise ArtifactError(
                f"{folder} has no {RUN_RECIPE if (folder / 'tokenize').is_dir() else 'tokens'}: the order of training is not decided "
                "yet.\n  `gristmill run RECIPE --until tokenize` makes what it rests on."
            )
        return cls(folder=folder, recipe=load_recipe(folder / RUN_RECIPE).recipe, tokens=folder / "tokenize")

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer.load(TokenizerFiles(self.folder / "tokenizer").files)

    def files_of(self, source: str) -> Files:
        """The training documents of a source, those that were tokenized. Raises DataError where others are there now."""
        made_from = RunLinks(Store(self.folder.absolute().parent), self.folder.name).made_from("tokenize")
        files = Files(Selected(made_from.get("select", self.folder / "select"), source=source).train)
        if len(files) != self.shards[source].num_documents:
            raise DataError(
                f"{source} has {len(files):,} training documents and tokens of {self.shards[source].num_documents:,}: select was "
                "remade since.\n  `gristmill run` with the run's recipe tokenizes them again."
            )
        return files


# ── the documents of a step ──────────────────────────────────────────────────────────────────────────────────────────


def trace_step(target: Path, step: int, *, share: Share, console: Console, as_json: bool, whole: bool) -> None:
    """Prints what one step of pretraining reads. share: of which rank. whole: the text, not its beginning.

    Raises as `Order.of`, and RecipeError for a step that there is not, or ranks that cannot share it equally.
    """
    order = Order.of(target)
    course = order.course
    if not 1 <= step <= course.num_steps:
        raise RecipeError(f"step {step:,} of {target}: pretraining has steps 1 to {course.num_steps:,}.")
    segment, first = course.segment_at(step - 1), course.sample_of_step(step - 1)
    rank, ranks = share.rank, share.size
    if segment.sequences_per_step % ranks:
        raise RecipeError(
            f"a step has {segment.sequences_per_step} sequences, which {ranks} ranks cannot share equally."
        )
    count = segment.sequences_per_step // ranks
    origins = order.stream.origins(first + rank * count, first + (rank + 1) * count)
    parts = list(_parts(order, step, origins))
    if as_json:
        for part in parts:
            console.out(json.dumps(vars(part), ensure_ascii=False), highlight=False)
        return
    console.print(
        Text(
            f"step {step:,} of {course.num_steps:,}, stage {order.stage_name(step - 1)}: {counted(count, 'sequence')} of "
            f"{segment.seq_len:,} tokens" + ("" if ranks == 1 else f", the part of rank {rank} of {ranks}"),
            style="bold",
        )
    )
    for part in parts:
        console.print(_shown(part, whole=whole), soft_wrap=whole)


def _parts(order: Order, step: int, origins: Sequence[Origin]) -> Iterator[Part]:
    return parts_of(
        origins,
        step=step,
        stage=order.stage_name(step - 1),
        shards=order.shards,
        tokenizer=order.tokenizer,
        files_of=order.files_of,
    )


def _shown(part: Part, *, whole: bool) -> Text:
    text = Text(f"\n{part.source}  {part.document}", style="bold cyan")
    text.append(
        f"  tokens {part.first:,} to {part.end:,} of {part.tokens:,}, epoch {part.epoch}, sequence {part.sequence:,}",
        "default",
    )
    text.append(f"\n{part.origin}" + (f"  {part.url}" if part.url else ""), "dim")
    excerpt = part.text if whole else " ".join(part.text[: 2 * EXCERPT_CHARS].split())[:EXCERPT_CHARS]
    return text.append(f"\n{excerpt}", "default")


# ── the steps of a document ──────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A step that reads tokens first to end (counted from 1) of a document."""

    step: int
    stage: str
    source: str
    epoch: int
    first: int
    end: int


def trace_document(target: Path, name: str, *, console: Console, as_json: bool) -> None:
    """Prints the steps that read the document with an id; of several sources where several have it.

    Raises as `Order.of`, and DataError when no source that pretraining draws has it to train on.
    """
    order = Order.of(target)
    found = {
        (source, number): list(_readings(order, source, number))
        for source in order.shards
        for number in order.files_of(source).numbers_of(name)
    }
    if not found:
        raise DataError(
            f"no training document of {target} has the id {name!r}. `gristmill why {target} {name}` says what became of it."
        )
    for (source, number), readings in found.items():
        if as_json:
            for reading in readings:
                console.out(json.dumps(vars(reading), ensure_ascii=False), highlight=False)
            continue
        tokens = len(order.shards[source].document(number))
        read = sum(reading.end - reading.first + 1 for reading in readings)
        console.print(Text(f"{source}  {name}", style="bold"))
        console.print(
            f"{tokens:,} tokens, read {read / tokens:.2f} times: {read:,} tokens in "
            f"{counted(len({one.step for one in readings}), 'step')} of {order.course.num_steps:,}",
            highlight=False,
        )
        if readings:
            console.print(_table(readings))


def _readings(order: Order, source: str, document: int) -> Iterator[Reading]:
    for sample in order.stream.sequences_of(source, document):
        step = order.course.step_of_sample(sample)
        if step is None:  # passed over
            continue
        (origin,) = order.stream.origins(sample, sample + 1)
        for part in origin.parts:
            if part.document == document:
                yield Reading(
                    step=step + 1,
                    stage=order.stage_name(step),
                    source=source,
                    epoch=origin.epoch + 1,
                    first=part.first + 1,
                    end=part.end,
                )


def _table(readings: Sequence[Reading]) -> Any:
    table = plain_table("step >", "stage", "epoch >", "tokens")
    for one in readings:
        table.add_row(f"{one.step:,}", one.stage, str(one.epoch), f"{one.first:,} to {one.end:,}")
    return table
