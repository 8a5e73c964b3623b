"""Documents on an opt-out list leave in selection, before anything else is decided of them, and extraction is not repeated."""

from __future__ import annotations

from pathlib import Path

import pytest
from selecting import fates_of, recipe_of, rejected_rows, run_selection, write_source

from gristmill.data.document import Document
from gristmill.data.ledger import read_ledger
from gristmill.data.outside import FileHashes, find_step_files
from gristmill.data.packs import Item, write_pack
from gristmill.pipeline import steps_of
from gristmill.recipe.schema.curation import OptOut, Validation

SECTION = {"validation": Validation(fraction=0.0, min_bytes=1, max_bytes=1)}
LISTS = OptOut(domains=["lists/domains.txt"], urls=["lists/urls.txt"], ids=["lists/ids.txt"])


def document(id: str, text: str, url: str | None = None) -> Document:
    return Document(id=id, source="web", text=text, origin="f#0", bytes_in=10, url=url)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    first = [
        document("a", "The first of two copies.", "http://blog.example.org/a"),
        document("b", "Second text, of another site.", "https://example.com/Page"),
    ]
    second = [
        document("copy", "The first of two copies."),
        document("book.txt#0", "A passage of a book."),
        document("book.txt#1", "Its other passage."),
        document("book.text", "Another book."),
    ]
    write_source(tmp_path, "web", first, second)
    item = Item(id="cut", prompt="What did the second text say of the other site?", target="nothing", ids=("b",))
    write_pack(tmp_path / "quiz", name="quiz", version=1, kind="generate", metric="acc", chance=0.0, items=[item])
    (tmp_path / "lists").mkdir()
    for kind, entry in (("domains", "Example.org"), ("urls", "https://example.com/page"), ("ids", "book.txt")):
        (tmp_path / "lists" / f"{kind}.txt").write_text(f"# on request\n{entry}\n")
    return tmp_path


def test_what_is_listed_leaves_and_a_copy_of_it_survives(folder: Path) -> None:
    lines: list[str] = []
    before, _ = run_selection(folder, SECTION, name="before", sources=["web"])
    out, counts = run_selection(folder, {**SECTION, "opt_out": LISTS}, sources=["web"], say=lines.append)
    assert {row["id"]: row["reason"] for row in rejected_rows(before)} == {
        "copy": "exact_duplicate",
        "b": "held_out_item",
    }
    assert {row["id"]: row["reason"] for row in rejected_rows(out)} == dict.fromkeys(
        ["a", "b", "book.txt#0", "book.txt#1"], "opted_out"
    )
    assert sorted(fates_of(out, "web")) == ["a", "b", "book.text", "book.txt#0", "book.txt#1", "copy"]
    assert counts["web"] == {"documents_in": 6, "kept": 2, "dropped": {"opted_out": 4}}
    read_ledger(out / "ledger.json").check()
    assert "duplicates: 4 documents opted out" in lines


def test_a_longer_list_remakes_what_is_decided_and_nothing_before(folder: Path) -> None:
    def hashes() -> dict[str, object]:
        steps = steps_of(recipe_of({**SECTION, "opt_out": LISTS}, ["web"], []))
        of = FileHashes(folder / "hashes.json", threads=1, say=lambda line: None)
        return {
            step.name: {label: of.of(files) for label, files in find_step_files(step.given, folder, step.name).items()}
            for step in steps
            if step.name in ("signatures/web", "duplicates", "select")
        }

    before = hashes()
    with (folder / "lists" / "ids.txt").open("a") as file:
        file.write("another\n")
    after = hashes()
    assert [name for name in before if before[name] != after[name]] == ["duplicates"]
    (extract,) = (step for step in steps_of(recipe_of({"opt_out": LISTS}, ["web"], [])) if step.name == "extract/web")
    assert list(extract.given.files) == ["source"]
