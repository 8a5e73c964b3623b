"""Sound files of every format, and ways in which disks, networks and people change bytes."""

from __future__ import annotations

import gzip
import io
import json
import random
import tarfile
import zipfile
from collections.abc import Callable
from email.message import EmailMessage
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hostile.archives import record
from hostile.books import book, zipped
from hostile.hostile import prose
from hostile.office import paragraph, word
from hostile.pages import sound as sound_pdf

INTERESTING = [
    b"\0",
    b"\xff",
    b"\n",
    b"\r\n",
    b'"',
    b",",
    b"\\u0000",
    b"\x1f\x8b\x08",
    b"\x28\xb5\x2f\xfd\x00\x58",
    b"ustar\0",
    b"WARC/1.0\r\n",
    b"PAR1",
    b"PK\3\4",
    b"PK\1\2",
    b"PK\5\6",
    b"\x7f" * 8,
    bytes(512),
]
LARGEST = 60_000  # a mutated file never grows beyond this, so that a fuzzing run is a number of files, not of bytes


def mutated(data: bytes, noise: random.Random, others: list[bytes]) -> bytes:
    """The bytes with one to four changes: flips, cuts, insertions, splices of another file, blocks twice or moved."""
    changed = bytearray(data)
    for _ in range(noise.randint(1, 4)):
        size = len(changed)
        at, length = noise.randint(0, size), noise.choice([1, 4, 30, 512, 3000])
        match noise.randrange(8):
            case 0 | 1 if size:
                changed[at % size] ^= 1 << noise.randrange(8)
            case 2:
                del changed[at : at + length]
            case 3:
                changed[at:at] = noise.choice([noise.randbytes(length), noise.choice(INTERESTING)])
            case 4:
                changed[at:at] = changed[at : at + length]
            case 5:
                other = noise.choice(others)
                start = noise.randint(0, len(other))
                changed[at : at + length] = other[start : start + length]
            case 6:
                del changed[at:]
            case _:
                piece = noise.choice(INTERESTING)
                changed[at : at + len(piece)] = piece
        changed = changed[:LARGEST]
    return bytes(changed)


def packed(data: bytes, noise: random.Random, *, zstd: bool) -> bytes:
    """The bytes as a gzip file of one to four members, or as a zstd file of so many frames."""
    cuts = sorted(noise.randint(0, len(data)) for _ in range(noise.randint(0, 3)))
    bounds = zip([0, *cuts], [*cuts, len(data)])
    if zstd and noise.random() < 0.3:
        return b"".join(pa.Codec("zstd", noise.choice([1, 9])).compress(data[a:b], asbytes=True) for a, b in bounds)
    return b"".join(gzip.compress(data[a:b], noise.choice([0, 1, 9]), mtime=0) for a, b in bounds)


# ── sound files ──────────────────────────────────────────────────────────────────────────────────────────────────────


def jsonl_file(noise: random.Random) -> bytes:
    """Lines, some of them blank."""
    texts = [prose(noise.randrange(1000), noise.randint(0, 30)) for _ in range(noise.randint(1, 30))]
    return b"".join(
        json.dumps({"id": n, "text": text}).encode() + noise.choice([b"\n", b"\n\n"]) for n, text in enumerate(texts)
    )


def json_file(noise: random.Random) -> bytes:
    """An array, or an object with one inside."""
    items = [{"id": n, "text": prose(noise.randrange(1000), 12)} for n in range(noise.randint(1, 20))]
    whole = noise.choice([items, {"page": [], "rows": items}, [item["text"] for item in items]])
    return json.dumps(whole, indent=noise.choice([None, 1])).encode()


def csv_file(noise: random.Random) -> bytes:
    """Rows, quoted or not."""
    rows = [
        f'{n},"{prose(n, 5)}\nline ""two"""' if noise.random() < 0.3 else f"{n},{prose(n, 5)}"
        for n in range(noise.randint(1, 40))
    ]
    return ("id,text\n" + "\r\n".join(rows)).encode()


def text_file(noise: random.Random) -> bytes:
    """Chapters, in one of three encodings."""
    text = "\n".join(f"Chapter {n}\né {prose(n, 30)}" for n in range(noise.randint(1, 12)))
    return text.encode(noise.choice(["utf-8", "utf-8-sig", "utf-16", "cp1252"]))


def html_file(noise: random.Random) -> bytes:
    """A page."""
    return f"<html><head><meta charset=utf-8></head><body>{prose(noise.randrange(99))}</body></html>".encode()


def mbox_file(noise: random.Random) -> bytes:
    """Messages with parts, codings and attachments."""
    written = []
    for number in range(noise.randint(1, 6)):
        made = EmailMessage()
        made["Subject"] = f"é {number}"
        made.set_content(prose(number, 20), cte=noise.choice(["base64", "quoted-printable", "8bit"]))
        if noise.random() < 0.3:
            made.add_alternative(f"<p>{prose(number, 20)}", subtype="html")
        if noise.random() < 0.3:
            made.add_attachment(noise.randbytes(300), maintype="image", subtype="png")
        written.append(b"From a@b Mon Jan  1 10:00:00 2001\n" + bytes(made) + b"\n")
    return b"".join(written)


