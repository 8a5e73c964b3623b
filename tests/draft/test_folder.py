"""Names of recipes, and patterns that name the files of a source and no others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gristmill.data.outside import find_outside
from gristmill.draft.folder import files_by_kind, name_of, sources_of


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
