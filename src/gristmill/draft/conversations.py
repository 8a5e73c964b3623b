"""Chat data for a recipe: a person's own conversations where there are some, else a few that come with gristmill; and sums.

Sums can be judged by a rule, so they give preference pairs; but they must not drown what people say. So each conversation is
listed as often as it takes for all of them to be CONVERSATION_SHARE of what is trained on.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gristmill.data.record import MAX_DOCUMENT_BYTES
from gristmill.errors import DataError
from gristmill.formats.format import format_named
from gristmill.formats.jsonl import value_of
from gristmill.formats.lines import Lines
from gristmill.formats.utf16 import open_as_utf8
from gristmill.recipe.schema.formats import READERS, reader_of
from gristmill.store.jsonl import read_jsonl, write_jsonl
from gristmill.synthesize.rows import check_messages
from gristmill.synthesize.templates import SMALL_SUM_WORDINGS, small_sums

BUILT_IN = Path(__file__).with_name("conversations.jsonl")
FILE_NAME = "conversations.jsonl"
SUMS_UP_TO = 5
CONVERSATION_SHARE = 2 / 3
MESSAGES = "messages"
LINES = "jsonl"


@dataclass(frozen=True, kw_only=True)
class ChatPlan:
    """What chat is trained on. left_out: reason → conversations of the person that cannot be used."""

    conversations: int
    are_own: bool
    copies: int
    sums: int
    left_out: Counter[str]

    @property
    def share(self) -> float:
        """Of the rows, conversations."""
        return self.copies * self.conversations / (self.copies * self.conversations + self.sums)


def write_conversations(folder: Path, files: Sequence[Path]) -> ChatPlan:
    """Writes FOLDER/conversations.jsonl from files whose rows have `messages`, or from what comes with gristmill."""
    left_out: Counter[str] = Counter()
    rows = [row for path in files for row in _own(path, left_out)]
    chosen = rows or [{"id": row["id"], MESSAGES: row[MESSAGES]} for row in read_jsonl(BUILT_IN)]
    write_jsonl(folder / FILE_NAME, ({**row, "id": f"{number:05d}"} for number, row in enumerate(chosen, start=1)))
    sums = len(small_sums(SUMS_UP_TO)) * SMALL_SUM_WORDINGS
    wanted = sums * CONVERSATION_SHARE / (1 - CONVERSATION_SHARE)
    return ChatPlan(
        conversations=len(chosen),
        are_own=bool(rows),
        copies=max(1, math.ceil(wanted / len(chosen))),
        sums=sums,
        left_out=left_out,
    )


def _own(path: Path, left_out: Counter[str]) -> list[dict[str, Any]]:
    """The conversations of a file that can be trained on; the others are counted by reason."""
    rows = []
    for row in _rows(path):
        if row is None:
            left_out["no JSON"] += 1
            continue
        try:
            messages = check_messages(row.get(MESSAGES) if isinstance(row, dict) else None, where=path.name)
        except DataError:
            left_out["no messages with role and content"] += 1
        else:
            rows.append({"id": "", MESSAGES: [*messages]})
    return rows


def _rows(path: Path) -> Iterator[Any]:
    """What the rows of a file say; None for a line that is no JSON."""
    kind = next(kind for kind, reader in READERS.items() if reader is reader_of(path.name))
    if kind != LINES:
        yield from format_named(kind).peek(path, num_rows=sys.maxsize)
        return
    with open_as_utf8(path) as file:
        lines = Lines(file, max_bytes=MAX_DOCUMENT_BYTES)
        while (line := lines.read()) is not None:
            if line.data.strip():
                yield None if line.is_too_large else value_of(line.data)
