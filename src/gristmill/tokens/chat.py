"""Conversations to ids and loss masks, and to flat batches.

One format: ChatML, whose jinja form is `tokenizer.CHAT_TEMPLATE`. Here it is rendered by plain Python, marker by marker,
because a rendered string cannot tell a real `<|im_end|>` from one that somebody typed: contents are encoded as plain text,
and so no content can end its own turn. For every other content the ids equal those of `apply_chat_template`.

    <|im_start|> system \\n … <|im_end|> \\n <|im_start|> assistant \\n Hello ! <|im_end|> \\n
         0         0    0 0      0     0        0           0     0    1  1     1      0       <- mask
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gristmill.errors import DataError
from gristmill.tokens.batch import Batch, positions_within
from gristmill.tokens.tokenizer import Tokenizer

VERSION = 1  # of every step that uses it: rises when the meaning of what it computes changes

ROLES = ("system", "user", "assistant")
_HEADER = "assistant\n"


@dataclass(frozen=True, kw_only=True, eq=False)
class EncodedChat:
    """One conversation. `ids` (n,) int64; `mask` (n,) float32: 1 on assistant contents and the `<|im_end|>` after them."""

    id: str
    ids: NDArray[np.int64]
    mask: NDArray[np.float32]

    @property
    def num_tokens(self) -> int:
        """Tokens that it takes in a batch: one less than its ids, because the last id is a target only."""
        return len(self.ids) - 1


def encode_chat(
    tokenizer: Tokenizer,
    messages: Sequence[Mapping[str, Any]],
    add_generation_prompt: bool = False,
    *,
    conversation_id: str = "",
) -> tuple[list[int], list[int]]:
    """(ids, mask) of one conversation; with `add_generation_prompt` it ends where the assistant is to speak.

    mask is 1 on assistant contents and the `<|im_end|>` that closes them, else 0. Contents are trimmed of white space.
    Raises DataError, naming the conversation, for an unknown role, an empty content, or no assistant message (which only a
    prompt may lack).
    """
    check_conversation(messages, conversation_id=conversation_id, needs_assistant=not add_generation_prompt)
    try:
        header, line_break, *turns = tokenizer.encode_batch([_HEADER, "\n", *map(_turn, messages)])
    except DataError as error:
        raise DataError(f"conversation {conversation_id!r}: {error}") from error
    ids, mask = _assemble(tokenizer, messages, turns, header=header, line_break=line_break)
    if add_generation_prompt:
        ids += [tokenizer.im_start_id, *header]
        mask += [0] * (1 + len(header))
    return ids, mask


def encode_conversations(
    tokenizer: Tokenizer, conversations: Sequence[tuple[str, Sequence[Mapping[str, Any]]]]
) -> list[EncodedChat]:
    """`encode_chat` of (id, messages) pairs, as arrays, with one call of the tokenizer for all."""
    for name, messages in conversations:
        check_conversation(messages, conversation_id=name)
    texts = [_HEADER, "\n", *(_turn(message) for _, messages in conversations for message in messages)]
    try:
        header, line_break, *turns = tokenizer.encode_batch(texts)
    except DataError:
        for name, messages in conversations:
            encode_chat(tokenizer, messages, conversation_id=name)  # raises with the name of the one at fault
        raise
    encoded: list[EncodedChat] = []
    begin = 0
    for name, messages in conversations:
        own = turns[begin : begin + len(messages)]
        begin += len(messages)
        ids, mask = _assemble(tokenizer, messages, own, header=header, line_break=line_break)
        chat = EncodedChat(id=name, ids=np.asarray(ids, dtype=np.int64), mask=np.asarray(mask, dtype=np.float32))
        encoded.append(chat)
    return encoded


def _turn(message: Mapping[str, Any]) -> str:
    return f"{message['role']}\n{message['content'].strip()}"


def _assemble(
    tokenizer: Tokenizer,
    messages: Sequence[Mapping[str, Any]],
    turns: Sequence[list[int]],
    *,
    header: list[int],
    line_break: list[int],
) -> tuple[list[int], list[int]]:
    """Ids and mask of a conversation from the ids of its turns, of the assistant's header and of a line break."""
    ids: list[int] = []
    mask: list[int] = []
    for message, turn in zip(messages, turns, strict=True):
        counted = len(turn) - len(header) if message["role"] == "assistant" else 0
        ids += [tokenizer.im_start_id, *turn, tokenizer.im_end_id, *line_break]
        mask += [0] * (1 + len(turn) - counted) + [1] * counted + [int(counted > 0)] + [0] * len(line_break)
    return ids, mask


def check_conversation(
    messages: Sequence[Mapping[str, Any]], *, conversation_id: str = "", needs_assistant: bool = True
) -> None:
    """Raises DataError when a message lacks a known role or a content, or nothing in the conversation can be learned."""
    where = f"conversation {conversation_id!r}"
    for number, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise DataError(f"{where}: message {number} is {message!r}, expected an object with role and content.")
        role, content = message.get("role"), message.get("content")
        if role not in ROLES:
            raise DataError(f"{where}: message {number} has role {role!r}, expected one of {', '.join(ROLES)}.")
        if not isinstance(content, str) or not content.strip():
            raise DataError(
                f"{where}: message {number} ({role}) has content {content!r}, expected text. Remove the message or the "
                "conversation."
            )
    if not messages:
        raise DataError(f"{where} has no messages.")
    if needs_assistant and all(message["role"] != "assistant" for message in messages):
        raise DataError(f"{where} has no assistant message, so there is nothing to learn from it. Remove it.")


def chat_batch(conversations: Sequence[EncodedChat]) -> Batch:
    """One flat batch: each conversation is one document, its targets are its ids shifted by one.

    The loss mask is that of the target: assistant contents and their `<|im_end|>`. Raises ValueError for no conversations.
    """
    if not conversations:
        raise ValueError("chat_batch needs at least one conversation")
    document_lengths = np.array([chat.num_tokens for chat in conversations], dtype=np.int64)
    return Batch(
        tokens_N=np.concatenate([chat.ids[:-1] for chat in conversations], dtype=np.int32),
        targets_N=np.concatenate([chat.ids[1:] for chat in conversations], dtype=np.int32),
        positions_N=positions_within(document_lengths),
        document_lengths=document_lengths,
        loss_mask_N=np.concatenate([chat.mask[1:] for chat in conversations]),
        source_N=np.zeros(int(document_lengths.sum()), dtype=np.int16),
    )
