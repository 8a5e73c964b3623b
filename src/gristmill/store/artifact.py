"""The one commit protocol: an artefact is absent or complete, never in between.

    work in  X.partial/  →  hash and fsync every file  →  manifest.json, record.json  →  fsync folder  →  rename to X/

`manifest.json` holds size and SHA-256 of every file. `record.json` says how the artefact came to be: resolved config of the
step, fingerprint, inputs, counts, seed, versions, command, wall time. A folder without both is not an artefact.
Checkpoints use the same functions with their own record.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any

from gristmill.errors import ArtifactError
from gristmill.store.durable import (
    TEMPORARY_SUFFIX,
    file_sha256,
    flush_to_disk,
    out_of_space_is_a_resource_error,
    read_json,
    write_json,
)

MANIFEST = "manifest.json"
RECORD = "record.json"
PARTIAL_SUFFIX = ".partial"
FILES_AT_ONCE = 4  # hashed, or flushed to the disk; Python holds no lock meanwhile


def write_manifest(folder: Path, known: Mapping[str, str] = MappingProxyType({})) -> dict[str, dict[str, Any]]:
    """Hash and fsync every file below `folder`, write `manifest.json`, return its entries. known: hashes that whoever wrote a file
    took of what was written, by name.

    What a killed writer left is removed first, so that it does not become part of the artefact.
    """
    remove_leftovers(folder)
    paths = [path for path in sorted(folder.rglob("*")) if path not in (folder / MANIFEST, folder / RECORD)]
    files = [path for path in paths if not path.is_dir()]
    with out_of_space_is_a_resource_error(folder):
        with ThreadPoolExecutor(FILES_AT_ONCE) as threads:  # the disk takes a file while it, and others, are hashed
            flushed = threads.map(flush_to_disk, paths)
            digests = threads.map(
                lambda path: known.get(path.relative_to(folder).as_posix()) or file_sha256(path), files
            )
            list(flushed)  # raises what a flush raised
        entries = {
            path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": digest}
            for path, digest in zip(files, digests, strict=True)
        }
        write_json(folder / MANIFEST, entries)
        flush_to_disk(folder)
    return entries


def remove_leftovers(folder: Path) -> None:
    """Removes the temporary files of killed writers below `folder`. Only while nobody writes there."""
    for leftover in [path for path in folder.rglob(f"*{TEMPORARY_SUFFIX}") if path.is_file()]:
        leftover.unlink()


def verify_manifest(folder: Path, *, hashes: bool = True, but: Callable[[str], bool] = lambda name: False) -> None:
    """Raise ArtifactError unless every file of the manifest is there with its size and, if asked, its hash. but: files whose hash is not
    compared, because who reads them does."""
    entries = read_json(folder / MANIFEST)
    for name, entry in entries.items():
        path = folder / name
        if entry.keys() != {"bytes", "sha256"}:
            raise ArtifactError(f"{folder / MANIFEST} is damaged: its entry of {name} does not hold bytes and sha256.")
        if not path.is_file():
            raise ArtifactError(f"{path} is missing.")
        if path.stat().st_size != entry["bytes"]:
            raise ArtifactError(f"{path} has {path.stat().st_size:,} bytes; its manifest says {entry['bytes']:,}.")
    compared = [name for name in entries if hashes and not but(name)]
    with ThreadPoolExecutor(FILES_AT_ONCE) as threads:
        digests = threads.map(file_sha256, [folder / name for name in compared])
        for name, digest in zip(compared, digests, strict=True):
            if digest != entries[name]["sha256"]:
                raise ArtifactError(
                    f"{folder / name} does not have the SHA-256 of its manifest: its content has changed."
                )


def commit(
    working: Path,
    final: Path,
    record: Mapping[str, Any] | None = None,
    *,
    manifest: Mapping[str, Mapping[str, Any]] | None = None,
    known: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Turn the working folder into the artefact `final`. With a record, it is written after the manifest. known: see `write_manifest`.

    Raises ArtifactError when `final` exists: nothing is ever overwritten; and when the files are not those of `manifest`, which are
    then removed, so that another attempt makes them anew.
    """
    if final.exists():
        raise ArtifactError(f"{final} exists already; an artefact is never overwritten.")
    with out_of_space_is_a_resource_error(final):
        found = write_manifest(working, known)
        if manifest is not None:
            _remove_others(working, found, manifest)
        if record is not None:
            write_json(working / RECORD, record)
        flush_to_disk(working)
        final.parent.mkdir(parents=True, exist_ok=True)
        working.rename(final)
        flush_to_disk(final.parent)


def _remove_others(
    working: Path, found: Mapping[str, Mapping[str, Any]], manifest: Mapping[str, Mapping[str, Any]]
) -> None:
    others = [name for name, entry in found.items() if manifest.get(name) != entry]
    for name in others:
        (working / name).unlink()
    if wrong := [*others, *(name for name in manifest if name not in found)]:
        raise ArtifactError(
            f"{working / wrong[0]} does not have the bytes that its manifest names ({len(wrong):,} of {len(manifest):,} files).\n"
            "  It was removed here. Run the same command again; where it stays so, the copy that it came from is damaged."
        )


def is_committed(folder: Path) -> bool:
    """True when the folder went through `commit` with a record."""
    return (folder / RECORD).is_file() and (folder / MANIFEST).is_file()


def make_read_only(folder: Path) -> None:
    """No file below a committed `folder` can be written to by mistake, and who can read its manifest can read them all: some writers leave
    files to their owner only. Folders stay writable, so that `rm -r` works."""
    readers = (folder / MANIFEST).stat().st_mode & 0o444
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(path.stat().st_mode & 0o555 | readers)


def working_folder(final: Path) -> Path:
    """Where the artefact `final` is made."""
    return final.with_name(final.name + PARTIAL_SUFFIX)


def note_beside(working: Path) -> Path:
    """Where the note of a working folder is."""
    return working.with_name(f"{working.name}.json")


def open_working_folder(final: Path, fingerprint: str) -> Path:
    """The folder to work in for `final`. What a killed attempt left is kept if it had the same fingerprint.

    The note beside it names the fingerprint; whatever else a caller noted there for this fingerprint stays.
    """
    working = working_folder(final)
    note = note_beside(working)
    noted = _read_note(note) if working.exists() else {}
    if noted.get("fingerprint") != fingerprint:
        noted = {}
        note.unlink(missing_ok=True)  # first: half a folder must not pass for what the old note says it is
        if working.exists():
            shutil.rmtree(working)
    working.mkdir(parents=True, exist_ok=True)
    write_json(note, {**noted, "fingerprint": fingerprint})
    return working


def _read_note(note: Path) -> dict[str, Any]:
    """What a note says; nothing when there is none, or a damaged one."""
    try:
        found = read_json(note)
    except ArtifactError:
        return {}
    return found if isinstance(found, dict) else {}


def close_working_folder(final: Path) -> None:
    """Remove the note that `open_working_folder` left beside the working folder, and what killed writers left of it."""
    note = note_beside(working_folder(final))
    for path in (note, *note.parent.glob(f"{note.name}.*{TEMPORARY_SUFFIX}")):
        path.unlink(missing_ok=True)
