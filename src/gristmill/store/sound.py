"""Whether what a run uses is what was committed: every byte of every file, by the manifests, and those by the records kept beside.

Looking writes nothing. Files that no manifest names are listed too: a step that reads all files of a pattern would read them. A manifest and a
record have one way to be written, so a changed byte shows in them too; in a copy of a run, which has no kept records, a record that was
changed into another sound one does not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from gristmill.errors import ArtifactError
from gristmill.store.artifact import MANIFEST, RECORD
from gristmill.store.durable import read_json
from gristmill.store.store import BEFORE_SUFFIX, CHECKPOINTS, RECORDS, STORE, UNFINISHED_SUFFIX, named_by

CHUNK_BYTES = 1 << 20
CHANGED = "its content is not what was written"


@dataclass(frozen=True, kw_only=True)
class Used:
    """A folder that a run uses. name: its link in the run, such as "tokenize", or of a checkpoint in the lineage, its name in the store."""

    name: str
    folder: Path
    is_checkpoint: bool


@dataclass(frozen=True, kw_only=True)
class Wrong:
    """A file that is not what was committed."""

    of: Used
    path: Path
    problem: str


@dataclass(frozen=True, kw_only=True)
class Found:
    """What was looked at, and what is wrong. not_listed: files beside those that a manifest names; they damage nothing."""

    folders: int
    files: int
    bytes: int
    wrong: tuple[Wrong, ...]
    not_listed: tuple[Path, ...] = ()


def used_by(run_folder: Path) -> list[Used]:
    """What a run links to, and the checkpoints in the lineage of that which are there; a copy's own folders. Unfinished work is not in it."""
    found: dict[Path, Used] = {}
    for path in _folders(run_folder):
        name = path.relative_to(run_folder).as_posix()
        used = Used(name=name, folder=path.resolve(), is_checkpoint=name.startswith(f"{CHECKPOINTS}/"))
        found.setdefault(used.folder, used)
    root = run_folder.absolute().parent / STORE
    for used in list(found.values()):
        for name in _lineage(used.folder / RECORD):
            folder = (root / CHECKPOINTS / name).resolve()
            if folder.is_dir():
                found.setdefault(folder, Used(name=f"{CHECKPOINTS}/{name}", folder=folder, is_checkpoint=True))
    return list(found.values())


def verify(run_folder: Path, *, threads: int, told: Callable[[int, int], None] = lambda done, total: None) -> Found:
    """Reads every file that a run uses. told: bytes read so far, of all; called from several threads."""
    wrong: list[Wrong] = []
    files: list[tuple[Used, Path, str]] = []
    not_listed: list[Path] = []
    used = used_by(run_folder)
    total = 0
    for one in used:
        entries, found = _entries(one, run_folder.absolute().parent / STORE)
        wrong += found
        if entries is None:
            continue
        not_listed += _not_listed(one, entries)
        for name, entry in entries.items():
            path = one.folder / name
            if (problem := _size_problem(path, entry["bytes"])) is not None:
                wrong.append(Wrong(of=one, path=path, problem=problem))
                continue
            files.append((one, path, entry["sha256"]))
            total += entry["bytes"]
    done = 0

    def read(count: int) -> None:
        nonlocal done
        done += count  # a count that is lost between threads shows in a line that is drawn over at once
        told(done, total)

    with ThreadPoolExecutor(threads) as pool:
        problems = pool.map(
            partial(_content_problem, read=read), (path for _, path, _ in files), (sha for *_, sha in files)
        )
        wrong += [
            Wrong(of=one, path=path, problem=problem) for (one, path, _), problem in zip(files, problems) if problem
        ]
    return Found(folders=len(used), files=len(files), bytes=total, wrong=tuple(wrong), not_listed=tuple(not_listed))


