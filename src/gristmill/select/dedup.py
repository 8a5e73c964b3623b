"""Exact and near duplicates: which document is a copy of which, and which one is kept. Memory is bounded, the rest lies on disk.

    prints of all shards ── order.py ──→ ranks: documents in the stated order           (external sort)
                         ── groups.py ─→ exact copies; documents that share a band key  (grouped by hash range)
    texts of those       ── sets.py ───→ their n-gram sets
                            walk.py ───→ near copies and links, in rank order           (verified on full text)
                            copies.py ─→ copies.parquet, links.parquet, by document

Documents are taken in one stated order: turn, priority of the source, score (high first), length in bytes (long first),
id, source, hash of the text. A document is removed when it is a verified copy of a *kept* document that comes before it, so

- every removed document names the survivor it was compared with: chains of copies never join strangers,
- nothing depends on the order of the input, and a second pass makes the same comparisons and removes nothing.

Verified means, on sets of word n-grams of the whole text: Jaccard similarity of at least `min_jaccard`, or, where the
survivor is the longer one, at least MIN_CONTAINMENT of the document's n-grams occur in it. Documents shorter than
one n-gram take part in the exact pass only.

Links join documents that a validation split must not part. A survivor that occurs in a longer document which comes later makes
no copy of it, but is linked to it. A link is found when the later of the two is decided, so documents never change what was
decided of those before them.

Every stage leaves finished files and is skipped when they exist, so a search that was killed resumes; the walk resumes at its
last finished window.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import xxhash

from gristmill.data.executor import Executor, InProcess
from gristmill.errors import ArtifactError
from gristmill.graph.progress import Report, unreported
from gristmill.select import groups, order
from gristmill.select.copies import COPIES, LINKS, Ranked, write_results
from gristmill.select.corpus import Corpus
from gristmill.select.files import mapped
from gristmill.select.rules import DuplicateRules
from gristmill.select.sets import NgramSets, SpillSets
from gristmill.select.stages import Stage
from gristmill.select.walk import Lists, Outcomes, walk
from gristmill.store.durable import OutOfSpaceError, read_json, write_json

FOUND = "duplicates.json"
SCRATCH = "search"
MAX_IN_LINE = 500_000  # documents: so many take less time in this process than starting processes does
NGRAMS_PER_DOCUMENT = 500  # of a web page; for the estimate that an error about a full disk gives


@dataclass(frozen=True, kw_only=True)
class SearchMemory:
    """What the search may hold. Results do not depend on it.

    worker_bytes: per worker over a shard or a hash range, roughly. walk_bytes: arrays of the walking process, beyond which
    they are mapped files. block_ngrams: n-grams (8 bytes each) of the documents that are compared at one time.
    window_ranks: ranks after which the walk leaves what it found; a killed walk loses no more.
    """

    worker_bytes: int = 500_000_000
    walk_bytes: int = 2_000_000_000
    block_ngrams: int = 8_000_000
    window_ranks: int = 65_536


@dataclass(frozen=True, kw_only=True)
class DuplicateCounts:
    """What the search found.

    documents: that took part. with_candidates: that share a band key with another. capped: that had more kept candidates
    than MAX_COMPARISONS. Pairs are (document, kept document before it); refused: compared, and no copies.
    """

    documents: int
    exact_copies: int
    near_copies: int
    links: int
    with_candidates: int
    candidate_pairs: int
    compared_pairs: int
    refused_pairs: int
    capped: int


def find_duplicates(
    corpus: Corpus,
    *,
    rules: DuplicateRules,
    work: Path,
    executor: Executor,
    memory: SearchMemory | None = None,
    should_stop: Callable[[], bool],
    say: Callable[[str], None],
    progress: Report = unreported,
) -> DuplicateCounts:
    """Finds all copies among the documents of the corpus that passed, and leaves two files in `work`.

    copies.parquet: document, survivor (int64, numbers in the corpus), exact (bool), jaccard, containment (float64); one row
    per removed document, sorted by document. links.parquet: document, other (int64), the second before the first in the
    survivor order; exact copies by document, then near ones in that order. The counts lie beside them in duplicates.json, so that
    a finished search is not repeated; nothing else of it remains.

    Raises ResourceError when the disk is full, Interrupted when `should_stop()`, and ArtifactError when `work` holds
    an unfinished search over other documents; after the first two the same call resumes.
    """
    memory = SearchMemory() if memory is None else memory
    folder = work / SCRATCH
    if (work / FOUND).is_file():
        shutil.rmtree(folder, ignore_errors=True)  # what a call that was killed at its end left
        return DuplicateCounts(**read_json(work / FOUND))
    folder.mkdir(exist_ok=True)
    try:
        plan = _plan(corpus, rules, memory, folder)
        stage = Stage(
            folder=folder,
            texts=executor,
            columns=executor if plan.documents > MAX_IN_LINE else InProcess(should_stop=should_stop),
            array_bytes=memory.walk_bytes,
            should_stop=should_stop,
            say=say,
            progress=progress,
        )
        outcomes = _search(corpus, rules, plan, stage, memory)
        counts = _results(corpus, plan, stage, outcomes, out=work)
        write_json(work / FOUND, asdict(counts))
    except OutOfSpaceError as error:
        needed = disk_bytes(len(corpus), num_bands=rules.num_bands, ngrams_per_document=NGRAMS_PER_DOCUMENT)["search"]
        raise OutOfSpaceError(
            f"{error}\n  The search for duplicates takes up to {needed:,} bytes in {folder} for {len(corpus):,} documents (estimated "
            f"at {NGRAMS_PER_DOCUMENT} words each); {shutil.disk_usage(folder).free:,} are free. Finished parts are kept."
        ) from error
    shutil.rmtree(folder)
    return counts


def disk_bytes(
    documents: int, *, num_bands: int, ngrams_per_document: float, share_with_candidates: float = 1.0
) -> dict[str, int]:
    """An upper estimate of the bytes on disk: `prints`, which stay, and `search`, the peak while the search runs.

    With ids of 40 bytes. share_with_candidates: documents that share a band key with another; their n-grams are spilled.
    """
    ids, ranks, live = 40, 24, share_with_candidates * 16 * num_bands
    sorting = ids + 40 + 4 * 8
    grouping = ranks + 16 * num_bands + live
    walking = ranks + 1.5 * live + share_with_candidates * (8 * ngrams_per_document + 100)
    peak = max(sorting, grouping, walking)
    return {"prints": documents * (ids + 50 + 8 * num_bands), "search": math.ceil(documents * peak)}


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """How a search is cut. It is written first and read when the search resumes, so that other memory does not mix files."""

    corpus: str
    rules: str
    documents: int
    sort_ranges: int
    hash_ranges: int
    window_ranks: int

    @property
    def num_windows(self) -> int:
        return max(1, math.ceil(self.documents / self.window_ranks))


def _plan(corpus: Corpus, rules: DuplicateRules, memory: SearchMemory, folder: Path) -> _Plan:
    for shard in corpus.shards:
        _check_bands(shard.prints, rules)
    path = folder / "plan.json"
    documents = int(sum(int(corpus.passed_of(k).sum()) for k in range(len(corpus.shards))))
    new = _Plan(
        corpus=_fingerprint(corpus),
        rules=str(rules),
        documents=documents,
        sort_ranges=order.num_ranges(corpus, documents, worker_bytes=memory.worker_bytes),
        hash_ranges=max(1, math.ceil(documents * groups.ROW_BYTES / memory.worker_bytes)),
        window_ranks=memory.window_ranks,
    )
    if not path.is_file():
        write_json(path, asdict(new))
    old = _Plan(**read_json(path))
    if (old.corpus, old.rules, old.documents) != (new.corpus, new.rules, new.documents):
        raise ArtifactError(
            f"{folder} holds an unfinished search over {old.documents:,} other documents or by other rules. Remove it and run again."
        )
    return old


def _check_bands(prints: Path, rules: DuplicateRules) -> None:
    width = pq.read_schema(prints).field("keys").type.byte_width
    if width != 8 * rules.num_bands:
        raise ArtifactError(
            f"{prints} has keys of {width // 8} bands, the rules ask for {rules.num_bands}. Remake the signatures."
        )


def _fingerprint(corpus: Corpus) -> str:
    """Of the shards and of which documents take part: sizes of prints stand for their content, which a step's identity covers."""
    digest = xxhash.xxh3_128()
    for k, shard in enumerate(corpus.shards):
        digest.update(f"{shard.source}\0{shard.priority}\0{shard.prints.stat().st_size}\0".encode())
        digest.update(corpus.turns_of(k).tobytes())
        digest.update(corpus.scores_of(k).tobytes())
    return digest.hexdigest()


