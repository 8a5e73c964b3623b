"""How much is held out, and what the split takes of a source: the text that is held out, and training text that is alike to it; in a sample, and in all.

    held out    whole documents, the wanted bytes and on average half of one more, drawn by its size
    alike       a document leaves for each of those alike to it with the chance that one is held out. Of those in other units a
                sample of share s holds s, so of what is alike to none of them it holds exp(-s λ), and all of it exp(-λ)

Alike pairs within a unit, or within large pieces, of which the same share is read, are met in full. The number of documents that
leave by others is drawn as a Poisson count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from scipy.stats import gamma

from gristmill.data.texts import text_of
from gristmill.draft.folder import PASSAGE_CHARS
from gristmill.draft.interval import LEVEL, Estimate
from gristmill.recipe.schema.curation import Validation
from gristmill.recipe.schema.formats import ReadFiles
from gristmill.select.split import wanted_bytes
from gristmill.tokens.train_tokenizer import document_bytes

HELD_OUT_BYTES = 20_000
HELD_OUT_DOCUMENTS = 30  # that a useful error bar wants
LEAST_HELD_OUT_BYTES = 2_000  # of a source, where it has twice as much
HELD_OUT_SHARE = (0.02, 0.1)
USUAL_SHARE = 0.05  # in which long documents are cut to give as many passages
FEWEST_CHARS = 2_000  # of a passage: twice the longest context, in tokens, of a model for so little text
FEWEST_LONG_CHARS = 8_000  # where the context is not chosen by the text
OVERSHOOT = 3  # mean documents that more than is wanted may hold, at most


@dataclass(frozen=True, kw_only=True)
class Split:
    """What became of the text of one source that is no copy, in what was read.

    typical_document: bytes of the one that a byte drawn by chance lies in. held_documents: passages count each; held_texts: those
    that they are of. alike_documents: that left; alike_across: of these, for documents that were met by chance.
    """

    train_bytes: int
    held_bytes: int
    alike_bytes: int
    typical_document: float
    alike_documents: int
    alike_across: int
    held_documents: int = 0
    held_texts: int = 0

    @property
    def total_bytes(self) -> int:
        """On all sides."""
        return self.train_bytes + self.held_bytes + self.alike_bytes

    @property
    def train_share(self) -> Estimate:
        """Of the text that was read, the share that is trained on."""
        share = self.train_bytes / max(1, self.total_bytes)
        return Estimate(value=share, low=share, high=share)


def passage_chars(text_bytes: float, *, least: int = FEWEST_CHARS) -> int:
    """At how many characters documents of a source are cut, so that HELD_OUT_DOCUMENTS passages are a small share of it."""
    wanted = USUAL_SHARE * text_bytes / HELD_OUT_DOCUMENTS
    return min(PASSAGE_CHARS, max(least, int(wanted) // 1000 * 1000))


def validation_for(text_bytes: Mapping[str, float], documents: Mapping[str, float]) -> Validation:
    """How much is held out: enough for an error bar of the source with the most text, at most a tenth. documents: by source; passages
    count each."""
    least, most = HELD_OUT_SHARE
    largest = max(text_bytes, key=lambda name: text_bytes[name], default="")
    wanted = max(
        HELD_OUT_BYTES / max(1.0, text_bytes.get(largest, 1.0)),
        HELD_OUT_DOCUMENTS / max(1.0, documents.get(largest, 1.0)),
    )
    return Validation(fraction=round(min(max(wanted, least), most), 3), min_bytes=LEAST_HELD_OUT_BYTES)


def split_of(
    selected: Path, source: str, *, left_bytes: int, units: Mapping[str, int], sources: Sequence[str], read: ReadFiles
) -> Split:
    """Of what the step select left in its folder. left_bytes: of the source before the split. units: source → its number of units
    that were drawn by chance; the shards that follow are large pieces. read: how the source was read."""
    sizes = {
        side: document_bytes(sorted((selected / source).glob(f"{side}-*.parquet"))) for side in ("train", "validation")
    }
    train, held_bytes = (int(some.sum()) for some in sizes.values())
    all_sizes = np.concatenate([*sizes.values()]).astype(float)
    unit_of = {
        (name, row): (name, number)
        for name in sources
        for number, rows in _rows(selected, name, "validation", ["id"])
        for row in rows["id"]
    }
    alike = [
        ((source, number), unit_of.get((_source_in(detail), held_id)))
        for number, rows in _rows(selected, source, "rejected", ["reason", "duplicate_of", "detail"])
        for reason, held_id, detail in zip(rows["reason"], rows["duplicate_of"], rows["detail"], strict=True)
        if reason == "near_validation"
    ]
    held = [
        text_of(id, origin, read)
        for _, rows in _rows(selected, source, "validation", ["id", "origin"])
        for id, origin in zip(rows["id"], rows["origin"], strict=True)
    ]
    by_chance = [a != b and not (b is not None and _is_large(a, units) and _is_large(b, units)) for a, b in alike]
    return Split(
        train_bytes=train,
        held_bytes=held_bytes,
        alike_bytes=max(0, left_bytes - train - held_bytes),
        typical_document=float((all_sizes**2).sum() / max(1.0, all_sizes.sum())),
        alike_documents=len(alike),
        alike_across=sum(by_chance),
        held_documents=len(held),
        held_texts=len(set(held)),
    )


def train_share(found: Split, rules: Validation, *, num_bytes: float, share_read: float) -> Estimate:
    """Of a source's text that is no copy, the share that is trained on, where all of it has so many bytes."""
    wanted = wanted_bytes(round(num_bytes), rules)
    middle, most = (
        min(wanted + some * found.typical_document, num_bytes / 2) / max(1.0, num_bytes) for some in (0.5, OVERSHOOT)
    )
    least = wanted / max(1.0, num_bytes)
    alike, fewest, most_alike = _alike_share(found, share_read)
    return Estimate(
        value=(1 - middle) * (1 - alike), low=(1 - most) * (1 - most_alike), high=(1 - least) * (1 - fewest)
    )


def _alike_share(found: Split, share_read: float) -> tuple[float, float, float]:
    """Of the text that is not held out, the share that leaves: estimate, least and most."""
    rest = max(1, found.train_bytes + found.alike_bytes)
    seen = found.alike_bytes / rest
    across = seen * found.alike_across / max(1, found.alike_documents)
    each = max(1.0, found.typical_document) / rest  # documents of one size that vary as much as these
    number = across / each
    shares = [
        1 - (1 - seen + across) * (1 - min(0.99, count * each)) ** (1 / max(share_read, 1e-3))
        for count in (number, *(float(gamma.ppf(level, number + 0.5)) for level in LEVEL))
    ]
    return shares[0], min(shares[1], seen), shares[2]


def _is_large(unit: tuple[str, int], units: Mapping[str, int]) -> bool:
    source, number = unit
    return number >= units[source]


def _source_in(detail: str) -> str:
    """The source that the evidence of a rejected document names."""
    return detail.removeprefix("validation text of source ").partition(",")[0]


def _rows(selected: Path, source: str, stem: str, columns: list[str]) -> list[tuple[int, dict[str, list[str]]]]:
    """(number of the shard, columns) of each of its files."""
    paths = sorted((selected / source).glob(f"{stem}-*.parquet"))
    return [(int(path.stem.rpartition("-")[2]), pq.read_table(path, columns=columns).to_pydict()) for path in paths]
