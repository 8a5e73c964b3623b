"""The store: every artefact once, under what was asked for. A run is a folder of links to what it uses.

    runs/.store/<step>/<identity>/               an artefact, its files read-only
    runs/.store/<step>/<identity>.partial/       unfinished work, its note beside it
    runs/.store/records/<step>/<identity>.json   record and manifest of an artefact; stays when the artefact is removed
    runs/.store/checkpoints/                     store/checkpoints.py
    runs/.store/.trash/                          what is being deleted
    runs/<run>/<step>                            a relative link to an artefact
    runs/<run>/<step>.before                     that link while the step is remade
    runs/<run>/<step>.unfinished                 a relative link to unfinished work

The link is the lease: a run links what it uses before it reads it, and nothing that is linked is removed (store/removal.py).
A step is made like this, and a kill at any point loses nothing that the next attempt needs:

    if not run.link(step, identity):
        with store.making(step, identity, who=run.name):
            if not run.link(step, identity):            # another run may have made it while this one waited
                run.mark_unfinished(step, identity)
                working = store.open_work(step, identity)
                ...
                store.commit(step, identity, record)
                run.link(step, identity)

One process at a time works in a run's folder; the caller sees to it.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from gristmill.errors import ArtifactError
from gristmill.store import artifact
from gristmill.store.artifact import MANIFEST, PARTIAL_SUFFIX, RECORD, is_committed, make_read_only
from gristmill.store.durable import flush_to_disk, read_json, temporary_beside, write_json
from gristmill.store.locks import Locks

STORE = ".store"
RECORDS, CHECKPOINTS, TRASH = "records", "checkpoints", ".trash"  # folders of the store that are no steps
UNFINISHED_SUFFIX = ".unfinished"
BEFORE_SUFFIX = ".before"
RECORD_VERSION = 2  # records of gristmill 0.1 have no version
STAMP = ("record_version", "step", "identity")  # what the store writes into every record
IDENTITY = re.compile(r"[0-9a-f]{32}")


class Store:
    """The artefacts below `runs_dir`. Making one and looking around in it write nothing."""

    def __init__(
        self,
        runs_dir: Path,
        *,
        say: Callable[[str], None] = lambda line: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.runs_dir = runs_dir
        self.root = runs_dir / STORE
        self.locks = Locks(self.root, say=say, should_stop=should_stop)

    def folder(self, step: str, identity: str) -> Path:
        """Where the artefact is, or would be."""
        assert IDENTITY.fullmatch(identity), f"{identity!r} is not an identity"
        assert step.partition("/")[0] not in (RECORDS, CHECKPOINTS, TRASH), f"{step!r} cannot be the name of a step"
        return self.root / step / identity

    def is_there(self, step: str, identity: str) -> bool:
        """True when it is committed."""
        return is_committed(self.folder(step, identity))

    def making(self, step: str, identity: str, *, who: str) -> AbstractContextManager[bool]:
        """Held while one run makes the artefact; another waits. Gives True after a wait. See Locks.making."""
        return self.locks.making(self.folder(step, identity), what=step, who=who)

    def making_shards(self, step: str, identity: str, *, who: str) -> AbstractContextManager[bool]:
        """Held while ranks of an array make shards of the artefact side by side. See Locks.making_shards."""
        return self.locks.making_shards(self.folder(step, identity), what=step, who=who)

    def open_work(self, step: str, identity: str) -> Path:
        """The folder to make the artefact in, with what an earlier attempt left there. Call it within `making`."""
        working = self._open_work(step, identity)
        artifact.remove_leftovers(working)
        return working

    def open_work_beside_ranks(self, step: str, identity: str) -> Path:
        """The same within `making_shards`, while other ranks write there."""
        working = artifact.working_folder(self.folder(step, identity))
        with self.locks.making(working, what=step, who="an array"):
            return self._open_work(step, identity)

    def _open_work(self, step: str, identity: str) -> Path:
        final = self.folder(step, identity)
        if final.exists() and not is_committed(final):  # a person removed its record, or a copy of the store broke off
            with self.locks.exclusive():
                self.discard(final)
            self.empty_trash()
        with self.locks.shared():
            return artifact.open_working_folder(final, identity)

    def commit(
        self, step: str, identity: str, record: Mapping[str, Any], *, manifest: Mapping[str, Any] | None = None
    ) -> bool:
        """Turns the unfinished work into the artefact. False: another run committed it meanwhile; ours is dropped.

        `record` gets "record_version", "step" and "identity" in front. "wall_seconds" and "lineage" are read by `clean`.
        manifest: that of a copy, to which its files are held; see `artifact.commit`.
        """
        final = self.folder(step, identity)
        working = artifact.working_folder(final)
        stamp = dict(zip(STAMP, (RECORD_VERSION, step, identity), strict=True))
        assert not stamp.keys() & record.keys(), f"the record of {step} holds a key of the store: {sorted(stamp)}"
        is_ours = not is_committed(final)
        try:
            if is_ours:
                artifact.commit(working, final, {**stamp, **record}, manifest=manifest)
        except (ArtifactError, OSError):
            if not (working.is_dir() and is_committed(final)):
                raise
            is_ours = False
        if is_ours:
            self.keep_record(step, identity)
            make_read_only(final)
        else:
            shutil.rmtree(working, ignore_errors=True)
        artifact.close_working_folder(final)
        return is_ours

    def record(self, step: str, identity: str) -> dict[str, Any] | None:
        """The artefact's record with its manifest under "manifest", also when its bytes are gone; None if never made."""
        folder = self.folder(step, identity)
        if is_committed(folder):
            return {**read_json(folder / RECORD), "manifest": read_json(folder / MANIFEST)}
        kept = self._kept_record(step, identity)
        return dict(read_json(kept)) if kept.is_file() else None

    def files(self, step: str, name: str) -> list[Path]:
        """The files of that name in all artefacts of a step and in its unfinished work. Any of them may be gone when it is read."""
        return sorted((self.root / step).glob(f"*/{name}"))

    def recent_records(self, kind: str, *, most: int) -> list[dict[str, Any]]:
        """The newest records of a step, or of all steps that begin with `kind`/, newest first; damaged ones are left out."""
        found = sorted((self.root / RECORDS / kind).rglob("*.json"), key=_changed, reverse=True)
        records = []
        for path in found[:most]:
            with suppress(ArtifactError):
                records.append(dict(read_json(path)))
        return records

    def keep_record(self, step: str, identity: str) -> None:
        """Writes the record that outlives the artefact. A commit does so; `clean` too, for commits that were killed."""
        kept = self._kept_record(step, identity)
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_json(kept, self.record(step, identity))

    def _kept_record(self, step: str, identity: str) -> Path:
        return self.root / RECORDS / step / f"{identity}.json"

    def discard(self, folder: Path) -> None:
        """Takes a folder out of the store by one rename. Only under the exclusive lock; `empty_trash` deletes it."""
        trash = self.root / TRASH
        trash.mkdir(parents=True, exist_ok=True)
        folder.rename(trash / f"{folder.name}-{secrets.token_hex(4)}")
        flush_to_disk(folder.parent)  # before any of its files is deleted
        flush_to_disk(trash)

    def empty_trash(self) -> None:
        """Deletes what was discarded, also by processes that were killed then. Needs no lock: nothing leads there."""
        for folder in (self.root / TRASH).glob("*"):
            shutil.rmtree(folder, ignore_errors=True)  # another process may be at it


