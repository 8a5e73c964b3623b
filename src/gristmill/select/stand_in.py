"""A search in memory behind the interface of `dedup`, until that is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.data.write import write_table
from gristmill.select import in_memory
from gristmill.select.corpus import Corpus, batches_of_texts
from gristmill.select.dedup import DuplicateCounts, DuplicateRules
from gristmill.select.sets import ngram_set
from gristmill.select.signatures import exact_column, keys_column


def find_duplicates(corpus: Corpus, *, rules: DuplicateRules, work: Path, **_: Any) -> DuplicateCounts:
    tables, sources, rank = [], [], []
    for shard in corpus.shards:
        table = pq.read_table(shard.prints).combine_chunks()
        tables.append(table)
        sources += [shard.source] * len(table)
        rank += [shard.priority] * len(table)
    everything = pa.concat_tables(tables).combine_chunks()
    passed = np.flatnonzero(np.concatenate([corpus.passed_of(k) for k in range(len(corpus.shards))]))
    score = np.concatenate([corpus.scores_of(k) for k in range(len(corpus.shards))])
    some = everything.take(passed).combine_chunks()

    def column(name):
        return some.column(name).combine_chunks()

    ids = some.column("id").to_pylist()

    def ngrams(places):
        wanted = passed[places]
        found = {}
        for k, shard in enumerate(corpus.shards):
            first, end = corpus.firsts_S1[k], corpus.firsts_S1[k + 1]
            mine = wanted[(wanted >= first) & (wanted < end)] - first
            if len(mine):
                for rows, texts in batches_of_texts(shard.documents, mine):
                    for row, text in zip(rows, texts):
                        found[int(np.searchsorted(passed, row + first))] = ngram_set(text, rules.ngram)
        return found

    found = in_memory.find_duplicates(
        in_memory.Fingerprints(
            exact_D2=exact_column(column("exact")) if len(some) else np.empty((0, 2), np.uint64),
            keys_DB=keys_column(column("keys"), num_bands=rules.num_bands)
            if len(some)
            else np.empty((0, rules.num_bands), np.uint64),
            num_ngrams_D=some.column("num_ngrams").to_numpy(),
        ),
        in_memory.Keys(
            ids=ids,
            sources=[sources[d] for d in passed],
            priority_D=np.array(rank, dtype=np.int64)[passed],
            score_D=score[passed],
            num_bytes_D=some.column("num_bytes").to_numpy(),
        ),
        rules=rules,
        ngrams_of=ngrams,
    )
    copies = list(found.copies.values())
    write_table(
        work / "copies.parquet",
        pa.table(
            {
                "document": pa.array([passed[c.document] for c in copies], pa.int64()),
                "survivor": pa.array([passed[c.survivor] for c in copies], pa.int64()),
                "exact": pa.array([c.exact for c in copies], pa.bool_()),
                "jaccard": pa.array([c.jaccard for c in copies], pa.float64()),
                "containment": pa.array([c.containment for c in copies], pa.float64()),
            }
        ),
    )
    links = passed[found.links_E2]
    write_table(work / "links.parquet", pa.table({"document": links[:, 0], "other": links[:, 1]}))
    exact = sum(c.exact for c in copies)
    return DuplicateCounts(
        documents=len(passed),
        exact_copies=exact,
        near_copies=len(copies) - exact,
        links=len(links),
        with_candidates=0,
        candidate_pairs=found.num_candidates,
        compared_pairs=found.num_compared,
        refused_pairs=found.num_refused,
        capped=found.num_capped,
    )


def neighbours_of(corpus: Corpus, *, held: Path, asked: Path, rules: DuplicateRules, work: Path, **_: Any) -> Path:
    held_D, asked_D = np.load(held).astype(bool), np.load(asked).astype(bool)

    def texts(mask):
        for k, shard in enumerate(corpus.shards):
            first, end = corpus.firsts_S1[k], corpus.firsts_S1[k + 1]
            rows = np.flatnonzero(mask[first:end])
            for some, found in batches_of_texts(shard.documents, rows):
                yield [(int(first + row), text) for row, text in zip(some, found)]

    from gristmill.select.resemblance import HeldOutTexts

    index = HeldOutTexts(texts(held_D), rules)
    found = {}
    for batch in texts(asked_D):
        found |= index.find(batch)
    rows = sorted(found.items())
    path = work / "neighbours.parquet"
    write_table(
        path,
        pa.table(
            {
                "document": pa.array([d for d, _ in rows], pa.int64()),
                "held": pa.array([r.held for _, r in rows], pa.int64()),
                "jaccard": pa.array([r.jaccard for _, r in rows], pa.float64()),
                "containment": pa.array([r.containment for _, r in rows], pa.float64()),
            }
        ),
    )
    return path
