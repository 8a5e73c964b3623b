"""Checkpoints in the store: each once, found by prefix, kept while a run links them, pruned by the run's own rule."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gristmill.errors import ArtifactError
from gristmill.store import locks
from gristmill.store.artifact import verify_manifest
from gristmill.store.checkpoints import CheckpointIndex, CheckpointRef
from gristmill.store.durable import write_hashed, write_json
from gristmill.store.store import RunLinks, Store

TRUNK, BRANCH = "aa" * 16, "bb" * 16


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


@pytest.fixture
def index(store: Store) -> CheckpointIndex:
    return CheckpointIndex(store, "pretrain")


@pytest.fixture
def run(store: Store) -> RunLinks:
    return RunLinks(store, "mine")


@pytest.fixture
def other(store: Store) -> RunLinks:
    return RunLinks(store, "other")


def write(folder: Path) -> dict[str, str]:
    return {"model.safetensors": write_hashed(folder / "model.safetensors", [b"weights"])}


def save(index: CheckpointIndex, run: RunLinks, step: int, prefix: str = TRUNK) -> CheckpointRef:
    index.save(run, index.ref(step, prefix), write)
    return index.ref(step, prefix)


def steps(refs: list[CheckpointRef]) -> list[int]:
    return [ref.step for ref in refs]


def test_a_checkpoint_is_saved_once_and_linked_by_all_who_reach_it(
    index: CheckpointIndex, run: RunLinks, other: RunLinks
) -> None:
    ref = index.ref(120, TRUNK)
    assert index.save(run, ref, write)

    def never(_folder: Path) -> dict[str, str]:
        raise AssertionError("written twice")

    assert not index.save(other, ref, never)
    assert index.own(run) == index.own(other) == index.all() == [ref]
    assert ref.folder.name == f"0000120-{TRUNK}"
    assert (run.folder / "checkpoints" / "pretrain" / "0000120" / "model.safetensors").read_bytes() == b"weights"
    assert not (run.folder / "checkpoints" / "pretrain" / "0000120").readlink().is_absolute()
    verify_manifest(ref.folder)
    assert all(not path.stat().st_mode & stat.S_IWUSR for path in ref.folder.iterdir())


def test_those_are_found_whose_prefix_is_what_the_recipe_gives_at_their_step(
    index: CheckpointIndex, run: RunLinks
) -> None:
    for step, prefix in [(100, TRUNK), (200, TRUNK), (200, BRANCH), (300, BRANCH), (12_345_678, TRUNK)]:
        save(index, run, step, prefix)

    def changed_at_150(step: int) -> str:
        return TRUNK if step <= 150 else BRANCH

    assert steps(index.find(changed_at_150)) == [300, 200, 100]
    assert {ref.prefix for ref in index.find(changed_at_150) if ref.step == 200} == {BRANCH}
    assert steps(index.find(lambda step: TRUNK)) == [12_345_678, 200, 100]
    assert index.find(lambda step: "cc") == []


def test_what_a_failed_write_left_is_no_checkpoint(index: CheckpointIndex, run: RunLinks) -> None:
    def fail(folder: Path) -> dict[str, str]:
        write(folder)
        raise OSError("broken")

    with pytest.raises(OSError, match="broken"):
        index.save(run, index.ref(1, TRUNK), fail)
    assert index.all() == index.own(run) == []
    assert list(index.ref(1, TRUNK).folder.parent.iterdir()) == []


def test_only_what_is_there_can_be_linked(index: CheckpointIndex, run: RunLinks) -> None:
    assert not index.link(run, index.ref(5, TRUNK))
    assert index.own(run) == []
    assert not (run.folder / "checkpoints").exists()


def test_unlinking_leaves_the_link_to_another_checkpoint_of_that_step(index: CheckpointIndex, run: RunLinks) -> None:
    old = save(index, run, 7, TRUNK)
    new = save(index, run, 7, BRANCH)
    index.unlink(run, old)
    assert index.own(run) == [new]
    index.unlink(run, new)
    index.unlink(run, new)
    assert index.own(run) == []
    assert len(index.all()) == 2


def test_held_are_the_named_checkpoints_as_far_as_they_are_there_and_no_others(
    index: CheckpointIndex, run: RunLinks, other: RunLinks
) -> None:
    mine, branch, kept = save(index, run, 100), save(index, other, 100, BRANCH), save(index, run, 200)
    gone = f"0000300-{TRUNK}"
    index.hold(run, [branch.folder.name, kept.folder.name, gone])
    assert set(index.own(run)) == {branch, kept}
    assert mine.folder.is_dir(), "letting go removes nothing"
    index.hold(run, [])
    assert index.own(run) == []


def test_pruning_keeps_the_newest_the_milestones_and_what_others_use(
    store: Store, index: CheckpointIndex, run: RunLinks, other: RunLinks
) -> None:
    for step in (10, 20, 30, 40, 50):
        save(index, run, step)
    save(index, run, 60, BRANCH)
    save(index, other, 30)
    elsewhere = save(index, other, 15, BRANCH)
    index.unlink(other, elsewhere)  # nobody's, and not for this prune to decide
    deleted = index.prune(run, keep_last=2, milestones={20})
    assert sorted(steps(deleted)) == [10, 40]
    assert steps(index.own(run)) == [60, 50, 20]
    assert steps(index.own(other)) == [30]
    assert sorted(steps(index.all())) == [15, 20, 30, 50, 60]
    assert list((store.root / ".trash").iterdir()) == []


def test_what_is_reserved_stays_however_the_run_prunes_until_it_is_released(
    index: CheckpointIndex, run: RunLinks, other: RunLinks
) -> None:
    refs = [save(index, run, step) for step in (10, 20, 30)]
    assert index.reserve(run, refs[0])
    assert index.prune(run, keep_last=1) == [refs[1]]
    assert index.own(run) == [refs[2]], "it is held for the next training, which decides what is its own"
    assert index.all() == [refs[2], refs[0]]
    index.release(other)
    assert index.prune(run, keep_last=1) == []
    assert index.link(run, refs[0])
    index.release(run)
    assert index.prune(run, keep_last=1) == [refs[0]]
    assert not index.reserve(run, refs[0]), "it is gone"


def test_a_finished_training_that_is_linked_again_holds_nothing_in_reserve(
    index: CheckpointIndex, run: RunLinks
) -> None:
    refs = [save(index, run, step) for step in (10, 20)]
    assert index.reserve(run, refs[0])
    index.hold(run, [ref.folder.name for ref in refs])
    assert index.prune(run, keep_last=1) == [refs[0]]


def test_the_lineage_of_a_linked_artefact_is_not_pruned(store: Store, index: CheckpointIndex, run: RunLinks) -> None:
    refs = [save(index, run, step) for step in (1, 2, 3)]
    store.open_work("pretrain", "1" * 32)
    store.commit("pretrain", "1" * 32, {"lineage": [{"checkpoint": refs[0].folder.name}]})
    run.link("pretrain", "1" * 32)
    assert steps(index.prune(run, keep_last=1)) == [2]
    assert steps(index.own(run)) == [3]
    assert steps(index.all()) == [3, 1]


def test_pruning_removes_what_killed_saves_and_prunes_left(store: Store, index: CheckpointIndex, run: RunLinks) -> None:
    ref = save(index, run, 1)
    half = ref.folder.with_name(f"0000002-{TRUNK}.partial")
    half.mkdir()
    being_saved = ref.folder.with_name(f"0000003-{TRUNK}.partial")
    being_saved.mkdir()
    trash = store.root / ".trash" / "0000000-aa-1234"
    trash.mkdir(parents=True)
    with store.locks.making(index.ref(3, TRUNK).folder, what="checkpoint 3", who="other"):
        assert index.prune(run, keep_last=1) == []
    assert not half.exists()
    assert not trash.exists()
    assert being_saved.is_dir()
    assert index.own(run) == [ref]


def test_training_goes_on_when_pruning_cannot(
    store: Store, index: CheckpointIndex, run: RunLinks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "PATIENCE_SECONDS", 0.05)
    for step in (1, 2):
        save(index, run, step)
    said: list[str] = []
    with Store(store.runs_dir).locks.shared():
        assert index.prune(run, keep_last=1, say=said.append) == []
    assert len(said) == 1
    assert said[0].startswith("old checkpoints were not removed: ")
    assert steps(index.own(run)) == [2, 1]
    assert steps(index.prune(run, keep_last=1)) == [1]


@pytest.mark.parametrize("lineage", [{"checkpoint": "x"}, [1], [{"chekpoint": "x"}], 3])
def test_nothing_is_deleted_while_a_lineage_cannot_be_read(
    store: Store, index: CheckpointIndex, run: RunLinks, lineage: object
) -> None:
    for step in (1, 2):
        save(index, run, step)
    store.open_work("pretrain", "1" * 32)
    store.commit("pretrain", "1" * 32, {"lineage": lineage})
    run.link("pretrain", "1" * 32)
    said: list[str] = []
    assert index.prune(run, keep_last=1, say=said.append) == []
    assert "lineage" in said[0]
    assert len(index.all()) == 2


def test_a_damaged_checkpoint_is_set_aside_and_can_be_saved_anew(index: CheckpointIndex, run: RunLinks) -> None:
    ref = save(index, run, 9)
    (ref.folder / "model.safetensors").chmod(0o644)
    (ref.folder / "model.safetensors").write_bytes(b"weighs!")
    with pytest.raises(ArtifactError):
        verify_manifest(ref.folder)
    index.set_damaged_aside(ref)
    assert index.all() == index.own(run) == []
    assert index.save(run, ref, write)
    verify_manifest(ref.folder)
    assert index.own(run) == [ref]
    assert len([path for path in ref.folder.parent.iterdir() if ".damaged-" in path.name]) == 1


def test_looking_writes_nothing(store: Store, index: CheckpointIndex, run: RunLinks) -> None:
    assert index.all() == index.own(run) == index.find(lambda step: TRUNK) == []
    assert not store.runs_dir.exists()
    save(index, run, 1)
    write_json(run.folder / "note.json", {})
    before = {path: path.lstat().st_mtime_ns for path in store.runs_dir.rglob("*")}
    assert index.find(lambda step: TRUNK) == index.own(run) == index.all()
    assert {path: path.lstat().st_mtime_ns for path in store.runs_dir.rglob("*")} == before


def test_a_copied_run_keeps_its_checkpoints_as_plain_folders(
    index: CheckpointIndex, run: RunLinks, tmp_path: Path
) -> None:
    save(index, run, 1)
    shutil.copytree(run.folder, tmp_path / "copy", symlinks=False)
    verify_manifest(tmp_path / "copy" / "checkpoints" / "pretrain" / "0000001")
    copy = RunLinks(Store(tmp_path), "copy")
    with pytest.raises(ArtifactError, match="is a folder, not a link"):
        save(CheckpointIndex(copy.store, "pretrain"), copy, 1)


# ── what pruning may never touch ─────────────────────────────────────────────────────────────────────────────────────

STRANGE = st.sampled_from(
    [
        "absolute link to a folder elsewhere",
        "relative link out of the store",
        "link that climbs out by way of the store",
        "link to the store itself",
        "link that leads nowhere",
        "folder of a person's",
        "file of a person's",
    ]
)


def put_strange(links: Path, number: int, what: str, precious: Path) -> None:
    """Something at the place of the link of a checkpoint that training did not put there."""
    at = links / f"{number:07d}"
    targets = {
        "absolute link to a folder elsewhere": precious,
        "relative link out of the store": Path("../../../../precious"),
        "link that climbs out by way of the store": Path(
            f"../../../.store/checkpoints/../../../precious/{number:07d}-aa"
        ),
        "link to the store itself": Path("../../../.store/"),
        "link that leads nowhere": Path("../../../.store/checkpoints/gone"),
    }
    if what in targets:
        at.symlink_to(targets[what])
    elif what.startswith("folder"):
        at.mkdir()
        (at / "notes.txt").write_text("mine")
    else:
        at.write_text("mine")


def tree_of(folder: Path) -> dict[str, bytes | None]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")
    }


@given(
    st.lists(st.tuples(st.integers(1, 12), st.sampled_from([TRUNK, BRANCH])), min_size=1, max_size=6, unique=True),
    st.dictionaries(st.integers(20, 30), STRANGE, max_size=5),
    st.integers(1, 3),
    st.sets(st.integers(1, 12), max_size=3),
)
@example([(1, TRUNK), (2, TRUNK)], {25: "link that climbs out by way of the store"}, 1, set())
@settings(deadline=None, max_examples=25)
def test_pruning_deletes_checkpoints_of_the_run_only_and_never_the_newest(
    tmp_path_factory: pytest.TempPathFactory,
    checkpoints: list[tuple[int, str]],
    strange: dict[int, str],
    keep_last: int,
    milestones: set[int],
) -> None:
    base = tmp_path_factory.mktemp("prune")
    store = Store(base / "runs")
    index, run, other = CheckpointIndex(store, "pretrain"), RunLinks(store, "mine"), RunLinks(store, "other")
    precious = base / "precious"
    (precious / "0000025-aa").mkdir(parents=True)
    (precious / "0000025-aa" / "model.safetensors").write_bytes(b"somebody's")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        theirs = save(index, other, 13)
        for step, prefix in checkpoints:
            save(index, run, step, prefix)
        links = run.folder / "checkpoints" / "pretrain"
        for number, what in strange.items():
            put_strange(links, number, what, precious)
        before = tree_of(precious)
        said: list[str] = []
        deleted = index.prune(run, keep_last=keep_last, milestones=milestones, say=said.append)
    linked = dict(checkpoints)  # a step has one link, to what was saved last
    kept = {*sorted(linked, reverse=True)[:keep_last], *(milestones & linked.keys())}
    assert said == []
    assert {(ref.step, ref.prefix) for ref in index.own(run)} == {(step, linked[step]) for step in kept}
    assert {(ref.step, ref.prefix) for ref in deleted} == {(step, linked[step]) for step in linked.keys() - kept}
    assert tree_of(precious) == before
    assert theirs.folder.is_dir()
    for number, what in strange.items():
        if what.endswith("of a person's"):
            path = links / f"{number:07d}"
            assert "mine" in ((path / "notes.txt") if path.is_dir() else path).read_text()
    for ref in index.own(run):
        verify_manifest(ref.folder)
    shutil.rmtree(base)
