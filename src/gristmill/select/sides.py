"""The shard function that writes what was decided: each document to train, validation or rejected, and into the ledger.

    documents-NNNNN, scores, matches, prints ┐
    fates, copies, clusters and sides        ┴─→ <source>/train-NNNNN, validation-NNNNN, rejected-NNNNN  (those with rows)
    what is repeated, if the recipe asks         <source>/edited-NNNNN                                   (a row per unit that went)
                                                 work/written/<source>-NNNNN.json                        (last; the shard is done)

Of the files over all documents it reads the part of its shard. The ids of survivors and of held-out texts, which lie in other
shards, are looked up in one mapped file (`Names`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.data.document import REPOSITORY, document_schema, open_parquet, read_batches, shard_path
from gristmill.data.ledger import REJECTED_SCHEMA, Ledger
from gristmill.data.write import ShardWriter
from gristmill.select.catalogue import BATCH_ROWS, Catalogue, Shard, read_column
from gristmill.select.contamination import read_matches
from gristmill.select.edits import EDITED_SCHEMA, Edits
from gristmill.select.fates import CONTAMINATED, DUPLICATE_ID, HELD_OUT, LOW_SCORE, OPTED_OUT
from gristmill.select.files import Array
from gristmill.select.levels import VALIDATION
from gristmill.select.outputs import TextTaken
from gristmill.select.reasons import (
    HELD_OUT_ITEM,
    ON_OPT_OUT_LIST,
    SECOND_ID,
    Named,
    Rejection,
    copy_of,
    holds_item,
    resembles,
    too_low,
)
from gristmill.select.repeated import Repeated
from gristmill.select.rules import DuplicateRules
from gristmill.select.words import Int64
from gristmill.store.durable import atomic_path, read_json, write_json

STEP = "select"
CLUSTER = pa.field("cluster", pa.int64(), nullable=False)
SIDES = ("train", "validation")


@dataclass(frozen=True, kw_only=True)
class Decided:
    """Where the decisions lie: arrays with an entry a document, and tables of those that leave, by document.

    freed: of the copies whose survivor leaves, what holds instead: another survivor, or -1 for none. emptied: an .npy file of EMPTIED.
    """

    fates: Path
    clusters: Path
    sides: Path
    copies: Path
    freed: Path
    resembling: Path
    emptied: Path
    names: Path


class Names:
    """Ids of chosen documents, in a folder: documents.npy, ascending, and ids.arrow in the same order. Both are mapped."""

    def __init__(self, folder: Path, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._document_N = np.load(folder / "documents.npy", mmap_mode="r")
        self._ids = pa.ipc.open_file(pa.memory_map(str(folder / "ids.arrow"))).read_all().column(0)

    @staticmethod
    def write(folder: Path, catalogue: Catalogue, wanted: Int64) -> None:
        """Looks up the ids of the wanted documents, which are ascending, and leaves them in `folder`."""
        folder.mkdir(exist_ok=True)
        schema = pa.schema([pa.field("id", pa.string(), nullable=False)])
        with atomic_path(folder / "ids.arrow") as temporary, pa.ipc.new_file(temporary, schema) as writer:
            for ids in _in_batches(catalogue.ids_of(wanted)):
                writer.write_batch(pa.record_batch([pa.array(ids, pa.string())], schema=schema))
        with atomic_path(folder / "documents.npy") as temporary, temporary.open("wb") as array:
            np.save(array, wanted)

    def of(self, document: int) -> Named:
        """A document that was among the wanted ones."""
        place = int(np.searchsorted(self._document_N, document))
        return Named(id=self._ids[place].as_py(), source=self._catalogue.source_of(document))


@dataclass(frozen=True, kw_only=True)
class WriteShard:
    """The function over shards: reads the documents of one and writes each to its side. Safe to repeat."""

    catalogue: Catalogue
    decided: Decided
    rules: DuplicateRules
    above: Mapping[str, float]
    repeated: Repeated | None
    out: Path
    written: Path

    def target(self, shard: Shard) -> Path:
        """The record of one shard, written last."""
        return self.written / f"{shard.key}.json"

    def __call__(self, shard: Shard) -> None:
        """Writes one shard unless that was done before."""
        if self.target(shard).is_file():
            return
        rejections, edits = self._rejections(shard), self._edits(shard)
        cluster_R = np.load(self.decided.clusters, mmap_mode="r")[shard.first : shard.end]
        side_R = np.load(self.decided.sides, mmap_mode="r")[shard.first : shard.end]
        ledger, counts, taken = Ledger(), {side: [0, 0] for side in SIDES}, TextTaken()
        writers: dict[str, ShardWriter] = {}
        with ExitStack() as stack:

            def write(stem: str, schema: pa.Schema, row: dict[str, Any]) -> None:
                if stem not in writers:
                    path = shard_path(self.out / shard.source, int(shard.name), stem=stem)
                    writers[stem] = stack.enter_context(ShardWriter(path, schema))
                writers[stem].write(row)

            schema = selected_schema(shard.documents)
            for place, row in enumerate(_rows(shard.documents, schema)):
                edit = None if edits is None else edits.of(place, row)
                if edit is not None:
                    taken.add(edit.taken)
                    for unit in edit.rows:
                        write("edited", EDITED_SCHEMA, unit)
                why = rejections.get(place) if edit is None else edit.why
                if why is not None:
                    write("rejected", REJECTED_SCHEMA, why.row(row, step=STEP))
                    ledger.add(shard.source, "dropped", row["bytes_in"], reason=why.reason)
                    continue
                lost = 0
                if edit is not None:
                    lost, row = edit.share_of(row["bytes_in"]), {**row, "text": edit.text}
                    ledger.edit(shard.source, lost, reason=edit.reason)
                side = "validation" if side_R[place] == VALIDATION else "train"
                write(side, schema, {**row, "cluster": int(cluster_R[place])})
                ledger.add(shard.source, "kept", row["bytes_in"] - lost)
                counts[side][0] += 1
                counts[side][1] += len(row["text"].encode())
        write_json(self.target(shard), {**ledger.to_json(), "sides": counts, "taken": taken.to_json()})

    def _edits(self, shard: Shard) -> Edits | None:
        if self.repeated is None:
            return None
        lost = self.repeated.lost_by(self.catalogue.shards.index(shard))
        return Edits(self.repeated, lost, Names(self.decided.names, self.catalogue).of)

    def _rejections(self, shard: Shard) -> dict[int, Rejection]:
        """Row → why its document is dropped."""
        fate_R = np.load(self.decided.fates, mmap_mode="r")[shard.first : shard.end]
        found: dict[int, Rejection] = dict.fromkeys(np.flatnonzero(fate_R == HELD_OUT).tolist(), HELD_OUT_ITEM)
        found |= dict.fromkeys(np.flatnonzero(fate_R == OPTED_OUT).tolist(), ON_OPT_OUT_LIST)
        found |= dict.fromkeys(np.flatnonzero(fate_R == DUPLICATE_ID).tolist(), SECOND_ID)
        if shard.scores is not None:
            score_R, above = read_column(shard.scores, "score"), self.above[shard.source]
            for row in np.flatnonzero(fate_R == LOW_SCORE).tolist():
                found[row] = too_low(float(score_R[row]), above=above)
        matches = read_matches(shard.matches)
        for row in np.flatnonzero(fate_R == CONTAMINATED).tolist():
            found[row] = holds_item(matches[row])
        names = Names(self.decided.names, self.catalogue)
        tables = (self.decided.copies, self.decided.freed)  # the second overrules
        copies = {row["document"]: row for path in tables for row in rows_between(path, shard.first, shard.end)}
        emptied = np.load(self.decided.emptied, mmap_mode="r")
        for copy in copies.values():
            if copy["survivor"] < 0:
                continue
            found[copy["document"] - shard.first] = copy_of(
                names.of(copy["survivor"]),
                exact=copy["exact"],
                jaccard=copy["jaccard"],
                containment=copy["containment"],
                rules=self.rules,
                keeper=_keeper(emptied, copy["survivor"], names),
            )
        for one in rows_between(self.decided.resembling, shard.first, shard.end):
            found[one["document"] - shard.first] = resembles(
                names.of(one["held"]),
                jaccard=one["jaccard"],
                containment=one["containment"],
                is_late=shard.level > 0,
                rules=self.rules,
            )
        return found


def _keeper(emptied: Array, survivor: int, names: Names) -> Named | None:
    """Who keeps most of a survivor that leaves as `only_repeated`; None for one that is kept."""
    place = int(np.searchsorted(emptied["document"], survivor))
    if place == len(emptied) or emptied["document"][place] != survivor:
        return None
    return names.of(int(emptied["keeper"][place]))


def rows_between(path: Path, first: int, end: int) -> list[dict[str, Any]]:
    """The rows of a table sorted by its column `document` that lie between first and end, which is not included."""
    some = [("document", ">=", first), ("document", "<", end)]
    rows: list[dict[str, Any]] = pq.read_table(path, filters=some).to_pylist()
    return rows


def read_written(path: Path) -> tuple[Ledger, dict[str, tuple[int, int]], TextTaken]:
    """The record of one shard: its ledger, (documents, bytes of text) by side, and what repeated text it lost."""
    value = read_json(path)
    sides = {side: (documents, size) for side, (documents, size) in value["sides"].items()}
    return Ledger.from_json(value), sides, TextTaken.from_json(value["taken"], where=path)


def selected_schema(documents: Path) -> pa.Schema:
    """The columns of what is selected of a source, which are those of its documents, and CLUSTER."""
    with open_parquet(documents) as file:
        has_repository = REPOSITORY.name in file.schema_arrow.names
    return document_schema(with_repository=has_repository).append(CLUSTER)


def _rows(documents: Path, schema: pa.Schema) -> Iterator[dict[str, Any]]:
    columns = [name for name in schema.names if name != CLUSTER.name]
    for batch in read_batches(documents, columns=columns, batch_rows=BATCH_ROWS):
        yield from batch.to_pylist()


def _in_batches(ids: Iterator[tuple[int, str]], size: int = 4096) -> Iterator[list[str]]:
    batch: list[str] = []
    for _, name in ids:
        batch.append(name)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
