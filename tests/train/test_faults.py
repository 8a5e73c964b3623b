"""Saving a checkpoint while the disk fails, fills up, or the process ends: at every call of a save, whatever it is.

Each save happens in a forked child whose calls to the system are counted; one of them is broken. A fresh session must then resume from the
checkpoint before or from the new one, bit for bit, and nothing half may be left.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import resource
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import tiny_run as tiny

import gristmill.store.artifact as artifact_module
import gristmill.train.checkpoint as checkpoint_module
import gristmill.train.monitor as monitor_module
from gristmill.errors import ResourceError
from gristmill.train.checkpoint import environment
from gristmill.train.session import Session

CALLS = ("open", "fsync", "replace", "utime", "unlink", "rmdir", "mkdir", "rename", "symlink", "chmod", "scandir")
DONE, KILLED, FULL, BROKEN = 0, 77, 75, 78  # how the child ends


def at_16(run: Path) -> Session:
    """The run, resumed, as if it had come to step 16."""
    session: Session = tiny.open_run(run)
    session.progress.step = 16
    return session


def saved(run: Path, step: int) -> Path:
    """The folder of a checkpoint, there or not."""
    return Path(tiny.checkpoints_in(run).ref(step).folder)


def in_store(run: Path) -> set[str]:
    return {path.name for path in saved(run, 0).parent.iterdir()}


def newest(run: Path) -> int | None:
    """The step of the checkpoint that the run would be resumed from."""
    found = tiny.checkpoints_in(run).newest_sound(environment(tiny.MICRO_BATCH_TOKENS, "cpu", 1), say=lambda line: None)
    return None if found is None else int(found.state["progress"]["step"])


# ── one call of a save goes wrong ────────────────────────────────────────────────────────────────────────────────────


class Fault:
    """Breaks one call of those that change the disk, or that one and all after it, by the end of the process or by an error.

    A call that writes is broken half-way: half of what it should write is on the disk.
    """

    def __init__(self, at_call: int, how: str) -> None:
        self.at_call, self.how, self.number = at_call, how.removesuffix(" from then on"), 0
        self.stays = how.endswith(" from then on")
        self._lock = threading.Lock()  # a save hashes and flushes in several threads

    def _is_due(self) -> bool:
        with self._lock:
            self.number += 1
            return self.number == self.at_call or (self.stays and self.number > self.at_call)

    def _strike(self) -> None:
        if self.how == "kill":
            os._exit(KILLED)
        code = getattr(errno, self.how)
        raise OSError(code, os.strerror(code))

    def before(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """`original`, which does nothing when it is the one."""

        def call(*arguments: Any, **named: Any) -> Any:
            if self._is_due():
                self._strike()
            return original(*arguments, **named)

        return call

    def half_way(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """`original`, which writes the file that its second argument names, of which half is written when it is the one."""

        def call(*arguments: Any, **named: Any) -> Any:
            is_due = self._is_due()
            found = original(*arguments, **named)
            if is_due:
                os.truncate(arguments[1], Path(arguments[1]).stat().st_size // 2)
                self._strike()
            return found

        return call

    def opening(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """`open`, which counts where it opens for writing, and so do the writes to that file."""

        def call(path: Any, mode: str = "r", *arguments: Any, **named: Any) -> Any:
            if mode.startswith("r") and "+" not in mode:
                return original(path, mode, *arguments, **named)
            if self._is_due():
                self._strike()
            file = original(path, mode, *arguments, **named)
            write = file.write

            def half(content: Any) -> int:
                if self._is_due():
                    write(content[: len(content) // 2])
                    file.flush()
                    self._strike()
                return int(write(content))

            file.write = half
            return file

        return call

    def install(self) -> None:
        """In a process that ends afterwards."""
        for name in CALLS:
            setattr(os, name, self.before(getattr(os, name)))
        shutil.rmtree = self.before(shutil.rmtree)  # type: ignore[assignment]
        shutil.copyfile = self.half_way(shutil.copyfile)
        io.open = builtins.open = self.opening(io.open)  # type: ignore[assignment]


@contextmanager
def as_child(do: Callable[[], None]) -> Iterator[int]:
    """How a forked child ended that did something."""
    child = os.fork()
    if child == 0:
        try:
            do()
            os._exit(DONE)
        except ResourceError as error:
            os._exit(FULL if "disk is full" in str(error) else 1)
        except OSError as error:
            os._exit({errno.EIO: BROKEN, errno.EFBIG: BROKEN}.get(error.errno or 0, 1))
        except Exception as error:  # of a library written in Rust
            os._exit(BROKEN if "os error" in str(error) else 1)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    yield code


def save_with_a_fault(session: Session, at_call: int, how: str) -> bool:
    """Saves in a child; whether the fault was reached and not got over."""

    def save() -> None:
        Fault(at_call, how).install()
        session.save(session.progress)

    with as_child(save) as code:
        assert code in {"kill": (DONE, KILLED), "ENOSPC": (DONE, FULL), "EIO": (DONE, BROKEN)}[how.partition(" ")[0]]
    return code != DONE


def num_calls(session: Session) -> int:
    """How many calls a save makes that is not broken."""
    read, write = os.pipe()

    def save() -> None:
        fault = Fault(0, "kill")
        fault.install()
        session.save(session.progress)
        os.write(write, str(fault.number).encode())

    with as_child(save) as code:
        assert code == DONE
    os.close(write)
    with os.fdopen(read) as counted:
        return int(counted.read())


def assert_a_fresh_process_goes_on(run: Path, expected: dict[str, Any], *, may_lack_16: bool) -> int:
    """Resumed from 12 or 16 with equal bits; saving again leaves what a save leaves. Returns the step."""
    resumed = tiny.open_run(run)
    step = int(resumed.progress.step)
    assert step in ((12, 16) if may_lack_16 else (16,))
    tiny.assert_identical(tiny.state_of(resumed), expected)
    resumed.progress.step = 16
    resumed.save(resumed.progress)
    assert [ref.step for ref in tiny.checkpoints_in(run).kept()] == [16, 12, 4]
    left = {name for name in in_store(run) if not name.endswith(".lock")} - {
        saved(run, each).name for each in (4, 12, 16)
    }
    assert left <= {saved(run, 8).name}, "only what lost its last link may be left to clean"
    assert newest(run) == 16
    return step


HOW = ["kill", "ENOSPC", "EIO", "ENOSPC from then on", "EIO from then on"]


def break_saves(trained: Path, tmp_path: Path, how: str, *, every: int, first: int = 1) -> set[int]:
    """Saves that break at each such call, and the steps that were resumed from."""
    session = at_16(tiny.copy(trained, run := tmp_path / "run"))
    expected = tiny.state_of(session)
    whole = num_calls(at_16(tiny.copy(trained, tmp_path / "counted")))
    assert whole > 60, "the calls are not counted"
    found = set()
    for number in range(first, whole + 1, every):
        was_broken = save_with_a_fault(session, number, how)
        found.add(assert_a_fresh_process_goes_on(run, expected, may_lack_16=was_broken))
        shutil.rmtree(run)
        tiny.copy(trained, run)
    return found


@pytest.mark.parametrize("how", HOW)
def test_a_save_that_breaks_leaves_a_sound_checkpoint_and_nothing_half(trained: Path, tmp_path: Path, how: str) -> None:
    break_saves(trained, tmp_path, how, every=23, first=1 + 4 * HOW.index(how))


@pytest.mark.slow
@pytest.mark.parametrize("how", HOW)
def test_a_save_that_breaks_at_any_single_call_leaves_a_sound_checkpoint_and_nothing_half(
    trained: Path, tmp_path: Path, how: str
) -> None:
    assert break_saves(trained, tmp_path, how, every=1) == {12, 16}


# ── full disks ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("module", "phase"),
    [
        (checkpoint_module, "save_weights"),
        (checkpoint_module, "write_tensors"),
        (checkpoint_module, "write_json"),
        (monitor_module.shutil, "copyfile"),
        (artifact_module, "write_manifest"),
        (artifact_module, "flush_to_disk"),
    ],
)
def test_full_disk_leaves_the_last_checkpoint_and_asks_for_space(
    run: Path, monkeypatch: pytest.MonkeyPatch, module: ModuleType, phase: str
) -> None:
    def full(*arguments: Any, **named: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    session = at_16(run)
    with monkeypatch.context() as patch:
        patch.setattr(module, phase, full)
        with pytest.raises(ResourceError, match="disk is full") as caught:
            session.save(session.progress)
    assert caught.value.exit_code == 75
    assert in_store(run) == {saved(run, step).name for step in (4, 8, 12)}
    assert newest(run) == 12
    session.save(session.progress)
    assert newest(run) == 16


@pytest.mark.parametrize(("size_kib", "expected"), [(190, 4), (230, 4), (270, 4), (350, 8)])
def test_file_system_that_fills_up_leaves_a_sound_checkpoint(tmp_path: Path, size_kib: int, expected: int) -> None:
    """The real thing, where this user may mount a small file system in memory."""
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_kib}k", "tmpfs", str(small)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        with pytest.raises(ResourceError, match="disk is full"):
            tiny.train_run(tiny.open_run(small))
        assert not list(small.rglob("*.partial"))
        assert newest(small) == expected
    finally:
        subprocess.run(["umount", str(small)], check=True)


def save_into_files_of_at_most(session: Session, limit_bytes: int) -> bool:
    """Saves in a child whose files the system cuts at a size, by whatever code they are written; whether that stopped it."""

    def save() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write then fails
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        session.save(session.progress)

    with as_child(save) as code:
        assert code in (DONE, BROKEN)
    return code == BROKEN


def test_a_file_that_the_system_cuts_at_any_byte_is_no_checkpoint(trained: Path, tmp_path: Path) -> None:
    session = at_16(tiny.copy(trained, run := tmp_path / "run"))
    expected = tiny.state_of(session)
    largest = max(path.stat().st_size for path in saved(trained, 12).iterdir())
    for limit in (0, 1, 4095, 4096, 4097, largest // 2, largest - 4097, largest - 1):
        assert save_into_files_of_at_most(session, limit), limit
        assert in_store(run) == {saved(run, step).name for step in (4, 8, 12)}
        assert_a_fresh_process_goes_on(run, expected, may_lack_16=True)
        shutil.rmtree(run)
        tiny.copy(trained, run)
    assert not save_into_files_of_at_most(session, largest)
