"""A web archive is read in every gzip layout, in any spans and in spite of damage: each record once, every byte counted."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import itertools
import random
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from fastwarc.warc import ArchiveIterator
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from gristmill.data.record import RawDocument, Record, Skip, Unread
from gristmill.formats import coverage, members, warc_archive
from gristmill.formats.content import is_gzip
from gristmill.formats.coverage import unpacked_bytes
from gristmill.formats.format import Span
from gristmill.formats.warc import FORMAT, read_warc
from gristmill.formats.warc_archive import Place
from gristmill.formats.warc_records import records_of
from gristmill.recipe.schema.formats import ReadWarc

READ_WARC = ReadWarc(format="warc", paths=["x"])
KINDS = st.sampled_from(["resource", "resource", "resource", "request", "warcinfo"])
BODIES = st.binary(max_size=60) | st.sampled_from([b"", b"\r\n\r\n", b"text " * 300, b"a\r\n\r\nb"])


def record(number: int, kind: str, body: bytes) -> bytes:
    block = b"<html>" + body
    digest = base64.b32encode(hashlib.sha1(block).digest()).decode()
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Record-ID: <urn:uuid:{number}>\r\nContent-Type: text/html\r\n"
        f"WARC-Block-Digest: sha1:{digest}\r\nContent-Length: {len(block)}\r\n\r\n"
    )
    return head.encode() + block + b"\r\n\r\n"


@dataclass(frozen=True)
class Archive:
    """Records, and the members that hold them: stretches of all their bytes, packed. One plain member where it is not packed."""

    kinds: list[str]
    records: list[bytes]
    cuts: list[int]
    members: list[bytes]

    def documents(self, numbers: set[int] | None = None) -> list[str]:
        return [
            f"urn:uuid:{number}"
            for number, kind in enumerate(self.kinds)
            if kind == "resource" and (numbers is None or number in numbers)
        ]

    def untouched(self, touched: set[int]) -> set[int]:
        """Numbers of the records of which no byte lies in a touched member."""
        ends = list(itertools.accumulate(map(len, self.records)))
        spans = {number: (end - len(self.records[number]), end) for number, end in enumerate(ends)}
        bad = [(a, b) for number, (a, b) in enumerate(itertools.pairwise(self.cuts)) if number in touched]
        return {number for number, (a, b) in spans.items() if not any(a < d and c < b for c, d in bad)}


@st.composite
def archives(draw: st.DrawFn) -> Archive:
    """Records in gzip members: one each, one for all, several, or cut anywhere."""
    kinds = draw(st.lists(KINDS, min_size=1, max_size=7))
    records = [record(number, kind, draw(BODIES)) for number, kind in enumerate(kinds)]
    data = b"".join(records)
    ends = list(itertools.accumulate(map(len, records), initial=0))
    layout = draw(st.sampled_from(["each", "one", "some", "anywhere"]))
    cuts = {"each": ends, "one": [0, len(data)]}.get(layout)
    if cuts is None:
        places = st.sampled_from(ends) if layout == "some" else st.integers(0, len(data))
        cuts = sorted({0, len(data), *draw(st.lists(places, max_size=8))})
    level = draw(st.sampled_from([0, 6, 9]))
    return Archive(
        kinds, records, cuts, [gzip.compress(data[a:b], level, mtime=0) for a, b in itertools.pairwise(cuts)]
    )


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("warc") / "x.warc.gz"


def ids(items: list[Record]) -> list[str]:
    return [item.id for item in items if isinstance(item, RawDocument)]


def read(path: Path, data: bytes, cuts: list[int]) -> list[Record]:
    """The records of a file, after a look that spans cut at `cuts` give the same ones, and that all bytes are counted."""
    path.write_bytes(data)
    whole = list(read_warc(path, name="x"))
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    parts: list[Record] = []
    total = 0
    for a, b in itertools.pairwise(places):
        span = Span(path=path, name="x", start=a, end=b, size=b - a)
        items = list(FORMAT.read(span, READ_WARC))
        num_bytes = sum(item.num_bytes if isinstance(item, Skip) else item.bytes_in for item in items)
        assert num_bytes == FORMAT.content(span, READ_WARC).num_bytes
        parts += items
        total += num_bytes
    assert parts == whole
    assert total == unpacked_bytes(path)
    return whole


CUTS = st.lists(st.integers(0, 10**6), max_size=4)


@given(archives(), CUTS)
@settings(deadline=None, max_examples=150)
def test_every_layout_gives_the_records_that_another_parser_finds_in_the_plain_bytes(
    path: Path, archive: Archive, cuts: list[int]
) -> None:
    plain = b"".join(archive.records)
    others = [
        (found.headers["WARC-Record-ID"].strip("<>"), found.reader.read())
        for found in ArchiveIterator(io.BytesIO(plain), parse_http=False)
        if found.headers["WARC-Type"] == "resource"
    ]
    for file, data in ((path, b"".join(archive.members)), (path.with_suffix(".warc"), plain)):
        items = read(file, data, cuts)
        assert [(item.id, item.payload) for item in items if isinstance(item, RawDocument)] == others
        assert not [item for item in items if isinstance(item, Unread)]
    assert [id for id, _ in others] == archive.documents()


@given(archives(), CUTS, st.data())
@settings(deadline=None, max_examples=300)
def test_damage_costs_the_records_it_lies_in_and_no_other(
    path: Path, archive: Archive, cuts: list[int], data: st.DataObject
) -> None:
    parts, touched = list(archive.members), set[int]()
    for _ in range(data.draw(st.integers(1, 3))):
        number = data.draw(st.integers(0, len(parts) - 1))
        member = parts[number]
        place = data.draw(st.integers(0, max(0, len(member) - 1)))
        value = data.draw(st.integers(0, 255))
        damaged = [
            member[:place],
            member[place:],
            member[:place] + bytes([value]) + member[place + 1 :],
            member[:place] + bytes(9) + member[place:],
        ]
        parts[number] = data.draw(st.sampled_from(damaged))
        touched.add(number)
    tail = data.draw(st.sampled_from([b"", b"", bytes(30), b"\x1f\x8b\x08" * 9, b"more"]))
    path.write_bytes(b"".join(parts) + tail)
    assume(is_gzip(path))  # a first member stored as it is, and without its header, is a plain file
    found = set(ids(read(path, path.read_bytes(), cuts)))
    assert found >= set(archive.documents(archive.untouched(touched)))
    if len(parts) == len(archive.records):  # a member that does not end is no witness of the records inside of it
        named = {id for id in found if id.startswith("urn:")}  # a head of two parts may have lost the line with the id
        assert named <= set(archive.documents())
    assert len(found) <= len(archive.documents())


@given(archives(), CUTS, st.integers(0, 10**6), st.integers(0, 255))
@settings(deadline=None, max_examples=100)
def test_a_changed_byte_of_a_plain_file_costs_the_record_it_lies_in_and_no_other(
    path: Path, archive: Archive, cuts: list[int], place: int, value: int
) -> None:
    data = bytearray(b"".join(archive.records))
    data[place % len(data)] = value
    items = read(path.with_suffix(".warc"), bytes(data), cuts)
    ends = list(itertools.accumulate(map(len, archive.records)))
    touched = next(number for number, end in enumerate(ends) if place % len(data) < end)
    others = set(range(len(ends))) - {touched}
    found = set(ids(items))
    assert found >= set(archive.documents(others))
    assert len(found - set(archive.documents(others))) <= 1
    for item in items:
        if not isinstance(item, Skip) and item.entry is not None:
            assert next(iter(read_warc(path.with_suffix(".warc"), name="x", start=item.entry))) == item


@pytest.mark.parametrize("place", range(1, 5))
def test_a_changed_line_end_between_two_records_costs_neither(path: Path, place: int) -> None:
    first, second = record(0, "resource", b"first"), record(1, "resource", b"second")
    data = first[:-place] + b"x" + first[len(first) - place + 1 :] + second
    items = read(path.with_suffix(".warc"), data, [])
    assert ids(items) == ["urn:uuid:0", "urn:uuid:1"]
    assert [item.entry for item in items if isinstance(item, RawDocument)] == [0, None]  # no head for a search
    assert ids(read(path, gzip.compress(data), [])) == ["urn:uuid:0", "urn:uuid:1"]


BLOCK_BYTES = 500


def stored(data: bytes) -> bytes:
    """A gzip member that holds `data` as it is, in blocks of BLOCK_BYTES where other writers make up to 65,535 bytes."""
    parts = [data[at : at + BLOCK_BYTES] for at in range(0, len(data), BLOCK_BYTES)] or [b""]
    heads = [
        struct.pack("<BHH", number == len(parts), len(part), len(part) ^ 0xFFFF) for number, part in enumerate(parts, 1)
    ]
    blocks = b"".join(head + part for head, part in zip(heads, parts, strict=True))
    return bytes.fromhex("1f8b08000000000000ff") + blocks + struct.pack("<II", zlib.crc32(data), len(data))


def deflated(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


@st.composite
def archives_of_archives(draw: st.DrawFn, packers: tuple[Callable[[bytes], bytes], ...], depth: int = 2) -> bytes:
    """Records whose blocks quote records, or are gzip archives themselves, stored as they are or packed once more; or a part."""
    data = b""
    for number in range(draw(st.integers(1, 4))):
        is_archive = depth > 0 and draw(st.booleans())
        inner = archives_of_archives(packers, depth - 1).map(lambda archive: b"\r\n\r\n" + archive)
        one = record(number + 10 * depth, draw(KINDS), draw(inner if is_archive else BODIES))
        pack = draw(st.sampled_from(packers))
        cut = draw(st.sampled_from([0, len(one), len(one), len(one) // 2, len(one) - 1]))
        data += b"".join(pack(part) for part in (one[:cut], one[cut:]) if part)
    keep = draw(st.sampled_from([0, 0, 0, 1, 8, 30, 400]))
    return data[: max(1, len(data) - keep)]


CHANGES = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=2)


def read_in_spans(path: Path, archive: bytes, changes: list[tuple[int, int]], cuts: list[int]) -> None:
    """Cut at what looks like a head, too."""
    data = bytearray(archive)
    for place, value in changes:
        data[place % len(data)] = value
    every_head = [at for at in range(len(data)) if data.startswith((b"\x1f\x8b\x08", b"WARC/1."), at)][:12]
    read(path, bytes(data), [*cuts, *every_head])


@given(archives_of_archives((bytes, stored, deflated)), st.booleans(), CHANGES, CUTS)
@settings(deadline=None, max_examples=200)
def test_an_archive_that_holds_archives_gives_the_same_records_in_any_spans(
    path: Path, archive: bytes, packed: bool, changes: list[tuple[int, int]], cuts: list[int]
) -> None:
    read_in_spans(path if packed else path.with_suffix(".warc"), archive, changes, cuts)


@given(archives_of_archives((bytes, stored, stored)), CHANGES, CUTS)
@settings(deadline=None, max_examples=200)
def test_a_file_entered_in_the_middle_gives_the_same_records(
    path: Path, archive: bytes, changes: list[tuple[int, int]], cuts: list[int]
) -> None:
    """Blocks of 500 bytes stand for those of 64 kB, so that rows of members end within small files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(members, "ROW_BYTES", BLOCK_BYTES + 50)
        patch.setattr(coverage, "ROW", BLOCK_BYTES + 50)
        read_in_spans(path, archive, changes, cuts)


