"""zlib-ng does what zlib does, for any bytes in any pieces, so that files read the same whether it is installed or not."""

from __future__ import annotations

import gzip
import importlib.util
import itertools
import struct
import sys
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accounting import read_whole
from gristmill.formats import inflate, members
from gristmill.formats.content import open_content
from gristmill.formats.coverage import unpacked_bytes
from hostile.sets import SETS

needs_zlib_ng = pytest.mark.skipif(importlib.util.find_spec("zlib_ng") is None, reason="zlib-ng is not installed")


# ── deflate streams that no compressor writes ────────────────────────────────────────────────────────────────────────

LENGTHS_IN_ORDER = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15)  # RFC 1951, 3.2.7
ALL_LENGTHS = [4] * 16 + [0] * 3  # a code for code lengths: 4 bits for each of 0 to 15
END = 256


def codes(lengths: Sequence[int]) -> dict[int, str]:
    """The canonical Huffman code of each symbol that has one, as bits (RFC 1951, 3.2.2)."""
    code, found = 0, {}
    for length in range(1, max(lengths, default=0) + 1):
        for symbol in (symbol for symbol, its in enumerate(lengths) if its == length):
            found[symbol] = f"{code:b}".zfill(length)[-length:]
            code += 1
        code <<= 1
    return found


def number(value: int, num_bits: int) -> str:
    """The bits of a number, the lowest first."""
    return f"{value:b}".zfill(num_bits)[::-1] if num_bits else ""


def block(
    literals: dict[int, int],
    distances: Sequence[int],
    body: Callable[[dict[int, str], dict[int, str]], str],
    *,
    num_literals: int = 258,
    for_lengths: Sequence[int] = ALL_LENGTHS,
) -> str:
    """A last block with its own codes. literals: code length by symbol."""
    lengths = [literals.get(symbol, 0) for symbol in range(num_literals)]
    bits = number(1, 1) + number(2, 2) + number(num_literals - 257, 5) + number(len(distances) - 1, 5) + number(15, 4)
    bits += "".join(number(for_lengths[length], 3) for length in LENGTHS_IN_ORDER)
    code = codes(for_lengths)
    bits += "".join(code[length] for length in [*lengths, *distances])
    return bits + body(codes(lengths), codes(distances))


def letters(literal: dict[int, str], _: dict[int, str]) -> str:
    return literal[ord("a")] * 20 + literal[END]


def letters_and_a_match(literal: dict[int, str], distance: dict[int, str]) -> str:
    return literal[ord("a")] * 17 + literal[257] + distance[0] + literal[END]  # three bytes, from one byte before


A = ord("a")
FOUR = {A: 2, ord("b"): 2, END: 2, 257: 2}
BLOCKS = {
    "sound": block({A: 1, END: 1}, [0], letters),
    "one distance of one bit": block(FOUR, [1], letters_and_a_match),
    "incomplete literals": block({A: 2, END: 2}, [0], letters),
    "incomplete distances": block(FOUR, [2, 2], letters_and_a_match),
    "one distance of two bits": block(FOUR, [2], letters_and_a_match),
    "oversubscribed literals": block({A: 1, ord("b"): 1, END: 1}, [0], lambda code, _: code[A] * 20),
    "oversubscribed distances": block(FOUR, [1, 1, 1], letters),
    "287 literals": block({A: 1, END: 1}, [0], letters, num_literals=287),
    "31 distances": block({A: 1, END: 1}, [0] * 31, letters),
    "no end": block({A: 1, ord("b"): 1}, [0], lambda code, _: code[A] * 20),
    "incomplete code of lengths": block({A: 1, END: 1}, [0], letters, for_lengths=[2, 2] + [0] * 17),
    "no such block": number(1, 1) + number(3, 2) + number(0, 40),
}
TAKEN = {"sound", "one distance of one bit"}


def packed(bits: str, content: bytes = b"a" * 20, *, flags: int = 0, crc: int | None = None) -> bytes:
    """A gzip member of a stream of bits, with a check sum that is right unless told."""
    stream = bytes(int(bits[at : at + 8][::-1], 2) for at in range(0, len(bits), 8))
    head = b"\x1f\x8b\x08" + bytes([flags]) + bytes(5) + b"\xff"
    return head + stream + struct.pack("<II", zlib.crc32(content) if crc is None else crc, len(content))


