"""What is trained on of a folder, counted by the recipe's own steps over a sample of it, or over all of it.

read_sample ─→ signatures ─→ duplicates ─→ select ─→ tokenizer ─→ tokenize       the steps themselves, in a folder that is removed
                                 └ a source that is left with too little to train on goes, and the search begins again
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gristmill.context import context_of
from gristmill.data.document import count_rows, read_batches
from gristmill.data.ledger import SourceLedger
from gristmill.draft.folder import FolderSource
from gristmill.draft.interval import Tally, UnitTally
from gristmill.draft.sample import Limits, SourceSample, read_sample
from gristmill.errors import RecipeError
from gristmill.extract.language import detect_language
from gristmill.graph.machine import Machine
from gristmill.pipeline import steps_of
from gristmill.recipe.schema.recipe import Recipe
from gristmill.select.outputs import CopiesOfSource, Deduplicated
from gristmill.tokens.outputs import Tokenized
from gristmill.tokens.shards import TokenShard
from gristmill.tokens.train_tokenizer import document_bytes

LEAST_BYTES = 5_000  # of text that a source is left with, or it is no source
SMALLEST_VOCABULARY = 512
FEW_BYTES = 20_000_000  # of text: processes would take longer to start than they save
BLOCKS = 8  # that the first part of a large piece counts as
LANGUAGE_DOCUMENTS = 400
LANGUAGE_CHARS = 2_000

# (sources, vocabulary, bytes of text by source where they are known) → a recipe that can be carried out up to tokenize
Draft = Callable[[Sequence[str], int, Mapping[str, float]], Recipe]


@dataclass(frozen=True, kw_only=True)
class SourceCount:
    """What was found in what was read of one source. `account` is extract's; copies: what duplicates took of the kept.

    train_tokens, validation_tokens: of what was read. languages: share of the text's bytes, of a sample of documents.
    """

    account: SourceLedger
    copies: CopiesOfSource | None
    left_bytes: int
    train_tokens: int
    validation_tokens: int
    languages: Mapping[str, float]
    share_read: float


@dataclass(frozen=True, kw_only=True)
class Count:
    """What a folder holds. sources: those that are left; emptied: those that are not. tally: for the estimate of the rest.

    text_bytes: by source without copies, by the share that was read.
    """

    sources: Mapping[str, SourceCount]
    emptied: Mapping[str, SourceCount]
    priority: tuple[str, ...]
    vocab_size: int
    tally: Mapping[str, Tally]
    bytes_per_token: Mapping[str, float]
    text_bytes: Mapping[str, float]
    is_whole: bool


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
    say: Callable[[str], None],
) -> Count:
    """Counts. Raises DataError where no source is left with text."""
    sections = {source.name: source.section(max_failed=1.0) for source in sources}
    samples = read_sample(sections, recipe_dir=recipe_dir, out=work, machine=machine, limits=limits, seed=seed, say=say)
    steps = _Steps(draft, samples, work, recipe_dir, machine, say)
    kept = {name: sample.ledger.source(name).total("kept").documents for name, sample in samples.items()}
    priority = sorted((name for name in samples if kept[name]), key=lambda name: -samples[name].text_bytes)
    for name in priority:
        steps.run("signatures", name, priority)
        steps.run("contamination", name, priority)
    while priority:
        steps.run("duplicates", "", priority)
        left = steps.bytes_left(priority)
        if not (few := [name for name in priority if left[name] < LEAST_BYTES * samples[name].share]):
            break
        priority.remove(min(few, key=lambda name: left[name]))
    emptied = {name: _count_of(sample, None, 0, 0, 0, {}) for name, sample in samples.items() if name not in priority}
    if not priority:
        return Count(
            sources={},
            emptied=emptied,
            priority=(),
            vocab_size=0,
            tally={},
            bytes_per_token={},
            text_bytes={},
            is_whole=True,
        )
    steps.text_bytes = {name: size / samples[name].share for name, size in left.items() if name in priority}
    steps.run("select", "", priority)
    vocab_size = steps.train_tokenizer(priority, vocab_size_for(sum(steps.text_bytes.values())))
    steps.run("tokenize", "", priority)
    tokenized = Tokenized(steps.folder("tokenize"))
    shards = {
        name: {split: TokenShard(getattr(tokenized.of(name), split)) for split in ("train", "validation")}
        for name in priority
    }
    findings = Deduplicated(steps.folder("duplicates")).findings.sources
    ratio = {
        name: sum(shard.num_bytes for shard in own.values()) / max(1, sum(shard.num_tokens for shard in own.values()))
        for name, own in shards.items()
    }
    return Count(
        sources={
            name: _count_of(
                samples[name],
                findings.get(name),
                left[name],
                shards[name]["train"].num_tokens,
                shards[name]["validation"].num_tokens,
                _languages(samples[name].folder),
            )
            for name in priority
        },
        emptied=emptied,
        priority=tuple(priority),
        vocab_size=vocab_size,
        tally=steps.tally(priority, ratio),
        bytes_per_token=ratio,
        text_bytes=steps.text_bytes,
        is_whole=all(sample.is_whole for sample in samples.values()),
    )


def _count_of(
    sample: SourceSample,
    copies: CopiesOfSource | None,
    left_bytes: int,
    train_tokens: int,
    validation_tokens: int,
    languages: Mapping[str, float],
) -> SourceCount:
    return SourceCount(
        account=sample.ledger.source(sample.name),
        copies=copies,
        left_bytes=left_bytes,
        train_tokens=train_tokens,
        validation_tokens=validation_tokens,
        languages=languages,
        share_read=1.0 if sample.is_whole else sample.share,
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
        say: Callable[[str], None],
    ) -> None:
        self.draft, self.samples, self.work, self.recipe_dir, self.say = draft, samples, work, recipe_dir, say
        is_small = sum(sample.text_bytes for sample in samples.values()) < FEW_BYTES
        self.machine = Machine(processes=1 if is_small else machine.processes, threads=machine.threads, runs_dir=work)
        self.vocab_size = SMALLEST_VOCABULARY
        self.text_bytes: dict[str, float] = {}
        self.runs = 0
        self.folders = {f"extract/{name}": sample.folder for name, sample in samples.items()}

    def folder(self, step: str) -> Path:
        """What a step left."""
        return self.folders[step]

    def run(self, kind: str, source: str, priority: Sequence[str]) -> None:
        """Runs one step of the recipe over these sources."""
        recipe = self.draft(priority, self.vocab_size, self.text_bytes)
        name = f"{kind}/{source}" if source else kind
        self.runs += 1
        out = self.work / f"{kind}-{self.runs}"
        out.mkdir()
        self.say(f"{kind} {source}".rstrip())
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
        sizes, first = self._sizes(priority), self._first_documents(priority)
        removed = pq.read_table(self.folder("duplicates") / "copies.parquet").column("document").to_numpy()
        left = np.ones(len(sizes), dtype=bool)
        left[removed] = False
        return {name: int(sizes[some][left[some]].sum()) for name, some in first.items()}

    def tally(self, priority: Sequence[str], bytes_per_token: Mapping[str, float]) -> dict[str, Tally]:
        """By source and unit: bytes read, tokens that are left, tokens lost to copies in other units."""
        sizes, ranges = self._sizes(priority), self._first_documents(priority)
        unit_D = self._unit_of_documents(priority)
        table = pq.read_table(self.folder("duplicates") / "copies.parquet")
        document_C, survivor_C = (table.column(name).to_numpy() for name in ("document", "survivor"))
        crosses_C = unit_D[document_C] != unit_D[survivor_C]
        lost_D = np.zeros(len(sizes))
        lost_D[document_C[crosses_C]] = sizes[document_C[crosses_C]]
        left_D = sizes.astype(np.float64)
        left_D[document_C] = 0.0
        units_of: dict[int, set[int]] = {}
        for document, survivor in zip(document_C[crosses_C].tolist(), survivor_C[crosses_C].tolist()):
            units_of.setdefault(survivor, {int(unit_D[survivor])}).add(int(unit_D[document]))
        tallies, offset = {}, 0
        for name in priority:
            sample, some, ratio = self.samples[name], ranges[name], bytes_per_token[name]
            units = {unit.number: unit for unit in (*sample.units, *sample.large)}
            rows = []
            for number, unit in units.items():
                mine = unit_D[some] == offset + number
                if not unit.read_bytes:
                    continue
                blocks = BLOCKS if unit in sample.large else 1
                for documents in np.array_split(np.flatnonzero(mine) + some.start, blocks):
                    rows.append(
                        UnitTally(
                            is_large=unit in sample.large,
                            read_bytes=unit.read_bytes / blocks,
                            documents=len(documents),
                            left=float(left_D[documents].sum()) / ratio,
                            lost=float(lost_D[documents].sum()) / ratio,
                        )
                    )
            twice = [
                float(sizes[survivor]) / ratio
                for survivor, found in units_of.items()
                if len(found) == 2 and some.start <= survivor < some.stop
            ]
            several = [float(sizes[survivor]) / ratio for survivor in units_of if some.start <= survivor < some.stop]
            tallies[name] = Tally(
                units=tuple(rows),
                num_units=len(sample.units),
                small_bytes=float(sum(unit.size for unit in sample.units)),
                large_bytes=float(sum(unit.size for unit in sample.large)),
                in_two_units=tuple(twice),
                in_several_units=float(sum(several)),
                is_whole=sample.is_whole,
            )
            offset += len(units)
        return tallies

    def _shards(self, priority: Sequence[str]) -> list[tuple[str, Path]]:
        """(source, documents-NNNNN.parquet) in the order in which selection numbers documents."""
        return [(name, path) for name in priority for path in sorted(self.samples[name].folder.glob("documents-*"))]

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

    def _unit_of_documents(self, priority: Sequence[str]) -> NDArray[np.int64]:
        """(documents,) a number of the unit that each was read from, over all sources."""
        numbers, offset = [], 0
        for name in priority:
            for _, path in (one for one in self._shards(priority) if one[0] == name):
                numbers.append(np.full(count_rows(path), offset + int(path.stem.rpartition("-")[2]), dtype=np.int64))
            offset += len(self.samples[name].units) + len(self.samples[name].large)
        return np.concatenate(numbers)


def _languages(folder: Path) -> dict[str, float]:
    """Language → share of bytes, of the first documents of each shard; those too short to tell count as "?"."""
    paths = sorted(folder.glob("documents-*"))
    each = -(-LANGUAGE_DOCUMENTS // max(1, len(paths)))
    found: Counter[str] = Counter()
    for path in paths:
        batch: Any = next(read_batches(path, columns=["text", "language"], batch_rows=each), None)
        for row in batch.to_pylist() if batch is not None else ():
            size = len(row["text"].encode())
            found[row["language"] or detect_language(row["text"][:LANGUAGE_CHARS])[0] or "?"] += size
    total = max(1, found.total())
    return {language: size / total for language, size in found.most_common()}
