"""Chat messages as they come from files: checked before anything is trained on them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from gristmill.errors import DataError
from gristmill.store.jsonl import numbered_objects

ROLES = ("system", "user", "assistant")
HALF_CHARACTER = re.compile("[\ud800-\udfff]")  # JSON can name one, UTF-8 cannot hold it


def read_conversations(path: Path, *, first: int | None = None) -> Iterator[tuple[str, tuple[dict[str, str], ...]]]:
    """(id, messages) of each conversation of a file, or of the first so many. Raises DataError, with the line, for a malformed one."""
    seen: set[str] = set()
    for number, row in islice(numbered_objects(path), first):
        name = row.get("id")
        if not isinstance(name, str) or name in seen:
            problem = f"the id {name!r} is used twice" if name in seen else f"the id is {name!r}, expected a text"
            raise DataError(f"{path}:{number}: {problem}.")
        seen.add(name)
        yield name, check_messages(row.get("messages"), where=f"{path}:{number}, conversation {name!r}")


def check_messages(messages: Any, *, where: str) -> tuple[dict[str, str], ...]:
    """Role and content of each message. Raises DataError, naming `where`, unless every message has both and one is the assistant's.

    Here early, so that a slip in a hand-written file is found before anything is trained.
    """
    if not isinstance(messages, list) or not messages:
        raise DataError(f"{where}: messages is {messages!r:.80}, expected a list of objects with role and content.")
    plain: list[dict[str, str]] = []
    for number, message in enumerate(messages):
        role, content = (message.get(key) for key in ("role", "content")) if isinstance(message, dict) else (None, None)
        if role not in ROLES or not isinstance(content, str) or not content.strip() or HALF_CHARACTER.search(content):
            raise DataError(
                f"{where}: message {number} is {message!r:.120}, expected a role of {', '.join(ROLES)} and a content with text, "
                "without halves of characters."
            )
        plain.append({"role": role, "content": content})
    if not any(message["role"] == "assistant" for message in plain):
        raise DataError(f"{where}: no message is the assistant's, so there is nothing to learn from it.")
    return tuple(plain)
