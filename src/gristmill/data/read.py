"""The readers: one function per format, from a file to raw documents. WARC has a file of its own, `warc.py`.

Every reader yields, in the order of the file, a RawDocument or an Unread for each record it meets, so that the ledger
can add up; nothing is skipped in silence. A file that is not of its format at all raises DataError with its path.
Readers take a span where their format can be entered in the middle: bytes of a plain JSONL file, row groups of a
Parquet file. The spans of a file, read apart, give each record once.
"""

from __future__ import annotations

import gzip
import itertools
import json
import math
import re
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

import pyarrow as pa

from gristmill.data.charset import decode
from gristmill.data.document import open_parquet
from gristmill.data.record import MAX_DOCUMENT_BYTES, Fate, RawDocument, Unread, failed
from gristmill.errors import DataError

MAX_TEXT_FILE_BYTES = 256_000_000
MAX_CODE_FILE_BYTES = 1_000_000
HTML_SUFFIXES = (".html", ".htm", ".xhtml")
SPDX = re.compile(r"SPDX-License-Identifier:[ \t]*([\w.+() :-]{0,200}[\w+)])", re.ASCII)
SPDX_LINES = 20

LANGUAGES = {
    **dict.fromkeys((".c", ".h"), "c"),
    **dict.fromkeys((".cc", ".cpp", ".cxx", ".hh", ".hpp"), "cpp"),
    **dict.fromkeys((".js", ".mjs", ".cjs", ".jsx"), "javascript"),
    **dict.fromkeys((".ts", ".tsx"), "typescript"),
    **dict.fromkeys((".sh", ".bash"), "shell"),
    **dict.fromkeys((".hs", ".lhs"), "haskell"),
    **dict.fromkeys((".ml", ".mli"), "ocaml"),
    **dict.fromkeys((".pl", ".pm"), "perl"),
    **dict.fromkeys((".f", ".f90", ".f95"), "fortran"),
    **dict.fromkeys((".md", ".markdown"), "markdown"),
    ".py": "python",
    ".java": "java",
    ".go": "go",
    ".rs": "rust",
    ".rb": "ruby",
    ".php": "php",
    ".cs": "csharp",
    ".swift": "swift",
    ".kt": "kotlin",
    ".scala": "scala",
    ".lua": "lua",
    ".r": "r",
    ".jl": "julia",
    ".sql": "sql",
    ".el": "elisp",
    ".lisp": "lisp",
    ".scm": "scheme",
    ".erl": "erlang",
    ".ex": "elixir",
    ".zig": "zig",
    ".css": "css",
}


def read_html(path: Path, *, name: str, max_bytes: int = MAX_DOCUMENT_BYTES) -> Iterator[RawDocument | Unread]:
    """One HTML file, or every .html, .htm and .xhtml file below a folder, by name."""
    files = (
        [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.suffix.lower() in HTML_SUFFIXES)
    )
    for file in files:
        label = name if file == path else f"{name}/{file.relative_to(path).as_posix()}"
        size = file.stat().st_size
        if size > max_bytes:
            yield failed(label, "file_too_large", bytes_in=size, detail=f"the limit is {max_bytes:,} bytes")
        else:
            payload = file.read_bytes()
            yield RawDocument(id=label, origin=f"{label}#0", bytes_in=len(payload), payload=payload)


# ── JSONL ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def read_jsonl(
    path: Path,
    *,
    name: str,
    text_field: str = "text",
    id_field: str | None = None,
    url_field: str | None = None,
    start: int = 0,
    end: int | None = None,
    max_bytes: int = MAX_DOCUMENT_BYTES,
) -> Iterator[RawDocument | Unread]:
    """One JSON object a line, plain or gzip; blank lines are not records.

    Fails, one line each: bad_json (NaN and Infinity included), line_too_large, missing_field, field_is_not_text;
    and corrupt_gzip once for all that follows a damaged place. Without `id_field` the id is "name#offset", the byte at
    which the line begins (after unpacking): unlike its number, it is known without reading what comes before.
    `start` and `end` are byte offsets of a plain file: lines that begin in [start, end) are read.
    """
    packed = path.suffix == ".gz"
    assert not (packed and (start or end is not None)), "a gzip file has no spans"
    with _open(path, packed) as file:
        offset = _seek_to_line(file, start) if start else 0
        try:
            while end is None or offset < end:
                line = file.readline(max_bytes + 1)
                if not line:
                    return
                length = len(line)
                too_large = length > max_bytes and not line.endswith(b"\n")
                if too_large:
                    length += _skip_line(file)
                origin, offset = f"{name}#{offset}", offset + length
                if too_large:
                    yield failed(origin, "line_too_large", bytes_in=length, detail=f"the limit is {max_bytes:,} bytes")
                elif line.strip():
                    yield _json_document(line, origin, text_field, id_field, url_field)
        except (OSError, EOFError, zlib.error) as error:
            if not packed:
                raise
            yield failed(f"{name}#{offset}", "corrupt_gzip", bytes_in=0, detail=str(error))


