"""Word documents: what a reader of them sees, in its order, and nothing of the machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accounting import read_whole
from gristmill.data.charset import decode
from gristmill.data.record import RawDocument
from gristmill.extract.main_text import find_main_text
from hostile.office import WORD, docx_that_reads_files, paragraph, word

WORDS = st.text("abcäßжदे語", min_size=1, max_size=8)


def text_of(folder: Path, data: bytes, **more: str) -> str:
    (folder / "x.docx").write_bytes(data)
    (record,) = read_whole("docx", folder / "x.docx")
    assert isinstance(record, RawDocument)
    assert record.is_all_text
    return find_main_text(decode(record.payload or b"", record.charset)[0], extractor=None).text


@given(paragraphs=st.lists(st.lists(WORDS, min_size=1, max_size=6), min_size=1, max_size=8))
@settings(deadline=None, max_examples=30)
def test_every_word_of_every_paragraph_is_there_in_order(
    tmp_path_factory: pytest.TempPathFactory, paragraphs: list[list[str]]
) -> None:
    body = "".join(paragraph(" ".join(words)) for words in paragraphs)
    text = text_of(tmp_path_factory.mktemp("word"), word(body))
    assert [block.split() for block in text.split("\n\n")] == paragraphs


def test_headings_lists_tables_notes_and_changes(tmp_path: Path) -> None:
    def item(text: str, level: int) -> str:
        return paragraph(text).replace(
            "<w:p>", f'<w:p><w:pPr><w:numPr><w:ilvl w:val="{level}"/><w:numId w:val="1"/></w:numPr></w:pPr>'
        )

    def row(*cells: str) -> str:
        return f"<w:tr>{''.join(f'<w:tc>{paragraph(cell)}</w:tc>' for cell in cells)}</w:tr>"

    changed = paragraph("new").replace("<w:r>", "<w:del><w:r><w:delText>old</w:delText></w:r></w:del><w:ins><w:r>")
    note = paragraph("noted").replace("</w:t></w:r>", '</w:t></w:r><w:r><w:footnoteReference w:id="2"/></w:r>')
    body = (
        paragraph("Title", "H1") + item("one", 0) + item("two", 1) + f"<w:tbl>{row('a', 'b')}{row('c', 'd')}</w:tbl>"
        + changed.replace("</w:r></w:p>", "</w:r></w:ins></w:p>") + note
    )  # fmt: skip
    levels = "".join(f'<w:lvl w:ilvl="{n}"><w:numFmt w:val="bullet"/></w:lvl>' for n in range(2))
    relation = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    parts = {
        "word/numbering.xml": f'<w:numbering xmlns:w="{WORD}"><w:abstractNum w:abstractNumId="0">{levels}</w:abstractNum>'
        '<w:num w:numId="1"><w:abstractNumId w:val="0"/></w:num></w:numbering>',
        "word/footnotes.xml": f'<w:footnotes xmlns:w="{WORD}"><w:footnote w:id="2">{paragraph("a note")}</w:footnote></w:footnotes>',
        "word/_rels/document.xml.rels": '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
        f'<Relationship Id="n" Type="{relation}/footnotes" Target="footnotes.xml"/></Relationships>',
    }
    text = text_of(tmp_path, word(body, **parts))
    assert text == "Title\n\n  • one\n    • two\n\n| a | b |\n| c | d |\n\nnew\n\nnoted[1]\n\n  1. a note"


def test_a_file_of_the_machine_is_no_part_of_a_document(tmp_path: Path) -> None:
    made = docx_that_reads_files(tmp_path, 1)
    assert "a secret" not in "".join(str(record) for record in read_whole("docx", made.path))
