"""Hostile PDF files."""

from __future__ import annotations

import random
import zlib
from pathlib import Path

from hostile.hostile import Hostile, prose, scaled


def pdf(objects: dict[int, bytes], *, trailer: bytes = b"") -> bytes:
    """A PDF file of these objects; number 1 is its catalogue."""
    data = bytearray(b"%PDF-1.7\n")
    places = {}
    for number, content in objects.items():
        places[number] = len(data)
        data += b"%d 0 obj\n%b\nendobj\n" % (number, content)
    start, size = len(data), max(objects) + 1
    lines = [b"0000000000 65535 f \n"]
    lines += [b"%010d 00000 %b \n" % (places.get(n, 0), b"n" if n in places else b"f") for n in range(1, size)]
    data += b"xref\n0 %d\n%btrailer\n<</Size %d/Root 1 0 R%b>>\n" % (size, b"".join(lines), size, trailer)
    return bytes(data + b"startxref\n%d\n%%%%EOF\n" % start)


def stream(content: bytes, entries: bytes = b"") -> bytes:
    """A stream."""
    return b"<</Length %d%b>>\nstream\n%b\nendstream" % (len(content), entries, content)


def shown(text: str, size: int = 12) -> bytes:
    """Instructions that show lines of text from the top of a page down."""
    lines = [b"(%b) Tj 0 -%d Td" % (line.encode("latin-1"), size + 2) for line in text.split("\n")]
    return b"BT /F1 %d Tf 72 720 Td %b ET" % (size, b" ".join(lines))


def paged(contents: list[bytes], resources: bytes = b"", more: dict[int, bytes] | None = None) -> dict[int, bytes]:
    """The objects of a file whose pages have these streams; object 3 is the font, pages begin at 10."""
    numbers = [10 + 2 * n for n in range(len(contents))]
    objects = {
        1: b"<</Type/Catalog/Pages 2 0 R>>",
        2: b"<</Type/Pages/Count %d/Kids[%b]>>" % (len(numbers), b" ".join(b"%d 0 R" % n for n in numbers)),
        3: b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    }
    for number, content in zip(numbers, contents):
        objects[number] = (
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents %d 0 R/Resources<</Font<</F1 3 0 R>>%b>>>>"
            % (number + 1, resources)
        )
        objects[number + 1] = content
    return {**objects, **(more or {})}


def sound(*texts: str) -> bytes:
    """A PDF file with a page for each text."""
    return pdf(paged([stream(shown(text)) for text in texts]))


def written(folder: Path, data: bytes, documents: int | None, **reasons: int) -> Hostile:
    """The set of a file."""
    (folder / "x.pdf").write_bytes(data)
    return Hostile(kind="pdf", path=folder / "x.pdf", documents=documents, reasons=reasons)


def pdf_with_password(folder: Path, scale: float) -> Hostile:
    """A file that needs a password."""
    lock = b"<</Filter/Standard/V 1/R 2/O(%b)/U(%b)/P -4>>" % (b"o" * 32, b"u" * 32)
    objects = {**paged([stream(shown(prose(1)))]), 5: lock}
    return written(folder, pdf(objects, trailer=b"/Encrypt 5 0 R/ID[(a)(b)]"), 0, encrypted=1)


def pdf_of_a_scan(folder: Path, scale: float) -> Hostile:
    """A picture of a page."""
    image = stream(b"\0" * 64, b"/Type/XObject/Subtype/Image/Width 8/Height 8/BitsPerComponent 8/ColorSpace/DeviceGray")
    objects = paged([stream(b"600 0 0 700 0 0 cm /I Do")] * 3, b"/XObject<</I 5 0 R>>", {5: image})
    return written(folder, pdf(objects), 0, no_text=1)


def pdf_loop_of_pages(folder: Path, scale: float) -> Hostile:
    """Pages that are their own parents and children."""
    objects = {1: b"<</Type/Catalog/Pages 2 0 R>>", 2: b"<</Type/Pages/Parent 2 0 R/Count 9/Kids[2 0 R 2 0 R]>>"}
    return written(folder, pdf(objects), 0)


def pdf_loop_of_streams(folder: Path, scale: float) -> Hostile:
    """A page whose length is itself, and one whose content is a list of itself."""
    objects = paged([b"<</Length 11 0 R>>\nstream\n" + shown(prose(1)) + b"\nendstream", b"[13 0 R 13 0 R]"])
    return written(folder, pdf(objects), None)


def pdf_many_pages(folder: Path, scale: float) -> Hostile:
    """A hundred thousand pages of a few bytes."""
    number = scaled(100_000, scale)
    tree = {
        1: b"<</Type/Catalog/Pages 2 0 R>>",
        2: b"<</Type/Pages/Count %d/Kids[%b]>>" % (number, b"4 0 R " * number),
        4: b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]>>",
    }
    return written(folder, pdf(tree), 0)


def pdf_of_much_text(folder: Path, scale: float) -> Hostile:
    """A page of ten million letters."""
    size = scaled(10_000_000, scale, least=1_100_000)
    content = zlib.compress(b"BT /F1 1 Tf %b ET" % (b"(%b) Tj " % (b"word " * 200) * (size // 1000)))
    return written(folder, pdf(paged([stream(content, b"/Filter/FlateDecode")])), 0, text_too_large=1)


def pdf_cut_off(folder: Path, scale: float) -> Hostile:
    """A file without its end: PDFium finds the objects anyway."""
    data = sound(*[prose(n) for n in range(5)])
    return written(folder, data[: data.find(b"startxref")], 1)


def pdf_that_is_noise(folder: Path, scale: float) -> Hostile:
    """Bytes that are nothing."""
    return written(folder, b"%PDF-1.7\n" + random.Random(1).randbytes(scaled(1_000_000, scale)), 0, corrupt_file=1)


def pdf_of_damaged_pages(folder: Path, scale: float) -> Hostile:
    """A page that is no page among others."""
    objects = paged([stream(shown(prose(n))) for n in range(3)])
    objects[12] = b"[/Nothing]"
    return written(folder, pdf(objects), 1)


SETS = [
    pdf_with_password, pdf_of_a_scan, pdf_loop_of_pages, pdf_loop_of_streams, pdf_many_pages, pdf_of_much_text, pdf_cut_off,
    pdf_that_is_noise, pdf_of_damaged_pages,
]  # fmt: skip


# Files that end the process of whoever reads them, or never end: read in a guarded child only.


def pdf_bomb(folder: Path) -> Path:
    """A page of 3 GB of blanks, packed twice."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = packer.compress(b" " * 1_000_000) + packer.flush(zlib.Z_FULL_FLUSH)
    once = b"\x78\x9c" + block * 3000 + b"\3\0" + bytes(4)
    data = pdf(paged([stream(zlib.compress(once, 9), b"/Filter[/FlateDecode/FlateDecode]")]))
    (folder / "bomb.pdf").write_bytes(data)
    return folder / "bomb.pdf"


def pdf_of_itself(folder: Path) -> Path:
    """A form that shows itself, ten times."""
    entries = b"/Type/XObject/Subtype/Form/BBox[0 0 9 9]/Resources<</XObject<</N 100 0 R>>>>"
    data = pdf(paged([stream(b"/N Do")], b"/XObject<</N 100 0 R>>", {100: stream(b"/N Do " * 10, entries)}))
    (folder / "itself.pdf").write_bytes(data)
    return folder / "itself.pdf"
