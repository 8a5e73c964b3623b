"""Whatever byte of whatever file of a run changes, verifying it names the file; a sound run has nothing to tell."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.store.artifact import commit
from gristmill.store.checkpoints import CheckpointIndex
from gristmill.store.durable import write_json
from gristmill.store.sound import Wrong, used_by, verify
from gristmill.store.store import RunLinks, Store

SELECT, TRAIN = "a" * 32, "b" * 32


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two artefacts, one of them of a source, with one checkpoint of its own and one in its lineage."""
    runs = tmp_path_factory.mktemp("home") / "runs"
    store = Store(runs)
    run = RunLinks(store, "tiny")
    run.folder.mkdir(parents=True)
    index = CheckpointIndex(store, "pretrain")
    early, last = index.ref(1, "cc"), index.ref(2, "cc")
    for ref in (early, last):
        index.save(run, ref, write_files)
    index.unlink(run, early)
    for step, identity, more in (
        ("select/web", SELECT, {}),
        ("pretrain", TRAIN, {"lineage": [{"checkpoint": early.folder.name}]}),
    ):
        write_files(store.open_work(step, identity))
        store.commit(step, identity, {"seed": 7, **more})
        run.link(step, identity)
    return runs


def write_files(folder: Path) -> dict[str, str]:
    (folder / "deep").mkdir()
    (folder / "deep" / "tokens.bin").write_bytes(bytes(range(256)) * 40)
    write_json(folder / "report.json", {"documents": 12})
    return {}


def files(runs: Path) -> list[Path]:
    return sorted(path for path in (runs / ".store").rglob("*") if path.is_file() and path.stat().st_size)


def wrong(runs: Path) -> list[Path]:
    return [found.path for found in verify(runs / "tiny", threads=2).wrong]


def test_of_a_sound_run_every_byte_was_read_and_nothing_is_wrong(runs: Path) -> None:
    told: list[tuple[int, int]] = []
    found = verify(runs / "tiny", threads=1, told=lambda done, total: told.append((done, total)))
    assert found.wrong == ()
    assert (found.folders, found.files) == (4, 8)
    assert told[-1] == (found.bytes, found.bytes)
    assert {used.name for used in used_by(runs / "tiny")} == {
        "select/web", "pretrain", "checkpoints/pretrain/0000002", "checkpoints/0000001-cc",
    }  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(data=st.data(), place=st.integers(0, 1 << 30), bit=st.integers(0, 7))
def test_one_flipped_bit_anywhere_is_found_in_its_file(runs: Path, data: st.DataObject, place: int, bit: int) -> None:
    path = data.draw(st.sampled_from(files(runs)))
    whole = path.read_bytes()
    content = bytearray(whole)
    content[place % len(content)] ^= 1 << bit
    path.chmod(0o644)
    try:
        path.write_bytes(content)
        found = verify(runs / "tiny", threads=1).wrong
    finally:
        path.write_bytes(whole)
    if (
        path.parent.parent.name == "checkpoints" and path.name == "manifest.json"
    ):  # a file may not have the hash or name that it says now
        assert {one.of.folder for one in found} == {path.parent}
    else:
        kept = path.relative_to(runs / ".store").parts[0] == "records"
        expected = [runs / ".store" / one for one in (f"select/web/{SELECT}", f"pretrain/{TRAIN}")]
        assert path in [one.path for one in found] or (kept and {one.of.folder for one in found} <= {*expected})
        assert found


@pytest.mark.parametrize(
    "damage",
    [lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:-1]), lambda path: path.write_bytes(b""),
     lambda path: path.write_bytes(bytes(min(4096, path.stat().st_size)) + path.read_bytes()[4096:]),
     lambda path: path.write_bytes(path.read_bytes() + b"\0")],
    ids=["missing", "cut", "emptied", "zeroed page", "longer"],
)  # fmt: skip
def test_a_file_that_is_missing_cut_or_zeroed_is_found(
    runs: Path, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    for number in range(len(files(runs))):
        damaged = copied(runs, tmp_path)
        path = files(damaged)[number]
        path.chmod(0o644)
        damage(path)
        assert path in wrong(damaged), path


def test_an_artefact_that_is_gone_is_missing(runs: Path, tmp_path: Path) -> None:
    damaged = copied(runs, tmp_path)
    shutil.rmtree(damaged / ".store" / "select" / "web" / SELECT)
    found = verify(damaged / "tiny", threads=1).wrong
    assert [(one.of.name, one.problem) for one in found] == [("select/web", "it is missing")]


def test_files_that_no_manifest_names_are_told_and_damage_nothing(runs: Path, tmp_path: Path) -> None:
    assert verify(runs / "tiny", threads=1).not_listed == ()
    stray = copied(runs, tmp_path)
    select, checkpoint = (stray / ".store" / one for one in (f"select/web/{SELECT}", "checkpoints/0000002-cc"))
    (select / "deep" / "tokens-00001.bin").write_bytes(b"more")
    (select / "empty").mkdir()
    (select / "link").symlink_to(tmp_path)
    (checkpoint / "record.json").write_text("{}\n")
    found = verify(stray / "tiny", threads=1)
    assert found.wrong == ()
    assert set(found.not_listed) == {
        select / "deep" / "tokens-00001.bin", select / "link", checkpoint / "record.json",
    }  # fmt: skip
    assert found.files == verify(runs / "tiny", threads=1).files
    (select / "manifest.json").chmod(0o644)
    (select / "manifest.json").write_text("damaged")
    found = verify(stray / "tiny", threads=1)
    assert select / "manifest.json" in [one.path for one in found.wrong]
    assert found.not_listed == (checkpoint / "record.json",), "without a manifest nothing tells one file from another"


def test_what_a_step_was_before_it_is_remade_and_unfinished_work_are_not_used(runs: Path, tmp_path: Path) -> None:
    remade = copied(runs, tmp_path)
    for name in ("pretrain.before", "sft.unfinished"):
        (remade / "tiny" / name).symlink_to(f"../.store/pretrain/{'c' * 32}")
    assert used_by(remade / "tiny") == [
        replace(one, folder=remade / one.folder.relative_to(runs)) for one in used_by(runs / "tiny")
    ]
    assert verify(remade / "tiny", threads=1).wrong == ()


def test_a_copy_with_its_links_followed_is_verified_without_a_store(runs: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(runs / "tiny", copy)
    assert verify(copy, threads=1).wrong == ()
    path = copy / "select" / "web" / "deep" / "tokens.bin"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[::-1])
    (found,) = verify(copy, threads=1).wrong
    assert isinstance(found, Wrong)
    assert (found.path, found.problem) == (path, "its content is not what was written")


def test_a_folder_that_no_store_made_has_nothing_to_verify(tmp_path: Path) -> None:
    (tmp_path / "x.partial").mkdir()
    (tmp_path / "x.partial" / "a").write_text("a")
    assert used_by(tmp_path) == []
    commit(tmp_path / "x.partial", tmp_path / "x", {})
    assert [used.name for used in used_by(tmp_path)] == ["x"]


def copied(runs: Path, to: Path) -> Path:
    shutil.rmtree(to / "runs", ignore_errors=True)
    return Path(shutil.copytree(runs, to / "runs", symlinks=True))
