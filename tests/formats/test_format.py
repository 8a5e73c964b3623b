"""A format is a class of the recipe and a file: nothing else lists them."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

import gristmill
from gristmill import formats
from gristmill.commands import survey
from gristmill.data.job import Place
from gristmill.formats.format import Format, Span, bytes_behind, format_named, format_of
from gristmill.recipe.schema.formats import LANGUAGES, READERS, ReadFiles, reader_of, without_packing

SOURCE = Path(gristmill.__file__ or "").parent
MODULES = sorted(path.stem for path in Path(formats.__file__ or "").parent.glob("*.py") if path.stem != "__init__")
# Files of gristmill's own, whose suffixes are no readers'; and the suffixes that say how a file is packed.
OWN_FILES = {".parquet", ".jsonl", ".md", ".html", ".gz", ".tgz", ".zst"}


def test_each_class_of_the_recipe_has_its_file_and_the_other_way_round() -> None:
    found = {name for name in MODULES if hasattr(importlib.import_module(f"gristmill.formats.{name}"), "FORMAT")}
    assert found == READERS.keys()
    assert all(isinstance(format_named(name), Format) for name in READERS)


def strings(path: Path) -> set[str]:
    """The literals of a module that are no docstrings, and no parts of f-strings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    constants = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in parts]
    return {node.value for node in constants if isinstance(node.value, str)}


def test_suffixes_and_names_of_formats_are_written_in_the_recipe_s_schema_only() -> None:
    suffixes = {suffix for reader in READERS.values() for suffix in reader.suffixes} - OWN_FILES
    for path in SOURCE.rglob("*.py"):
        if path.relative_to(SOURCE).as_posix() not in (
            "recipe/schema/formats.py",
            "formats/csv.py",
            "formats/code_language.py",
        ):
            assert not strings(path) & suffixes, f"{path} knows a suffix by itself"
    assert strings(SOURCE / "formats" / "csv.py") & suffixes == {".tsv"}, "by which the delimiter is told"
    shared = strings(SOURCE / "formats" / "code_language.py") & suffixes
    assert shared == {".h", ".pl", ".ts"}, "which several languages share"


def _in_this_process(job: survey.SurveyJob, _progress: object) -> list[object]:
    return [job.process(item) for item, _ in job.items(Place(), alone=False)]


def test_an_added_format_is_found_by_inspect_and_extract_without_an_edit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CSV was added after they were written; here its class is registered under a name and suffix that nobody has heard of."""

    class ReadQuux(READERS["csv"]):  # type: ignore[misc]
        """A format of tomorrow."""

        suffixes = (".quux",)
        format: str

    monkeypatch.setitem(READERS, "quux", ReadQuux)
    module = importlib.import_module("gristmill.formats.csv")
    monkeypatch.setitem(__import__("sys").modules, "gristmill.formats.quux", module)
    path = tmp_path / "x.quux"
    path.write_text("text\n" + "some words of text\n" * 20_000)
    assert reader_of(path.name) is ReadQuux
    monkeypatch.setattr(survey, "_guarded", _in_this_process)
    found = survey.look("quux", [path], 1)
    assert (found.documents, found.samples[0][1]) == (20_000, "some words of text")
    read = ReadQuux(format="quux", paths=[path.name])
    assert format_of(read) is module.FORMAT


@pytest.mark.parametrize("name", READERS)
def test_a_format_cuts_and_reads_an_empty_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"x{READERS[name].suffixes[0]}"
    path.touch()
    settings = READERS[name].model_validate({"format": name, "paths": [path.name]})
    (span,) = format_of(settings).spans(path, name="x", limit=1000)
    assert span == Span(path=path, name="x", size=0)
    assert len(list(format_of(settings).read(span, settings))) <= 1


def test_the_page_of_extract_lists_every_format_and_suffix() -> None:
    page = (SOURCE.parents[1] / "docs" / "steps" / "extract.md").read_text(encoding="utf-8")
    rows = {row.split("`")[1]: {*row.replace(",", " ").split()} for row in page.splitlines() if row.startswith("| `")}
    for name, reader in READERS.items():
        suffixes = {without_packing(suffix) for suffix in reader.suffixes} - set(LANGUAGES if name == "code" else ())
        assert suffixes - {".tar"} <= rows[name], f"the row of {name}"


def test_every_suffix_is_known_to_the_first_format_that_has_it() -> None:
    first: dict[str, type[ReadFiles]] = {}
    for reader in READERS.values():
        for suffix in reader.suffixes:
            first.setdefault(suffix, reader)
    assert all(reader_of(f"a{suffix}") is reader for suffix, reader in first.items())
    assert first[".md"] is READERS["text"]
    assert reader_of("a.xls") is None


def test_how_far_reading_is_rises_with_the_spans_and_the_offset_in_one() -> None:
    spans = [
        Span(path=Path("a.txt"), name="a", size=100),
        Span(path=Path("b.jsonl"), name="b", start=1000, end=1050, size=50),
        Span(path=Path("c.jsonl.gz"), name="c", size=10),
    ]
    at = [(0, 0), (0, 99), (1, 1000), (1, 1020), (1, 9000), (2, 0), (2, 9000), (3, 0)]
    assert [bytes_behind(spans, *place) for place in at] == [0, 99, 100, 120, 150, 150, 150, 160]
