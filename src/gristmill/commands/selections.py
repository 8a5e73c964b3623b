"""The selections of two runs: what was asked otherwise, and each document of the one beside the same document of the other.

    records    what was asked otherwise of the steps that the two selections were made from
    documents  by source and id: kept by both, dropped by one and why, moved between train and validation, present in only one
    prints     documents that both extracted, whose text is another one now

Time and memory are those of joined.py; texts are read only for the samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from gristmill.commands.joined import KEPT, Fates, Joined, join, num_with_other_text, read_fates
from gristmill.commands.run_folder import refuse_broken_links
from gristmill.errors import RecipeError
from gristmill.extract.outputs import Extracted
from gristmill.graph.state import asked_otherwise
from gristmill.planning.estimate import bytes_per_token
from gristmill.recipe.interventions import RUN_RECIPE
from gristmill.recipe.load import read_yaml
from gristmill.select.outputs import RepeatedReport, Selected, Signed, TextTaken
from gristmill.store.durable import read_json
from gristmill.store.store import RunLinks, Store


@dataclass(frozen=True, kw_only=True)
class Total:
    """What a run kept of a source: text bytes, and tokens, which are counted or estimated from these; None where neither can be.

    edited: kept documents that lost repeated text. taken: bytes of training text that went with it, dropped documents too.
    """

    documents: int
    bytes: int
    tokens: int | None
    is_counted: bool
    edited_documents: int
    taken_bytes: int

    @property
    def taken_tokens(self) -> int | None:
        """What was taken, in tokens: as many a byte as in what is left."""
        return None if self.tokens is None or not self.bytes else round(self.tokens * self.taken_bytes / self.bytes)


@dataclass(frozen=True, kw_only=True)
class SourceDiff:
    """One source in both runs. a, b: None where the run has no such source. other_text: None where a run's prints were removed."""

    a: Total | None
    b: Total | None
    fates_a: Fates
    fates_b: Fates
    joined: Joined
    other_text: int | None


@dataclass(frozen=True, kw_only=True)
class Diff:
    """changes: line of what was asked otherwise → steps. not_read: inputs of a selection whose files were removed."""

    a: Path
    b: Path
    changes: Mapping[str, list[str]]
    sources: Mapping[str, SourceDiff]
    not_read: list[str]


class Side:
    """A run with a selection, and what that was made from."""

    def __init__(self, target: Path) -> None:
        """Raises RecipeError when `target` is no run's folder or has no selection yet, ArtifactError for a copy without its files."""
        self.target = target
        self.links = RunLinks(Store(target.absolute().parent), target.absolute().name)
        identity = self.links.target("select")
        if identity is None:
            refuse_broken_links(target)
            is_run = self.links.store.root.is_dir() and (target / RUN_RECIPE).is_file()  # that of a recipe has one, too
            if not is_run and not (target / "extract").is_dir():
                raise RecipeError(f"{target} is no run's folder. Give two, such as runs/quickstart.")
            raise RecipeError(
                f"{target} has no select yet, and documents are compared by what it kept.\n"
                "  `gristmill run RECIPE --until select` makes it."
            )
        self.identity = identity
        self.made_from = self.links.made_from("select")

    @cached_property
    def records(self) -> dict[str, Mapping[str, Any]]:
        """Step → record, of select and all that it was made from, directly or not, as far as there are records."""
        found: dict[str, Mapping[str, Any]] = {}
        left: list[tuple[str, str | None]] = [("select", self.identity)]
        while left:
            step, identity = left.pop()
            record = None if step in found or identity is None else self.links.record_of(step, identity)
            if record is not None:
                found[step] = record
                left += record.get("made_from", {}).items()
        return found

    @cached_property
    def split(self) -> dict[str, Any]:
        """Source → side → documents and bytes of text."""
        return dict(read_json(Selected(self.target / "select").split))

    @cached_property
    def repeated(self) -> RepeatedReport | None:
        """What this selection took from training text as repeated."""
        return Selected(self.target / "select").repeated_text

    @cached_property
    def tokens(self) -> Mapping[str, Any]:
        """Source → side → tokens, where this selection was tokenized."""
        identity = self.links.target("tokenize")
        record = None if identity is None else self.links.record_of("tokenize", identity)
        return record["counts"] if record is not None and record["made_from"].get("select") == self.identity else {}

    @cached_property
    def bytes_per_token(self) -> float | None:
        """By the recipe of the run's folder; None where that is gone."""
        path = self.target / RUN_RECIPE
        return bytes_per_token(read_yaml(path)[0]["tokenizer"]["vocab_size"]) if path.is_file() else None

    def total(self, source: str) -> Total | None:
        """What was kept of a source; its tokens, where they are counted."""
        if source not in self.split:
            return None
        sides = [self.split[source][side] for side in KEPT]
        made = self.tokens.get(source)
        taken = TextTaken() if self.repeated is None else self.repeated.taken.get(source, TextTaken())
        return Total(
            documents=sum(side["documents"] for side in sides),
            bytes=sum(side["bytes"] for side in sides),
            tokens=sum(made[side]["tokens"] for side in KEPT) if made else None,
            is_counted=bool(made),
            edited_documents=taken.edited_documents,
            taken_bytes=taken.num_bytes,
        )

    def estimated(self, total: Total | None, other: Total | None) -> Total | None:
        """The same with tokens by its bytes where they are not counted: as many a byte as in the other run, if they are counted there."""
        if total is None or total.is_counted:
            return total
        if other is not None and other.tokens and other.is_counted:
            return replace(total, tokens=round(total.bytes * other.tokens / other.bytes))
        return (
            total if self.bytes_per_token is None else replace(total, tokens=round(total.bytes / self.bytes_per_token))
        )

    def tokens_taken(self, source: str) -> int | None:
        """Of the repeated text that a source lost; None where tokens are neither counted nor estimated."""
        total = self.estimated(self.total(source), None)
        return None if total is None else total.taken_tokens

    def fates(self, source: str, pool: Executor) -> Fates:
        """Every document of a source: those that extract dropped, and all that it left to select."""
        made = Selected(self.target / "select", source=source)
        extracted = self.made_from.get(f"extract/{source}")
        dropped = [] if extracted is None else Extracted(extracted).rejected
        return read_fates({"train": made.train, "validation": made.validation}, [*dropped, *made.rejected], pool)

    def not_read(self) -> Iterator[str]:
        """Extracts whose files were removed."""
        for source in self.split:
            if (step := f"extract/{source}") not in self.made_from:
                yield f"{self.target}/{step} was removed: what it dropped is not compared"


