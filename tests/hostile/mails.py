"""Hostile mail and subtitles."""

from __future__ import annotations

import base64
from pathlib import Path

from hostile.hostile import Hostile, prose, scaled
from hostile.lines import packed, repeated

FROM = b"From a@example.org Mon Jan  1 10:00:00 2001\n"


def mail(number: int) -> bytes:
    """A sound message of an archive."""
    return FROM + f"From: a@example.org\nSubject: number {number}\n\n{prose(number)}\n\n".encode()


def mbox_deep(folder: Path, scale: float) -> Hostile:
    """Parts in parts in parts, between two sound messages."""
    depth = scaled(20_000, scale)
    heads = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (n, n) for n in range(depth))
    (folder / "x.mbox").write_bytes(mail(1) + FROM + heads + b"Content-Type: text/plain\n\nwords\n\n" + mail(2))
    return Hostile(kind="mbox", path=folder / "x.mbox")


def mbox_many_parts(folder: Path, scale: float) -> Hostile:
    """A message of a million parts, and one behind it."""
    part = b"--b\nContent-Type: text/plain\n\nw\n"
    data = (
        FROM
        + b"Content-Type: multipart/mixed; boundary=b\n\n"
        + part * scaled(400_000, scale, least=2000)
        + b"--b--\n\n"
    )
    (folder / "x.mbox").write_bytes(data + mail(2))
    return Hostile(kind="mbox", path=folder / "x.mbox", documents=1, reasons={"bad_message": 1})


def mbox_large_message(folder: Path, scale: float) -> Hostile:
    """An attachment of 2 GB in 2 MB, and a message behind it."""

    def pieces():  # type: ignore[no-untyped-def]
        yield FROM + b"Content-Type: application/octet-stream\nContent-Transfer-Encoding: base64\n\n"
        yield from repeated(base64.b64encode(bytes(57)) + b"\n", scaled(2e9, scale, least=21_000_000))
        yield b"\n\n" + mail(2)

    path = packed(folder / "x.mbox.gz", pieces())
    return Hostile(kind="mbox", path=path, documents=1, reasons={"message_too_large": 1})


def mbox_strange_heads(folder: Path, scale: float) -> Hostile:
    """Charsets and codings that there are not, heads without end, no head, base64 that is none, a boundary that never comes."""
    strange = [
        b"Content-Type: text/plain; charset=no-such\n\nwords\n\n",
        b"Content-Type: text/plain; charset=\xff\xfe\nContent-Transfer-Encoding: base64\n\n!!!!\n\n",
        b"Content-Type: text/plain; charset*=utf-8''%E2%82\nSubject: =?no-such?q?x?=\n\nwords\n\n",
        b"Subject: =?utf-8?b?////?=\nContent-Transfer-Encoding: uuencode\n\nwords\n\n",
        b"Content-Type: multipart/mixed; boundary=never\n\nwords\n\n",
        b"Content-Type: multipart/mixed\n\n--\n\n",
        b"Content-Type: message/rfc822\n\n",
        b"Subject: " + b"x" * 100_000 + b"\n" + b" folded\n" * 1000 + b"\nwords\n\n",
        b"\0\0\0\n\n",
        b"no head at all\n\n",
    ]
    (folder / "x.mbox").write_bytes(mail(1) + b"".join(FROM + one for one in strange) + mail(2))
    return Hostile(kind="mbox", path=folder / "x.mbox")


def subtitles_without_end(folder: Path, scale: float) -> Hostile:
    """Ten million cues, and brackets that are never closed."""
    cue = b"00:00:01,000 --> 00:00:02,000\n<i <b {\\an <<<<\n\n"
    (folder / "x.srt").write_bytes(cue * scaled(400_000, scale))
    return Hostile(kind="subtitles", path=folder / "x.srt", documents=1)


def subtitles_large(folder: Path, scale: float) -> Hostile:
    """A file of 2.5 GB."""
    with (folder / "x.vtt").open("wb") as file:
        file.truncate(scaled(2.5e9, scale))
    return Hostile(kind="subtitles", path=folder / "x.vtt", documents=0, reasons={"file_too_large": 1})


SETS = [
    mbox_deep, mbox_many_parts, mbox_large_message, mbox_strange_heads, subtitles_without_end, subtitles_large,
]  # fmt: skip
