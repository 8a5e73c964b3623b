"""Files that are absent or complete: written to a temporary neighbour, flushed to the disk, renamed into place.

Each attempt has a temporary file of its own. Two processes that make the same file, because one of them is believed dead, leave one
of two whole files.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gristmill.errors import ArtifactError, ResourceError

TEMPORARY_SUFFIX = ".tmp"  # the only one; what a killed writer left is removed before a folder is committed
OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT)


class AbsentError(ArtifactError):
    """A file is not there."""


class OutOfSpaceError(ResourceError):
    """The disk is full; nothing committed was touched."""


def temporary_beside(path: Path) -> Path:
    """A new name beside `path` for what will become it."""
    return path.with_name(f"{path.name}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside `path` to write to; published when the block ends well, removed otherwise.

    A full disk raises OutOfSpaceError; what lay at `path` before stays.
    """
    temporary = temporary_beside(path)
    try:
        with out_of_space_is_a_resource_error(path):
            yield temporary
            publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def publish(temporary: Path, path: Path) -> None:
    """Flushes `temporary` to the disk, renames it to `path` and flushes the folder."""
    flush_to_disk(temporary)
    os.replace(temporary, path)
    flush_to_disk(path.parent)


def flush_to_disk(path: Path) -> None:
    """fsync of a file or folder. Its error names the path, which the system does not."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Readable JSON, keys in the order they have, atomically and durably."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """UTF-8 text, atomically and durably."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read JSON. Raises ArtifactError when it is damaged, and that kind of it that is AbsentError when it is not there."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AbsentError(f"{path} does not exist.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path} is damaged: {error}. Remove its folder and run again.") from error


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_hashed(path: Path, parts: Iterable[bytes | memoryview]) -> str:
    """Writes the parts one after another and returns the SHA-256 of them all, in hex. Another thread hashes each while it is written."""
    digest = hashlib.sha256()
    with path.open("wb") as file, ThreadPoolExecutor(1) as thread:
        hashing: Future[None] | None = None
        for part in parts:
            before, hashing = hashing, thread.submit(digest.update, part)
            file.write(part)
            if before is not None:
                before.result()  # so that two parts are held, and not all
        if hashing is not None:
            hashing.result()  # raises what hashing the last part raised
    return digest.hexdigest()


@contextlib.contextmanager
def out_of_space_is_a_resource_error(path: Path) -> Iterator[None]:
    """Turn "no space left" into OutOfSpaceError (exit code 75), so that what was saved before stays good."""
    try:
        yield
    except Exception as error:
        if _is_out_of_space(error):
            raise OutOfSpaceError(
                f"the disk is full while writing {path}.\n"
                "  Nothing committed was touched. Free some space and run the same command to resume."
            ) from error
        raise


def _is_out_of_space(error: Exception) -> bool:
    """Libraries written in Rust raise errors of their own, which carry the number only in their text."""
    if isinstance(error, OSError):
        return error.errno in OUT_OF_SPACE
    return any(f"(os error {number})" in str(error) for number in OUT_OF_SPACE)
