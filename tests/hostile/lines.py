"""Hostile lines and tables."""

from __future__ import annotations

import gzip
import json
import random
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pyarrow as pa

from hostile.hostile import Hostile, prose, scaled

MIB = 1 << 20


def line(seed: int) -> bytes:
    """A sound line of JSON."""
    return json.dumps({"text": prose(seed), "id": f"i{seed}"}).encode() + b"\n"


def packed(path: Path, pieces: Iterator[bytes]) -> Path:
    """A gzip file of one member, written in pieces."""
    with path.open("wb") as file:
        write_packed(file, pieces)
    return path


def write_packed(file: IO[bytes], pieces: Iterator[bytes]) -> None:
    """One gzip member. A piece that comes again is not packed again, so that 10 GB are made in the time of their checksum."""
    known: dict[bytes, bytes] = {}
    checksum = size = 0
    file.write(b"\x1f\x8b\x08\0\0\0\0\0\2\xff")
    for piece in pieces:
        if piece not in known:
            packer = zlib.compressobj(9, zlib.DEFLATED, -15)
            known[piece] = packer.compress(piece) + packer.flush(zlib.Z_FULL_FLUSH)
        file.write(known[piece])
        checksum, size = zlib.crc32(piece, checksum), size + len(piece)
    file.write(zlib.compressobj(9, zlib.DEFLATED, -15).flush() + struct.pack("<II", checksum, size & 0xFFFFFFFF))


