"""The commit protocol: absent or complete, whatever fails and whenever; damage is found; nothing is overwritten."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.errors import ArtifactError, ResourceError
from gristmill.store import artifact, durable
from gristmill.store.artifact import (
    close_working_folder,
    commit,
    is_committed,
    open_working_folder,
    verify_manifest,
    write_manifest,
)
from gristmill.store.durable import (
    file_sha256,
    out_of_space_is_a_resource_error,
    read_json,
    write_hashed,
    write_json,
)

RECORD = {"fingerprint": "f" * 32}


class Killed(BaseException):
    """The process stops here. Not an Exception, so that no handler can save it."""


def fill(folder: Path) -> None:
    (folder / "inner").mkdir(parents=True)
    (folder / "a.bin").write_bytes(bytes(range(256)))
    (folder / "empty.txt").write_bytes(b"")
    (folder / "inner" / "b.txt").write_text("words\n", encoding="utf-8")


@pytest.fixture
def fail_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, BaseException, bool], list[str]]]:
    """fail_at(n, error, after): the n-th durable operation raises, before or after it took effect; returns the calls so far."""

    def arm(number: int, error: BaseException, after: bool) -> list[str]:
        calls: list[str] = []

        def wrap(owner: Any, name: str) -> None:
            original = getattr(owner, name)

            def watched(*args: Any, **kwargs: Any) -> Any:
                calls.append(name)
                is_the_one = len(calls) == number
                if is_the_one and not after:
                    raise error
                result = original(*args, **kwargs)
                if is_the_one and after:
                    raise error
                return result

            monkeypatch.setattr(owner, name, watched)

        wrap(os, "fsync")
        wrap(Path, "rename")
        wrap(os, "replace")
        wrap(Path, "mkdir")
        wrap(artifact, "write_json")
        return calls

    yield arm
    monkeypatch.undo()


def assert_absent_or_complete(final: Path) -> None:
    if final.exists():
        assert is_committed(final)
        verify_manifest(final)
        assert (final / "a.bin").read_bytes() == bytes(range(256))


# fsync of three files, a folder, the two JSON files and the folders around them; renames; write_json: 20 calls suffice
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("number", range(1, 21))
def test_a_kill_at_any_step_leaves_the_artefact_absent_or_complete(
    tmp_path: Path, fail_at: Callable[[int, BaseException, bool], list[str]], number: int, after: bool
) -> None:
    working, final = tmp_path / "x.partial", tmp_path / "runs" / "x"
    fill(working)
    calls = fail_at(number, Killed(), after)
    try:
        commit(working, final, RECORD)
    except Killed:
        pass
    else:
        assert len(calls) < number
    assert_absent_or_complete(final)


def test_the_kills_above_reach_the_last_step_of_a_commit(
    tmp_path: Path, fail_at: Callable[[int, BaseException, bool], list[str]]
) -> None:
    fill(tmp_path / "x.partial")
    calls = fail_at(10**6, Killed(), False)
    commit(tmp_path / "x.partial", tmp_path / "runs" / "x", RECORD)
    assert len(calls) <= 20
    assert calls.index("rename") == len(calls) - 2  # then the parent folder is synced


@pytest.mark.parametrize("number", range(1, 21))
def test_after_a_kill_the_same_commit_can_be_done_again(
    tmp_path: Path,
    fail_at: Callable[[int, BaseException, bool], list[str]],
    number: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    working, final = tmp_path / "x.partial", tmp_path / "runs" / "x"
    fill(working)
    fail_at(number, Killed(), False)
    try:
        commit(working, final, RECORD)
    except Killed:
        monkeypatch.undo()
        if not final.exists():
            commit(working, final, RECORD)
    assert_absent_or_complete(final)
    assert sorted(read_json(final / "manifest.json")) == ["a.bin", "empty.txt", "inner/b.txt"]
    assert sorted(path.name for path in final.iterdir()) == [
        "a.bin",
        "empty.txt",
        "inner",
        "manifest.json",
        "record.json",
    ]


@pytest.mark.parametrize("error_number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("number", range(1, 15))
def test_a_full_disk_is_a_resource_error_and_the_last_good_state_stays(
    tmp_path: Path, fail_at: Callable[[int, BaseException, bool], list[str]], number: int, error_number: int
) -> None:
    good, working, final = tmp_path / "runs" / "good", tmp_path / "y.partial", tmp_path / "runs" / "y"
    fill(tmp_path / "x.partial")
    commit(tmp_path / "x.partial", good, RECORD)
    fill(working)
    fail_at(number, OSError(error_number, "no space left"), False)
    with pytest.raises(ResourceError, match=r"(?s)the disk is full .*run the same command") as caught:
        commit(working, final, RECORD)
    assert caught.value.exit_code == 75
    assert_absent_or_complete(final)
    assert_absent_or_complete(good)


def test_a_flush_that_fails_names_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "x.partial")

    def broken(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match=r"Input/output error: '.*x\.partial/") as caught:
        commit(tmp_path / "x.partial", tmp_path / "runs" / "x", RECORD)
    assert caught.value.errno == errno.EIO
    assert not (tmp_path / "runs" / "x").exists()


def test_other_errors_of_the_disk_keep_their_own_name(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), out_of_space_is_a_resource_error(tmp_path):
        raise PermissionError(errno.EACCES, "not allowed")


# ── damage ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.integers(0, 255), st.integers(0, 7))
@settings(deadline=None, max_examples=40)
def test_any_flipped_bit_is_found(tmp_path_factory: pytest.TempPathFactory, position: int, bit: int) -> None:
    folder = tmp_path_factory.mktemp("x") / "x"
    fill(folder)
    write_manifest(folder)
    content = bytearray((folder / "a.bin").read_bytes())
    content[position] ^= 1 << bit
    (folder / "a.bin").write_bytes(content)
    verify_manifest(folder, hashes=False)
    with pytest.raises(ArtifactError, match=r"a\.bin does not have the SHA-256 of its manifest"):
        verify_manifest(folder)
    shutil.rmtree(folder.parent)


@pytest.mark.parametrize("size", [0, 1, 255, 257])
def test_another_length_is_found_without_reading_the_file(tmp_path: Path, size: int) -> None:
    fill(tmp_path / "x")
    write_manifest(tmp_path / "x")
    (tmp_path / "x" / "a.bin").write_bytes(b"\0" * size)
    with pytest.raises(ArtifactError, match=rf"a\.bin has {size} bytes; its manifest says 256"):
        verify_manifest(tmp_path / "x", hashes=False)


@pytest.mark.parametrize("name", ["a.bin", "empty.txt", "inner/b.txt"])
def test_a_missing_file_is_found(tmp_path: Path, name: str) -> None:
    fill(tmp_path / "x")
    write_manifest(tmp_path / "x")
    (tmp_path / "x" / name).unlink()
    with pytest.raises(ArtifactError, match=f"{name} is missing"):
        verify_manifest(tmp_path / "x")


def test_a_folder_without_a_manifest_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"manifest\.json does not exist"):
        verify_manifest(tmp_path)


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe"])
def test_damaged_json_is_told_with_its_path(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "record.json").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"record\.json is damaged"):
        read_json(tmp_path / "record.json")


# ── nothing is overwritten ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_commit_never_overwrites(tmp_path: Path) -> None:
    fill(tmp_path / "x.partial")
    (tmp_path / "x").mkdir()
    with pytest.raises(ArtifactError, match="exists already; an artefact is never overwritten"):
        commit(tmp_path / "x.partial", tmp_path / "x", RECORD)
    assert (tmp_path / "x.partial" / "a.bin").exists()


def test_a_folder_without_a_record_is_not_committed(tmp_path: Path) -> None:
    fill(tmp_path / "x.partial")
    commit(tmp_path / "x.partial", tmp_path / "x")
    assert not is_committed(tmp_path / "x")


@pytest.mark.parametrize("number", range(1, 4))
def test_json_is_the_old_or_the_new_value_after_a_kill(
    tmp_path: Path, fail_at: Callable[[int, BaseException, bool], list[str]], number: int
) -> None:
    path = tmp_path / "state.json"
    write_json(path, {"step": 1})
    fail_at(number, Killed(), False)
    try:
        write_json(path, {"step": 2})
    except Killed:
        assert read_json(path) in ({"step": 1}, {"step": 2})  # the last operation flushes the folder, after the rename
    else:
        assert read_json(path) == {"step": 2}


def test_a_working_folder_survives_for_the_same_fingerprint_and_no_other(tmp_path: Path) -> None:
    final = tmp_path / "runs" / "extract" / "web"
    working = open_working_folder(final, "one")
    (working / "part").write_text("done", encoding="utf-8")
    assert (open_working_folder(final, "one") / "part").exists()
    assert not (open_working_folder(final, "two") / "part").exists()
    commit(working, final, RECORD)
    close_working_folder(final)
    assert [path.name for path in final.parent.iterdir()] == ["web"]


def test_what_a_killed_removal_leaves_of_a_working_folder_is_not_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    final = tmp_path / "web"
    working = open_working_folder(final, "one")
    (working / "documents").write_text("text", encoding="utf-8")
    (working / "documents-are-there").write_text("yes", encoding="utf-8")

    def killed_half_way(folder: Path) -> None:
        (folder / "documents").unlink()
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", killed_half_way)
        with pytest.raises(Killed):
            open_working_folder(final, "two")
    assert list(open_working_folder(final, "one").iterdir()) == []


def test_a_damaged_note_beside_a_working_folder_does_not_stop_the_next_attempt(tmp_path: Path) -> None:
    final = tmp_path / "web"
    working = open_working_folder(final, "one")
    (working / "part").write_text("done", encoding="utf-8")
    (tmp_path / "web.partial.json").write_text("{", encoding="utf-8")
    assert list(open_working_folder(final, "one").iterdir()) == []


def test_hashes_are_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert file_sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize("name", ["record.json.tmp", "train-00000.parquet.tmp"])
def test_what_a_killed_writer_left_does_not_become_part_of_the_artefact(tmp_path: Path, name: str) -> None:
    fill(tmp_path / "work")
    (tmp_path / "work" / "inner" / name).write_bytes(b"half of it")
    commit(tmp_path / "work", tmp_path / "done", RECORD)
    assert set(read_json(tmp_path / "done" / "manifest.json")) == {"a.bin", "empty.txt", "inner/b.txt"}
    assert not (tmp_path / "done" / "inner" / name).exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_is_known_by_the_text_of_errors_that_carry_no_number(number: int) -> None:
    with (
        pytest.raises(ResourceError, match="the disk is full while writing here"),
        out_of_space_is_a_resource_error(Path("here")),
    ):
        raise RuntimeError(f"Error while serializing: I/O error (os error {number})")
    with pytest.raises(RuntimeError, match="os error 2"), out_of_space_is_a_resource_error(Path("here")):
        raise RuntimeError("I/O error (os error 2)")


class Failing:
    """A hash that takes so many parts and no more."""

    def __init__(self, taken: int) -> None:
        self.taken = taken

    def update(self, part: bytes) -> None:
        if not self.taken:
            raise MemoryError("no room to hash")
        self.taken -= 1

    def hexdigest(self) -> str:
        return "0" * 64


@pytest.mark.parametrize("taken", range(3))
def test_what_hashing_raises_at_any_part_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: int) -> None:
    monkeypatch.setattr(durable.hashlib, "sha256", lambda: Failing(taken))
    with pytest.raises(MemoryError, match="no room to hash"):
        write_hashed(tmp_path / "file", [b"one", b"two", b"three"])


@pytest.mark.parametrize("sizes", [[1], [10, 10], [1 << 20, 1], [1, 1 << 20, 1 << 20]])
def test_a_full_disk_is_told_whichever_part_meets_it(sizes: list[int]) -> None:
    with pytest.raises(ResourceError), out_of_space_is_a_resource_error(Path("/dev/full")):
        write_hashed(Path("/dev/full"), [bytes(size) for size in sizes])


def test_a_hash_that_is_known_is_of_the_file_of_that_place_only(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    for name in ("weights", "inner/weights"):
        (tmp_path / name).write_bytes(name.encode())
    found = write_manifest(tmp_path, {"inner/weights": "a" * 64})
    assert {name: entry["sha256"] for name, entry in found.items()} == {
        "weights": file_sha256(tmp_path / "weights"),
        "inner/weights": "a" * 64,
    }