ODD = {
    **{name: packed(bits) for name, bits in BLOCKS.items()},
    "a reserved flag": packed(BLOCKS["sound"], flags=0x80),
    "wrong check sum": packed(BLOCKS["sound"], crc=7),
}
# Stored, and so behind a block of its own: a reader that looks at the first bytes only does not see what is wrong.
FIRST_BLOCK = bytes([0]) + struct.pack("<HH", 2000, 2000 ^ 0xFFFF) + b"b" * 2000
BEHIND = {
    name: b"\x1f\x8b\x08" + bytes(6) + b"\xff" + FIRST_BLOCK + member[10:-8]
    + struct.pack("<II", zlib.crc32(b"b" * 2000 + b"a" * 20), 2020)
    for name, member in ODD.items()
    if name in BLOCKS
}  # fmt: skip


# ── any bytes ────────────────────────────────────────────────────────────────────────────────────────────────────────

CONTENTS = st.binary(max_size=300) | st.binary(min_size=1, max_size=9).map(lambda some: some * 3000)
SOUND = st.builds(gzip.compress, CONTENTS, st.sampled_from([0, 1, 6, 9]), mtime=st.just(0))
MEMBERS = SOUND | st.sampled_from([*ODD.values(), *BEHIND.values(), gzip.compress(b"")])
CUT = st.builds(lambda member, keep: member[: keep % len(member)], MEMBERS, st.integers(0, 10**6))
FLIPPED = st.builds(
    lambda member, place, value: member[: place % len(member)] + bytes([value]) + member[place % len(member) + 1 :],
    MEMBERS,
    st.integers(0, 10**6),
    st.integers(0, 255),
)
GARBAGE = st.binary(max_size=40) | st.sampled_from([members.MAGIC * 4, bytes(300)])
FILES = st.lists(MEMBERS | CUT | FLIPPED | GARBAGE, max_size=6).map(b"".join)


def steps(library: ModuleType, data: bytes, sizes: list[int], max_length: int) -> list[tuple[bytes, bool, bytes]]:
    """What each piece gives, whether the member has ended, and what is over; up to its end or to the error."""
    unpacker, found, place = library.decompressobj(31), [], 0
    for size in itertools.cycle(sizes):
        piece = data[place : place + size]
        try:
            found.append((unpacker.copy().decompress(piece, max_length), unpacker.eof, b"copy"))
            found.append((unpacker.decompress(piece, max_length), unpacker.eof, unpacker.unused_data))
        except (zlib.error, library.error) as error:
            return [*found, (str(error).encode(), False, b"error")]
        place += size - len(unpacker.unconsumed_tail)
        if unpacker.eof or place >= len(data):
            break
    return found


@needs_zlib_ng
@given(FILES, st.lists(st.integers(1, 900) | st.just(20_000), min_size=1, max_size=5), st.sampled_from([0, 7, 1000]))
@settings(deadline=None, max_examples=150)
def test_each_piece_gives_what_zlib_gives(data: bytes, sizes: list[int], max_length: int) -> None:
    zlib_ng = inflate.fastest_library()
    assert zlib_ng is not zlib
    assert steps(zlib_ng, data, sizes, max_length) == steps(zlib, data, sizes, max_length)


@pytest.mark.parametrize("library", [zlib, pytest.param(inflate.LIBRARY, marks=needs_zlib_ng, id="zlib-ng")])
@pytest.mark.parametrize("name", ODD)
def test_codes_that_are_not_whole_are_refused_wherever_they_are(name: str, library: ModuleType) -> None:
    for member, content in ((ODD[name], b"a" * 20), (BEHIND.get(name, ODD[name]), b"b" * 2000 + b"a" * 20)):
        unpacker = library.decompressobj(31)
        if name in TAKEN:
            assert (unpacker.decompress(member + b"rest"), unpacker.unused_data) == (content, b"rest")
        else:
            with pytest.raises(library.error):
                unpacker.decompress(member + b"rest")


@needs_zlib_ng
@given(FILES)
@settings(deadline=None, max_examples=120)
def test_a_file_reads_the_same_by_both(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    found = []
    for library in (zlib, inflate.fastest_library()):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(inflate, "LIBRARY", library)
            with open_content(path) as file:
                found.append((file.read(), list(file.gaps), unpacked_bytes(path)))
    assert found[0] == found[1]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("inflate") / "x.gz"


@needs_zlib_ng
@pytest.mark.parametrize("name", [name for name in SETS if name.startswith("warc")])
def test_a_hostile_archive_gives_the_same_records_by_both(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = SETS[name](tmp_path, 0.01)
    found = []
    for library in (zlib, inflate.fastest_library()):
        monkeypatch.setattr(inflate, "LIBRARY", library)
        found.append(list(read_whole(made.kind, made.path, **made.keys)))
    assert found[0] == found[1]


def test_without_zlib_ng_it_is_zlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zlib_ng.zlib_ng", None)
    assert inflate.fastest_library() is zlib
