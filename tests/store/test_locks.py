"""Locks: one makes, others wait and are told for whom; a dead holder is in nobody's way; without flock one run goes on."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gristmill.errors import Interrupted, ResourceError
from gristmill.store import locks
from gristmill.store.locks import Locks, lock_file

HOLD = """
import sys, time
from pathlib import Path
from gristmill.store.locks import Locks
locks = Locks(Path(sys.argv[1]), say=print, should_stop=lambda: False)
with getattr(locks, sys.argv[2])(*([Path(sys.argv[3])] if len(sys.argv) > 3 else []), **({"what": "select", "who": "theirs"} if len(sys.argv) > 3 else {})):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held_elsewhere(root: Path, kind: str, folder: Path | None = None) -> Iterator[subprocess.Popen[str]]:
    """Another process holds the lock until the block ends."""
    command = [sys.executable, "-c", HOLD, str(root), kind, *([str(folder)] if folder is not None else [])]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(20)


def of(root: Path, said: list[str] | None = None, should_stop: Callable[[], bool] = lambda: False) -> Locks:
    return Locks(root, say=(said if said is not None else []).append, should_stop=should_stop)


def test_who_waits_is_told_once_for_whom_and_then_gets_the_lock(tmp_path: Path) -> None:
    folder, said = tmp_path / "select" / "x", []
    with held_elsewhere(tmp_path, "making", folder) as process:
        assert process.stdin is not None
        timer = threading.Timer(0.8, process.stdin.close)
        timer.start()
        with of(tmp_path, said).making(folder, what="select", who="ours") as waited:
            assert waited
            assert process.wait(20) == 0
        timer.join()
    assert said == [
        f"waiting for run 'theirs' (process {process.pid} on {socket.gethostname()}), which is making select"
    ]
    assert not lock_file(folder).exists()


def test_who_need_not_wait_is_told_nothing(tmp_path: Path) -> None:
    said: list[str] = []
    with of(tmp_path, said).making(tmp_path / "x", what="select", who="ours") as waited:
        assert not waited
        assert of(tmp_path).is_being_made(tmp_path / "x")
        assert not of(tmp_path).is_being_made(tmp_path / "y")
    assert said == []
    assert not of(tmp_path).is_being_made(tmp_path / "x")


def test_a_killed_holder_is_in_nobodys_way(tmp_path: Path) -> None:
    with held_elsewhere(tmp_path, "making", tmp_path / "x") as process:
        assert of(tmp_path).is_being_made(tmp_path / "x")
        process.kill()
        process.wait(20)
        assert lock_file(tmp_path / "x").exists()  # its file is left, without a lock
        assert not of(tmp_path).is_being_made(tmp_path / "x")
        with of(tmp_path).making(tmp_path / "x", what="select", who="ours") as waited:
            assert not waited


def test_a_stop_ends_the_wait(tmp_path: Path) -> None:
    answers = iter([False, True])
    with (
        held_elsewhere(tmp_path, "making", tmp_path / "x"),
        pytest.raises(Interrupted, match="stopped while waiting for select"),
        of(tmp_path, should_stop=lambda: next(answers)).making(tmp_path / "x", what="select", who="ours"),
    ):
        pass


def test_many_processes_make_one_after_the_other(tmp_path: Path) -> None:
    """Each reads a number, waits, writes the next: no step is lost if no two are inside. The lock's file is removed each time."""
    (tmp_path / "number").write_text("0", encoding="utf-8")
    code = """
import os, random, sys, time
from pathlib import Path
from gristmill.store import locks
locks.MAKING_POLL_SECONDS = .001
plain_open = os.open
def slow_open(*arguments):  # between open and flock the holder may remove the file
    descriptor = plain_open(*arguments)
    time.sleep(random.random() * .004)
    return descriptor
os.open = slow_open
folder = Path(sys.argv[1])
for _ in range(25):
    with locks.Locks(folder, say=lambda line: None, should_stop=lambda: False).making(folder / "x", what="", who=""):
        number = int((folder / "number").read_text())
        time.sleep(.001)
        (folder / "number").write_text(str(number + 1))
"""
    processes = [subprocess.Popen([sys.executable, "-c", code, tmp_path]) for _ in range(4)]
    assert [process.wait(60) for process in processes] == [0] * 4
    assert (tmp_path / "number").read_text(encoding="utf-8") == "100"


def test_ranks_make_shards_side_by_side_and_whoever_makes_all_waits_for_them(tmp_path: Path) -> None:
    folder, said = tmp_path / "select" / "x", []
    with held_elsewhere(tmp_path, "making_shards", folder) as process:
        with of(tmp_path).making_shards(folder, what="select", who="ours") as waited:
            assert not waited
        assert of(tmp_path).is_being_made(folder)
        assert process.stdin is not None
        timer = threading.Timer(0.8, process.stdin.close)
        timer.start()
        with of(tmp_path, said).making(folder, what="select", who="ours") as waited:
            assert waited
        timer.join()
    assert said == ["waiting for ranks of run 'ours', which are making select"]
    assert not lock_file(folder).exists()


def test_ranks_wait_for_whoever_makes_all(tmp_path: Path) -> None:
    answers = iter([False, True])
    with (
        held_elsewhere(tmp_path, "making", tmp_path / "x"),
        pytest.raises(Interrupted, match="stopped while waiting for select"),
        of(tmp_path, should_stop=lambda: next(answers)).making_shards(tmp_path / "x", what="select", who="ours"),
    ):
        pass


