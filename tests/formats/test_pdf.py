"""PDF files: the words of the page that a browser printed, in order, whatever their lines."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pypdfium2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accounting import read_whole
from gristmill.data.record import RawDocument
from gristmill.formats.pdf_text import HYPHEN, Line, text_of, without_running_lines
from hostile.pages import sound

PRINTED = Path(__file__).parent / "pdf"
WORDS = st.text("abcdefgh", min_size=1, max_size=9)


def text_in(path: Path) -> str:
    (record,) = read_whole("pdf", path)
    assert isinstance(record, RawDocument)
    return record.text or ""


def test_a_printed_page_gives_its_words_in_order_without_heads_and_hyphens() -> None:
    page = (PRINTED / "article.html").read_text(encoding="utf-8")
    body = html.unescape(re.sub(r"<[^>]*>", " ", page[page.index("<body>") :])).replace("\xad", "")
    text = text_in(PRINTED / "article.pdf")
    assert text.split() == body.split()
    paragraphs = [
        " ".join(html.unescape(found).replace("\xad", "").split()) for found in re.findall("(?s)<p>(.*?)</p>", page)
    ]
    assert [found for found in paragraphs if found not in text] == []
    assert "lift the upper stone\nturn it over\ncut the furrows\nset it back" in text
    raw = "".join(page.get_textpage().get_text_range() for page in pypdfium2.PdfDocument(PRINTED / "article.pdf"))
    assert raw.count("a short account") > 3, "else nothing was removed"
    assert len(re.findall("\u2010\r\n", raw)) >= 2, "else nothing was joined"


@given(pages=st.lists(st.lists(WORDS, min_size=1, max_size=20), min_size=1, max_size=4))
@settings(deadline=None, max_examples=30)
def test_every_word_of_every_page_is_there_in_order(
    tmp_path_factory: pytest.TempPathFactory, pages: list[list[str]]
) -> None:
    path = tmp_path_factory.mktemp("pdf") / "x.pdf"
    path.write_bytes(sound(*["\n".join([" ".join(words), "end."]) for words in pages]))
    assert text_in(path).split() == [word for words in pages for word in [*words, "end."]]


def line(text: str, bottom: float, *, left: float = 50.0, right: float = 250.0, cut: bool = False) -> Line:
    return Line(text=text, left=left, right=right, bottom=bottom, height=10.0, is_hyphenated=cut)


@given(
    numbers=st.lists(st.integers(0, 999), min_size=3, max_size=12),
    middle=st.lists(WORDS, min_size=12, max_size=12, unique=True),
)
def test_heads_and_numbers_go_and_bodies_stay(numbers: list[int], middle: list[str]) -> None:
    body = [[line(f"{word} x", 700.0 - n), line(word, 600.0)] for n, word in enumerate(middle)]
    pages = [[line(f"Part {k}", 760.0), *lines, line(str(k), 30.0)] for k, lines in zip(numbers, body)]
    assert without_running_lines(pages) == [lines for lines, _ in zip(body, numbers)]


def test_two_pages_have_no_running_heads() -> None:
    pages = [[line("Part", 760.0), line("words", 700.0)]] * 2
    assert without_running_lines(pages) == pages


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ([line("a full line goes", 100), line("on here.", 88, right=90), line("Another", 76)], "a full line goes on here.\nAnother"),
        ([line("a paragraph", 100), line("Set apart", 76), line("goes on", 64)], "a paragraph\n\nSet apart goes on"),
        ([line("for exam", 100, cut=True), line("ple", 88)], "for example"),
        ([line("debian-faq and debian", 100, cut=True), line("faq", 88)], "debian-faq and debian-faq"),
        ([line("a mill wheel, a mill", 100, cut=True), line("wheel", 88)], "a mill wheel, a mill-wheel"),
        ([line("the neigh\u2010", 100), line("bours", 88)], "the neighbours"),
        ([line("short", 100, right=80), line("lines", 88, right=80), line("of a longer one", 76)], "short\nlines\nof a longer one"),
        ([line("• one that is", 100), line("long", 88, left=60), line("• two", 76)], "• one that is long\n• two"),
        ([line("left column", 60), line("goes on", 100, left=300, right=500)], "left column goes on"),
        ([line("left column.", 60), line("Right", 100, left=300, right=500)], "left column.\n\nRight"),
        ([line("語の途中", 100), line("で終わる", 88)], "語の途中で終わる"),
    ],
)  # fmt: skip
def test_lines_are_joined_where_a_paragraph_goes_on(lines: list[Line], text: str) -> None:
    assert text_of([lines]) == text


@given(
    pages=st.lists(
        st.lists(
            st.builds(line, st.text(min_size=1, max_size=9), st.floats(-1e6, 1e6), left=st.floats(-1e6, 1e6),
                      right=st.floats(-1e6, 1e6), cut=st.booleans()),
            max_size=6,
        ),
        max_size=4,
    )
)  # fmt: skip
def test_lines_anywhere_give_text(pages: list[list[Line]]) -> None:
    assert HYPHEN not in text_of(pages)