def test_a_large_archive_stored_in_a_member_gives_no_records_of_its_own(path: Path) -> None:
    """What cannot be packed is stored as it is, in blocks of 64 kB at most: whole members lie in them."""
    noise = random.Random(1)
    inner = [gzip.compress(record(number, "resource", noise.randbytes(9_000)), mtime=0) for number in range(100, 180)]
    small = [gzip.compress(record(number, "resource", b"text"), mtime=0) for number in range(100, 120)]
    bodies = [b"".join(inner), b"first", b"".join(small), b"".join(small[:9]), b"".join(inner[:40])]
    records = [record(number, "resource", body) for number, body in enumerate(bodies)]
    data = b"".join(gzip.compress(one, 0, mtime=0) for one in records)
    assert data.count(inner[3]) == 2  # it lies there as it is
    cuts = [data.index(member) for member in (*inner[::9], *small[1:4], small[-1])]
    for name, content in (("x.warc.gz", data), ("x.warc", b"".join(records))):
        items = read(path.with_name(name), content, [*cuts, *range(1, len(content), 150_000)])
        assert ids(items) == [f"urn:uuid:{number}" for number in range(5)]


def test_damage_near_a_cut_is_the_same_in_the_span_that_begins_there(path: Path) -> None:
    """Behind 256 kB without damage the file is entered in the middle; where damage is near, it is entered before it."""
    noise = random.Random(2)
    row = [gzip.compress(record(number, "resource", noise.randbytes(20_000)), mtime=0) for number in range(60)]
    for number in (9, 30, 31, 45):
        row[number] = row[number][:-100] if number == 30 else row[number][:9000] + row[number][9001:]
    ends = list(itertools.accumulate(map(len, row)))
    items = read(path, b"".join(row), [end + 1 for end in ends[::3]])
    assert len(ids(items)) == 56