def _folders(folder: Path, depth: int = 3) -> Iterator[Path]:
    """The artefacts and checkpoints below a run's folder, links that lead nowhere included."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name.endswith((UNFINISHED_SUFFIX, BEFORE_SUFFIX)):
            continue
        if (path.is_symlink() and named_by(path)) or (path / MANIFEST).is_file() or (path / RECORD).is_file():
            yield path
        elif depth > 1 and path.is_dir() and not path.name.startswith("."):
            yield from _folders(path, depth - 1)


def _lineage(record: Path) -> list[str]:
    try:
        return [entry["checkpoint"] for entry in read_json(record).get("lineage") or ()]
    except (ArtifactError, AttributeError, KeyError, TypeError):
        return []  # told of the record itself


def _not_listed(used: Used, entries: Mapping[str, Any]) -> list[Path]:
    """Files in an artefact's folder that neither its manifest names nor the store writes."""
    own = {used.folder / name for name in (*entries, MANIFEST, *(() if used.is_checkpoint else (RECORD,)))}
    return sorted(
        path for path in used.folder.rglob("*") if path not in own and (path.is_symlink() or not path.is_dir())
    )


def _entries(used: Used, root: Path) -> tuple[dict[str, Any] | None, list[Wrong]]:
    """The manifest of an artefact, None where it is none, and what is wrong with it and with its record."""
    if not used.folder.is_dir():
        return None, [Wrong(of=used, path=used.folder, problem="it is missing")]
    wrong: list[Wrong] = []
    manifest, problem = _plainly_written(used.folder / MANIFEST)
    if problem is None and not _is_manifest(manifest):
        problem = "it does not hold bytes and sha256 of each file"
    if problem is not None:
        wrong.append(Wrong(of=used, path=used.folder / MANIFEST, problem=problem))
    entries = manifest if _is_manifest(manifest) else None
    if used.is_checkpoint:
        return entries, wrong
    record, problem = _plainly_written(used.folder / RECORD)
    if problem is not None:
        wrong.append(Wrong(of=used, path=used.folder / RECORD, problem=problem))
    elif not wrong and used.folder.is_relative_to(root.resolve()):
        step, identity = used.folder.relative_to(root.resolve()).parent, used.folder.name
        kept = root / RECORDS / step / f"{identity}.json"
        twin, problem = _plainly_written(kept)
        if problem is not None:
            wrong.append(Wrong(of=used, path=kept, problem=problem))
        else:
            kept_manifest = twin.pop("manifest", None) if isinstance(twin, dict) else None
            for name, own, other in ((MANIFEST, manifest, kept_manifest), (RECORD, record, twin)):
                if own != other:
                    problem = f"it differs from what {kept} says: one of the two is not what was written"
                    wrong.append(Wrong(of=used, path=used.folder / name, problem=problem))
    return entries, wrong


def _plainly_written(path: Path) -> tuple[Any, str | None]:
    """What a JSON file holds, and what is wrong with it: a file that `write_json` wrote is what it would write."""
    try:
        content = path.read_bytes()
        value = json.loads(content)
        is_plain = content == (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
    except FileNotFoundError:
        return None, "it is missing"
    except OSError as error:
        return None, f"it cannot be read: {error.strerror}"
    except ValueError:
        return None, CHANGED
    return value, None if is_plain else CHANGED


def _is_manifest(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(entry, Mapping)
        and entry.keys() == {"bytes", "sha256"}
        and isinstance(entry["bytes"], int)
        and isinstance(entry["sha256"], str)
        for entry in value.values()
    )


def _size_problem(path: Path, size: int) -> str | None:
    try:
        found = path.stat().st_size
    except FileNotFoundError:
        return "it is missing"
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    return None if found == size else f"it has {found:,} bytes, expected {size:,}"


def _content_problem(path: Path, sha256: str, *, read: Callable[[int], None]) -> str | None:
    digest = hashlib.sha256()
    try:
        with path.open("rb", buffering=0) as file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
                read(len(chunk))
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    return None if digest.hexdigest() == sha256 else CHANGED