def subtitles_file(noise: random.Random) -> bytes:
    """Cues."""
    cues = (f"{n}\n00:00:{n:02},000 --> 00:00:{n:02},900\n<i>{prose(n, 6)}</i>\n" for n in range(noise.randint(1, 30)))
    return "\n".join(cues).encode(noise.choice(["utf-8", "utf-16", "cp1252"]))


def man_file(noise: random.Random) -> bytes:
    """A page in one of two sets of macros."""
    man = [
        ".TP\n.B \\-x",
        ".de A\n\\\\$1\n..\n.A word",
        ".ie n \\{\\\n\\(bu \\*(lq\n.\\}\n.el x",
        ".nf\n  a\n.fi",
        ".TS\na\n.TE",
    ]
    mdoc = [".Op Fl a Ar b", ".Bl -bullet\n.It\n.Em x ,\n.El", ".Oo Ar a Oc Ns b", ".Fo f\n.Fa int\n.Fc"]
    parts = [noise.choice([prose(n, 12), noise.choice(man), noise.choice(mdoc)]) for n in range(noise.randint(1, 20))]
    return "\n".join([noise.choice([".TH X 1\n.SH NAME", ".Dd 2026\n.Sh NAME"]), *parts]).encode()


def tar_file(noise: random.Random) -> bytes:
    """Members of all kinds, with short and long names."""
    written = io.BytesIO()
    kinds = [tarfile.REGTYPE] * 6 + [tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.FIFOTYPE]
    with tarfile.open(
        fileobj=written, mode="w", format=noise.choice([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    ) as opened:
        for number in range(noise.randint(1, 8)):
            info = tarfile.TarInfo(f"{'deep/' * noise.choice([0, 1, 40])}{number}.py")
            info.type = noise.choice(kinds)
            data = prose(number, noise.randint(0, 200)).encode() if info.isreg() else b""
            info.size = len(data)
            opened.addfile(info, io.BytesIO(data))
    return written.getvalue()


def parquet_file(noise: random.Random) -> bytes:
    """Rows in several row groups and pages."""
    number = noise.randint(1, 60)
    texts = [noise.choice([None, "", prose(noise.randrange(9), noise.randint(1, 30))]) for _ in range(number)]
    written = io.BytesIO()
    options: dict[str, Any] = {"use_dictionary": noise.random() < 0.5, "write_page_checksum": noise.random() < 0.5}
    table = pa.table({"text": pa.array(texts, pa.string()), "id": [*range(number)]})
    compression = noise.choice(["none", "snappy", "zstd", "gzip"])
    pq.write_table(
        table, written, row_group_size=noise.randint(1, 40), data_page_size=500, compression=compression, **options
    )
    return written.getvalue()


def warc_file(noise: random.Random) -> bytes:
    """Records of several kinds."""
    kinds = ["response", "response", "request", "conversion", "metadata"]
    return b"".join(
        record(n, kind=noise.choice(kinds)) if noise.random() < 0.7 else record(n, b"", kind="metadata")
        for n in range(noise.randint(1, 6))
    )


def epub_file(noise: random.Random) -> bytes:
    """A book."""
    return zipped(book(noise.randint(1, 5)), noise.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))


def docx_file(noise: random.Random) -> bytes:
    """A Word document; stored, so that mutations meet its XML."""
    body = "".join(paragraph(prose(n, 9), noise.choice(["", "H1"])) for n in range(noise.randint(1, 9)))
    return word(body, method=noise.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))


def pdf_file(noise: random.Random) -> bytes:
    """A PDF file."""
    return sound_pdf(*[prose(n, 9) for n in range(noise.randint(1, 5))])


def archive_file(noise: random.Random) -> bytes:
    """A ZIP of files of several formats; one in three is a tar."""
    kinds = {
        ".txt": text_file,
        ".jsonl": jsonl_file,
        ".html": html_file,
        ".csv": csv_file,
        ".epub": epub_file,
        ".zip": epub_file,
    }
    suffixes = noise.choices([*kinds], k=noise.randint(1, 4))
    members: dict[str, str | bytes] = {f"{n}{suffix}": kinds[suffix](noise) for n, suffix in enumerate(suffixes)}
    if noise.random() < 0.3:
        return tar_file(noise)
    return zipped(members, noise.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))


FILES: dict[str, Callable[[random.Random], bytes]] = {
    "jsonl": jsonl_file,
    "json": json_file,
    "csv": csv_file,
    "text": text_file,
    "html": html_file,
    "subtitles": subtitles_file,
    "man": man_file,
    "mbox": mbox_file,
    "code": tar_file,
    "parquet": parquet_file,
    "warc": warc_file,
    "epub": epub_file,
    "docx": docx_file,
    "pdf": pdf_file,
    "archive": archive_file,
}
PACKED = ("jsonl", "json", "csv", "text", "html", "subtitles", "man", "mbox", "code", "warc")
