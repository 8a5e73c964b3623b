"""Removal: whatever nothing holds goes, whatever anything holds stays, for any sequence of operations."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gristmill.errors import ArtifactError
from gristmill.store import removal
from gristmill.store.artifact import is_committed, verify_manifest
from gristmill.store.checkpoints import CheckpointIndex
from gristmill.store.durable import write_json
from gristmill.store.removal import Removable, held_names, removable, remove
from gristmill.store.store import RunLinks, Store

ONE, TWO = "1" * 32, "2" * 32
PREFIX = "ab"


def make(store: Store, step: str, identity: str, **record: object) -> Path:
    (store.open_work(step, identity) / "a.txt").write_text(f"{step} {identity}", encoding="utf-8")
    store.commit(step, identity, record)
    return store.folder(step, identity)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


@pytest.fixture
def run(store: Store) -> RunLinks:
    return RunLinks(store, "mine")


def names(store: Store) -> list[str]:
    return [item.path.relative_to(store.root).as_posix() for item in removable(store)]


def test_what_is_removable_is_told_with_size_work_and_last_use(store: Store, run: RunLinks) -> None:
    old = make(store, "extract/manuals", ONE, wall_seconds=7.5)
    os.utime(old, (1_000, 1_000))
    make(store, "extract/manuals", TWO)
    run.link("extract/manuals", TWO)
    assert removable(store) == [
        Removable(
            kind="artefact",
            path=old,
            step="extract/manuals",
            identity=ONE,
            bytes=sum(path.stat().st_size for path in old.iterdir()),
            seconds=7.5,
            last_used=1_000.0,
        )
    ]
    run.link("extract/manuals", ONE)
    assert old.stat().st_mtime > 1_000_000  # a link is a use
    assert names(store) == [f"extract/manuals/{TWO}"]


def test_removing_leaves_the_record_and_no_other_trace(store: Store) -> None:
    folder = make(store, "select", ONE)
    kept = store.root / "records" / "select" / f"{ONE}.json"
    kept.unlink()  # as if killed between commit and record
    record = store.record("select", ONE)
    assert remove(store, removable(store)) != []
    assert store.record("select", ONE) == record
    assert not folder.exists()
    assert list((store.root / ".trash").iterdir()) == []
    make(store, "select", ONE)  # it can be made again
    assert store.is_there("select", ONE)


def test_what_came_into_use_after_the_list_was_made_stays(store: Store, run: RunLinks) -> None:
    make(store, "select", ONE)
    make(store, "select", TWO)
    listed = removable(store)
    run.link("select", TWO)
    assert [item.identity for item in remove(store, listed)] == [ONE]
    assert run.target("select") == TWO
    assert remove(store, listed) == []


def test_work_that_a_run_was_killed_in_is_held_by_its_mark_before_and_after_the_commit(
    store: Store, run: RunLinks
) -> None:
    run.mark_unfinished("select", ONE)
    store.open_work("select", ONE)
    assert names(store) == []
    store.commit("select", ONE, {})
    assert names(store) == []  # killed here, the next attempt links it
    run.link("select", ONE)
    run.withdraw("select")
    assert names(store) == [f"select/{ONE}"]


def test_unfinished_work_is_told_apart_and_goes_with_its_note(store: Store) -> None:
    working = store.open_work("select", ONE)
    (item,) = removable(store)
    assert (item.kind, item.path, item.seconds) == ("unfinished", working, None)
    assert remove(store, [item]) == [item]
    assert list(working.parent.iterdir()) == []


def test_what_is_being_made_stays_though_nothing_links_to_it(store: Store) -> None:
    with store.making("select", ONE, who="mine"):
        store.open_work("select", ONE)
        assert names(store) == []
        store.commit("select", ONE, {})
        assert names(store) == []
    assert names(store) == [f"select/{ONE}"]


def test_lineage_holds_checkpoints_while_the_artefact_is_linked(store: Store, run: RunLinks) -> None:
    index = CheckpointIndex(store, "pretrain")
    for step in (1, 2):
        index.save(run, index.ref(step, PREFIX), lambda folder: {})
        index.unlink(run, index.ref(step, PREFIX))
    make(store, "pretrain", ONE, lineage=[{"checkpoint": f"0000001-{PREFIX}"}])
    assert sorted(names(store)) == [f"checkpoints/0000001-{PREFIX}", f"checkpoints/0000002-{PREFIX}", f"pretrain/{ONE}"]
    run.link("pretrain", ONE)
    assert names(store) == [f"checkpoints/0000002-{PREFIX}"]


def test_a_lineage_that_cannot_be_read_stops_removal(store: Store, run: RunLinks) -> None:
    make(store, "select", TWO)
    listed = removable(store)
    make(store, "pretrain", ONE, lineage="none")
    run.link("pretrain", ONE)
    with pytest.raises(ArtifactError, match="its lineage names no checkpoints"):
        remove(store, listed)
    assert store.is_there("select", TWO)


def test_a_commit_while_the_lineage_is_read_hides_nothing(
    store: Store, run: RunLinks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record is seen below `.partial` and renamed before it is opened."""
    run.mark_unfinished("pretrain", ONE)
    partial = store.open_work("pretrain", ONE)
    final = store.folder("pretrain", ONE)
    write_json(partial / "record.json", {"lineage": [{"checkpoint": f"0000001-{PREFIX}"}]})
    original = removal.read_json

    def renamed_first(path: Path) -> object:
        if path.parent == partial and partial.exists():
            partial.rename(final)
        return original(path)

    monkeypatch.setattr(removal, "read_json", renamed_first)
    assert f"checkpoints/0000001-{PREFIX}" in held_names(store)
    assert final.exists()