@given(
    st.lists(
        st.sampled_from(
            [
                b"WARC/1.0\r\n",
                b"\r\n\r\nWARC/1.",
                b"\r\n",
                b"Content-Length: 5\r\n\r\n",
                b"Content-Length: 40\r\n\r\n",
                b"WARC-Type: resource\r\n",
            ]
        )
        | st.binary(max_size=9),
        max_size=12,
    ).map(b"".join),
    st.integers(3, 60),
)
@settings(deadline=None, max_examples=300)
def test_plain_bytes_give_what_one_member_of_them_gives(path: Path, data: bytes, max_bytes: int) -> None:
    data = b"WARC/1.0\r\n" + data
    path.write_bytes(gzip.compress(data))
    packed = list(records_of(path, name="x", start=0, end=None, max_bytes=max_bytes))
    file = path.with_suffix(".warc")
    file.write_bytes(data)
    plain = list(records_of(file, name="x", start=0, end=None, max_bytes=max_bytes))
    with_no_place = [
        [item if isinstance(item, Skip) else replace(item, place=Place(origin="")) for item in items]
        for items in (plain, packed)
    ]
    assert with_no_place[0] == with_no_place[1]


PIECES = st.sampled_from(
    [b"WARC/1.0\r\n", b"\r\n\r\nWARC/1.", b"\r\n", b"Content-Length: 5\r\n\r\n", b"\x1f\x8b\x08", bytes(9)]
)
ANY_MEMBERS = st.lists(st.lists(PIECES | st.binary(max_size=9), max_size=5).map(b"".join), max_size=6)