class RunLinks:
    """What one run uses: its folder of links. A copy of it with the links followed (`cp -rL`) reads the same."""

    def __init__(self, store: Store, name: str) -> None:
        self.store = store
        self.name = name
        self.folder = store.runs_dir / name

    def artefact(self, step: str) -> Path | None:
        """The step's committed folder, by its name in the run; None when there is none, or its link leads nowhere.

        Raises ArtifactError for a folder that gristmill 0.1 made.
        """
        path = self.folder / step
        if not is_committed(path):
            return None
        if not path.is_symlink() and "record_version" not in read_json(path / RECORD):
            raise ArtifactError(
                f"{path} was made by gristmill 0.1, which kept artefacts in the run's own folder.\n"
                f"  Move {self.folder} away, or name another place with --runs-dir. Its results stay readable there "
                "with gristmill 0.1."
            )
        return path

    def target(self, step: str) -> str | None:
        """The identity of the step's artefact."""
        path = self.artefact(step)
        if path is None:
            return None
        return path.readlink().name if path.is_symlink() else str(read_json(path / RECORD)["identity"])

    def before(self, step: str) -> str | None:
        """The identity of the step's artefact, or of the one that is set aside."""
        return self.target(step) or self.target(f"{step}{BEFORE_SUFFIX}")

    def bytes_of(self, step: str, identity: str) -> Path | None:
        """The folder of this very artefact: in the store, or a copy in the run's own folder."""
        if self.store.is_there(step, identity):
            return self.store.folder(step, identity)
        return self.artefact(step) if self.target(step) == identity else None

    def record_of(self, step: str, identity: str) -> dict[str, Any] | None:
        """Store.record, or that of a copy in the run's own folder."""
        found = self.store.record(step, identity)
        if found is None and (folder := self.bytes_of(step, identity)) is not None:
            found = {**read_json(folder / RECORD), "manifest": read_json(folder / MANIFEST)}
        return found

    def made_from(self, step: str) -> dict[str, Path]:
        """What the step's artefact was made from, by step, as its record says: the run's other links may be newer by now.

        Inputs whose files were removed are left out.
        """
        folder = self.artefact(step)
        names = {} if folder is None else read_json(folder / RECORD).get("made_from", {})
        found = {name: self.bytes_of(name, identity) for name, identity in names.items()}
        return {name: path for name, path in found.items() if path is not None}

    def unfinished(self, step: str) -> Path | None:
        """The unfinished work on a step, if there is any."""
        path = self.folder / f"{step}{UNFINISHED_SUFFIX}"
        return path if path.is_dir() else None

    def link(self, step: str, identity: str) -> bool:
        """Points the step at the artefact, which then stays in the store. False, and nothing changed, when it is not there.

        Releases what was set aside for it, and the mark of the work on it. Raises ArtifactError where a folder is in the
        place of the link, unless it is a copy of that very artefact.
        """
        if self.target(step) == identity and not (self.folder / step).is_symlink():
            return True
        self._refuse_folder(step)  # now, not after hours of work
        with self.store.locks.shared():
            if not self.store.is_there(step, identity):
                return False
            self.point(step, f"{step}/{identity}")
        self.withdraw(f"{step}{BEFORE_SUFFIX}")
        self._clear_unfinished(step, identity)
        return True

    def set_aside(self, step: str) -> None:
        """Renames the step's link while the step is remade. The artefact stays in the store, but not as the run's result."""
        link = self.folder / step
        if link.is_symlink():
            os.replace(link, link.with_name(f"{link.name}{BEFORE_SUFFIX}"))

    def put_back(self, step: str) -> None:
        """Undoes `set_aside`."""
        aside = self.folder / f"{step}{BEFORE_SUFFIX}"
        if aside.is_symlink():
            os.replace(aside, self.folder / step)

    def withdraw(self, step: str) -> None:
        """Removes the step's link; the artefact stays in the store until `clean`."""
        if (self.folder / step).is_symlink():
            (self.folder / step).unlink(missing_ok=True)  # another rank may have

    def mark_unfinished(self, step: str, identity: str) -> None:
        """Points `<step>.unfinished` at the unfinished work, which need not be there yet."""
        with self.store.locks.shared():
            self.point(f"{step}{UNFINISHED_SUFFIX}", f"{step}/{identity}{PARTIAL_SUFFIX}")

    def _clear_unfinished(self, step: str, identity: str) -> None:
        """Removes that link and the note of the work, if the work was on this artefact and is over."""
        mark, partial = f"{step}{UNFINISHED_SUFFIX}", f"{step}/{identity}{PARTIAL_SUFFIX}"
        if (self.store.root / partial).is_dir():
            return
        artifact.close_working_folder(self.store.folder(step, identity))
        if (self.folder / mark).is_symlink() and named_by(self.folder / mark) == partial:
            self.withdraw(mark)

    def point(self, name: str, target: str) -> None:
        """Makes `name` a relative link to `target` in the store, by rename; only under the shared lock.

        The time of the target's folder becomes now: it is when the artefact was last used.
        """
        self._refuse_folder(name)
        link, folder = self.folder / name, self.store.root / target
        link.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_beside(link.with_name(f".{link.name}"))
        # by way of .store, which may itself be a link to another disk: `named_by` reads the text
        temporary.symlink_to(os.path.relpath(self.store.runs_dir.resolve() / STORE / target, link.parent.resolve()))
        os.replace(temporary, link)
        if folder.is_dir():
            os.utime(folder)

    def _refuse_folder(self, name: str) -> None:
        path = self.folder / name
        if path.is_dir() and not path.is_symlink():
            raise ArtifactError(
                f"{path} is a folder, not a link into {self.store.root}, and not what is asked for now.\n"
                f"  It may be a copy of a run. Move {self.folder} away, or name another place with --runs-dir."
            )


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # it was removed just now
        return 0.0


def named_by(link: Path) -> str | None:
    """What a link of a run names in the store, such as "select/<identity>", there or not; None for other links."""
    _, found, name = os.readlink(link).rpartition(f"{STORE}/")
    return name if found else None
