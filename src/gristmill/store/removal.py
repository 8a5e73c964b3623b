"""What may leave the store, and how it leaves.

Held is what a run's folder links to, unfinished work and what it replaces included; the checkpoints in the lineage of a
linked artefact; and whatever a process is making at this moment. The text of a link counts, whether or not its target is
there: a run that was killed between commit and link still holds what it committed. Only links below the runs folder are
looked at.

Removal happens under the exclusive lock and decides anew what is held. A folder leaves by one rename; its files are deleted
after the lock is free. A kill in between leaves a folder in `.trash`, which the next removal deletes.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gristmill.errors import ArtifactError
from gristmill.store.artifact import MANIFEST, PARTIAL_SUFFIX, RECORD, is_committed, note_beside
from gristmill.store.durable import TEMPORARY_SUFFIX, AbsentError, read_json
from gristmill.store.store import CHECKPOINTS, IDENTITY, RECORDS, STORE, TRASH, Store, named_by

Kind = Literal["artefact", "checkpoint", "unfinished"]
_CHECKPOINT = re.compile(r"\d{7,}-[0-9a-f]+(\.damaged-[0-9a-f]+)?")


@dataclass(frozen=True, kw_only=True)
class Removable:
    """A folder of the store that nothing holds.

    step, identity: of a checkpoint, "checkpoints" and its name. seconds: of work, if a record or note tells.
    last_used: seconds since 1970; when it was last linked or worked on.
    """

    kind: Kind
    path: Path
    step: str
    identity: str
    bytes: int
    seconds: float | None
    last_used: float


def removable(store: Store) -> list[Removable]:
    """Everything that nothing holds, least recently used first. Writes nothing."""
    held = held_names(store)
    found: list[Removable] = []
    for kind, path in _folders(store):
        if is_held(store, path, held):
            continue
        try:
            found.append(_look_at(store, kind, path))
        except (FileNotFoundError, AbsentError):
            continue  # another process removed or committed it just now
    return sorted(found, key=lambda item: item.last_used)


def remove(store: Store, items: Iterable[Removable]) -> list[Removable]:
    """Removes those of the items that still nothing holds, and returns them. Their records stay."""
    removed: list[Removable] = []
    with store.locks.exclusive():
        held = held_names(store)
        for item in items:
            if not item.path.is_dir() or is_held(store, item.path, held):
                continue
            if item.kind == "artefact":
                store.keep_record(item.step, item.identity)
            store.discard(item.path)
            if item.kind == "unfinished":
                note_beside(item.path).unlink(missing_ok=True)
            removed.append(item)
        discard_leftovers(store)
        _remove_half_written_records(store)
        for link in [link for link in _links(store) if link.name.endswith(TEMPORARY_SUFFIX)]:
            link.unlink()
    store.empty_trash()
    return removed


def discard_leftovers(store: Store) -> None:
    """Discards checkpoints whose saving was killed. Only under the exclusive lock."""
    for partial in (store.root / CHECKPOINTS).glob(f"*{PARTIAL_SUFFIX}"):
        if not is_held(store, partial, set()):
            store.discard(partial)


def _remove_half_written_records(store: Store) -> None:
    """Only under the exclusive lock: a record is written by who removes or makes its artefact."""
    records = store.root / RECORDS
    for path in records.rglob(f"*{TEMPORARY_SUFFIX}"):
        artefact = store.root / path.relative_to(records).with_name(path.name.partition(".")[0])
        if not store.locks.is_being_made(artefact):
            path.unlink(missing_ok=True)


def held_names(store: Store) -> set[str]:
    """What links and lineage hold, as "step/identity" or "checkpoints/name"."""
    linked: set[str] = set()
    for link in _links(store):
        try:
            name = named_by(link)
        except FileNotFoundError:  # its run withdrew it just now
            continue
        if name is not None and not link.name.endswith(TEMPORARY_SUFFIX):
            linked |= {name, name.removesuffix(PARTIAL_SUFFIX)}
    # A commit renames while this reads: its record is below the first name, or afterwards below the second.
    ordered = sorted(linked, key=lambda name: not name.endswith(PARTIAL_SUFFIX))
    return linked | {held for name in ordered for held in _lineage(store.root / name / RECORD)}


def is_held(store: Store, path: Path, held: set[str]) -> bool:
    """True when a folder of the store is in `held`, or a process is making it."""
    made = path.with_name(path.name.removesuffix(PARTIAL_SUFFIX))
    return path.relative_to(store.root).as_posix() in held or store.locks.is_being_made(made)


def _lineage(record: Path) -> list[str]:
    """The checkpoints that a record names; none when there is no record."""
    try:
        return [f"{CHECKPOINTS}/{entry['checkpoint']}" for entry in read_json(record).get("lineage", [])]
    except AbsentError:
        return []
    except (AttributeError, KeyError, TypeError) as error:
        raise ArtifactError(f"{record} is damaged: its lineage names no checkpoints ({error!r}).") from error


def _links(store: Store) -> Iterator[Path]:
    """Every symbolic link below the runs folder, the store aside."""
    for path in store.runs_dir.iterdir() if store.runs_dir.is_dir() else ():
        if path.name != STORE:
            if path.is_symlink():
                yield path
            if path.is_dir():  # a run's folder may itself be a link to another disk
                yield from _links_below(path)


def _links_below(folder: Path) -> Iterator[Path]:
    """Folders with a manifest, which a copied run has, are not looked into."""
    if (folder / MANIFEST).is_file():
        return
    try:
        paths = list(folder.iterdir())
    except FileNotFoundError:  # a person removed the run just now
        return
    for path in paths:
        if path.is_symlink():
            yield path
        elif path.is_dir():
            yield from _links_below(path)


def _folders(store: Store) -> Iterator[tuple[Kind, Path]]:
    """Every artefact, checkpoint and folder of unfinished work."""
    if not store.root.is_dir():
        return
    for top in store.root.iterdir():
        if top.name == CHECKPOINTS:
            yield from (("checkpoint", path) for path in top.iterdir() if _CHECKPOINT.fullmatch(path.name))
        elif top.name not in (RECORDS, TRASH) and top.is_dir():
            yield from _of_steps(top)


def _of_steps(folder: Path) -> Iterator[tuple[Kind, Path]]:
    for path in folder.iterdir():
        if not path.is_dir():
            continue
        if not IDENTITY.fullmatch(path.name.removesuffix(PARTIAL_SUFFIX)):
            yield from _of_steps(path)
        elif path.name.endswith(PARTIAL_SUFFIX):
            yield "unfinished", path
        elif is_committed(path):
            yield "artefact", path


def _look_at(store: Store, kind: Kind, path: Path) -> Removable:
    named = path.relative_to(store.root)
    seconds, last_used = None, path.stat().st_mtime
    if kind == "artefact":
        seconds = read_json(path / RECORD).get("wall_seconds")
    elif kind == "unfinished":
        with contextlib.suppress(FileNotFoundError, AbsentError):
            seconds = read_json(note_beside(path)).get("seconds")
            last_used = max(last_used, note_beside(path).stat().st_mtime)
    return Removable(
        kind=kind,
        path=path,
        step=named.parent.as_posix(),
        identity=named.name.removesuffix(PARTIAL_SUFFIX),
        bytes=sum(file.lstat().st_size for file in path.rglob("*") if not file.is_dir()),
        seconds=seconds,
        last_used=last_used,
    )
