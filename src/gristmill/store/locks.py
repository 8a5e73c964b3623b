"""Locks between processes: flock, which the kernel releases when its holder dies, however it dies.

    .store/lock               shared while a run takes a link, exclusive while something is removed; both last for milliseconds
    .store/X.lock             held by the one run that makes X, or shared by the ranks of an array that make its shards; the file
                              says which run, and is removed with the lock
    RUN/.lock                 held by the process that works in a run's folder, or shared by ranks

Nothing waits for X.lock while it holds .store/lock, so there is no deadlock. A child that was forked while a lock was held
shares the lock with its parent; one that was started by exec does not.

Some network file systems have no flock. There one process may use the store: the one named in `.store/only-run`. Every
other one is refused until that process has ended. A mount whose flock works inside one machine only (NFS with local_lock)
cannot be told from a good one; such a store must be used from one machine.
"""

from __future__ import annotations

import atexit
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gristmill.errors import Interrupted, ResourceError

LOCK_SUFFIX = ".lock"
STORE_LOCK = "lock"
ONLY_RUN = "only-run"
NO_FLOCK = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS)
MAKING_POLL_SECONDS = 0.3
STORE_POLL_SECONDS = 0.02
PATIENCE_SECONDS = 5.0  # with the store lock, which others hold for milliseconds


