"""What is trained on of a folder, counted by the recipe's own steps over a sample of it, or over all of it.

read_sample ─→ signatures ─→ duplicates ─→ select ─→ tokenizer ─→ tokenize       the steps themselves, in a folder that is removed
                                 └ a source that is left with too little to train on goes, and the search begins again
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gristmill.context import context_of
from gristmill.data.document import count_rows
from gristmill.data.ledger import SourceLedger
from gristmill.draft.ahead import Ahead
from gristmill.draft.distinct import met_in_several
from gristmill.draft.folder import FolderSource
from gristmill.draft.held_out import Split, split_of
from gristmill.draft.interval import Stratum, Tally, UnitTally
from gristmill.draft.prompts import opening_of
from gristmill.draft.sample import Limits, SourceSample, read_sample
from gristmill.errors import RecipeError
from gristmill.extract.language import Languages, languages_in
from gristmill.graph.machine import Machine
from gristmill.pipeline import steps_of
from gristmill.recipe.schema.formats import Reader, ReadFiles
from gristmill.recipe.schema.recipe import Recipe
from gristmill.select.outputs import CopiesOfSource, Deduplicated, NothingLeft, Selected
from gristmill.tokens.outputs import Tokenized
from gristmill.tokens.shards import TokenShard
from gristmill.tokens.train_tokenizer import document_bytes

LEAST_BYTES = 5_000  # of text that a source is left with, or it is no source
SMALLEST_VOCABULARY = 512
FEW_BYTES = 20_000_000  # of text: processes would take longer to start than they save
ONCE = ("duplicates", "select", "tokenizer", "tokenize")  # over all sources together
BLOCKS = 8  # that the first part of a large piece counts as
LEFT, LOST, GONE = range(
    3
)  # no copy; a copy of text in another unit; of text in its own, which is so in all that is not read

# (sources, vocabulary, bytes of text and documents by source where they are known) → a recipe that can be carried out up to tokenize
Draft = Callable[[Sequence[str], int, Mapping[str, float], Mapping[str, float]], Recipe]


@dataclass(frozen=True, kw_only=True)
class SourceCount:
    """What was found in what was read of one source. `account` is extract's; text_bytes: that it kept; passages: of its documents,
    parts of a longer one. read_seconds: of one process, in so many units.

    Where something is left of it: copies: what duplicates took of the kept; split: of the rest; train_tokens; languages: of the
    text, by a sample of documents; opening: the word that most of their lines begin with.
    """

    account: SourceLedger
    share_read: float
    text_bytes: int
    passages: int
    read_seconds: float
    units_read: int
    copies: CopiesOfSource | None = None
    split: Split | None = None
    train_tokens: int = 0
    languages: Languages = field(default_factory=Languages)
    opening: str = ""


@dataclass(frozen=True, kw_only=True)
class Count:
    """What a folder holds. sources: those that are left; emptied: those that are not. tally: for the estimate of the rest.

    text_bytes, documents: by source without copies, by the share that was read. seen: by source the share of its held-out text that stands in
    training text, too. tokenizer: its files, among what is removed afterwards.
    """

    sources: Mapping[str, SourceCount]
    emptied: Mapping[str, SourceCount]
    priority: tuple[str, ...] = ()
    vocab_size: int = 0
    tally: Mapping[str, Tally] = field(default_factory=dict)
    bytes_per_token: Mapping[str, float] = field(default_factory=dict)
    text_bytes: Mapping[str, float] = field(default_factory=dict)
    documents: Mapping[str, float] = field(default_factory=dict)
    seen: Mapping[str, float] = field(default_factory=dict)
    is_whole: bool = True
    tokenizer: Path | None = None


def count(
    sources: Sequence[FolderSource],
    draft: Draft,
    *,
    vocab_size_for: Callable[[float], int],
    recipe_dir: Path,
    work: Path,
    machine: Machine,
    limits: Limits,
    seed: int,
    ahead: Ahead,
) -> Count:
    """Counts. Raises DataError where no source is left with text."""
    sections = {source.name: source.section(max_failed=1.0) for source in sources}
    samples = read_sample(
        sections, recipe_dir=recipe_dir, out=work, machine=machine, limits=limits, seed=seed, ahead=ahead
    )
    steps = _Steps(draft, samples, work, recipe_dir, machine, ahead)
    replayed = {source.name for source in sources if source.is_replayed}
    turns = sorted(samples, key=lambda name: (name in replayed, _turn(sections[name].read, samples[name])))
    left = _bytes_selected(steps, turns)
    emptied = {name: _count_of(sample) for name, sample in samples.items() if name not in left}
    if not left:
        return Count(sources={}, emptied=emptied)
    priority = [*left]
    vocab_size = steps.train_tokenizer(priority, vocab_size_for(sum(steps.text_bytes.values())))
    steps.run("tokenize", "", priority)
    ratio = steps.bytes_per_token(priority)
    return Count(
        sources=steps.findings(left, {name: section.read for name, section in sections.items()}),
        emptied=emptied,
        priority=tuple(priority),
        vocab_size=vocab_size,
        tally=steps.tally(priority, ratio),
        bytes_per_token=ratio,
        text_bytes=steps.text_bytes,
        documents=steps.documents,
        seen=Selected(steps.folder("select")).seen,
        is_whole=all(sample.is_whole for sample in samples.values()),
        tokenizer=steps.folder("tokenizer"),
    )


def _turn(read: Reader, sample: SourceSample) -> tuple[bool, bool, int]:
    """Of two copies the one in plain text stays, then that of a page; PDF, whose text is pieced together from glyphs, comes last."""
    return read.format == "pdf", read.holds_html, -sample.text_bytes


def _bytes_selected(steps: _Steps, order: Sequence[str]) -> dict[str, int]:
    """Source → bytes of text that are no copies, in this order, after selection. Sources with too little are left out, one after the other,
    for what they hold is then no copy in others; so are those of which all that is no copy is alike to held-out text."""
    kept = {name: sample.ledger.source(name).total("kept").documents for name, sample in steps.samples.items()}
    priority = [name for name in order if kept[name]]
    steps.later = [*(f"{kind}/{name}" for name in priority for kind in ("signatures", "contamination")), *ONCE]
    for name in priority:
        steps.run("signatures", name, priority)
        steps.run("contamination", name, priority)
    while left := _bytes_without_copies(steps, priority):
        priority = [*left]
        steps.text_bytes = {name: size / steps.samples[name].share for name, size in left.items()}
        documents = steps.documents_left(priority)
        steps.documents = {name: number / steps.samples[name].share for name, number in documents.items()}
        try:
            steps.run("select", "", priority)
        except NothingLeft as nothing:
            priority.remove(nothing.source)
            steps.later[:0] = ["duplicates", "select"]
        else:
            return left
    return {}


def _bytes_without_copies(steps: _Steps, order: Sequence[str]) -> dict[str, int]:
    """Source → bytes of text that are no copies, of those that have enough."""
    priority = [*order]
    while priority:
        steps.run("duplicates", "", priority)
        left = steps.bytes_left(priority)
        if not (few := [name for name in priority if left[name] < LEAST_BYTES * steps.samples[name].share]):
            return left
        priority.remove(min(few, key=lambda name: left[name]))
        steps.later.insert(0, "duplicates")
    return {}


def _count_of(sample: SourceSample, **left: Any) -> SourceCount:
    return SourceCount(
        account=sample.ledger.source(sample.name),
        share_read=1.0 if sample.is_whole else sample.share,
        text_bytes=sample.text_bytes,
        passages=sample.passages,
        read_seconds=sample.seconds,
        units_read=sum(unit.read_bytes > 0 for unit in (*sample.units, *sample.large)),
        **left,
    )


class _Steps:
    """The steps after extract, each by itself, over what was read."""

    def __init__(
        self,
        draft: Draft,
        samples: Mapping[str, SourceSample],
        work: Path,
        recipe_dir: Path,
        machine: Machine,
        ahead: Ahead,
    ) -> None:
        self.draft, self.samples, self.work, self.recipe_dir, self.ahead = draft, samples, work, recipe_dir, ahead
        is_small = sum(sample.text_bytes for sample in samples.values()) < FEW_BYTES
        self.machine = Machine(processes=1 if is_small else machine.processes, threads=machine.threads, runs_dir=work)
        self.vocab_size = SMALLEST_VOCABULARY
        self.text_bytes: dict[str, float] = {}
        self.documents: dict[str, float] = {}
        self.runs = 0
        self.later: list[str] = []  # names of the steps that are still to run
        self.folders = {f"extract/{name}": sample.folder for name, sample in samples.items()}

    def folder(self, step: str) -> Path:
        """What a step left."""
        return self.folders[step]

    def run(self, kind: str, source: str, priority: Sequence[str]) -> None:
        """Runs one step of the recipe over these sources."""
        recipe = self.draft(priority, self.vocab_size, self.text_bytes, self.documents)
        name = f"{kind}/{source}" if source else kind
        self.runs += 1
        out = self.work / f"{kind}-{self.runs}"
        out.mkdir()
        self.later = [step for step in self.later if step != name]
        words = f"counting, {self.runs} of {self.runs + len(self.later)}: {kind} {source}".rstrip()
        self.ahead.counts(words, name, self.later)
        module = next(step.module for step in steps_of(recipe) if step.name == name)
        ctx = context_of(
            recipe,
            name,
            folders=self.folders,
            recipe_dir=self.recipe_dir,
            out=out,
            machine=self.machine,
        )
        importlib.import_module(module).run(ctx)
        self.folders[name] = out

    def train_tokenizer(self, priority: Sequence[str], vocab_size: int) -> int:
        """Trains with the vocabulary, or a smaller one where the text has not enough pieces for it; returns its size."""
        self.vocab_size = vocab_size
        while True:
            try:
                self.run("tokenizer", "", priority)
                return self.vocab_size
            except RecipeError:
                if self.vocab_size <= SMALLEST_VOCABULARY:
                    raise
                self.vocab_size = max(SMALLEST_VOCABULARY, self.vocab_size // 2)

    # ── what was found ──

    def bytes_left(self, priority: Sequence[str]) -> dict[str, int]:
        """Bytes of text of each source that are no copies."""
        sizes, left = self._sizes(priority), self._are_left(priority)
        return {name: int(sizes[some][left[some]].sum()) for name, some in self._first_documents(priority).items()}

    def documents_left(self, priority: Sequence[str]) -> dict[str, int]:
        """Documents of each source that are no copies; passages count each."""
        left = self._are_left(priority)
        return {name: int(left[some].sum()) for name, some in self._first_documents(priority).items()}

    def bytes_per_token(self, priority: Sequence[str]) -> dict[str, float]:
        """Of each source, both sides of the split together."""
        tokenized, found = Tokenized(self.folder("tokenize")), {}
        for name in priority:
            sides = [TokenShard(path) for path in (tokenized.of(name).train, tokenized.of(name).validation)]
            found[name] = sum(side.num_bytes for side in sides) / max(1, sum(side.num_tokens for side in sides))
        return found

    def findings(self, left: Mapping[str, int], reads: Mapping[str, ReadFiles]) -> dict[str, SourceCount]:
        """What is left of each source. left: its bytes that are no copies; reads: how each was read."""
        copies = Deduplicated(self.folder("duplicates")).findings.sources
        units = {name: len(self.samples[name].units) for name in left}
        found = {}
        for name, size in left.items():
            shards = sorted(self.samples[name].folder.glob("documents-*"))
            found[name] = _count_of(
                self.samples[name],
                copies=copies.get(name),
                split=split_of(
                    self.folder("select"),
                    name,
                    left_bytes=size,
                    units=units,
                    sources=[*left],
                    read=reads[name],
                ),
                train_tokens=TokenShard(Tokenized(self.folder("tokenize")).of(name).train).num_tokens,
                languages=languages_in(shards, weights=[self.samples[name].weight_of(path) for path in shards]),
                opening=opening_of(shards),
            )
        return found

    def tally(self, priority: Sequence[str], bytes_per_token: Mapping[str, float]) -> dict[str, Tally]:
        """By source and unit: what is left, and what copies in other units took."""
        size_D, ranges = self._sizes(priority), self._first_documents(priority)
        unit_D, is_large_D = self._unit_of_documents(priority)
        table = pq.read_table(self.folder("duplicates") / "copies.parquet")
        document_C, survivor_C = (table.column(name).to_numpy() for name in ("document", "survivor"))
        is_whole_D = np.concatenate(
            [np.full(some.stop - some.start, self.samples[name].is_whole) for name, some in ranges.items()]
        )
        # Of large pieces all are read in part, of whole sources everything: no pair of these is met by chance.
        are_large_C = is_large_D[document_C] & is_large_D[survivor_C]
        are_whole_C = is_whole_D[document_C] & is_whole_D[survivor_C]
        crosses_C = (unit_D[document_C] != unit_D[survivor_C]) & ~(are_large_C | are_whole_C)
        fate_D = np.full(len(size_D), LEFT)
        fate_D[document_C] = np.where(crosses_C, LOST, GONE)
        units_of: dict[int, set[int]] = {}
        for document, survivor in zip(document_C[crosses_C].tolist(), survivor_C[crosses_C].tolist()):
            units_of.setdefault(survivor, {int(unit_D[survivor])}).add(int(unit_D[document]))
        tallies, offset = {}, 0
        for name in priority:
            sample, some = self.samples[name], ranges[name]
            met = [len(found) for survivor, found in units_of.items() if some.start <= survivor < some.stop]
            strata = []
            for units, blocks in ((sample.units, 1), (sample.large, BLOCKS)):
                read = [unit for unit in units if unit.read_bytes]
                rows = [
                    _unit_tally(documents, fate_D, size_D / bytes_per_token[name], unit.read_bytes / blocks)
                    for unit in read
                    for documents in np.array_split(
                        np.flatnonzero(unit_D[some] == offset + unit.number) + some.start, blocks
                    )
                ]
                if rows:
                    num_bytes = float(sum(unit.size for unit in units))
                    part = sum(unit.read_bytes for unit in read) / num_bytes if blocks > 1 else len(read) / len(units)
                    strata.append(Stratum(units=tuple(rows), share=part, num_bytes=num_bytes))
            tallies[name] = Tally(
                strata=tuple(strata),
                met_in_several=met_in_several(met),
                is_whole=sample.is_whole,
            )
            offset += len(sample.units) + len(sample.large)
        return tallies

    def _shards(self, priority: Sequence[str]) -> list[tuple[str, Path]]:
        """(source, documents-NNNNN.parquet) in the order in which selection numbers documents."""
        return [(name, path) for name in priority for path in sorted(self.samples[name].folder.glob("documents-*"))]

    def _are_left(self, priority: Sequence[str]) -> NDArray[np.bool_]:
        """(documents,) whether it is no copy."""
        removed = pq.read_table(self.folder("duplicates") / "copies.parquet").column("document").to_numpy()
        left = np.ones(len(self._sizes(priority)), dtype=bool)
        left[removed] = False
        return left

    def _sizes(self, priority: Sequence[str]) -> NDArray[np.int64]:
        return document_bytes([path for _, path in self._shards(priority)])

    def _first_documents(self, priority: Sequence[str]) -> dict[str, slice]:
        """Source → the numbers of its documents."""
        ranges, first = {}, 0
        for name in priority:
            rows = sum(count_rows(path) for source, path in self._shards(priority) if source == name)
            ranges[name] = slice(first, first + rows)
            first += rows
        return ranges

    def _unit_of_documents(self, priority: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """(documents,) a number of the unit that each was read from, over all sources; and whether it is a large piece."""
        numbers, is_large, offset = [], [], 0
        for name in priority:
            sample = self.samples[name]
            for _, path in (one for one in self._shards(priority) if one[0] == name):
                number, rows = int(path.stem.rpartition("-")[2]), count_rows(path)
                numbers.append(np.full(rows, offset + number, dtype=np.int64))
                is_large.append(np.full(rows, number >= len(sample.units)))
            offset += len(sample.units) + len(sample.large)
        return np.concatenate(numbers), np.concatenate(is_large)


def _unit_tally(
    documents: NDArray[np.int64], fate_D: NDArray[np.int64], tokens_D: NDArray[np.float64], read_bytes: float
) -> UnitTally:
    left, lost = (documents[fate_D[documents] == fate] for fate in (LEFT, LOST))
    return UnitTally(
        read_bytes=read_bytes,
        left_documents=len(left),
        left_tokens=float(tokens_D[left].sum()),
        lost_documents=len(lost),
    )