def _search(
    corpus: Corpus,
    rules: DuplicateRules,
    plan: _Plan,
    stage: Stage,
    memory: SearchMemory,
) -> Outcomes:
    """All stages up to the walk, whose sets are removed once it is complete."""
    sort = order.sort_corpus(stage, corpus, num_ranges=plan.sort_ranges)
    stage.say(f"{plan.documents:,} documents are in the survivor order")
    exact = groups.group_exact(stage, corpus, sort, count=plan.documents, num_ranges=plan.hash_ranges)
    outcomes = Outcomes(folder=stage.folder, num_windows=plan.num_windows)
    if outcomes.is_complete:
        return outcomes
    live = groups.group_bands(
        stage,
        groups.SpillBands(
            corpus=corpus, sort=sort, exact=exact, num_bands=rules.num_bands, num_ranges=plan.hash_ranges
        ),
        max_listed=rules.max_listed,
        num_windows=plan.num_windows,
        window_ranks=plan.window_ranks,
    )
    touched = groups.touched_path(stage)
    num_touched = len(mapped(touched, np.int64))
    stage.say(f"{num_touched:,} documents share a band key with another")
    shards = range(len(corpus.shards))
    spilled = SpillSets(corpus=corpus, ngram=rules.ngram, ranks=sort.ranks, touched=touched, out=stage.folder)
    stage.make(spilled, shards, executor=stage.texts)
    walk(
        stage,
        live,
        outcomes,
        rules=rules,
        sets=NgramSets(stage, spilled, num_touched=num_touched),
        lists=Lists(stage, num_slots=live.num_slots, num_touched=num_touched, max_listed=rules.max_listed),
        block_ngrams=memory.block_ngrams,
    )
    stage.remove(*map(spilled.sets, shards))
    return outcomes


def _results(corpus: Corpus, plan: _Plan, stage: Stage, outcomes: Outcomes, *, out: Path) -> DuplicateCounts:
    touched = groups.touched_path(stage)
    ranked = Ranked(sort=order.SortPaths(folder=stage.folder), exact=groups.exact_path(stage))
    write_results(stage, corpus, outcomes, ranked, touched=touched, out=out)
    exact_copies, near_copies = _count_copies(out / COPIES)
    return DuplicateCounts(
        documents=plan.documents,
        exact_copies=exact_copies,
        near_copies=near_copies,
        links=pq.read_metadata(out / LINKS).num_rows,
        with_candidates=len(mapped(touched, np.int64)),
        **outcomes.counts(),
    )


def _count_copies(path: Path) -> tuple[int, int]:
    """Exact and near copies in copies.parquet."""
    exact = near = 0
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(columns=["exact"]):
            exact += batch.column("exact").true_count
            near += batch.column("exact").false_count
    return exact, near
