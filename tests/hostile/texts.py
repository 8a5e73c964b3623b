"""Hostile texts and pages."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

from hostile.hostile import Hostile, prose, scaled
from hostile.lines import packed, repeated


def text_bomb(folder: Path, scale: float) -> Hostile:
    """A gigabyte of one letter in a megabyte."""
    size = scaled(1e9, scale)
    path = packed(folder / "x.txt.gz", repeated(b"a", size))
    return Hostile(kind="text", path=path, documents=int(size <= 20_000_000))


def text_of_zeros(folder: Path, scale: float) -> Hostile:
    """A hole of 4 GB."""
    with (folder / "x.txt").open("wb") as file:
        file.truncate(scaled(4e9, scale))
    return Hostile(kind="text", path=folder / "x.txt")


def text_utf16(folder: Path, scale: float) -> Hostile:
    """Two bytes a letter, cut into pieces."""
    text = "\n".join(f"Chapter {number}\n{prose(number)}" for number in range(scaled(10_000, scale)))
    (folder / "x.txt").write_bytes(text.encode("utf-16"))
    return Hostile(
        kind="text", path=folder / "x.txt", documents=scaled(10_000, scale), keys={"split_at": r"Chapter \d+$"}
    )


def text_cut_off(folder: Path, scale: float) -> Hostile:
    """A gzip file without its last bytes."""
    (folder / "x.txt.gz").write_bytes(gzip.compress("\n".join(map(prose, range(20))).encode())[:-30])
    return Hostile(kind="text", path=folder / "x.txt.gz", documents=1, reasons={"corrupt_gzip": 1})


def text_not_utf8(folder: Path, scale: float) -> Hostile:
    """UTF-8 with a few bytes that are none."""
    (folder / "x.txt").write_bytes(prose(6).encode() + b"\xff\xfe\x80" + prose(7).encode())
    return Hostile(kind="text", path=folder / "x.txt", documents=1)


def text_wide_chapters(folder: Path, scale: float) -> Hostile:
    """One letter beyond the basic plane makes each character four bytes in Python."""
    chapter = "word " * scaled(1_100_000, scale) + "\n"
    with (folder / "x.txt").open("w", encoding="utf-8") as file:
        file.write("\U0001f600\n")
        for number in range(40):
            file.write(f"Chapter {number}\n{chapter}")
    return Hostile(kind="text", path=folder / "x.txt", documents=41, keys={"split_at": r"Chapter \d+$"})


def text_cut_at_every_line(folder: Path, scale: float) -> Hostile:
    """A pattern that matches everywhere."""
    number = scaled(1_000_000, scale)
    (folder / "x.txt").write_bytes(b"a line\n" * number)
    return Hostile(kind="text", path=folder / "x.txt", documents=number, keys={"split_at": ""})


def html_deep(folder: Path, scale: float) -> Hostile:
    """Elements in elements in elements."""
    depth = scaled(100_000, scale)
    (folder / "x.html").write_bytes(b"<div>" * depth + prose(1).encode() + b"</div>" * depth)
    return Hostile(kind="html", path=folder / "x.html", documents=1)


def html_attributes(folder: Path, scale: float) -> Hostile:
    """An element with two hundred thousand attributes."""
    attributes = b" ".join(b"a%d=1" % number for number in range(scaled(200_000, scale)))
    (folder / "x.html").write_bytes(b"<html><body><p " + attributes + b">" + prose(1).encode())
    return Hostile(kind="html", path=folder / "x.html", documents=1)


def html_noise(folder: Path, scale: float) -> Hostile:
    """Bytes that are nothing."""
    (folder / "x.html").write_bytes(random.Random(1).randbytes(scaled(200_000, scale)))
    return Hostile(kind="html", path=folder / "x.html", documents=1)


def html_large(folder: Path, scale: float) -> Hostile:
    """A page of 2.5 GB."""
    size = scaled(2.5e9, scale)
    with (folder / "x.html").open("wb") as file:
        file.truncate(size)
    return Hostile(kind="html", path=folder / "x.html", documents=0, reasons={"file_too_large": 1})


def html_empty(folder: Path, scale: float) -> Hostile:
    """A page of no bytes."""
    (folder / "x.html").touch()
    return Hostile(kind="html", path=folder / "x.html", documents=0, reasons={"empty_file": 1})


SETS = [
    text_bomb, text_of_zeros, text_utf16, text_cut_off, text_not_utf8, text_wide_chapters, text_cut_at_every_line,
    html_deep, html_attributes, html_noise, html_large, html_empty,
]  # fmt: skip
