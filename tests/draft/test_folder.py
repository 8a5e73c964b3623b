"""Names of recipes, and patterns that name the files of a source and no others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gristmill.data.outside import find_outside
from gristmill.draft.folder import files_by_kind, name_of, sources_of
from gristmill.extract.not_read import not_read_beside


@pytest.mark.parametrize(
    ("words", "name"),
    [("Übung x", "uebung-x"), ("Straße (neu)", "strasse-neu"), ("Ελλάδα", ""), ("my model.v2", "my-model-v2"),
     ("É à ñ", "e-a-n"), ("a_b", "a_b"), ("U\u0308bung", "uebung")],
)  # fmt: skip
def test_names_are_lower_case_letters_digits_and_dashes(words: str, name: str) -> None:
    assert name_of(words) == name


def test_each_source_names_its_own_files(tmp_path: Path) -> None:
    texts, recipe_dir = tmp_path / "my [old] texts", tmp_path / "model"
    recipe_dir.mkdir()
    names = [
        "a.txt",
        "B.TXT",
        "deep/[x]/a.md",
        "deep/!b.txt",
        "a.jsonl",
        "deep/a.jsonl",
        "deep/^c.jsonl",
        "d.py",
        ".x/e.txt",
    ]
    for name in names:
        (texts / name).parent.mkdir(parents=True, exist_ok=True)
        (texts / name).write_text("{}", encoding="utf-8")
    columns = {texts / "a.jsonl": "body", texts / "deep/a.jsonl": "text", texts / "deep/^c.jsonl": "text"}
    sources = {one.name: one for one in sources_of(files_by_kind(texts), columns, texts, recipe_dir)}
    assert set(sources) == {"text", "jsonl-text", "jsonl-body", "code"}
    for source in sources.values():
        found = find_outside(recipe_dir, source.read["paths"], where="test")
        assert {os.path.normpath(path) for path in found.files} == {str(path) for path in source.files}
    assert sum(len(source.files) for source in sources.values()) == len(names) - 1


@pytest.mark.parametrize(
    ("link", "target"), [("deep/loop", ".."), ("deep/gone.html", "nowhere"), ("self.html", "self.html")]
)
def test_links_that_lead_back_or_nowhere_leave_the_short_pattern(tmp_path: Path, link: str, target: str) -> None:
    (tmp_path / "data" / "deep").mkdir(parents=True)
    for name in ("a.html", "deep/b.html"):
        (tmp_path / "data" / name).write_text("a", encoding="utf-8")
    (tmp_path / "data" / link).symlink_to(target)
    (source,) = sources_of(files_by_kind(tmp_path / "data"), {}, tmp_path / "data", tmp_path)
    assert (source.read["paths"], source.is_listed) == (["data/**/*.html"], False)


def test_what_is_added_beside_files_that_are_listed_is_told_as_not_read(tmp_path: Path) -> None:
    for name in ("a.jsonl", "deep/er/b.jsonl"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_text("{}", encoding="utf-8")
    columns = {tmp_path / "data/a.jsonl": "body", tmp_path / "data/deep/er/b.jsonl": "text"}
    sources = sources_of(files_by_kind(tmp_path / "data"), columns, tmp_path / "data", tmp_path)
    assert all(source.is_listed for source in sources)
    (tmp_path / "data/deep/er/later.jsonl").write_text("{}", encoding="utf-8")
    (left,) = not_read_beside(tmp_path, [source.section().read for source in sources], has_chat=False)
    assert (left.kind, left.files) == (".jsonl", 1)