class Locks:
    """The locks of one store as one process sees them.

    say: gets a line when a wait begins, and when flock turns out not to work. should_stop: asked while waiting.
    """

    def __init__(self, root: Path, *, say: Callable[[str], None], should_stop: Callable[[], bool]) -> None:
        self._root = root
        self._say = say
        self._should_stop = should_stop
        self._is_only_run = False

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Nothing of the store is removed while this is held. Waits for whoever is removing.

        A stop is heeded only after five seconds: the save that a signal asks for takes a link too.
        """
        with self._opened(self._root / STORE_LOCK) as descriptor:
            patient_until = time.monotonic() + PATIENCE_SECONDS
            while not self._take(descriptor, fcntl.LOCK_SH):
                if time.monotonic() > patient_until and self._should_stop():
                    raise Interrupted(f"stopped while waiting for {self._root}")
                time.sleep(STORE_POLL_SECONDS)
            yield

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Nobody takes a link while this is held. Raises ResourceError when the store stays in use for five seconds."""
        with self._opened(self._root / STORE_LOCK) as descriptor:
            patient_until = time.monotonic() + PATIENCE_SECONDS
            while not self._take(descriptor, fcntl.LOCK_EX):
                if time.monotonic() > patient_until:
                    raise ResourceError(
                        f"{self._root} is in use: another process links or removes artefacts at this moment.\n"
                        "  Nothing was removed. Try again."
                    )
                time.sleep(STORE_POLL_SECONDS)
            yield

    @contextmanager
    def making(self, folder: Path, *, what: str, who: str) -> Iterator[bool]:
        """One process makes `folder`, others wait. Gives True after a wait: it may be there now.

        what, who: how this step and this run are named to those who wait. Raises Interrupted when should_stop says so.
        """
        path = lock_file(folder)
        descriptor, waited = self._wait_for(path, fcntl.LOCK_EX, what)
        try:
            holder = {"host": socket.gethostname(), "pid": os.getpid(), "run": who}
            _write_holder(descriptor, holder)
            yield waited
        finally:
            path.unlink(missing_ok=True)  # before the lock is free: see _take_file
            os.close(descriptor)

    @contextmanager
    def making_shards(self, folder: Path, *, what: str, who: str) -> Iterator[bool]:
        """As `making`, but held by several ranks of an array side by side, each of which makes other shards of `folder`."""
        path = lock_file(folder)
        descriptor, waited = self._wait_for(path, fcntl.LOCK_SH, what)
        try:
            _write_holder(descriptor, {"array": who})  # the same of all ranks
            yield waited
        finally:
            if self._take(descriptor, fcntl.LOCK_EX):  # the last one of them
                path.unlink(missing_ok=True)
            os.close(descriptor)

    @contextmanager
    def running(self, folder: Path, *, as_rank: bool = False) -> Iterator[None]:
        """Held while a run works in its folder. Raises ResourceError when another process does; ranks of an array share it."""
        with self._opened(folder / LOCK_SUFFIX) as descriptor:
            if not self._take(descriptor, fcntl.LOCK_SH if as_rank else fcntl.LOCK_EX):
                raise ResourceError(
                    f"another run{'' if as_rank else ', or a rank of an array,'} is using {folder}; wait for it, or stop it, then "
                    "try again."
                )
            yield

    def is_being_made(self, folder: Path) -> bool:
        """True while a process holds `making(folder)` or `making_shards(folder)`. Writes nothing."""
        try:
            descriptor = os.open(lock_file(folder), os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            return not self._take(descriptor, fcntl.LOCK_EX)
        finally:
            os.close(descriptor)

    def _wait_for(self, path: Path, operation: int, what: str) -> tuple[int, bool]:
        """A descriptor that holds the lock of the file at `path`, and whether it had to be waited for."""
        waited = False
        while (descriptor := self._take_file(path, operation)) is None:
            if not waited:
                self._say(f"waiting for {_holder(path)} making {what}")
            waited = True
            if self._should_stop():
                raise Interrupted(f"stopped while waiting for {what}")
            time.sleep(MAKING_POLL_SECONDS)
        return descriptor, waited

    def _take_file(self, path: Path, operation: int) -> int | None:
        """A descriptor that holds the lock of the file at `path`; None when another process has it.

        A holder removes its file while it still holds the lock. Whoever then gets the lock of that file has the lock of
        nothing, sees that `path` is gone or another file, and opens it anew.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                taken = self._take(descriptor, operation)
            except BaseException:
                os.close(descriptor)
                raise
            if taken and _is_still_at(descriptor, path):
                return descriptor
            os.close(descriptor)
            if not taken:
                return None

    @contextmanager
    def _opened(self, path: Path) -> Iterator[int]:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _take(self, descriptor: int, operation: int) -> bool:
        """True when the lock was taken, False when another process is in the way."""
        try:
            fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in NO_FLOCK:
                raise
            self._become_the_only_run()
        return True

    def _become_the_only_run(self) -> None:
        if self._is_only_run:
            return
        _claim(self._root / ONLY_RUN)
        self._is_only_run = True
        self._say(f"{self._root} lies on a file system without locks: no second run can use it while this one lasts")


def lock_file(folder: Path) -> Path:
    """Where the lock of a folder in the store is."""
    return folder.with_name(folder.name + LOCK_SUFFIX)


def _write_holder(descriptor: int, holder: dict[str, object]) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(holder).encode(), 0)


def _is_still_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _holder(path: Path) -> str:
    """Who holds a lock, and the verb, in words; what a killed holder wrote may still be there when the next one has not written yet."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if "array" in found:
            return f"ranks of run {found['array']!r}, which are"
        return f"run {found['run']!r} (process {found['pid']} on {found['host']}), which is"
    except (OSError, ValueError, KeyError, TypeError):
        return "another run, which is"


# ── where flock does not work ────────────────────────────────────────────────────────────────────────────────────────


def _claim(path: Path) -> None:
    """Writes this process into `path`, to be removed when it ends. Raises ResourceError when another lives, or may live."""
    mine = f"{socket.gethostname()} {os.getpid()}"
    if not _create(path, mine):
        if (found := path.read_text(encoding="utf-8")) == mine:
            return
        taking_over = path.with_name(
            f"{path.name}.taking-over"
        )  # of several that find a dead process, one may replace it
        if not (_is_dead(found) and _create(taking_over, mine)):
            raise ResourceError(
                f"{path.parent} lies on a file system without locks, and {path.name} names another run: {found or 'unknown'}.\n"
                f"  Wait for it. If it is dead, remove {path} (and {taking_over.name}, if that is there)."
            )
        try:
            if path.read_text(encoding="utf-8") != found:
                raise ResourceError(f"another run has just begun to use {path.parent}; wait for it.")
            path.write_text(mine, encoding="utf-8")
        finally:
            taking_over.unlink()
    atexit.register(_release, path, mine)


def _create(path: Path, text: str) -> bool:
    """False when the file exists."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return False
    return True


def _release(path: Path, mine: str) -> None:
    if mine.endswith(f" {os.getpid()}") and path.is_file() and path.read_text(encoding="utf-8") == mine:
        path.unlink()


def _is_dead(holder: str) -> bool:
    """True when the process was on this host and is gone; elsewhere nobody can tell."""
    host, _, pid = holder.rpartition(" ")
    if host != socket.gethostname() or not pid.isdecimal():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False