def _open(path: Path, packed: bool) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path, "rb")) if packed else path.open("rb")


def _seek_to_line(file: IO[bytes], start: int) -> int:
    """Moves to the first line that begins at or after byte `start`; returns its offset."""
    file.seek(start - 1)
    return start - 1 + _skip_line(file)


def _skip_line(file: IO[bytes]) -> int:
    """Reads to the end of the line in pieces and returns how many bytes that were."""
    skipped = 0
    while piece := file.readline(1 << 20):
        skipped += len(piece)
        if piece.endswith(b"\n"):
            break
    return skipped


def _json_document(
    line: bytes, origin: str, text_field: str, id_field: str | None, url_field: str | None
) -> RawDocument | Unread:
    try:
        value = json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        return failed(origin, "bad_json", bytes_in=len(line), detail=str(error) or type(error).__name__)
    if not isinstance(value, dict):
        return failed(
            origin, "bad_json", bytes_in=len(line), detail=f"expected an object, found {type(value).__name__}"
        )
    for field in (text_field, id_field):
        if field is not None and field not in value:
            detail = f"no {field!r}; the line has {', '.join(map(repr, list(value)[:20]))}"
            return failed(origin, "missing_field", bytes_in=len(line), detail=detail)
    if id_field is not None and value[id_field] is None:
        return failed(origin, "missing_field", bytes_in=len(line), detail=f"{id_field!r} is null")
    text, url = value[text_field], value.get(url_field) if url_field is not None else None
    if not isinstance(text, str):
        return failed(origin, "field_is_not_text", bytes_in=len(line), detail=f"{text_field!r} is {_short(text)}")
    id = origin if id_field is None else str(value[id_field])
    return RawDocument(id=id, origin=origin, bytes_in=len(line), text=text, url=url if isinstance(url, str) else None)


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _short(value: Any) -> str:
    return repr(value)[:80]


# ── Parquet ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def read_parquet(
    path: Path,
    *,
    name: str,
    text_column: str = "text",
    id_column: str | None = None,
    url_column: str | None = None,
    start: int = 0,
    end: int | None = None,
    max_bytes: int = MAX_DOCUMENT_BYTES,
) -> Iterator[RawDocument | Unread]:
    """The rows of a Parquet file; `start` and `end` are row groups, as a half-open range.

    Raises DataError when the file is not Parquet or lacks a named column. A row group that cannot be read is
    counted as failed row by row (corrupt_row_group) and the next one is read.
    """
    columns = [column for column in (text_column, id_column, url_column) if column is not None]
    with open_parquet(path) as file:
        present = file.schema_arrow.names
        if missing := [column for column in columns if column not in present]:
            raise DataError(
                f"{path} has no column {', '.join(map(repr, missing))}; its columns are {', '.join(map(repr, present))}."
            )
        row = sum(file.metadata.row_group(group).num_rows for group in range(start))
        for group in range(start, file.num_row_groups if end is None else min(end, file.num_row_groups)):
            done = 0
            try:
                for batch in file.iter_batches(batch_size=256, row_groups=[group], columns=columns):
                    for values in batch.to_pylist():
                        yield _parquet_document(
                            values, f"{name}#{row + done}", text_column, id_column, url_column, max_bytes
                        )
                        done += 1
            except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
                for lost in range(done, file.metadata.row_group(group).num_rows):
                    yield failed(f"{name}#{row + lost}", "corrupt_row_group", bytes_in=0, detail=str(error)[:200])
            row += file.metadata.row_group(group).num_rows


def _parquet_document(
    values: dict[str, Any], origin: str, text_column: str, id_column: str | None, url_column: str | None, max_bytes: int
) -> RawDocument | Unread:
    text, id = values[text_column], values[id_column] if id_column is not None else origin
    if not isinstance(text, str):
        return failed(origin, "field_is_not_text", bytes_in=0, detail=f"{text_column!r} is {_short(text)}")
    size = len(text.encode("utf-8", "surrogatepass"))
    if id is None or (isinstance(id, float) and math.isnan(id)):
        return failed(origin, "missing_field", bytes_in=size, detail=f"{id_column!r} is {id}")
    if size > max_bytes:
        return failed(origin, "row_too_large", bytes_in=size, detail=f"the limit is {max_bytes:,} bytes")
    url = values[url_column] if url_column is not None else None
    return RawDocument(id=str(id), origin=origin, bytes_in=size, text=text, url=url if isinstance(url, str) else None)


# ── plain text ───────────────────────────────────────────────────────────────────────────────────────────────────────