@pytest.mark.parametrize("what", ["run", "store"])
def test_what_is_held_is_seen_through_folders_that_are_links_to_another_disk(tmp_path: Path, what: str) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / (".store" if what == "store" else "mine")).symlink_to(tmp_path / "disk")
    store = Store(tmp_path / "runs")
    make(store, "select", ONE)
    RunLinks(store, "mine").link("select", ONE)
    assert names(store) == []


def test_a_link_of_ones_own_beside_the_runs_holds_too(store: Store) -> None:
    make(store, "select", ONE)
    (store.runs_dir / "the-good-one").symlink_to(f".store/select/{ONE}")
    assert names(store) == []


def test_what_killed_links_and_removals_left_goes_and_holds_nothing(store: Store, run: RunLinks) -> None:
    make(store, "select", ONE)
    run.folder.mkdir()
    temporary = run.folder / ".select.1.tmp"
    temporary.symlink_to(f"../.store/select/{ONE}")
    trash = store.root / ".trash" / "x"
    trash.mkdir(parents=True)
    assert names(store) == [f"select/{ONE}"]
    remove(store, [])
    assert not temporary.is_symlink()
    assert not trash.exists()
    assert store.is_there("select", ONE)


def test_folders_of_a_copied_run_hold_nothing_and_are_not_touched(store: Store, run: RunLinks) -> None:
    make(store, "select", ONE)
    run.link("select", ONE)
    shutil.copytree(run.folder, store.runs_dir / "copy", symlinks=False)
    shutil.rmtree(run.folder)
    assert len(remove(store, removable(store))) == 1
    verify_manifest(store.runs_dir / "copy" / "select")


def test_looking_writes_nothing(store: Store) -> None:
    assert removable(store) == []
    assert held_names(store) == set()
    assert not store.runs_dir.exists()


def test_a_record_whose_writing_was_killed_is_removed_unless_it_is_being_written(store: Store) -> None:
    make(store, "extract/manuals", ONE)
    half = store.root / "records" / "extract" / "manuals" / f"{ONE}.json.tmp"
    half.write_text("{", encoding="utf-8")
    with store.making("extract/manuals", ONE, who="a run"):
        remove(store, [])
        assert half.exists()
    remove(store, [])
    assert not half.exists()
    assert store.record("extract/manuals", ONE) is not None