def test_ranks_share_a_run_and_a_run_of_its_own_is_refused(tmp_path: Path) -> None:
    with of(tmp_path).running(tmp_path / "run", as_rank=True):
        with of(tmp_path).running(tmp_path / "run", as_rank=True):
            pass
        with pytest.raises(ResourceError, match="or a rank of an array"), of(tmp_path).running(tmp_path / "run"):
            pass
    with (
        of(tmp_path).running(tmp_path / "run"),
        pytest.raises(ResourceError, match="another run is using"),
        of(tmp_path).running(tmp_path / "run", as_rank=True),
    ):
        pass


def test_shared_goes_with_shared_and_not_with_exclusive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "PATIENCE_SECONDS", 0.1)
    with held_elsewhere(tmp_path, "shared"):
        with of(tmp_path).shared():
            pass
        with (
            pytest.raises(ResourceError, match=r"in use: another process links or removes artefacts"),
            of(tmp_path).exclusive(),
        ):
            pass
    with of(tmp_path).exclusive():
        pass


def test_a_link_is_taken_even_when_a_stop_was_asked_if_the_wait_is_short(tmp_path: Path) -> None:
    with held_elsewhere(tmp_path, "exclusive") as process:
        assert process.stdin is not None
        timer = threading.Timer(0.5, process.stdin.close)
        timer.start()
        with of(tmp_path, should_stop=lambda: True).shared():
            pass
        timer.join()


def test_a_stop_is_heeded_when_somebody_removes_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "PATIENCE_SECONDS", 0.1)
    with (
        held_elsewhere(tmp_path, "exclusive"),
        pytest.raises(Interrupted),
        of(tmp_path, should_stop=lambda: True).shared(),
    ):
        pass


# ── where flock does not work ────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(params=[errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS], ids=errno.errorcode.get)
def without_flock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_descriptor: int, _operation: int) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", refuse)


@pytest.mark.usefixtures("without_flock")
def test_without_flock_one_run_goes_on_and_says_so_once(tmp_path: Path) -> None:
    said: list[str] = []
    one = of(tmp_path, said)
    with one.making(tmp_path / "x", what="select", who="ours") as waited, one.shared():
        assert not waited
    with one.exclusive():
        pass
    assert said == [f"{tmp_path} lies on a file system without locks: no second run can use it while this one lasts"]
    assert (tmp_path / "only-run").read_text(encoding="utf-8") == f"{socket.gethostname()} {os.getpid()}"
    with of(tmp_path).shared():  # the same process
        pass


@pytest.mark.usefixtures("without_flock")
@pytest.mark.parametrize("kind", ["shared", "exclusive"])
def test_without_flock_a_second_run_and_clean_are_refused_while_the_first_lives(tmp_path: Path, kind: str) -> None:
    first = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    assert first.stdin is not None
    (tmp_path / "only-run").write_text(f"{socket.gethostname()} {first.pid}", encoding="utf-8")
    with pytest.raises(ResourceError, match=rf"names another run: .* {first.pid}\."), getattr(of(tmp_path), kind)():
        pass
    first.stdin.close()
    first.wait(20)
    with getattr(of(tmp_path), kind)():  # dead on this host: taken over
        pass
    assert (tmp_path / "only-run").read_text(encoding="utf-8").endswith(f" {os.getpid()}")
    assert [path.name for path in tmp_path.glob("only-run*")] == ["only-run"]


@pytest.mark.usefixtures("without_flock")
@pytest.mark.parametrize("holder", ["elsewhere 1", "", "elsewhere", "\x00"])
def test_without_flock_a_run_on_another_host_or_of_unknown_name_is_taken_for_alive(tmp_path: Path, holder: str) -> None:
    (tmp_path / "only-run").write_text(holder, encoding="utf-8")
    with pytest.raises(ResourceError, match=r"If it is dead, remove .*only-run "), of(tmp_path).shared():
        pass
    assert (tmp_path / "only-run").read_text(encoding="utf-8") == holder


@pytest.mark.usefixtures("without_flock")
def test_without_flock_only_one_takes_over_from_a_dead_run(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait(20)
    (tmp_path / "only-run").write_text(f"{socket.gethostname()} {gone.pid}", encoding="utf-8")
    (tmp_path / "only-run.taking-over").write_text("another", encoding="utf-8")
    with pytest.raises(ResourceError, match=r"only-run\.taking-over"), of(tmp_path).shared():
        pass


def test_without_flock_the_file_goes_with_the_process(tmp_path: Path) -> None:
    code = """
import errno, fcntl, sys
from pathlib import Path
def refuse(descriptor, operation): raise OSError(errno.ENOLCK, "no locks")
fcntl.flock = refuse
from gristmill.store.locks import Locks
with Locks(Path(sys.argv[1]), say=print, should_stop=lambda: False).shared():
    assert (Path(sys.argv[1]) / "only-run").exists()
"""
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True, timeout=60, stdout=subprocess.DEVNULL)
    assert not (tmp_path / "only-run").exists()


def test_other_errors_of_flock_are_not_taken_for_a_missing_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_descriptor: int, _operation: int) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(OSError, match="broken"), of(tmp_path).shared():
        pass
