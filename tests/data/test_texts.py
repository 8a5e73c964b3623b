"""Documents that were one text are known as one, however they were cut; what the recipe calls documents are apart."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from gristmill.data.passages import passage_id
from gristmill.data.record import RawDocument
from gristmill.data.texts import text_of
from gristmill.formats.format import Span, format_named
from gristmill.recipe.schema.formats import ReadArchive, ReadEpub, ReadFiles, ReadJsonl, ReadText

PARAGRAPHS = ["# One\n\n" + "a word and another " * 100, "# Two\n\nshort", "# Three\n\n" + "more of the same " * 200]


def texts(path: Path, read: ReadFiles) -> list[str]:
    """The text that each document of a file is of."""
    span = Span(path=path, name=path.name, size=path.stat().st_size)
    records = [one for one in format_named(read.format).read(span, read) if isinstance(one, RawDocument)]
    assert len({one.id for one in records}) == len(records)
    return [text_of(one.id, one.origin, read) for one in records]


@pytest.mark.parametrize("passage_chars", [None, 1000])
def test_the_pieces_that_split_at_makes_are_texts_and_their_passages_are_not(
    tmp_path: Path, passage_chars: int | None
) -> None:
    path = tmp_path / "essay#3.txt"
    path.write_text("\n".join(PARAGRAPHS), encoding="utf-8")
    read = ReadText(format="text", paths=["."], split_at="# ", passage_chars=passage_chars)
    found = texts(path, read)
    assert len(found) == 3 if passage_chars is None else len(found) > 6
    assert len(set(found)) == 3
    whole = texts(path, ReadText(format="text", paths=["."], passage_chars=passage_chars))
    assert len(whole) == 1 if passage_chars is None else len(whole) > 4
    assert set(whole) == {path.name}


def test_passages_of_a_line_of_json_have_its_origin_and_lines_with_one_id_are_apart() -> None:
    read = ReadJsonl(format="jsonl", paths=["."], id_field="id", passage_chars=1000)
    cut = [text_of(passage_id("page", number), "a.jsonl#0", read) for number in range(3)]
    assert len(set(cut)) == 1
    assert text_of("page#0", "a.jsonl#900", read) not in cut


def test_the_chapters_of_a_book_are_of_one_text_and_two_books_are_two() -> None:
    read = ReadEpub(format="epub", paths=["."])
    ids = [f"{book}.epub#text/{chapter}.xhtml" for book in ("emma", "persuasion") for chapter in range(3)]
    found = [text_of(passage_id(id, 1), id, read) for id in ids]
    assert found == ["emma.epub"] * 3 + ["persuasion.epub"] * 3


def test_members_of_an_archive_are_texts_as_files_are(tmp_path: Path) -> None:
    path = tmp_path / "all.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", PARAGRAPHS[0])
        archive.writestr("b/a.txt", PARAGRAPHS[2])
        lines = io.StringIO()
        lines.writelines(f'{{"text": "line {number}"}}\n' for number in range(4))
        archive.writestr("c.jsonl", lines.getvalue())
    found = texts(path, ReadArchive(format="archive", paths=["."], passage_chars=1000))
    assert [text.partition("#")[2] for text in dict.fromkeys(found)][:2] == ["a.txt", "b/a.txt"]
    assert found.count("all.zip#a.txt") > 1
    assert len([text for text in set(found) if "c.jsonl" in text]) == 4