def compare(a: Path, b: Path) -> Diff:
    """What differs between the selections of two runs.

    Raises RecipeError where one is no run with a selection, or both have the same one; ArtifactError for a copy without its files.
    """
    one, other = Side(a), Side(b)
    if one.identity == other.identity:
        raise RecipeError(
            f"nothing differs: both have the same selection, select/{one.identity}.\n"
            "  Change a rule under another `name:`, run that with --until select, and compare again."
        )
    with ThreadPoolExecutor() as pool:
        sources = {source: _source(one, other, source, pool) for source in dict.fromkeys([*one.split, *other.split])}
    return Diff(a=a, b=b, changes=_changes(one, other), sources=sources, not_read=[*one.not_read(), *other.not_read()])


def _source(a: Side, b: Side, source: str, pool: Executor) -> SourceDiff:
    fates_a, fates_b = a.fates(source, pool), b.fates(source, pool)
    total_a, total_b = a.total(source), b.total(source)
    return SourceDiff(
        a=a.estimated(total_a, total_b),
        b=b.estimated(total_b, total_a),
        fates_a=fates_a,
        fates_b=fates_b,
        joined=join(fates_a, fates_b),
        other_text=_other_text(a, b, source, pool),
    )


def _other_text(a: Side, b: Side, source: str, pool: Executor) -> int | None:
    step = f"signatures/{source}"
    if source not in a.split or source not in b.split or a.made_from.get(step) == b.made_from.get(step) is not None:
        return 0
    if step not in a.made_from or step not in b.made_from:
        return None
    return num_with_other_text(Signed(a.made_from[step]).prints, Signed(b.made_from[step]).prints, pool)


def _changes(a: Side, b: Side) -> dict[str, list[str]]:
    """A line that says what was asked otherwise → the steps of which."""
    found: dict[str, list[str]] = {}
    for step in dict.fromkeys([*reversed(a.records), *reversed(b.records)]):
        old, new = a.records.get(step), b.records.get(step)
        if old is None or new is None:
            lines = [f"only {'A' if new is None else 'B'} has it"]
        elif old["identity"] == new["identity"]:
            continue
        elif {"document", "resolved"} <= old.keys() & new.keys():
            lines = asked_otherwise(old, new)
        else:
            lines = ["a record is of an older form"]
        for line in lines:
            found.setdefault(line, []).append(step)
    return found
