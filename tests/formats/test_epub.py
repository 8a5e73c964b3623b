"""Books: the chapters in the order of the spine, whole; bytes that add up."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accounting import read_whole, reasons
from gristmill.data.charset import decode
from gristmill.data.record import RawDocument, Unread
from gristmill.extract.main_text import find_main_text
from hostile.books import book, chapter, package, zipped

LISTS = "<ul><li>one<ul><li>two</li></ul></li></ul><aside>a note</aside><nav>a way</nav><table><tr><td>x</td><td>y</td></tr></table>"


def documents(folder: Path, data: bytes) -> list[RawDocument]:
    (folder / "x.epub").write_bytes(data)
    return [record for record in read_whole("epub", folder / "x.epub") if isinstance(record, RawDocument)]


@given(order=st.permutations(range(7)), number=st.integers(1, 7))
@settings(deadline=None, max_examples=30)
def test_chapters_come_in_the_order_of_the_spine(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], number: int
) -> None:
    names = [f"c{n}.xhtml" for n in order[:number]]
    found = documents(tmp_path_factory.mktemp("book"), zipped(book(7, **{"OEBPS/book.opf": package(names)})))
    assert [record.id for record in found] == [f"x#OEBPS/{name}" for name in names]
    assert [record.payload for record in found] == [chapter(n).encode() for n in order[:number]]


def test_all_of_a_chapter_is_its_text(tmp_path: Path) -> None:
    (found,) = documents(tmp_path, zipped(book(1, **{"OEBPS/c0.xhtml": chapter(0, LISTS)})))
    assert found.is_all_text
    text = find_main_text(decode(found.payload or b"")[0], extractor=None).text
    assert text.split() == ["Chapter", "0", "•", "one", "•", "two", "a", "note", "a", "way", "x", "y"]
    assert text.startswith("Chapter 0\n\n")


def test_what_is_no_chapter_is_counted(tmp_path: Path) -> None:
    spine = package(["c0.xhtml", "nav.xhtml"]).replace('href="nav.xhtml"', 'href="nav.xhtml" properties="nav"')
    members = {"OEBPS/book.opf": spine, "OEBPS/nav.xhtml": chapter(1), "OEBPS/cover.jpg": bytes(99)}
    (tmp_path / "x.epub").write_bytes(zipped(book(1, **members)))
    assert reasons(read_whole("epub", tmp_path / "x.epub")) == {"navigation": 1, "no_chapter": 4, "zip_framing": 1}


def test_a_book_that_was_packed_with_its_folder_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "x.epub").write_bytes(zipped({f"book/{name}": data for name, data in book(2).items()}))
    (lost,) = [record for record in read_whole("epub", tmp_path / "x.epub") if isinstance(record, Unread)]
    assert (lost.reason, lost.detail) == (
        "no_container",
        "META-INF lies in book/; pack what is in that folder, not the folder",
    )
