"""Files of an object store, or of whatever else fsspec reads by address: what lies there, and one file of it onto the disk.

A file is fetched piece by piece, so that a start after a stop continues at the byte that is missing. It is held against the version (ETag,
generation, else time and size) that the listing had: one that was replaced meanwhile is refused, and never put together of two.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gristmill.data.download import Wanted
from gristmill.data.hub import matches
from gristmill.errors import DataError, Interrupted
from gristmill.store.durable import file_sha256, out_of_space_is_a_resource_error, publish, read_json, write_json
from gristmill.store.remote import Remote
from gristmill.units import in_bytes

PIECE_BYTES = 8_000_000
VERSIONS = ("VersionId", "ETag", "etag", "generation", "md5Hash", "content_md5", "oid", "commit_hash", "mtime", "LastModified", "last_modified", "created")  # fmt: skip
"""Under which names file systems of fsspec tell which version of a file it is, the surest first."""


@dataclass(frozen=True, kw_only=True)
class StoreClient:
    """What all fetches of a step share. count: called with a file's name and how many bytes of it are here."""

    remote: Remote
    should_stop: Callable[[], bool] = lambda: False
    count: Callable[[str, int], None] = lambda name, num_bytes: None

    def fetch(self, wanted: Wanted, path: Path, part: Path, *, max_bytes: int | None = None) -> dict[str, Any]:
        """The file at `path`, complete and flushed; its facts. part: the path at which it grows; beside it its facts.

        Raises DataError where it is another version than was listed, ResourceError where the store is not reached, Interrupted once
        asked to stop.
        """
        note = part.with_name(f"{part.name}.json")
        if path.exists():
            return dict(read_json(note))
        self._check_version(wanted)
        if not note.exists() or read_json(note) != {"url": wanted.url, "validator": wanted.version}:
            part.unlink(missing_ok=True)
            write_json(note, {"url": wanted.url, "validator": wanted.version})
        self._copy(wanted, part)
        self._check_version(wanted)
        facts = {"url": wanted.url, "bytes": part.stat().st_size, "sha256": file_sha256(part), "etag": wanted.version}
        write_json(note, facts)
        path.parent.mkdir(parents=True, exist_ok=True)
        publish(part, path)
        return facts

    def _copy(self, wanted: Wanted, part: Path) -> None:
        total = wanted.num_bytes or 0
        with out_of_space_is_a_resource_error(part), part.open("ab") as file:
            while (have := file.tell()) < total:
                if self.should_stop():
                    raise Interrupted(f"stopped at {in_bytes(have)} of {wanted.name}; what was fetched is kept.")
                piece = self.remote.read_range(wanted.name, have, min(have + PIECE_BYTES, total))
                if not piece:
                    raise DataError(f"{wanted.url} ends at {have:,} bytes; the store says that it has {total:,}.")
                file.write(piece)
                self.count(wanted.name, file.tell())
            file.flush()
            os.fsync(file.fileno())

    def _check_version(self, wanted: Wanted) -> None:
        now = self.remote.entry(wanted.name)
        if wanted.version not in (None, *versions_of(now)) or int(now["size"]) != wanted.num_bytes:
            raise DataError(
                f"{wanted.url} is not the file that was listed when this fetch began: it was replaced.\n"
                "  `gristmill clean --unfinished` removes what was fetched; the next run lists the store anew."
            )


def list_store(remote: Remote, patterns: Sequence[str]) -> tuple[Wanted, ...]:
    """The files that the patterns name, by name. Raises DataError where there is none."""
    found = remote.entries()
    files = tuple(
        Wanted(
            name=name,
            url=f"{remote.address}/{name}",
            num_bytes=int(found[name]["size"]),
            version=version_of(found[name]),
        )
        for name in sorted(found)
        if any(matches(name, pattern) for pattern in patterns)
    )
    if not files:
        some = ", ".join(sorted(found)[:5]) + (f" and {len(found) - 5:,} more" if len(found) > 5 else "")
        raise DataError(f"{remote.address} has no file that {list(patterns)} names; it has {some or 'none'}.")
    return files


def version_of(entry: dict[str, Any]) -> str | None:
    """Which version of a file it is; None where the store does not tell."""
    return next(iter(versions_of(entry)), None)


def versions_of(entry: dict[str, Any]) -> list[str]:
    """All that a store tells of the version of a file, the surest first. Of one file it tells more than in a listing: S3 its VersionId."""
    return [f"{name} {entry[name]}" for name in VERSIONS if entry.get(name) not in (None, "", "null")]
