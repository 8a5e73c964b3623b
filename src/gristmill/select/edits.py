"""What the documents of a shard lose of their text, as the function that writes them asks: the text that is left, and each unit that went.

A document with fewer words left than a unit must have says nothing of its own and is dropped; any other one is kept. So is one whose
few words are very long: in Khmer, Burmese and Tibetan, blanks part sentences.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.data.ledger import EXCERPT_CHARACTERS
from gristmill.select.files import Array
from gristmill.select.outputs import TextTaken
from gristmill.select.reasons import Named, Rejection, only_repeated
from gristmill.select.repeated import Repeated
from gristmill.select.units import num_words, units_of, without

WORD_CHARACTERS = 30  # more than words have on average, in languages that part them

EDITED_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("unit", pa.int32(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("kept_by", pa.string(), nullable=False),
        pa.field("kept_in", pa.string(), nullable=False),
        pa.field("held_out", pa.bool_(), nullable=False),
        pa.field("excerpt", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Edit:
    """One document: the text that is left, why it is dropped for that or None, and a row of EDITED_SCHEMA for each unit that went.

    reason: of the edit, in the ledger. num_bytes: of the whole text. lost_bytes: of what went, white space between units too.
    """

    reason: str
    text: str
    num_bytes: int
    lost_bytes: int
    why: Rejection | None
    rows: list[dict[str, Any]]

    def share_of(self, payload_bytes: int) -> int:
        """The part of the payload that the lost text stands for: the share that it had of the text, in whole bytes."""
        return payload_bytes * self.lost_bytes // self.num_bytes

    @property
    def taken(self) -> TextTaken:
        """What training text has less."""
        if self.why is not None:
            return TextTaken(dropped_documents=1, dropped_bytes=self.num_bytes)
        return TextTaken(edited_documents=1, edited_units=len(self.rows), edited_bytes=self.lost_bytes)


class Edits:
    """The edits of one shard: what `lost_by` of it says, by row."""

    def __init__(self, repeated: Repeated, lost: Array, named: Callable[[int], Named]) -> None:
        """named: the id and source of a document that keeps a unit."""
        self._rules = repeated.rules
        self._named = named
        self._lost = by_row(lost)

    def of(self, place: int, row: Mapping[str, Any]) -> Edit | None:
        """What the document in this row of the shard loses; None where it loses nothing."""
        lost = self._lost.get(place)
        if lost is None:
            return None
        text: str = row["text"]
        spans = units_of(text, self._rules.unit)
        left = without(text, spans, set(lost["unit"].tolist()))
        words = num_words(left)
        rows = [
            self._row(row, one["unit"], text[slice(*spans[one["unit"]])], one["owner"], held_out=one["is_held"])
            for one in (dict(zip(lost.dtype.names or (), values)) for values in lost.tolist())
        ]
        num_bytes = len(text.encode())
        return Edit(
            reason=f"repeated_{self._rules.unit}",
            text=left,
            num_bytes=num_bytes,
            lost_bytes=num_bytes - len(left.encode()),
            why=self._why(words, lost) if says_nothing(left, words, min_words=self._rules.min_words) else None,
            rows=rows,
        )

    def _row(self, row: Mapping[str, Any], number: int, unit: str, owner: int, *, held_out: bool) -> dict[str, Any]:
        keeper = self._named(owner)
        return {
            "id": row["id"],
            "source": row["source"],
            "unit": number,
            "bytes": len(unit.encode()),
            "kept_by": keeper.id,
            "kept_in": keeper.source,
            "held_out": held_out,
            "excerpt": unit[:EXCERPT_CHARACTERS],
        }

    def _why(self, words: int, lost: Array) -> Rejection:
        return only_repeated(
            words,
            min_words=self._rules.min_words,
            num_units=len(lost),
            unit=self._rules.unit,
            keeper=self._named(keeper_of(lost)),
        )


def by_row(lost: Array) -> dict[int, Array]:
    """Rows of LOST, which are sorted, by the row of their document."""
    rows, starts = np.unique(lost["row"], return_index=True)
    return dict(zip(rows.tolist(), np.split(lost, starts[1:])))


def says_nothing(left: str, words: int, *, min_words: int) -> bool:
    """Whether what is left of a document, so many words, is too little to stay. min_words: of a unit."""
    return words < min_words and len(left) < WORD_CHARACTERS * min_words


def keeper_of(lost: Array) -> int:
    """The document that keeps most of the units that one document lost."""
    ((owner, _),) = Counter(lost["owner"].tolist()).most_common(1)
    return int(owner)
