"""Prompts of a recipe's samples, out of the text and the conversations themselves, so that they are of their language."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gristmill.data.document import read_batches

SAMPLE_DOCUMENTS = 200
SAMPLE_CHARS = 2_000  # of each
MAX_WORD_CHARS = 20
QUESTIONS = 2
MAX_QUESTION_CHARS = 80


def opening_of(shards: Sequence[Path]) -> str:
    """The word that most lines of the first documents of each shard begin with, and a space; empty where none is met twice."""
    each = -(-SAMPLE_DOCUMENTS // max(1, len(shards)))
    found: Counter[str] = Counter()
    for path in shards:
        batch: Any = next(read_batches(path, columns=["text"], batch_rows=each), None)
        for row in batch.to_pylist() if batch is not None else ():
            words = (line.partition(" ")[0] for line in row["text"][:SAMPLE_CHARS].splitlines() if " " in line)
            found.update(word for word in words if len(word) <= MAX_WORD_CHARS and _is_word(word))
    ((word, count),) = found.most_common(1) or [("", 0)]
    return f"{word} " if count > 1 else ""


def first_questions(rows: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """The first short questions of conversations, each once."""
    asked = (next((one["content"] for one in row["messages"] if one["role"] == "user"), "").strip() for row in rows)
    short = (text for text in asked if 0 < len(text) <= MAX_QUESTION_CHARS and "\n" not in text)
    return tuple(dict.fromkeys(short))[:QUESTIONS]


def _is_word(text: str) -> bool:
    return bool(text) and all(unicodedata.category(letter)[0] in "LM" for letter in text)
