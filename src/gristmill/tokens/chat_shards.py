"""Conversations encoded once: a token shard with two files beside it, mapped into memory, read as batches of any conversations.

    chats/tokens.{bin,index,json}    shards.py; a document is the ids of a conversation and one eos id, which no batch contains
    chats/mask.bin                   one bit for each token of tokens.bin, most significant first: 1 where it counts for the loss
    chats/kinds.bin                  uint16 little-endian, one for each conversation: its place in the sidecar's `kinds`
    chats/chats.json                 what it was made from, counts, sha256 of mask and kinds; written last

Conversations longer than `seq_len` are left out and counted. Memory does not grow with the number of conversations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gristmill.errors import ArtifactError, Interrupted
from gristmill.store.durable import file_sha256, flush_to_disk, out_of_space_is_a_resource_error, read_json, write_json
from gristmill.store.jsonl import numbered_objects
from gristmill.tokens.batch import Batch, empty_batch, positions_within
from gristmill.tokens.chat import encode_conversations
from gristmill.tokens.shards import ShardWriter, TokenShard, map_file
from gristmill.tokens.tokenizer import Tokenizer

FORMAT_VERSION = 1
_TOKENS, _MASK, _KINDS, _SIDECAR = "tokens", "mask.bin", "kinds.bin", "chats.json"
_ROWS = 512  # conversations encoded together


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What a chat shard is made from; another value of any field is another shard."""

    rows_sha256: str
    tokenizer_sha256: str
    seq_len: int
    format_version: int = FORMAT_VERSION


class ChatShard:
    """A finished shard. `kinds` are the names that `Batch.source_N` numbers; `too_long` counts what was left out."""

    def __init__(self, folder: Path) -> None:
        """Raises ArtifactError when a file is missing or not what its sidecar says; every byte is read."""
        self.folder = folder
        facts = read_json(folder / _SIDECAR)
        self.origin = Origin(**facts["origin"])
        self.kinds: list[str] = facts["kinds"]
        self.too_long: int = facts["too_long"]
        self._tokens = TokenShard(folder / _TOKENS)
        self.num_conversations = self._tokens.num_documents
        self._mask = map_file(folder / _MASK, np.dtype("u1"), -(-self._tokens.num_tokens // 8))
        self._kind = map_file(folder / _KINDS, np.dtype("<u2"), self.num_conversations)
        self._tokens.verify()
        for name in (_MASK, _KINDS):
            if file_sha256(folder / name) != facts["sha256"][name]:
                raise ArtifactError(f"{folder / name} does not have the SHA-256 of its sidecar: it was damaged.")

    def batch(self, numbers: NDArray[np.int64]) -> Batch:
        """The conversations of these numbers as one flat batch, as `chat_batch` makes it; `source_N` is the kind."""
        ends = self._tokens.document_ends[numbers].astype(np.int64) - 1  # without the eos id
        starts = np.where(numbers > 0, self._tokens.document_ends[numbers - 1], 0).astype(np.int64)
        lengths = ends - starts - 1
        batch = empty_batch(lengths)
        batch.positions_N[:] = positions_within(lengths)
        batch.source_N[:] = np.repeat(self._kind[numbers], lengths)
        stop = 0
        for start, end in zip(starts.tolist(), ends.tolist()):
            here = slice(stop, stop := stop + end - start - 1)
            batch.tokens_N[here] = self._tokens.tokens[start : end - 1]
            batch.targets_N[here] = self._tokens.tokens[start + 1 : end]
            bits = np.unpackbits(self._mask[(start + 1) // 8 : (end + 7) // 8])
            batch.loss_mask_N[here] = bits[(start + 1) % 8 :][: end - start - 1]
        return batch


def encode_once(
    rows: Path,
    folder: Path,
    *,
    tokenizer: Tokenizer,
    tokenizer_sha256: str,
    seq_len: int,
    should_stop: Callable[[], bool] = lambda: False,
) -> ChatShard:
    """The shard of the JSONL file `rows` ({id, kind, messages} a line) in `folder`: the one that is there, or a new one.

    A shard of other rows, of another tokenizer or seq_len, or a damaged one is rebuilt. Raises DataError, naming the
    conversation, as `encode_chat` does, and Interrupted when asked to stop.
    """
    origin = Origin(rows_sha256=file_sha256(rows), tokenizer_sha256=tokenizer_sha256, seq_len=seq_len)
    found = _finished(folder, origin)
    if found is None:
        _encode(rows, folder, origin, tokenizer, should_stop)
        found = ChatShard(folder)
    return found


def _finished(folder: Path, origin: Origin) -> ChatShard | None:
    try:
        shard = ChatShard(folder)
    except (ArtifactError, KeyError, TypeError):
        return None
    return shard if shard.origin == origin else None


def _encode(rows: Path, folder: Path, origin: Origin, tokenizer: Tokenizer, should_stop: Callable[[], bool]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _SIDECAR).unlink(missing_ok=True)
    writer = ShardWriter(
        folder / _TOKENS,
        tokenizer_sha256=origin.tokenizer_sha256,
        vocab_size=tokenizer.vocab_size,
        eos_id=tokenizer.eos_id,
    )
    kinds: dict[str, int] = {}
    too_long = 0
    waiting = np.zeros(0, dtype=bool)  # bits that do not fill a byte yet
    with (
        out_of_space_is_a_resource_error(folder),
        writer,
        (folder / _MASK).open("wb") as masks,
        (folder / _KINDS).open("wb") as kind_file,
    ):
        for part in _parts(rows):
            if should_stop():
                raise Interrupted("stopped while encoding the conversations; the next run encodes them again")
            encoded = encode_conversations(tokenizer, [(row["id"], row["messages"]) for row in part])
            fitting = [number for number, chat in enumerate(encoded) if chat.num_tokens <= origin.seq_len]
            too_long += len(part) - len(fitting)
            chats = [encoded[number] for number in fitting]
            writer.add_many(
                [chat.ids for chat in chats], num_bytes=sum(tokenizer.num_bytes(chat.ids) for chat in chats)
            )
            bits = np.concatenate([waiting, *(np.append(chat.mask > 0, False) for chat in chats)])
            whole = len(bits) // 8 * 8
            masks.write(np.packbits(bits[:whole]).tobytes())
            waiting = bits[whole:]
            numbers = [kinds.setdefault(part[number]["kind"], len(kinds)) for number in fitting]
            kind_file.write(np.array(numbers, dtype="<u2").tobytes())
        masks.write(np.packbits(waiting).tobytes())
    for name in (_MASK, _KINDS):
        flush_to_disk(folder / name)
    facts = {
        "origin": asdict(origin),
        "kinds": list(kinds),
        "too_long": too_long,
        "sha256": {name: file_sha256(folder / name) for name in (_MASK, _KINDS)},
    }
    write_json(folder / _SIDECAR, facts)


def _parts(rows: Path) -> Iterator[list[dict[str, Any]]]:
    objects = (row for _, row in numbered_objects(rows))
    while part := list(islice(objects, _ROWS)):
        yield part
