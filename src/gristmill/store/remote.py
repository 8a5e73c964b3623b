"""Copies of runs in another place: object stores and whatever else fsspec reaches, by address.

    ADDRESS/.store/<step>/<identity>/    an artefact as in the store: manifest.json first, then its files, record.json last
    ADDRESS/<run>/run.json               the artefacts of a run by step, after all of them; beside it the run's own files

An artefact without its record does not count, so a push that was stopped is finished by the next one: what has the size that the
same manifest names is not sent again. A pull makes each artefact by the store's own commit, which hashes every file. Checkpoints
and unfinished work stay where they are.

    push: run's links ─→ artefacts that ADDRESS lacks ─→ run.json
    pull: run.json ─→ artefacts that the store lacks ─→ run's links
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

from fsspec.core import url_to_fs

from gristmill.errors import ArtifactError, GristmillError, MissingExtra, RecipeError, ResourceError
from gristmill.store.artifact import MANIFEST, RECORD
from gristmill.store.durable import atomic_path, out_of_space_is_a_resource_error, read_json
from gristmill.store.store import CHECKPOINTS, IDENTITY, RECORDS, STAMP, STORE, RunLinks

RUN = "run.json"
VERSION = 1
STEP = re.compile(r"[a-z]+(/[a-z0-9][a-z0-9_-]*)?")
RUN_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
FILE_NAME = re.compile(r"[^./\\\x00-\x1f][^/\\\x00-\x1f]*")  # of a run's own file
EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}
BATCH_BYTES = 64_000_000  # sent or fetched between two words to the caller, at least one file

Say = Callable[[str, int, int], None]
"""Called with the step, and how many of how many bytes of the artefact are copied."""


@dataclass(frozen=True, kw_only=True)
class Copied:
    """steps: copied now. there: that were there. replaced: of which the run had other artefacts there; these stay in the store, without
    the run. num_bytes: of the copied ones."""

    steps: Sequence[str]
    there: Sequence[str]
    replaced: Sequence[str]
    num_bytes: int


class Remote:
    """A folder at an address, such as s3://bucket/folder."""

    def __init__(self, address: str) -> None:
        """Raises RecipeError for an address of no known kind, MissingExtra where its package is not installed."""
        self.address = address.rstrip("/")
        protocol = address.partition("://")[0] if "://" in address else "file"
        try:
            self._files, self._root = url_to_fs(self.address)
        except ImportError as error:
            extra = EXTRAS.get(protocol)
            what = f'pip install "gristmill[{extra}]"' if extra else str(error)
            raise MissingExtra(f"{address}: what reads {protocol}:// is not installed: {what}") from error
        except ValueError as error:
            raise RecipeError(
                f"{address}: {error}. Name a folder, or an address such as s3://bucket/folder."
            ) from error

    def read(self, name: str) -> bytes | None:
        """The content of a small file; None where it is not there."""
        with self._asking(name):
            try:
                return bytes(self._files.cat_file(self._at(name)))
            except FileNotFoundError:
                return None

    def read_json(self, name: str) -> Any:
        """The content of a JSON file; None where it is not there, or was written in part."""
        try:
            return json.loads(self.read(name) or b"null")
        except ValueError:
            return None

    def sizes(self, folder: str) -> dict[str, int]:
        """Name below a folder → bytes; empty where nothing is there."""
        return {name: int(entry["size"]) for name, entry in self.entries(folder).items()}

    def entries(self, folder: str = "") -> dict[str, dict[str, Any]]:
        """Name of each file below a folder → what the file system says of it, its size at least."""
        start = self._at(folder)
        with self._asking(folder):
            self._files.invalidate_cache()
            try:
                found = self._files.find(start, detail=True)
            except FileNotFoundError:
                return {}
        return {path[len(start) :].lstrip("/"): dict(entry) for path, entry in found.items()}

    def entry(self, name: str) -> dict[str, Any]:
        """What the file system says of one file now."""
        with self._asking(name):
            self._files.invalidate_cache()
            return dict(self._files.info(self._at(name)))

    def read_range(self, name: str, first: int, end: int) -> bytes:
        """Bytes of a file from `first` to before `end`."""
        with self._asking(name):
            return bytes(self._files.cat_file(self._at(name), start=first, end=end))

    @contextmanager
    def opened(self, name: str) -> Iterator[IO[bytes]]:
        """A file to read in parts."""
        with self._asking(name), self._files.open(self._at(name), "rb") as file:
            yield file

    def write(self, name: str, content: bytes) -> None:
        """Writes a small file in one piece."""
        with self._asking(name):
            self._files.makedirs(self._files._parent(self._at(name)), exist_ok=True)
            self._files.pipe_file(self._at(name), content)

    def put(self, local: Path, folder: str, names: Sequence[str]) -> None:
        """Sends files of a local folder."""
        with self._asking(folder):
            for parent in {self._files._parent(self._at(f"{folder}/{name}")) for name in names}:
                self._files.makedirs(parent, exist_ok=True)
            self._files.put([str(local / name) for name in names], [self._at(f"{folder}/{name}") for name in names])

    def get(self, folder: str, names: Sequence[str], local: Path) -> None:
        """Fetches files into a local folder."""
        for name in names:
            (local / name).parent.mkdir(parents=True, exist_ok=True)
        with self._asking(folder), out_of_space_is_a_resource_error(local):
            self._files.get([self._at(f"{folder}/{name}") for name in names], [str(local / name) for name in names])

    def _at(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    @contextmanager
    def _asking(self, name: str) -> Iterator[None]:
        """Every package that fsspec calls has errors of its own; all say here what was not reached."""
        place = f"{self.address}/{name}"
        try:
            yield
        except GristmillError:
            raise
        except (FileNotFoundError, PermissionError) as error:
            raise ArtifactError(
                f"{place}: {_first_line(error)}\n  Check the address, and that this account may read and write there."
            ) from error
        except Exception as error:
            raise ResourceError(
                f"{place} was not reached: {_first_line(error)}\n  What was copied stays; the same command copies the rest."
            ) from error


def push(
    run: RunLinks, address: str, *, only: Collection[str] = (), say: Say = lambda step, done, total: None
) -> Copied:
    """Copies the artefacts of a run that the address lacks, then the list of them. only: steps or kinds of steps.

    Raises ArtifactError for a run without artefacts and where the address refuses, RecipeError for steps that the run has not,
    ResourceError where the address is not reached.
    """
    remote = Remote(address)
    identities = {step: identity for step in linked_steps(run.folder) if (identity := run.target(step)) is not None}
    if not identities:
        raise ArtifactError(f"{run.folder} has no artefacts. Name a run's folder, such as runs/quickstart.")
    steps = chosen(identities, only, where=str(run.folder))
    copied, num_bytes = [], 0
    for step in steps:
        folder = run.artefact(step)
        assert folder is not None
        sent = _push_artefact(folder, remote, f"{STORE}/{step}/{identities[step]}", partial(say, step))
        if sent is not None:
            copied.append(step)
            num_bytes += sent
    listed = remote.read_json(f"{run.name}/{RUN}") or {}
    own = [path.name for path in sorted(run.folder.iterdir()) if path.is_file() and FILE_NAME.fullmatch(path.name)]
    remote.put(run.folder, run.name, own)
    of_run = {"version": VERSION, "run": run.name, "files": own}
    of_run["steps"] = {**(listed.get("steps", {}) if only else {}), **{step: identities[step] for step in steps}}
    remote.write(f"{run.name}/{RUN}", json.dumps(of_run, indent=1).encode() + b"\n")
    there = [step for step in steps if step not in copied]
    replaced = _others(steps, identities, listed.get("steps", {}))
    return Copied(steps=copied, there=there, replaced=replaced, num_bytes=num_bytes)


def _push_artefact(folder: Path, remote: Remote, place: str, say: Callable[[int, int], None]) -> int | None:
    """Bytes sent; None where a whole artefact of that identity is there."""
    there = remote.sizes(place)
    if RECORD in there and remote.read_json(f"{place}/{RECORD}"):
        return None
    manifest = read_json(folder / MANIFEST)
    if MANIFEST not in there or remote.read_json(f"{place}/{MANIFEST}") != manifest:
        there = {}
        remote.put(folder, place, [MANIFEST])
    missing = [name for name, entry in manifest.items() if there.get(name) != entry["bytes"]]
    _copy(missing, manifest, lambda names: remote.put(folder, place, names), say)
    arrived = remote.sizes(place)
    for name, entry in manifest.items():
        if arrived.get(name) != entry["bytes"]:
            raise ResourceError(
                f"{remote.address}/{place}/{name} has {arrived.get(name, 0):,} bytes after it was sent, not {entry['bytes']:,}.\n"
                "  Run the same command again; if another process pushes there, wait for it."
            )
    if remote.read_json(f"{place}/{MANIFEST}") != manifest:
        raise ResourceError(
            f"{remote.address}/{place} is being pushed from another place with other bytes. Run the same command again."
        )
    remote.put(folder, place, [RECORD])
    return _bytes_of(missing, manifest)


def pull(
    address: str,
    run_of: Callable[[str], RunLinks],
    *,
    only: Collection[str] = (),
    say: Say = lambda step, done, total: None,
) -> tuple[RunLinks, Copied]:
    """Copies what a run at an address lists and the store lacks, and links it. run_of: the run of a name, in the store to copy to.

    Raises ArtifactError where no run is there or what is there is damaged, RecipeError for steps that it has not, ResourceError
    where the address is not reached, or while a run works in the folder to copy to.
    """
    remote, name = Remote(address.rstrip("/").rpartition("/")[0]), address.rstrip("/").rpartition("/")[2]
    listed = remote.read_json(f"{name}/{RUN}") if RUN_NAME.fullmatch(name) else None
    if listed is None:
        raise ArtifactError(
            f"{address} is no run that was pushed: it has no {RUN}.\n  `gristmill push RUN ADDRESS` makes ADDRESS/RUN."
        )
    identities, own = _of_run(listed, where=f"{address}/{RUN}")
    run = run_of(name)
    copied, num_bytes = [], 0
    steps = chosen(identities, only, where=address)
    with run.store.locks.running(run.folder):
        replaced = _others(steps, identities, {step: run.target(step) for step in steps})
        for step in steps:
            identity = identities[step]
            if run.link(step, identity):
                continue
            with run.store.making(step, identity, who=run.name):
                if not run.link(step, identity):
                    run.mark_unfinished(step, identity)
                    num_bytes += _pull_artefact(run, step, identity, remote, partial(say, step))
                    run.link(step, identity)
                    copied.append(step)
        for file in own:
            if not (run.folder / file).exists() and (content := remote.read(f"{name}/{file}")) is not None:
                with atomic_path(run.folder / file) as temporary:
                    temporary.write_bytes(content)
    there = [step for step in steps if step not in copied]
    return run, Copied(steps=copied, there=there, replaced=replaced, num_bytes=num_bytes)


def _pull_artefact(run: RunLinks, step: str, identity: str, remote: Remote, say: Callable[[int, int], None]) -> int:
    place = f"{STORE}/{step}/{identity}"
    manifest, record = remote.read_json(f"{place}/{MANIFEST}"), remote.read_json(f"{place}/{RECORD}")
    if not (
        _is_manifest(manifest)
        and isinstance(record, dict)
        and (record.get("step"), record.get("identity")) == (step, identity)
    ):
        raise ArtifactError(
            f"{remote.address}/{place} is not the artefact of {step} that it is listed as, or is not whole.\n"
            "  `gristmill push` from the place where it was made completes it."
        )
    working = run.store.open_work(step, identity)
    for path in working.rglob("*"):
        if path.is_file() and path.relative_to(working).as_posix() not in manifest:
            path.unlink()
    missing = [name for name, entry in manifest.items() if _size(working / name) != entry["bytes"]]
    _copy(missing, manifest, lambda names: remote.get(place, names, working), say)
    run.store.commit(
        step, identity, {key: value for key, value in record.items() if key not in STAMP}, manifest=manifest
    )
    return _bytes_of(missing, manifest)


def _others(steps: Sequence[str], identities: Mapping[str, str], before: Mapping[str, str | None]) -> list[str]:
    return [step for step in steps if before.get(step) not in (None, identities[step])]


def _copy(
    names: Sequence[str],
    manifest: Mapping[str, Any],
    copy: Callable[[list[str]], None],
    say: Callable[[int, int], None],
) -> None:
    """Copies files in batches of BATCH_BYTES."""
    done, total = 0, _bytes_of(names, manifest)
    batch: list[str] = []
    waiting = 0
    for name in names:
        batch.append(name)
        waiting += manifest[name]["bytes"]
        if waiting >= BATCH_BYTES or name == names[-1]:
            say(done, total)
            copy(batch)
            done, waiting, batch = done + waiting, 0, []


def _bytes_of(names: Sequence[str], manifest: Mapping[str, Any]) -> int:
    return sum(int(manifest[name]["bytes"]) for name in names)


def linked_steps(folder: Path) -> list[str]:
    """The steps that a run's folder has, finished ones, by name."""
    found = [path for path in (*folder.glob("*"), *folder.glob("*/*")) if (path / RECORD).is_file()]
    names = [path.relative_to(folder).as_posix() for path in found]
    return sorted(filter(is_step, names))


def is_step(name: str) -> bool:
    """Whether a step can have that name."""
    return STEP.fullmatch(name) is not None and name.partition("/")[0] not in (RECORDS, CHECKPOINTS)


def chosen(steps: Collection[str], only: Collection[str], *, where: str) -> list[str]:
    """The steps that are asked for by name or kind, all where nothing is asked for. Raises RecipeError for one that is not there."""
    for name in only:
        if name not in steps and not any(step.startswith(f"{name}/") for step in steps):
            raise RecipeError(f"{where} has no step {name!r}; it has {', '.join(steps)}.")
    return [step for step in steps if not only or step in only or step.partition("/")[0] in only]


def _of_run(listed: Any, *, where: str) -> tuple[dict[str, str], list[str]]:
    """(step → identity, the run's own files) of a list that may come from anybody."""
    if isinstance(listed, dict) and isinstance(listed.get("steps"), dict) and isinstance(listed.get("files"), list):
        if listed.get("version") != VERSION:
            raise ArtifactError(f"{where} is of version {listed.get('version')!r}; this gristmill reads {VERSION}.")
        steps, files = listed["steps"], listed["files"]
        if all(is_step(step) and IDENTITY.fullmatch(str(identity)) for step, identity in steps.items()) and all(
            FILE_NAME.fullmatch(str(name)) for name in files
        ):
            return dict(steps), list(files)
    raise ArtifactError(f"{where} is damaged: it does not list steps with identities. Push the run again.")


def _is_manifest(found: Any) -> bool:
    """Whether it names files below its folder, each with bytes and hash."""
    return isinstance(found, dict) and all(
        isinstance(entry, dict)
        and entry.keys() == {"bytes", "sha256"}
        and type(entry["bytes"]) is int
        and entry["bytes"] >= 0
        and _is_below(name)
        for name, entry in found.items()
    )


def _is_below(name: str) -> bool:
    path = PurePosixPath(name)
    return (
        name == path.as_posix()
        and path.name != ""
        and not path.is_absolute()
        and ".." not in path.parts
        and "\\" not in name
    )


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() and not path.is_symlink() else None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
