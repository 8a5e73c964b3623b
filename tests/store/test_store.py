"""The store: each artefact once and read-only; links are relative, atomic, and read the same after a copy."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from gristmill.errors import ArtifactError
from gristmill.store import artifact
from gristmill.store.artifact import RECORD, commit, make_read_only, verify_manifest
from gristmill.store.durable import read_json
from gristmill.store.store import RunLinks, Store

ONE, TWO = "1" * 32, "2" * 32
STEPS = ["select", "extract/manuals"]


def make(store: Store, step: str, identity: str, text: str = "text", **record: Any) -> Path:
    working = store.open_work(step, identity)
    (working / "inner").mkdir(exist_ok=True)
    (working / "inner" / "a.txt").write_text(text, encoding="utf-8")
    store.commit(step, identity, record)
    return store.folder(step, identity)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


@pytest.fixture
def run(store: Store) -> RunLinks:
    return RunLinks(store, "mine")


def own_version() -> tuple[int, ...]:
    """Major and minor, of pyproject.toml: what an editable installation says may be older."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return tuple(map(int, project["version"].split(".")[:2]))


# ── artefacts ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("step", STEPS)
def test_an_artefact_is_where_its_identity_says_and_knows_who_it_is(store: Store, step: str) -> None:
    folder = make(store, step, ONE, wall_seconds=3.0)
    assert folder == store.runs_dir / ".store" / step / ONE
    assert store.is_there(step, ONE)
    assert not store.is_there(step, TWO)
    assert read_json(folder / "record.json") == {
        "record_version": 2,
        "step": step,
        "identity": ONE,
        "wall_seconds": 3.0,
    }
    assert sorted(path.name for path in folder.parent.iterdir()) == [ONE]  # no partial folder, no note, no lock
    verify_manifest(folder)


def test_files_are_read_only_and_the_folder_can_still_be_removed(store: Store) -> None:
    folder = make(store, "select", ONE)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) == 3
    assert all(stat.S_IMODE(path.stat().st_mode) & 0o222 == 0 for path in files)
    assert all(path.stat().st_mode & stat.S_IWUSR for path in (folder, folder / "inner"))
    subprocess.run(["rm", "-r", folder], check=True, stdin=subprocess.DEVNULL)


