"""Chat messages as they come from files: checked before anything is trained on them."""

from __future__ import annotations

from typing import Any

from gristmill.errors import DataError

ROLES = ("system", "user", "assistant")


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
