"""JSON lines of chat data: reading them with errors that name the line, checking messages, writing in one piece."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gristmill.data.write import atomic_path
from gristmill.errors import DataError

ROLES = ("system", "user", "assistant")


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON lines file. Raises DataError, with file and line, for what is missing, no JSON or no object."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(f"{path} does not exist.") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8: {error}. Convert it.") from error
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}:{number} is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise DataError(f"{path}:{number} holds {type(row).__name__}, expected an object.")
        rows.append(row)
    return rows


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Writes the rows, all or nothing; returns how many there were."""
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    with atomic_path(path) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")
    return len(lines)


def check_messages(messages: Any, *, where: str) -> tuple[dict[str, str], ...]:
    """Role and content of each message. Raises DataError, naming `where`, unless every message has both and one is the assistant's.

    Here early, so that a slip in a hand-written file is found before anything is trained.
    """
    if not isinstance(messages, list) or not messages:
        raise DataError(f"{where}: messages is {messages!r:.80}, expected a list of objects with role and content.")
    plain: list[dict[str, str]] = []
    for number, message in enumerate(messages):
        role, content = (message.get(key) for key in ("role", "content")) if isinstance(message, dict) else (None, None)
        if role not in ROLES or not isinstance(content, str) or not content.strip():
            raise DataError(
                f"{where}: message {number} is {message!r:.120}, expected a role of {', '.join(ROLES)} and a content with text."
            )
        plain.append({"role": role, "content": content})
    if not any(message["role"] == "assistant" for message in plain):
        raise DataError(f"{where}: no message is the assistant's, so there is nothing to learn from it.")
    return tuple(plain)
