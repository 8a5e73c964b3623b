"""Files of the Software Heritage archive by their ids: a table of ids ─→ content, checked by its own hash ─→ Parquet with text.

    files/blobs-*.parquet   the columns of the table and `text`, in the order of the table
    blobs.jsonl             a line per file: its rows, its bytes of content, and which ids failed why

A bare id is the SHA-1 of the content, by which it lies packed in the archive's bucket, and which The Stack v2 calls blob_id
(https://docs.softwareheritage.org, "Contents on S3"). A SWHID, swh:1:cnt:…, is the hash of git, which only the API knows. Either
hash proves the content. A kill costs the blobs of one file.
"""

from __future__ import annotations

import hashlib
import math
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from gristmill.data.charset import decode, is_binary
from gristmill.data.download import Client, RefusedError
from gristmill.data.executor import LocalThreads, results_of
from gristmill.data.id_tables import Row, open_table
from gristmill.data.write import ShardWriter
from gristmill.errors import DataError
from gristmill.graph.progress import Position, Report
from gristmill.store.jsonl import append_jsonl, read_sound, write_jsonl

BLOBS_PER_FILE = 1000
MAX_BLOB_BYTES = 64_000_000
CONNECTIONS = 8
HELD = 8 * CONNECTIONS
TEXT = "text"
_ID = re.compile(r"(swh:1:cnt:)?([0-9a-f]{40})(?:;.*)?")


@dataclass(frozen=True, kw_only=True)
class Blobs:
    """What is fetched. content, api: where blobs lie by SHA-1, and by SWHID."""

    ids: Sequence[Path]
    id_column: str
    encoding_column: str | None
    content: str
    api: str
    max_files: int | None
    max_bytes: int | None

    def address(self, id: str) -> str | None:
        """Where a blob lies; None for what is no id."""
        found = _ID.fullmatch(id)
        if found is None:
            return None
        is_git = found[1] is not None
        return (
            f"{self.api.rstrip('/')}/content/sha1_git:{found[2]}/raw/"
            if is_git
            else f"{self.content.rstrip('/')}/{found[2]}"
        )


def fetch_blobs(
    client: Client, blobs: Blobs, out: Path, *, progress: Report, say: Callable[[str], None]
) -> dict[str, Any]:
    """Fetches what is missing into `out`; returns counts: blobs, content bytes, failed by reason.

    Raises DataError for a table without the ids, or where not one blob could be fetched.
    """
    columns, rows = open_table(blobs.ids, blobs.id_column)
    columns = [column for column in columns if column != TEXT]
    wanted = islice(rows, blobs.max_files)
    log, folder = out / "blobs.jsonl", out / "files"
    done = read_sound(log)
    write_jsonl(log, done)
    folder.mkdir(exist_ok=True)
    for name in {path.name for path in folder.iterdir()} - {entry["file"] for entry in done}:
        (folder / name).unlink()
    for _ in islice(wanted, sum(entry["asked"] for entry in done)):
        pass
    schema = pa.schema([(column, pa.string()) for column in dict.fromkeys([*columns, TEXT])])
    is_full = any(entry["is_full"] for entry in done)
    while not is_full and (group := [*islice(wanted, BLOBS_PER_FILE)]):
        entry = _fetch_group(
            client, blobs, group, folder, number=len(done), schema=schema, before=done, progress=progress
        )
        append_jsonl(log, [entry])
        done.append(entry)
        is_full = entry["is_full"]
    failed = Counter(reason for entry in done for _, reason in entry["failed"])
    num_blobs = sum(entry["rows"] for entry in done)
    listed = ", ".join(f"{count:,} {reason}" for reason, count in sorted(failed.items()))
    if not num_blobs:
        raise DataError(
            f"none of the ids in {', '.join(map(str, blobs.ids))} gives a text: {listed or 'there are none'}.\n"
            "  A bare id is the SHA-1 of the content; write hashes of git as swh:1:cnt:ID."
        )
    say(
        f"Software Heritage: {num_blobs:,} files of {sum(entry['asked'] for entry in done):,} ids; failed: {listed or 'none'}"
    )
    return {
        "blobs": num_blobs,
        "content_bytes": sum(entry["content_bytes"] for entry in done),
        "failed": dict(sorted(failed.items())),
    }


def _fetch_group(
    client: Client,
    blobs: Blobs,
    group: list[Row],
    folder: Path,
    *,
    number: int,
    schema: pa.Schema,
    before: list[dict[str, Any]],
    progress: Report,
) -> dict[str, Any]:
    """Fetches the blobs of one file and writes it; returns its line."""
    earlier, size = sum(entry["asked"] for entry in before), sum(entry["content_bytes"] for entry in before)
    failed = list[tuple[str, str]]()
    path, is_full, content_bytes, asked = folder / f"blobs-{number:05}.parquet", False, 0, 0
    with ShardWriter(path, schema) as writer:
        for row, content in _contents(client, blobs, group):
            id = row[blobs.id_column] or f"row {earlier + asked}"
            if isinstance(content, bytes) and is_binary(content):
                content = "binary"
            if isinstance(content, bytes) and size + content_bytes + len(content) > (blobs.max_bytes or math.inf):
                is_full = True
                break
            asked += 1
            progress(Position(done=earlier + asked, total=blobs.max_files, unit="file"))
            if isinstance(content, str):
                failed.append((id, content))
                continue
            content_bytes += len(content)
            charset = None if blobs.encoding_column is None else row.get(blobs.encoding_column)
            writer.write({**row, TEXT: decode(content, charset)[0]})
    return {
        "file": path.name,
        "asked": asked,
        "rows": writer.num_rows,
        "content_bytes": content_bytes,
        "failed": failed,
        "is_full": is_full,
    }


def _contents(client: Client, blobs: Blobs, group: list[Row]) -> Iterator[tuple[Row, bytes | str]]:
    """The rows in order, each with its content or the reason why there is none; HELD contents at once are in memory."""

    def fetch(place: int) -> bytes | str:
        return read_blob(client, blobs, group[place][blobs.id_column] or "")

    threads = LocalThreads(threads=CONNECTIONS, should_stop=client.should_stop)
    for first in range(0, len(group), HELD):
        found = dict(results_of(threads, fetch, range(first, min(first + HELD, len(group)))))
        yield from ((group[place], found[place]) for place in sorted(found))


def read_blob(client: Client, blobs: Blobs, id: str) -> bytes | str:
    """The content with this id, or the reason why there is none: not_an_id, missing, refused, too_large, another_content."""
    address = blobs.address(id)
    if address is None:
        return "not_an_id"
    try:
        body = client.read(address, max_bytes=MAX_BLOB_BYTES, may_be_gzip=True)
    except RefusedError as error:
        return {200: "too_large", 403: "refused", 404: "missing", 410: "missing"}.get(error.status, "other_answer")
    wanted = id.removeprefix("swh:1:cnt:")[:40]
    if wanted in hashes_of(body):
        return body
    unpacker = zlib.decompressobj(31)
    try:
        content = unpacker.decompress(body, MAX_BLOB_BYTES)
    except zlib.error:
        return "another_content"
    if unpacker.unconsumed_tail:
        return "too_large"
    return content if unpacker.eof and wanted in hashes_of(content) else "another_content"


def hashes_of(content: bytes) -> tuple[str, str]:
    """SHA-1 of the content, and the hash that git gives a blob of it."""
    git = hashlib.sha1(b"blob %d\0" % len(content), usedforsecurity=False)
    git.update(content)
    return hashlib.sha1(content, usedforsecurity=False).hexdigest(), git.hexdigest()
