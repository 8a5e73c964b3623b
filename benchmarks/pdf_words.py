"""How many words of a book its PDF gives in the order of its EPUB: both read as a source reads them, then compared.

    python benchmarks/pdf_words.py BOOK.pdf BOOK.epub [BOOK.pdf BOOK.epub ...]

Share: the words of the EPUB that a longest matching by difflib finds in the PDF, in order; beside it, of the words of the PDF.
Chapters of the EPUB that are links for the most part, such as tables of contents, are left out. Footnotes count as moved: a PDF has
them at the foot of the page, an EPUB at the end of the chapter. Books that ship both: Debian's debmake-doc, developers-reference,
live-manual.
"""

from __future__ import annotations

import difflib
import re
import sys
import time
from pathlib import Path

from gristmill.data.charset import decode
from gristmill.data.record import RawDocument, Record
from gristmill.extract.main_text import find_main_text
from gristmill.formats.epub import read_epub
from gristmill.formats.pdf import read_pdf

LINK = re.compile(r"<a\b[^>]*\bhref=[^>]*>(.*?)</a>", re.DOTALL)
TAG = re.compile(r"<[^>]*>")
MOSTLY = 0.5
WORD = re.compile(r"\w+(?:[-'’]\w+)*")


def words(records: list[Record]) -> list[str]:
    """The words of all documents that are no lists of links."""
    texts: list[str] = []
    for record in records:
        if isinstance(record, RawDocument) and record.payload is None:
            texts.append(record.text or "")
        elif isinstance(record, RawDocument):
            html = decode(record.payload or b"", record.charset)[0]
            text = find_main_text(html, extractor=None).text
            linked = TAG.sub(" ", " ".join(LINK.findall(html)))
            if len(WORD.findall(linked)) < MOSTLY * len(WORD.findall(text)):
                texts.append(text)
    return WORD.findall("\n".join(texts))


def main() -> None:
    """Prints a line for each pair."""
    for pdf, epub in zip(sys.argv[1::2], sys.argv[2::2]):
        began = time.process_time()
        found = words(list(read_pdf(Path(pdf), name="pdf")))
        seconds = time.process_time() - began
        wanted = words(list(read_epub(Path(epub), name="epub")))
        matcher = difflib.SequenceMatcher(None, wanted, found, autojunk=False)
        same = sum(block.size for block in matcher.get_matching_blocks())
        known = set(wanted)
        strange = sum(word not in known for word in found)
        print(
            f"{Path(pdf).name}: {same / len(wanted):.3f} of {len(wanted):,} words in order, {same / len(found):.3f} of "
            f"the PDF's {len(found):,}; {strange / len(found):.3f} of those are no words of the EPUB; {seconds:.1f} s"
        )


if __name__ == "__main__":
    main()
