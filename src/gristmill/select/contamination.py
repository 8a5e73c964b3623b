"""STEP contamination/<source>: which documents of a source packs hold out by id, and which hold items of packs.

    packs ─→ planted into documents of the source: all that can be found must be found
    documents-NNNNN.parquet ─→ matches-NNNNN.parquet    one row per document that is held out or that holds an item
    report.json                                         items planted and found per pack, ids that are held out

Nothing is decided here: `duplicates` and `select` drop the documents. No threshold has a part in it, so a changed one searches
nothing again; one more pack searches the documents again and extracts none. A killed step resumes with the shards that are left;
those that were searched for the items of other packs are searched again.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.data.document import read_batches
from gristmill.data.each_shard import each_shard, num_rows
from gristmill.data.packs import Pack, held_out_ids, is_held_out, packs_of
from gristmill.data.write import write_rows
from gristmill.extract.outputs import Extracted
from gristmill.graph.step import StepContext
from gristmill.recipe.schema.curation import Decontaminate
from gristmill.select.catalogue import values_at
from gristmill.select.corpus import BATCH_BYTES, BATCH_ROWS, pieces, text_bytes
from gristmill.select.decontaminate import Decontaminator, Match
from gristmill.select.marks import mark
from gristmill.select.outputs import PlantedRecall, SearchedForItems
from gristmill.select.planting import SURE_FORM, planted_recall
from gristmill.select.questions import Questions
from gristmill.store.durable import write_json
from gristmill.store.fingerprint import derive_seed
from gristmill.units import counted

VERSION = 2
STEM, QUESTIONS = "matches", "questions-"
HELD_OUT_ID = (
    "held_out_id"  # the rule of a document that is held out by its id; the other rules are those of `decontaminate`
)
NOTHING: dict[str, Any] = {"items": [], "share": 0.0, "need": 0.0, "words": 0, "start": 0, "end": 0, "excerpt": ""}
PLANTING_TEXTS, PLANTING_CHARS = 50, 20_000
MATCH_SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("rule", pa.string(), nullable=False),
        pa.field("items", pa.list_(pa.string()), nullable=False),
        pa.field("share", pa.float64(), nullable=False),
        pa.field("need", pa.float64(), nullable=False),
        pa.field("words", pa.int64(), nullable=False),
        pa.field("start", pa.int64(), nullable=False),
        pa.field("end", pa.int64(), nullable=False),
        pa.field("excerpt", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True, kw_only=True)
class SearchShard:
    """The function over shards: searches one shard of documents, writes its matches. Safe to repeat.

    questions: the folder in which they lie, for all processes to map. held_out: ids of documents that items were cut from.
    """

    questions: Path
    held_out: frozenset[str]
    out: Path

    def __call__(self, shard: Path) -> tuple[int, int]:
        """Searches one shard unless that was done before; returns its (documents, matches)."""
        target = self.out / shard.name.replace("documents", STEM)
        if not target.is_file():
            finder = Decontaminator(Questions.read(self.questions))
            write_rows(target, MATCH_SCHEMA, matches_in(shard, finder, self.held_out))
        return num_rows(shard), num_rows(target)


def run(ctx: StepContext) -> dict[str, Any]:
    """Searches all shards. Raises DataError when an item that can be found is not, where it was planted."""
    section: Decontaminate = ctx.config["decontaminate"]
    documents: Extracted = ctx.inputs["documents"]
    packs, shards = packs_of(ctx.files), documents.documents
    finder, held_out = Decontaminator.of(packs, rule=section.rule), held_out_ids(packs)
    planting = planting_texts(shards) or [""]
    seed = derive_seed(derive_seed(ctx.config["seed"], "select"), "plant")
    recall = planted_recall(finder, packs, planting, seed=seed)
    made_by = mark(ctx.out, shards=f"{STEM}-*.parquet", rules=search_rules(packs, rule=section.rule))
    searched = found = 0
    with tempfile.TemporaryDirectory(prefix=QUESTIONS, dir=ctx.out) as folder:  # ranks of an array have one each
        function = SearchShard(questions=Path(folder), held_out=held_out, out=ctx.out)
        finder.questions.write(function.questions)
        for in_shard, matches in each_shard(ctx, function, shards):
            searched, found = searched + in_shard, found + matches
    report = SearchedForItems(rule=section.rule, packs=recall, held_out_ids=len(held_out))
    write_json(ctx.out / "report.json", report.to_json())
    for leftover in ctx.out.glob(f"{QUESTIONS}*"):
        shutil.rmtree(leftover)
    made_by.unlink()
    if packs:
        ctx.say(f"{ctx.name}: {in_words(recall)}; {found:,} documents are held out or hold items")
    return {"documents": searched, "matches": found, "planted": sum(pack.planted for pack in recall.values())}


def in_words(recall: Mapping[str, PlantedRecall]) -> str:
    """How many planted items were found, in the form in which all must be and in the others."""
    sure = [sum(pack.by_form[SURE_FORM][k] for pack in recall.values()) for k in (0, 1)]
    found, planted = sum(pack.found for pack in recall.values()), sum(pack.planted for pack in recall.values())
    return (
        f"found {sure[0]:,} of {counted(sure[1], 'item')} planted as question and answer, "
        f"{found - sure[0]:,} of {planted - sure[1]:,} in other forms"
    )


def search_rules(packs: Sequence[Pack], *, rule: str) -> dict[str, Any]:
    """All that decides what is found in a document."""
    return {"rule": rule, "packs": [[pack.name, pack.kind, pack.sha256] for pack in packs]}


def matches_in(shard: Path, finder: Decontaminator, held_out: frozenset[str]) -> Iterator[dict[str, Any]]:
    """Rows of MATCH_SCHEMA for the documents of one shard, in order. A document that is held out is not searched."""
    first = 0
    for batch in read_batches(shard, columns=["id", "text"], batch_rows=BATCH_ROWS):
        for begin, end in pieces(text_bytes(batch.column("text")), BATCH_BYTES):
            piece = batch.slice(begin, end - begin)
            texts = piece.column("text").to_pylist() if finder.questions.names else [""] * piece.num_rows
            named = zip(piece.column("id").to_pylist(), finder.match_all(texts), strict=True)
            for row, (name, match) in enumerate(named, start=first + begin):
                if is_held_out(name, held_out):
                    yield {"row": row, "rule": HELD_OUT_ID, **NOTHING}
                elif match is not None:
                    yield {"row": row, **_row_of(match)}
        first += batch.num_rows


def read_matches(path: Path) -> dict[int, Match]:
    """Row → what was found in it, for one shard."""
    return {
        row["row"]: Match(
            item_ids=tuple(row["items"]),
            rule=row["rule"],
            share=row["share"],
            need=row["need"],
            words=row["words"],
            start=row["start"],
            end=row["end"],
            excerpt=row["excerpt"],
        )
        for batch in read_batches(path, columns=MATCH_SCHEMA.names)
        for row in batch.to_pylist()
    }


def planting_texts(shards: Sequence[Path]) -> list[str]:
    """Real texts, evenly spread over all shards, into which evaluation items are planted."""
    sizes = [num_rows(shard) for shard in shards]
    if not (total := sum(sizes)):
        return []
    places = np.unique(np.linspace(0, total - 1, PLANTING_TEXTS).astype(np.int64))
    texts: list[str] = []
    first = 0
    for shard, size in zip(shards, sizes, strict=True):
        mine = places[(places >= first) & (places < first + size)] - first
        texts += [text[:PLANTING_CHARS] for _, text in values_at(shard, mine, "text")]
        first += size
    return texts


def _row_of(match: Match) -> dict[str, Any]:
    return {
        "rule": match.rule,
        "items": list(match.item_ids),
        "share": match.share,
        "need": match.need,
        "words": match.words,
        "start": match.start,
        "end": match.end,
        "excerpt": match.excerpt,
    }