# ── any sequence of operations, against sets in memory ───────────────────────────────────────────────────────────────

IDENTITIES = st.sampled_from([ONE, TWO])
STEPS = st.sampled_from(["select", "extract/manuals"])
RUNS = st.sampled_from(["a", "b"])
CHECKPOINT_STEPS = st.integers(1, 3)
PREFIXES = st.sampled_from(["aa", "aa", "bb"])


class StoreMachine(RuleBasedStateMachine):
    """The model: which artefacts, unfinished folders and checkpoints are there, and what each run links."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="store-machine-"))
        self.fsync, os.fsync = (
            os.fsync,
            lambda descriptor: None,
        )  # nothing is killed here, and it takes most of the time
        self.store = Store(self.folder)
        self.index = CheckpointIndex(self.store, "pretrain")
        self.runs = {name: RunLinks(self.store, name) for name in ("a", "b")}
        self.made: set[tuple[str, str]] = set()
        self.ever: set[tuple[str, str]] = set()
        self.begun: set[tuple[str, str]] = set()
        self.saved: set[tuple[int, str]] = set()
        self.lineage: dict[tuple[str, str], tuple[int, str]] = {}
        self.links: dict[tuple[str, str], str] = {}
        self.aside: dict[tuple[str, str], str] = {}
        self.marks: dict[tuple[str, str], str] = {}
        self.own: dict[tuple[str, int], str] = {}

    def teardown(self) -> None:
        os.fsync = self.fsync
        shutil.rmtree(self.folder)

    @rule(step=STEPS, identity=IDENTITIES)
    def begin(self, step: str, identity: str) -> None:
        if (step, identity) not in self.made:
            self.store.open_work(step, identity)
            self.begun.add((step, identity))

    @rule(step=STEPS, identity=IDENTITIES, number=CHECKPOINT_STEPS, prefix=PREFIXES)
    def commit(self, step: str, identity: str, number: int, prefix: str) -> None:
        if (step, identity) not in self.made:
            self.store.open_work(step, identity)
            lineage = [{"checkpoint": f"{number:07d}-{prefix}"}]
            assert self.store.commit(step, identity, {"lineage": lineage})
            self.begun.discard((step, identity))
            self.made.add((step, identity))
            self.ever.add((step, identity))
            self.lineage[step, identity] = number, prefix

    @rule(run=RUNS, step=STEPS, identity=IDENTITIES)
    def link(self, run: str, step: str, identity: str) -> None:
        is_there = (step, identity) in self.made
        assert self.runs[run].link(step, identity) == is_there
        if is_there:
            self.links[run, step] = identity
            self.aside.pop((run, step), None)
            if self.marks.get((run, step)) == identity:  # work on what is made is over
                del self.marks[run, step]

    @rule(run=RUNS, step=STEPS)
    def set_aside(self, run: str, step: str) -> None:
        self.runs[run].set_aside(step)
        if (identity := self.links.pop((run, step), None)) is not None:
            self.aside[run, step] = identity

    @rule(run=RUNS, step=STEPS)
    def put_back(self, run: str, step: str) -> None:
        self.runs[run].put_back(step)
        if (identity := self.aside.pop((run, step), None)) is not None:
            self.links[run, step] = identity

    @rule(run=RUNS, step=STEPS)
    def withdraw(self, run: str, step: str) -> None:
        self.runs[run].withdraw(step)
        self.links.pop((run, step), None)

    @rule(run=RUNS, step=STEPS, identity=IDENTITIES)
    def mark(self, run: str, step: str, identity: str) -> None:
        self.runs[run].mark_unfinished(step, identity)
        self.marks[run, step] = identity

    @rule(run=RUNS, number=CHECKPOINT_STEPS, prefix=PREFIXES)
    def save(self, run: str, number: int, prefix: str) -> None:
        is_new = (number, prefix) not in self.saved
        assert self.index.save(self.runs[run], self.index.ref(number, prefix), lambda folder: {}) == is_new
        self.saved.add((number, prefix))
        self.own[run, number] = prefix

    @rule(run=RUNS, number=CHECKPOINT_STEPS, prefix=PREFIXES)
    def unlink(self, run: str, number: int, prefix: str) -> None:
        self.index.unlink(self.runs[run], self.index.ref(number, prefix))
        if self.own.get((run, number)) == prefix:
            del self.own[run, number]

    @rule(run=RUNS, keep_last=st.integers(1, 2), milestones=st.sets(CHECKPOINT_STEPS, max_size=1))
    def prune(self, run: str, keep_last: int, milestones: set[int]) -> None:
        numbers = sorted((number for name, number in self.own if name == run), reverse=True)
        dropped = [(number, self.own.pop((run, number))) for number in numbers[keep_last:] if number not in milestones]
        deleted = {checkpoint for checkpoint in dropped if checkpoint not in self.held_checkpoints()}
        found = self.index.prune(self.runs[run], keep_last=keep_last, milestones=milestones)
        assert {(ref.step, ref.prefix) for ref in found} == deleted
        self.saved -= deleted

    @precondition(lambda self: self.made or self.begun or self.saved)
    @rule(unfinished=st.booleans(), first=st.booleans())
    def clean(self, unfinished: bool, first: bool) -> None:
        items = [item for item in removable(self.store) if unfinished or item.kind != "unfinished"]
        expected = self.free(unfinished)
        assert {(item.kind, item.step, item.identity) for item in items} == expected
        removed = remove(self.store, items[:1] if first else items)
        assert removed == (items[:1] if first else items)
        for item in removed:
            if item.kind == "artefact":
                self.made.remove((item.step, item.identity))
            elif item.kind == "unfinished":
                self.begun.remove((item.step, item.identity))
            else:
                number, _, prefix = item.identity.partition("-")
                self.saved.remove((int(number), prefix))

    def held(self) -> set[tuple[str, str]]:
        return {(step, identity) for of in (self.links, self.aside, self.marks) for (_, step), identity in of.items()}

    def held_checkpoints(self) -> set[tuple[int, str]]:
        own = {(number, prefix) for (_, number), prefix in self.own.items()}
        return own | {self.lineage[artefact] for artefact in self.held() & self.made}

    def free(self, unfinished: bool) -> set[tuple[str, str, str]]:
        marked = {(step, identity) for (_, step), identity in self.marks.items()}
        free = {("artefact", *artefact) for artefact in self.made - self.held()}
        free |= {
            ("checkpoint", "checkpoints", f"{n:07d}-{prefix}") for n, prefix in self.saved - self.held_checkpoints()
        }
        return free | ({("unfinished", *work) for work in self.begun - marked} if unfinished else set())

    @invariant()
    def the_disk_is_as_the_model_says(self) -> None:
        for run, links in self.runs.items():
            for step in ("select", "extract/manuals"):
                assert links.target(step) == self.links.get((run, step))
                assert links.before(step) == self.links.get((run, step), self.aside.get((run, step)))
                marked = (step, self.marks.get((run, step))) in self.begun
                assert (links.unfinished(step) is not None) == marked
            own = {(ref.step, ref.prefix) for ref in self.index.own(links)}
            assert own == {(number, prefix) for (name, number), prefix in self.own.items() if name == run}
        assert {(ref.step, ref.prefix) for ref in self.index.all()} == self.saved
        for step in ("select", "extract/manuals"):
            for identity in (ONE, TWO):
                assert is_committed(self.store.folder(step, identity)) == ((step, identity) in self.made)
                assert (self.store.record(step, identity) is not None) == ((step, identity) in self.ever)


StoreMachine.TestCase.settings = settings(max_examples=20, stateful_step_count=30, deadline=None)
TestAnySequence = StoreMachine.TestCase


@pytest.mark.slow
class TestMoreSequences(StoreMachine.TestCase):
    settings = settings(max_examples=200, stateful_step_count=30, deadline=None)