@given(ANY_MEMBERS, st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=4), st.booleans(), CUTS)
@example([b"\r"], [], False, [])
@settings(deadline=None, max_examples=300)
def test_any_bytes_raise_nothing_and_are_all_counted(
    path: Path, contents: list[bytes], changes: list[tuple[int, int]], packed: bool, cuts: list[int]
) -> None:
    data = bytearray(b"".join(gzip.compress(content, mtime=0) if packed else content for content in contents))
    for place, value in changes:
        if data:
            data[place % len(data)] = value
    read(path if packed else path.with_suffix(".warc"), bytes(data), cuts)


@given(archives(), st.booleans())
@settings(deadline=None, max_examples=60)
def test_a_file_can_be_entered_where_a_record_says_and_the_next_such_place_is_found(
    path: Path, archive: Archive, packed: bool
) -> None:
    file = path if packed else path.with_suffix(".warc")
    file.write_bytes(b"".join(archive.members if packed else archive.records))
    items = [item for item in read_warc(file, name="x") if not isinstance(item, Skip)]
    entries = [item.entry for item in items if item.entry is not None]
    span = Span(path=file, name="x", size=file.stat().st_size)
    heads = [0] if archive.members else []
    while (head := FORMAT.next_entry(span, heads[-1])) is not None:
        assert head > heads[-1]
        heads.append(head)
    assert set(entries) <= set(heads)
    for item in items:
        if item.entry is not None:
            assert next(iter(read_warc(file, name="x", start=item.entry))) == item
    if packed and archive.cuts == [0, sum(map(len, archive.records))]:
        assert heads == [0]
    if not packed:
        assert heads == list(itertools.accumulate(map(len, archive.records), initial=0))[:-1]


