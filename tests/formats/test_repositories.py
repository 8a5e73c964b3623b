"""The repository of a source file: told alike in folders and archives, in any order and however a tree is cut."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from gristmill.data.record import RawDocument, Record
from gristmill.formats import repositories
from gristmill.formats.code import FORMAT, cut_tree, list_tree
from gristmill.recipe.schema.formats import ReadCode
from hostile import trees
from hostile.hostile import Maker
from source_trees import archive, fill


def read(path: Path, *, name: str = "t", asked: bool = True, limit: int = 10**9) -> list[Record]:
    settings = ReadCode(format="code", paths=["t"], repositories=asked)
    spans = (
        cut_tree(path, list_tree(path), name=name, limit=limit)
        if path.is_dir()
        else FORMAT.spans(path, name=name, limit=limit)
    )
    return [record for span in spans for record in FORMAT.read(span, settings)]


def told(path: Path, *, name: str = "t", limit: int = 10**9) -> dict[str, str | None]:
    records = read(path, name=name, limit=limit)
    return {
        record.id.removeprefix(f"{name}#"): record.repository for record in records if isinstance(record, RawDocument)
    }


CLONES = {"ada/mill/README": b"", "ada/mill/.git/config": b"", "ada/mill/src/a.py": b"", "ada/wind/b.py": b"", "sail/lib/c.py": b"", "sail/d.py": b""}  # fmt: skip
TOLD = {"ada/mill/src/a.py": "ada/mill", "ada/wind/b.py": "ada/wind", "sail/lib/c.py": "sail", "sail/d.py": "sail"}


def test_a_repository_is_the_topmost_folder_with_a_file(tmp_path: Path) -> None:
    folder = fill(tmp_path / "clones", CLONES)
    assert told(folder) == told(folder, limit=1) == TOLD
    (folder / ".hidden").touch()
    (folder / "link.py").symlink_to("sail/d.py")
    (folder / "recipe.yaml").write_text("schema_version: 1\n")
    assert told(folder) == TOLD
    (folder / "list.txt").touch()
    assert {*told(folder, name="clones").values()} == {"clones"}, "the folder is one tree"


@pytest.mark.parametrize(
    ("name", "files", "repository"),
    [
        ("mill-1.2.tar.gz", ["mill-1.2/src/a.py", "mill-1.2/setup.py"], "mill-1.2"),
        ("mill-1.2.tar.gz", ["./mill-1.2/a.py", "._mill-1.2"], "mill-1.2"),
        ("old/mill-1.2.tgz", ["src/a.py", "setup.py"], "old/mill-1.2"),
        ("mill-1.2.tar.zst", ["package/lib/a.js", "package/package.json"], "mill-1.2"),
    ],
)
def test_the_folder_in_an_archive_names_it_or_the_archive_itself(
    tmp_path: Path, name: str, files: list[str], repository: str
) -> None:
    found = told(archive(tmp_path / "t.tar.gz", dict.fromkeys(files, b"")), name=name)
    assert {*found.values()} == {repository}


def test_a_file_alone_has_no_repository_and_nothing_is_told_unasked(tmp_path: Path) -> None:
    fill(tmp_path, {"alone.py": b""})
    assert told(tmp_path / "alone.py") == {"0": None}
    records = read(fill(tmp_path / "clones", CLONES), asked=False)
    assert {record.repository for record in records if isinstance(record, RawDocument)} == {None}


FOLDERS = st.sampled_from(["", "a/", "a/b/", "a/b/c/", "d/", "d/e/"])


@given(folders=st.sets(FOLDERS, min_size=1), order=st.randoms(use_true_random=False))
@hypothesis_settings(deadline=None, max_examples=25)
def test_folders_and_archives_in_any_order_tell_alike(
    folders: set[str], order: object, tmp_path_factory: pytest.TempPathFactory
) -> None:
    names = sorted(f"{folder}x.py" for folder in folders)
    order.shuffle(names)  # type: ignore[attr-defined]
    place = tmp_path_factory.mktemp("t")
    found = told(archive(place / "t.tar.gz", dict.fromkeys(names, b"")))
    assert found == told(fill(place / "tree", dict.fromkeys(names, b"")))
    for folder in folders:
        top = min((one for one in folders if folder.startswith(one)), key=len)
        assert found[f"{folder}x.py"] == (top.rstrip("/") or "t")


def test_repositories_without_number_are_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repositories, "MAX_REPOSITORIES", 3)
    few, more = ({f"{n}/x.py": b"" for n in range(count)} for count in (3, 4))
    assert told(archive(tmp_path / "few.tar.gz", few))["0/x.py"] == "0"
    assert {*told(archive(tmp_path / "more.tar.gz", more)).values()} == {None}


@pytest.mark.parametrize("maker", trees.SETS, ids=lambda maker: maker.__name__)
def test_looking_for_repositories_changes_nothing_else_of_a_hostile_tree(maker: Maker, tmp_path: Path) -> None:
    made = maker(tmp_path, 0.001)
    plain, asked = (read(made.path, asked=asked) for asked in (False, True))
    assert [_without(record) for record in asked] == [_without(record) for record in plain]


def _without(record: Record) -> Record:
    return replace(record, repository=None) if isinstance(record, RawDocument) else record