def test_who_can_read_the_manifest_can_read_what_a_writer_left_to_its_owner_only(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    for name, mode in (("manifest.json", 0o644), ("model/model.safetensors", 0o600), ("run.sh", 0o755)):
        (tmp_path / name).write_text("{}", encoding="utf-8")
        (tmp_path / name).chmod(mode)
    make_read_only(tmp_path)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*") if path.is_file()}
    assert modes == {"manifest.json": 0o444, "model.safetensors": 0o444, "run.sh": 0o555}


def test_the_record_outlives_the_bytes_with_their_hashes(store: Store) -> None:
    folder = make(store, "extract/manuals", ONE, config={"seed": 1})
    while_there = store.record("extract/manuals", ONE)
    shutil.rmtree(folder)
    assert while_there is not None
    assert while_there["config"] == {"seed": 1}
    assert list(while_there["manifest"]) == ["inner/a.txt"]
    assert store.record("extract/manuals", ONE) == while_there
    assert store.record("extract/manuals", TWO) is None
    assert not store.is_there("extract/manuals", ONE)


def test_what_was_made_anew_is_what_the_record_tells(store: Store) -> None:
    shutil.rmtree(make(store, "select", ONE, text="first"))
    make(store, "select", ONE, text="second time")
    for _ in range(2):
        record = store.record("select", ONE)
        assert record is not None
        assert record["manifest"]["inner/a.txt"]["bytes"] == len("second time")
        shutil.rmtree(store.folder("select", ONE), ignore_errors=True)


def test_files_are_found_in_artefacts_and_unfinished_work_of_one_step(store: Store) -> None:
    made = make(store, "select", ONE)
    make(store, "extract/manuals", TWO)
    (store.open_work("select", TWO) / RECORD).write_text("{}", encoding="utf-8")
    assert store.files("select", RECORD) == [made / RECORD, made.with_name(f"{TWO}.partial") / RECORD]
    assert store.files("tokenize", RECORD) == []


def test_the_first_commit_of_an_identity_stays_and_the_second_run_is_told(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    working = store.open_work("select", ONE)
    (working / "a.txt").write_text("ours", encoding="utf-8")

    def overtaken(ours: Path, final: Path, record: Any, **more: Any) -> None:
        theirs = final.with_name("theirs")
        theirs.mkdir()
        (theirs / "a.txt").write_text("theirs", encoding="utf-8")
        commit(theirs, final, record)
        commit(ours, final, record)

    monkeypatch.setattr(artifact, "commit", overtaken)
    assert store.commit("select", ONE, {}) is False
    assert (store.folder("select", ONE) / "a.txt").read_text(encoding="utf-8") == "theirs"
    assert [path.name for path in store.folder("select", ONE).parent.iterdir()] == [ONE]
    monkeypatch.undo()
    (store.open_work("select", ONE) / "a.txt").write_text("ours again", encoding="utf-8")
    assert store.commit("select", ONE, {}) is False
    assert (store.folder("select", ONE) / "a.txt").read_text(encoding="utf-8") == "theirs"


def test_a_commit_that_fails_for_another_reason_says_so(store: Store) -> None:
    store.open_work("select", ONE)
    store.folder("select", ONE).mkdir()  # no artefact: it has neither manifest nor record
    with pytest.raises(ArtifactError, match="exists already"):
        store.commit("select", ONE, {})
    assert store.open_work("select", ONE).is_dir()


def test_unfinished_work_is_found_again(store: Store) -> None:
    (store.open_work("select", ONE) / "part").write_text("half", encoding="utf-8")
    assert (store.open_work("select", ONE) / "part").read_text(encoding="utf-8") == "half"
    assert not (store.open_work("select", TWO) / "part").exists()


def test_looking_writes_nothing(store: Store, run: RunLinks) -> None:
    assert run.artefact("select") is run.target("select") is run.unfinished("select") is store.record("select", ONE)
    assert store.files("select", RECORD) == []
    assert not store.is_there("select", ONE)
    assert not store.runs_dir.exists()


# ── links ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("step", STEPS)
def test_a_link_is_relative_and_leads_to_the_artefact(store: Store, run: RunLinks, step: str) -> None:
    folder = make(store, step, ONE)
    assert run.link(step, ONE)
    path = store.runs_dir / "mine" / step
    assert run.artefact(step) == path
    assert run.target(step) == ONE
    assert path.is_symlink()
    assert not path.readlink().is_absolute()
    assert path.resolve() == folder.resolve()
    store.runs_dir.rename(store.runs_dir.with_name("moved"))
    assert RunLinks(Store(store.runs_dir.with_name("moved")), "mine").target(step) == ONE


def test_only_what_is_there_can_be_linked_and_the_old_link_stays(store: Store, run: RunLinks) -> None:
    make(store, "select", ONE)
    assert run.link("select", ONE)
    store.open_work("select", TWO)
    assert not run.link("select", TWO)
    assert run.target("select") == ONE
    make(store, "select", TWO)
    assert run.link("select", TWO)
    assert run.target("select") == TWO
    assert store.is_there("select", ONE)


def test_a_link_is_replaced_in_one_step(store: Store, run: RunLinks, monkeypatch: pytest.MonkeyPatch) -> None:
    for identity in (ONE, TWO):
        make(store, "select", identity)
    run.link("select", ONE)
    seen: list[str | None] = []
    replace = os.replace

    def watched(source: Path, target: Path) -> None:
        seen.append(run.target("select"))
        replace(source, target)
        seen.append(run.target("select"))

    monkeypatch.setattr(os, "replace", watched)
    run.link("select", TWO)
    assert seen == [ONE, TWO]


def test_a_link_that_leads_nowhere_counts_as_absent(store: Store, run: RunLinks) -> None:
    shutil.move(make(store, "select", ONE), store.runs_dir / "away")
    make(store, "select", ONE)
    run.link("select", ONE)
    shutil.rmtree(store.folder("select", ONE))
    assert run.artefact("select") is run.target("select") is None


def test_a_link_can_be_withdrawn_more_than_once(store: Store, run: RunLinks) -> None:
    make(store, "select", ONE)
    run.link("select", ONE)
    run.withdraw("select")
    run.withdraw("select")
    assert run.target("select") is None
    assert store.is_there("select", ONE)


def test_unfinished_work_is_marked_and_cleared(store: Store, run: RunLinks) -> None:
    run.mark_unfinished("extract/manuals", ONE)
    assert run.unfinished("extract/manuals") is None  # not begun yet
    working = store.open_work("extract/manuals", ONE)
    found = run.unfinished("extract/manuals")
    assert found is not None
    assert found.samefile(working)
    make(store, "extract/manuals", TWO)
    run.link("extract/manuals", TWO)
    assert run.unfinished("extract/manuals") is not None, "it is work on another artefact"
    note = working.with_name(f"{working.name}.json")
    kept = note.read_text()
    store.commit("extract/manuals", ONE, {})
    note.write_text(kept)  # killed right after the commit
    run.link("extract/manuals", ONE)
    assert not (run.folder / "extract" / "manuals.unfinished").is_symlink()
    assert not note.exists()


@pytest.mark.parametrize("what", ["run", "store", "runs"])
def test_folders_that_are_links_to_another_disk_work_too(tmp_path: Path, what: str) -> None:
    other = tmp_path / "disk" / "deep" / "folder"
    other.mkdir(parents=True)
    (tmp_path / "runs").symlink_to(other) if what == "runs" else (tmp_path / "runs").mkdir()
    if what != "runs":
        (tmp_path / "runs" / (".store" if what == "store" else "mine")).symlink_to(other)
    store = Store(tmp_path / "runs")
    run = RunLinks(store, "mine")
    folder = make(store, "extract/manuals", ONE)
    assert run.link("extract/manuals", ONE)
    assert run.target("extract/manuals") == ONE
    assert (store.runs_dir / "mine" / "extract/manuals").samefile(folder)


# ── copies and older runs ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def copied(store: Store, run: RunLinks, tmp_path: Path) -> RunLinks:
    """A run, copied to another place with its links followed, as `cp -rL` does."""
    make(store, "select", ONE)
    make(store, "extract/manuals", TWO)
    run.link("select", ONE)
    run.link("extract/manuals", TWO)
    shutil.copytree(store.runs_dir / "mine", tmp_path / "elsewhere" / "copy", symlinks=False)
    return RunLinks(Store(tmp_path / "elsewhere"), "copy")


def test_a_copied_run_reads_like_one_with_links(copied: RunLinks, run: RunLinks) -> None:
    for step in STEPS:
        theirs, ours = copied.artefact(step), run.artefact(step)
        assert theirs is not None
        assert ours is not None
        verify_manifest(theirs)
        assert copied.target(step) == run.target(step)
        assert not theirs.is_symlink()
    assert copied.artefact("tokenize") is None


def test_a_copied_run_serves_what_it_has_and_is_never_overwritten(copied: RunLinks) -> None:
    make(copied.store, "select", TWO)
    assert copied.link("select", ONE)
    with pytest.raises(ArtifactError, match=r"(?s)is a folder, not a link .* Move .*copy away"):
        copied.link("select", TWO)
    copied.withdraw("select")
    assert copied.target("select") == ONE


def test_a_run_of_version_0_1_is_refused_with_what_to_do(run: RunLinks, tmp_path: Path) -> None:
    working = tmp_path / "select.partial"
    working.mkdir()
    commit(working, run.folder / "select", {"step": "select", "fingerprint": ONE, "identity": {"version": 1}})
    before = json.dumps(read_json(run.folder / "select" / "record.json"))
    for look in (run.artefact, run.target, lambda step: run.link(step, ONE)):
        with pytest.raises(
            ArtifactError, match=r"(?s)select was made by gristmill 0\.1.*Move .*mine away.*--runs-dir"
        ) as caught:
            look("select")
        named = re.findall(r"gristmill (\d+)\.(\d+)", str(caught.value))
        assert named
        assert all((int(major), int(minor)) < own_version() for major, minor in named), (
            "this version is said to read it"
        )
    assert json.dumps(read_json(run.folder / "select" / "record.json")) == before


def test_a_folder_that_lost_its_record_does_not_block_its_step(store: Store, run: RunLinks) -> None:
    """An interrupted copy of a store looks like this."""
    (make(store, "select", ONE) / "record.json").unlink()
    assert not run.link("select", ONE)
    folder = make(store, "select", ONE, text="new")
    assert run.link("select", ONE)
    assert (folder / "inner" / "a.txt").read_text(encoding="utf-8") == "new"