def repeated(piece: bytes, size: int) -> Iterator[bytes]:
    """`size` bytes of a piece over and over."""
    block = piece * (MIB // len(piece))
    for _ in range(size // len(block)):
        yield block
    yield (block)[: size % len(block)]


def jsonl_line_bomb(folder: Path, scale: float) -> Hostile:
    """A line of 10 GB in 10 MB."""

    def pieces() -> Iterator[bytes]:
        yield line(1)
        yield from repeated(b"a", scaled(10e9, scale, least=30_000_000))
        yield b"\n" + line(2)

    path = packed(folder / "x.jsonl.gz", pieces())
    return Hostile(kind="jsonl", path=path, documents=2, reasons={"line_too_large": 1})


def jsonl_blank_bomb(folder: Path, scale: float) -> Hostile:
    """Half a gigabyte of blank lines."""

    def pieces() -> Iterator[bytes]:
        yield from repeated(b"\n", scaled(512e6, scale))
        yield line(1)
        yield from repeated(b" \r\n", scaled(30e6, scale) // 3 * 3)

    return Hostile(kind="jsonl", path=packed(folder / "x.jsonl.gz", pieces()), documents=1)


def jsonl_cut_off(folder: Path, scale: float) -> Hostile:
    """A gzip file that ends in the middle."""
    whole = gzip.compress(b"".join(map(line, range(scaled(20_000, scale)))))
    cut = whole[: len(whole) // 2]
    (folder / "x.jsonl.gz").write_bytes(cut)
    documents = zlib.decompressobj(31).decompress(cut).count(b"\n")
    return Hostile(kind="jsonl", path=folder / "x.jsonl.gz", documents=documents, reasons={"corrupt_gzip": 1})


def jsonl_garbage_tail(folder: Path, scale: float) -> Hostile:
    """Garbage behind the last member."""
    number = scaled(20_000, scale)
    data = gzip.compress(b"".join(map(line, range(number)))) + b"\0\0garbage"
    (folder / "x.jsonl.gz").write_bytes(data)
    return Hostile(kind="jsonl", path=folder / "x.jsonl.gz", documents=number, reasons={"corrupt_gzip": 1})


def jsonl_magic_tail(folder: Path, scale: float) -> Hostile:
    """Millions of beginnings of members, none of which is one."""
    data = gzip.compress(line(1)) + b"\x1f\x8b\x08" * scaled(700_000, scale)
    (folder / "x.jsonl.gz").write_bytes(data)
    return Hostile(kind="jsonl", path=folder / "x.jsonl.gz", documents=1, reasons={"corrupt_gzip": 1})


def jsonl_members(folder: Path, scale: float) -> Hostile:
    """Members that end in the middle of lines, and empty ones between them."""
    number = scaled(20_000, scale)
    data = b"".join(map(line, range(number)))
    members = [data[at : at + 777] for at in range(0, len(data), 777)]
    (folder / "x.jsonl.gz").write_bytes(b"".join(gzip.compress(one, 1) + gzip.compress(b"") for one in members))
    return Hostile(kind="jsonl", path=folder / "x.jsonl.gz", documents=number)


def jsonl_damaged_member(folder: Path, scale: float) -> Hostile:
    """A member in the middle that is damaged at its first bytes of data; all lines lie in one member each."""
    number = scaled(20_000, scale, least=9)
    members = [gzip.compress(line(one)) for one in range(number)]
    members[number // 2] = members[number // 2][:12] + b"\xff" * 20 + members[number // 2][32:]
    (folder / "x.jsonl.gz").write_bytes(b"".join(members))
    return Hostile(kind="jsonl", path=folder / "x.jsonl.gz", documents=number - 1, reasons={"corrupt_gzip": 1})


def jsonl_not_gzip(folder: Path, scale: float) -> Hostile:
    """Plain lines in a file that is called .gz."""
    (folder / "x.jsonl.gz").write_bytes(b"this is not gzip\n" * 10 + line(1))
    return Hostile(kind="jsonl", path=folder / "x.jsonl.gz", documents=1, reasons={"bad_json": 10})


def jsonl_zeros(folder: Path, scale: float) -> Hostile:
    """A hole of 4 GB, as a file system leaves it after a crash."""
    with (folder / "x.jsonl").open("wb") as file:
        file.write(line(1))
        file.seek(scaled(4e9, scale, least=30_000_000), 1)
        file.write(b"\n" + line(2))
    return Hostile(kind="jsonl", path=folder / "x.jsonl", documents=2, reasons={"line_too_large": 1})


def jsonl_one_line(folder: Path, scale: float) -> Hostile:
    """A source that is one line, without an end."""
    text = "x" * scaled(19e6, scale)
    (folder / "x.jsonl").write_text(json.dumps({"text": text}), encoding="utf-8")
    return Hostile(kind="jsonl", path=folder / "x.jsonl", documents=1)


def jsonl_strange_values(folder: Path, scale: float) -> Hostile:
    """Lines that JSON, or Python's reader of it, has an opinion on."""
    sound = [
        b'{"text": "a", "text": "twice", "id": "key"}',
        b'{"text": "lone \\ud800 surrogate", "id": "\\udfff"}',
        b'{"text": "nul \\u0000", "id": "nul"}',
        b'{"text": "bidi \xe2\x80\xae\xe2\x81\xa6", "id": "bidi"}',
        b'{"text": "x", "id": 1e400}',
        b'{"text": "' + b"\\u00e9" * scaled(2_000_000, scale) + b'", "id": "escaped"}',
    ]
    bad_json = [
        b'{"text": NaN, "id": 1}', b'{"a":' * 100_000 + b"1" + b"}" * 100_000, b"[" * 200_000, b"\xff\xfe bytes", b"null",
        b"[]", b'"x"', b'{"text": "x", "id": ' + b"9" * 6000 + b"}", b'{"text": "\xc3\x28", "id": "bad"}',
    ]  # fmt: skip
    not_text = [b'{"text": null, "id": 3}', b'{"text": ["a"], "id": 4}']
    missing = [b'{"id": 5}', b'{"text": "x"}', b'{"text": "x", "id": null}', b'{"text": "x", "id": {"a": 1}}']
    large = [b'{"text": "' + b"x" * 21_000_000 + b'", "id": "long"}']
    lines = [*sound, *bad_json, b"", b"   ", *not_text, *missing, *large]
    random.Random(1).shuffle(lines)
    (folder / "x.jsonl").write_bytes(b"\xef\xbb\xbf" + line(1) + b"\n".join([*lines, line(2).rstrip()]))
    reasons = {"bad_json": len(bad_json), "field_is_not_text": len(not_text), "missing_field": len(missing)}
    return Hostile(
        kind="jsonl", path=folder / "x.jsonl", documents=len(sound) + 2, reasons={**reasons, "line_too_large": 1},
        keys={"id_field": "id"},
    )  # fmt: skip


def jsonl_carriage_returns(folder: Path, scale: float) -> Hostile:
    """Lines of an old Macintosh."""
    (folder / "x.jsonl").write_bytes(b"\r".join(line(number).rstrip() for number in range(3)))
    return Hostile(kind="jsonl", path=folder / "x.jsonl", documents=3)


def jsonl_utf16(folder: Path, scale: float) -> Hostile:
    """Another encoding, in which a line end is two bytes."""
    text = "".join(line(number).decode() for number in range(30))
    (folder / "x.jsonl").write_bytes(text.encode("utf-16"))
    return Hostile(kind="jsonl", path=folder / "x.jsonl", documents=30)


def jsonl_same_ids(folder: Path, scale: float) -> Hostile:
    """Ids that are all the same."""
    number = scaled(10_000, scale)
    (folder / "x.jsonl").write_bytes(line(1) * number)
    return Hostile(kind="jsonl", path=folder / "x.jsonl", documents=number, keys={"id_field": "id"})


def zstd(path: Path, pieces: Iterator[bytes]) -> Path:
    """A zstd file of one frame, written in pieces."""
    with pa.OSFile(str(path), "wb") as file, pa.CompressedOutputStream(file, "zstd") as stream:
        for piece in pieces:
            stream.write(piece)
    return path


def jsonl_zstd_bomb(folder: Path, scale: float) -> Hostile:
    """A line of 10 GB in a megabyte."""

    def pieces() -> Iterator[bytes]:
        yield line(1)
        yield from repeated(b"a", scaled(10e9, scale, least=30_000_000))
        yield b"\n" + line(2)

    path = zstd(folder / "x.jsonl.zst", pieces())
    return Hostile(kind="jsonl", path=path, documents=2, reasons={"line_too_large": 1})


def jsonl_zstd_magics(folder: Path, scale: float) -> Hostile:
    """A hundred thousand heads of frames in which nothing follows that is a block, and blocks of nothing without end."""
    data = pa.Codec("zstd").compress(line(1), asbytes=True) + b"\x28\xb5\x2f\xfd\x00\x58" * scaled(100_000, scale)
    (folder / "x.jsonl.zst").write_bytes(data + b"\x28\xb5\x2f\xfd\x00\x58" + bytes(scaled(30e6, scale)))
    return Hostile(kind="jsonl", path=folder / "x.jsonl.zst", documents=1)


def json_large_array(folder: Path, scale: float) -> Hostile:
    """An array of 2 GB in one line."""
    number = scaled(20_000, scale)
    item = json.dumps({"text": prose(1, 20_000), "id": 1}).encode()
    with (folder / "x.json").open("wb") as file:
        file.write(b"[" + item)
        for _ in range(number - 1):
            file.write(b"," + item)
        file.write(b"]")
    return Hostile(kind="json", path=folder / "x.json", documents=number)


def json_deep(folder: Path, scale: float) -> Hostile:
    """Brackets in brackets in brackets, and an item behind them."""
    depth = scaled(5_000_000, scale)
    (folder / "x.json").write_bytes(b"[" + b"[" * depth + b"]" * depth + b"," + line(1).rstrip() + b"]")
    return Hostile(kind="json", path=folder / "x.json", documents=1, reasons={"bad_json": 1})


def json_open_quote(folder: Path, scale: float) -> Hostile:
    """A quote that is never closed, and 500 MB behind it."""
    item = line(1).rstrip()
    with (folder / "x.json").open("wb") as file:
        file.write(b"[" + item + b', {"text": "open}')
        for piece in repeated(b", " + b"words and words ", scaled(5e8, scale)):
            file.write(piece)
    return Hostile(kind="json", path=folder / "x.json", documents=1, reasons={"bad_json": 1})


def json_text_bomb(folder: Path, scale: float) -> Hostile:
    """An item of 10 GB in 10 MB, and one behind it."""

    def pieces() -> Iterator[bytes]:
        yield b'["'
        yield from repeated(b"a", scaled(10e9, scale, least=30_000_000))
        yield b'", "after"]'

    path = packed(folder / "x.json.gz", pieces())
    return Hostile(kind="json", path=path, documents=1, reasons={"item_too_large": 1})


def json_settings(folder: Path, scale: float) -> Hostile:
    """An object without text, as programs keep their settings."""
    (folder / "x.json").write_text(json.dumps({"name": "x", "version": 1, "deep": {"list": [1, 2]}}, indent=1))
    return Hostile(kind="json", path=folder / "x.json", documents=0, reasons={"no_text_field": 1})


def csv_open_quote(folder: Path, scale: float) -> Hostile:
    """A quote that is never closed, and far more rows behind it than a row may have."""
    rows = scaled(5_000_000, scale, least=600_000)
    (folder / "x.csv").write_bytes(b'text,id\na,1\n"open,2\n' + b"row after row,3 and more of it\n" * rows)
    return Hostile(kind="csv", path=folder / "x.csv", reasons={})


def csv_blank_bomb(folder: Path, scale: float) -> Hostile:
    """Half a gigabyte of blank lines."""

    def pieces() -> Iterator[bytes]:
        yield b"text\n"
        yield from repeated(b"\r\n", scaled(512e6, scale) // 2 * 2)
        yield b"a\n"

    return Hostile(kind="csv", path=packed(folder / "x.csv.gz", pieces()), documents=1)


def csv_ragged(folder: Path, scale: float) -> Hostile:
    """Rows of any number of fields, quotes in the middle of them, and other charsets."""
    rows = [
        b"sound,1",
        b"three,2,3",
        b"one",
        b'mid"quote,3',
        b'"closed"and more,4',
        b"caf\xe9,5",
        b'"two\nlines",6',
        b",",
    ]
    number = scaled(20_000, scale)
    (folder / "x.csv").write_bytes(b"text,id\n" + (b"\n".join(rows) + b"\n") * number)
    return Hostile(kind="csv", path=folder / "x.csv", documents=5 * number, reasons={"bad_csv": 3 * number})


def csv_wide(folder: Path, scale: float) -> Hostile:
    """A hundred thousand columns."""
    columns = scaled(100_000, scale)
    head = ["text", *map(str, range(columns))]
    (folder / "x.tsv").write_text("\t".join(head) + "\n" + "\t".join("x" for _ in head) + "\n", encoding="utf-8")
    return Hostile(kind="csv", path=folder / "x.tsv", documents=1)


def csv_without_names(folder: Path, scale: float) -> Hostile:
    """Rows, and no line of names."""
    (folder / "x.csv").write_bytes(b"a,1\n" * scaled(1_000_000, scale))
    return Hostile(kind="csv", path=folder / "x.csv", documents=0, reasons={"missing_column": 1})


def csv_cut_off(folder: Path, scale: float) -> Hostile:
    """A gzip file that ends in the middle."""
    noise = random.Random(1)
    rows = [
        f'"{prose(noise.randrange(1 << 30))}",{number}\n'.encode() for number in range(scaled(20_000, scale, least=50))
    ]
    whole = gzip.compress(b"text,id\n" + b"".join(rows))
    cut = whole[: len(whole) // 2]
    (folder / "x.csv.gz").write_bytes(cut)
    documents = zlib.decompressobj(31).decompress(cut).count(b"\n") - 1
    return Hostile(kind="csv", path=folder / "x.csv.gz", documents=documents, reasons={"corrupt_gzip": 1})


SETS = [
    jsonl_line_bomb, jsonl_blank_bomb, jsonl_cut_off, jsonl_garbage_tail, jsonl_magic_tail, jsonl_members, jsonl_damaged_member,
    jsonl_not_gzip, jsonl_zeros, jsonl_one_line, jsonl_strange_values, jsonl_carriage_returns, jsonl_utf16, jsonl_same_ids, jsonl_zstd_bomb, jsonl_zstd_magics,
    json_large_array, json_deep, json_open_quote, json_text_bomb, json_settings,
    csv_open_quote, csv_blank_bomb, csv_ragged, csv_wide, csv_without_names, csv_cut_off,
]  # fmt: skip