def test_origins_name_the_member_and_the_place_inside_it_whatever_the_span(path: Path) -> None:
    records = [record(number, "resource", b"text %d" % number) for number in range(4)]
    first = gzip.compress(records[0])
    path.write_bytes(first + gzip.compress(b"".join(records[1:])))
    origins = [
        "x#0",
        f"x#{len(first)}",
        f"x#{len(first)}+{len(records[1])}",
        f"x#{len(first)}+{len(records[1] + records[2])}",
    ]
    assert [item.origin for item in read_warc(path, name="x") if isinstance(item, RawDocument)] == origins
    assert [item.origin for item in read_warc(path, name="x", start=1) if isinstance(item, RawDocument)] == origins[1:]


def test_a_record_above_the_limit_takes_no_memory(path: Path) -> None:
    large = record(1, "resource", bytes(100_000_000))
    path.write_bytes(
        gzip.compress(record(0, "resource", b"before") + large, 1) + gzip.compress(record(2, "resource", b"behind"))
    )
    del large
    tracemalloc.start()
    items = list(read_warc(path, name="x", max_bytes=1_000_000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert ids(items) == ["urn:uuid:0", "urn:uuid:2"]
    assert [item.reason for item in items if isinstance(item, Unread)] == ["record_too_large"]
    assert peak < 60_000_000


def test_a_length_far_above_the_limit_does_not_swallow_the_records_behind_it(path: Path) -> None:
    records = [record(number, "resource", b"text") for number in range(4)]
    records[1] = records[1].replace(b"Content-Length: 10", b"Content-Length: 10000000000")
    for data in (gzip.compress(b"".join(records)), b"".join(map(gzip.compress, records)), b"".join(records)):
        items = read(path if data.startswith(b"\x1f") else path.with_suffix(".warc"), data, [])
        assert ids(items) == ["urn:uuid:0", "urn:uuid:2", "urn:uuid:3"]
        assert [item.reason for item in items if isinstance(item, Unread)] == ["record_too_large"]


def test_heads_in_the_block_of_a_sound_record_are_no_records(path: Path) -> None:
    inner = b"".join(record(number, "resource", b"inner") for number in (7, 8))
    data = record(0, "resource", b"\r\n\r\n" + inner) + record(1, "resource", b"")
    for file, content in ((path, gzip.compress(data)), (path.with_suffix(".warc"), data)):
        file.write_bytes(content)
        assert ids(list(read_warc(file, name="x"))) == ["urn:uuid:0", "urn:uuid:1"]


def test_small_pieces_change_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = [record(number, "resource", b"text\r\n\r\n" * number) for number in range(9)]
    records[4] = records[4].replace(b"Content-Length", b"Content-Lenght") + b"junk"
    monkeypatch.setattr(warc_archive, "PLAIN_PIECE_BYTES", 1 << 18)
    file = path.with_suffix(".warc")
    expected = read(file, b"".join(records), [400, 1500])
    for size in (12, 13, 100):
        monkeypatch.setattr(warc_archive, "PLAIN_PIECE_BYTES", size)
        monkeypatch.setattr(warc_archive, "COMPACT_BYTES", 5)
        assert read(file, b"".join(records), [400, 1500]) == expected