def read_text(
    path: Path,
    *,
    name: str,
    split_at: str | None = None,
    max_bytes: int = MAX_DOCUMENT_BYTES,
    max_file_bytes: int = MAX_TEXT_FILE_BYTES,
) -> Iterator[RawDocument | Unread]:
    """A text file, plain or gzip, whole or cut where the regular expression `split_at` matches at a line's start.

    The text before the first match is a document of its own unless it is blank. Bytes are counted after unpacking,
    and where a file is cut, in UTF-8.
    """
    packed = path.suffix == ".gz"
    with _open(path, packed) as file:
        try:
            data = file.read(max_file_bytes + 1)
        except (OSError, EOFError, zlib.error) as error:
            if not packed:
                raise
            yield failed(f"{name}#0", "corrupt_gzip", bytes_in=path.stat().st_size, detail=str(error))
            return
    if len(data) > max_file_bytes:
        yield failed(f"{name}#0", "file_too_large", bytes_in=len(data), detail=f"the limit is {max_file_bytes:,} bytes")
        return
    text, _ = decode(data)
    if split_at is None:
        pieces = [text]
    else:
        starts = [match.start() for match in re.finditer(f"^(?:{split_at})", text, re.MULTILINE)]
        cuts = sorted({0, *starts, len(text)})
        pieces = [text[a:b] for a, b in itertools.pairwise(cuts)]
    offset = 0
    for number, piece in enumerate(pieces):
        size = len(data) if split_at is None else len(piece.encode("utf-8", "surrogatepass"))
        origin = f"{name}#{offset}"
        id = name if split_at is None else f"{name}#{number}"
        offset += size
        if size > max_bytes:
            yield failed(origin, "text_too_large", bytes_in=size, detail=f"the limit is {max_bytes:,} bytes", id=id)
        elif split_at is None or piece.strip():
            yield RawDocument(id=id, origin=origin, bytes_in=size, text=piece)


# ── source trees ─────────────────────────────────────────────────────────────────────────────────────────────────────


def read_code(
    path: Path, *, name: str, extensions: Sequence[str] | None = None, max_bytes: int = MAX_CODE_FILE_BYTES
) -> Iterator[RawDocument | Unread]:
    """The source files of a folder or a .tar.gz archive, by name, or one source file; `language` follows from the extension,
    `license` is the SPDX expression of the first SPDX_LINES lines.

    Files with another extension than `extensions` (absent: all of LANGUAGES) are dropped as other_extension,
    binary ones as binary_file; too large ones are failed as file_too_large. Links are not followed.
    Nothing is unpacked to the disk.
    """
    wanted = frozenset(LANGUAGES) if extensions is None else frozenset(extension.lower() for extension in extensions)
    is_source = path.is_file() and path.suffix.lower() in LANGUAGES
    if is_source:
        files = _one_file(path, max_bytes)
    else:
        files = _tree_files(path, max_bytes) if path.is_dir() else _archive_files(path, max_bytes)
    for inner, size, data in files:
        origin = f"{name}#0" if is_source else f"{name}#{inner}"
        if isinstance(data, str):
            yield failed(origin, data, bytes_in=size)
            continue
        extension = PurePosixPath(inner).suffix.lower()
        kind: Fate
        if extension not in wanted:
            reason, kind = "other_extension", "dropped"
        elif size > max_bytes:
            reason, kind = "file_too_large", "failed"
        elif b"\0" in data:
            reason, kind = "binary_file", "dropped"
        else:
            text, _ = decode(data)
            language = LANGUAGES.get(extension)
            yield RawDocument(
                id=origin, origin=origin, bytes_in=size, text=text, language=language, license=_own_license(text)
            )
            continue
        yield Unread(id=origin, origin=origin, bytes_in=size, kind=kind, reason=reason, detail=extension)


def _own_license(text: str) -> str | None:
    """The expression after "SPDX-License-Identifier:" in the head of a source file."""
    found = SPDX.search("\n".join(text.split("\n", SPDX_LINES)[:SPDX_LINES]))
    return None if found is None else found[1]


def _one_file(path: Path, max_bytes: int) -> Iterator[tuple[str, int, bytes | str]]:
    """(name, size, content cut after the limit) of a file that is neither folder nor archive."""
    with path.open("rb") as opened:
        yield path.name, path.stat().st_size, opened.read(max_bytes + 1)


def _tree_files(folder: Path, max_bytes: int) -> Iterator[tuple[str, int, bytes | str]]:
    """(name, size, content cut after the limit) of the files below a folder; hidden ones are no part of the tree."""
    for file in sorted(folder.rglob("*")):
        inner = file.relative_to(folder)
        if file.is_symlink() or not file.is_file() or any(part.startswith(".") for part in inner.parts):
            continue
        with file.open("rb") as opened:
            yield inner.as_posix(), file.stat().st_size, opened.read(max_bytes + 1)


def _archive_files(path: Path, max_bytes: int) -> Iterator[tuple[str, int, bytes | str]]:
    """The same of a tar archive, in its order; a text instead of content is the reason why reading stopped."""
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                if member.isfile():
                    opened = archive.extractfile(member)
                    yield member.name, member.size, b"" if opened is None else opened.read(max_bytes + 1)
    except (tarfile.TarError, OSError, EOFError, zlib.error):
        yield "", 0, "corrupt_archive"
