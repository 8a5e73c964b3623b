"""JSON lines: the strict reader for all files of one JSON object per line, the readers of logs, and the writers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from gristmill.errors import DataError
from gristmill.store.durable import atomic_path, out_of_space_is_a_resource_error


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The objects of a file, in order. Raises DataError as `numbered_objects` does."""
    return [value for _, value in numbered_objects(path)]


def numbered_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number from 1, object) for each line that is not blank, read line by line.

    Raises DataError, with file and line, for a file that is missing or not UTF-8 and for a line that is not a JSON object.
    """
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, _object(line, where=f"{path}:{number}")
    except FileNotFoundError:
        raise DataError(f"{path} does not exist.") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8: {error}. Convert it.") from error


def read_log(path: Path) -> list[dict[str, Any]]:
    """The objects of a log that is appended to; none when it does not exist.

    A last line without its line break was torn by a kill and is left out; any other fault raises DataError as above.
    """
    return list(_log_objects(path))


def read_sound(path: Path) -> list[dict[str, Any]]:
    """The objects of a log before its first fault: what is left of one that a power cut may have damaged anywhere."""
    found: list[dict[str, Any]] = []
    with suppress(DataError):
        for value in _log_objects(path):
            found.append(value)
    return found


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Writes the rows, all or nothing; returns how many there were."""
    lines = [_line(row) for row in rows]
    with atomic_path(path) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")
    return len(lines)


def append_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Adds the rows to a log in one write."""
    text = "".join(_line(row) for row in rows)
    with out_of_space_is_a_resource_error(path), path.open("a", encoding="utf-8") as file:
        file.write(text)


def _log_objects(path: Path) -> Iterator[dict[str, Any]]:
    if path.exists():
        *lines, _torn = path.read_bytes().decode("utf-8", errors="replace").split("\n")
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield _object(line, where=f"{path}:{number}")


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"


def _object(line: str, *, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where} is not JSON: {error}.") from error
    if not isinstance(value, dict):
        raise DataError(f"{where}: expected an object, found {type(value).__name__}.")
    return value
