"""A packed file gives all that its undamaged bytes hold, and says where something is missing."""

from __future__ import annotations

import gzip
import io
import time
import zlib
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.data import deadline
from gristmill.formats import members
from gristmill.formats.content import open_content, packing_of
from gristmill.formats.members import Gap

CONTENTS = st.lists(
    st.binary(max_size=300) | st.binary(min_size=1, max_size=9).map(lambda some: some * 3000), max_size=6
)
LEVELS = st.sampled_from([0, 1, 6, 9])


@dataclass(frozen=True)
class Read:
    content: bytes
    gaps: list[Gap]


def read(path: Path, data: bytes) -> Read:
    path.write_bytes(data)
    with open_content(path) as file:
        return Read(file.read(), file.gaps)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("content") / "x.gz"


def byte_by_byte(member: bytes) -> tuple[bytes, int]:
    """What a broken member unpacks to, and the byte that is an error: the definition, as slow as it is."""
    unpacker, content = zlib.decompressobj(31), b""
    for number in range(len(member)):
        try:
            content += unpacker.decompress(member[number : number + 1])
        except zlib.error:
            return content, number
    return content, len(member)


@given(CONTENTS, LEVELS)
@settings(deadline=None, max_examples=60)
def test_members_in_a_row_are_what_gzip_reads(path: Path, contents: list[bytes], level: int) -> None:
    data = b"".join(gzip.compress(content, level, mtime=0) for content in contents)
    assert read(path, data) == Read(gzip.decompress(data) if data else b"", [])


@given(CONTENTS.filter(len), st.data())
@settings(deadline=None, max_examples=60)
def test_a_file_cut_anywhere_gives_what_its_bytes_hold_and_says_so(
    path: Path, contents: list[bytes], data: st.DataObject
) -> None:
    packed = [gzip.compress(content, mtime=0) for content in contents]
    keep = data.draw(st.integers(1, len(packed[-1]) - 1))
    sound = b"".join(contents[:-1])
    got = read(path, b"".join(packed[:-1]) + packed[-1][:keep])
    expected = byte_by_byte(packed[-1][:keep])[0]
    assert got.content == sound + expected
    lost = 0 if expected else keep
    assert [(gap.position, gap.num_bytes, gap.fault) for gap in got.gaps] == [(len(got.content), lost, "truncated")]


@given(CONTENTS, CONTENTS, st.binary(min_size=1, max_size=60) | st.integers(1, 40).map(bytes), st.booleans())
@settings(deadline=None, max_examples=60)
def test_bytes_that_are_no_member_are_one_gap(
    path: Path, before: list[bytes], after: list[bytes], garbage: bytes, magics: bool
) -> None:
    first, second = ([gzip.compress(content, mtime=0) for content in some] for some in (before, after))
    lost = b"".join([garbage.replace(members.MAGIC, b"")] + [members.MAGIC] * (20 * magics)) or b"x"
    got = read(path, b"".join([*first, lost, *second]))
    if first or packing_of(path) is not None:
        assert got.content == b"".join([*before, *after])
        assert got.gaps == [
            Gap(position=len(b"".join(before)), offset=len(b"".join(first)), num_bytes=len(lost), fault="no_member")
        ]


@given(st.binary(min_size=20, max_size=400), st.data())
@settings(deadline=None, max_examples=150)
def test_a_broken_member_gives_its_longest_prefix_and_the_next_one_is_whole(
    path: Path, content: bytes, data: st.DataObject
) -> None:
    member = bytearray(gzip.compress(content * 3, mtime=0))
    place = data.draw(st.integers(10, len(member) - 1))
    member[place] ^= data.draw(st.integers(1, 255))
    prefix, error = byte_by_byte(bytes(member))
    following = gzip.compress(b"the next one", mtime=0)
    got = read(path, bytes(member) + following)
    if error == len(member):  # the damage makes it longer than it is: the next member seems to be its own bytes
        assert got.content.endswith(b"the next one")
        return
    if len(prefix) <= members.HEAD_BYTES:  # nothing begins there
        assert got.content in (b"the next one", prefix + b"the next one")
    else:
        assert got.content == prefix + b"the next one"
        assert got.gaps == [Gap(position=len(prefix), offset=error, num_bytes=len(member) - error, fault="damaged")]


def test_the_successor_of_a_member_that_was_cut_off_is_whole_wherever_it_was_cut(path: Path) -> None:
    member = gzip.compress(bytes(range(256)) * 4, mtime=0)
    following = [gzip.compress(b"number %d" % number, mtime=0) for number in range(30)]
    for keep in range(1, len(member)):
        got = read(path, b"".join([member[:keep], *following]))
        assert got.content.endswith(b"".join(b"number %d" % number for number in range(30))), keep
        assert len(got.gaps) == 1


@given(
    st.lists(st.binary(max_size=2000), min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=5),
)
@settings(deadline=None, max_examples=60)
def test_the_sizes_of_feeds_pieces_and_windows_change_nothing(
    path: Path, contents: list[bytes], changes: list[tuple[int, int]]
) -> None:
    data = bytearray(b"".join(gzip.compress(content * 20, mtime=0) for content in contents))
    for place, value in changes:
        data[place % len(data)] = value
    whole = read(path, bytes(data))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(members, "FEED_BYTES", 7)
        patch.setattr(members, "WINDOW_BYTES", members.FIRST_BYTES)
        assert read(path, bytes(data)) == whole


@given(
    st.lists(st.binary(max_size=80) | st.sampled_from([members.MAGIC, gzip.compress(b"abc" * 50, mtime=0)[:30]])).map(
        b"".join
    )
)
@settings(deadline=None, max_examples=200)
def test_any_bytes_raise_nothing(path: Path, data: bytes) -> None:
    got = read(path, members.MAGIC + data)
    assert sum(gap.num_bytes for gap in got.gaps) <= len(data) + 3
    assert [gap.position for gap in got.gaps] == sorted(gap.position for gap in got.gaps)


def test_a_million_magics_and_members_that_all_break_are_gaps_of_a_stated_number(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(members, "MAX_GAPS", 50)
    good = gzip.compress(b"good", mtime=0)
    assert read(path, good + members.MAGIC * 1_000_000 + good) == Read(
        b"goodgood", [Gap(position=4, offset=len(good), num_bytes=3_000_000, fault="damaged")]
    )
    got = read(path, (gzip.compress(b"broken things", mtime=0)[:-1] + b"x") * 3000)
    assert len(got.gaps) == 51
    assert got.gaps[-1].num_bytes > 2900 * 20


def test_members_inside_each_other_are_not_read_more_often_than_allowed(path: Path) -> None:
    # Every header is followed by a stored block that ends where another stored block begins: from each of the places to
    # the end of the file there is a member, and none ever ends.
    stored = b"\x00" + (15 * 400 - 5 + 10).to_bytes(2, "little")
    unit = bytes.fromhex("1f8b08000000000000ff") + stored + bytes(byte ^ 255 for byte in stored[1:])
    data = unit * 20_000
    got = read(path, data)
    assert len(got.content) < 40 * len(data)


def test_a_plain_file_seeks_and_a_gap_is_found_by_its_position(path: Path) -> None:
    plain = path.with_suffix(".jsonl")
    plain.write_bytes(b"one\ntwo\nthree\n")
    with open_content(plain) as file:
        file.seek(4)
        assert (file.readline(), file.tell(), file.gaps) == (b"two\n", 8, [])
    path.write_bytes(gzip.compress(b"one\ntwo\n") + b"??" + gzip.compress(b"three\n"))
    with open_content(path) as file:
        assert not file.seekable()
        assert [file.readline(), file.readline(), file.tell()] == [b"one\n", b"two\n", 8]
        assert (file.gaps_between(0, 4), file.gaps_between(4, 8)) == ([], [])
        assert file.readline() == b"three\n"
        assert (file.gaps_between(0, 8), file.gaps_between(8, 14)) == ([], file.gaps)
        assert len(file.gaps) == 1
        assert file.gaps_between(14) == []


@pytest.mark.parametrize(
    ("name", "first", "packing"),
    [
        ("x.jsonl", gzip.compress(b"{}", mtime=0), "gzip"),
        ("x.jsonl", b'{"text": "x"}', None),
        ("x.jsonl.gz", b'{"text": "' + "ü".encode() * 300, None),
        ("x.jsonl.gz", gzip.compress(bytes(500), mtime=0)[4:], "gzip"),
        ("x.jsonl.gz", b"", "gzip"),
        ("x.jsonl.gz", b"\x28\xb5\x2f\xfd", "zstd"),
        ("x.jsonl.zst", b"\xb5\x2f\xfd", "zstd"),
        ("x.jsonl.zst", b"{}", None),
    ],
)
def test_a_file_is_packed_by_its_bytes_before_its_name(
    path: Path, name: str, first: bytes, packing: str | None
) -> None:
    file = path.with_name(name)
    file.write_bytes(first)
    assert packing_of(file) == packing
    if packing is None:
        assert read(file, first).content == first


def test_reading_in_pieces_extends_the_deadline(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = []
    monkeypatch.setattr(deadline, "extend", lambda: times.append(time.monotonic()))
    path.write_bytes(gzip.compress(bytes(100_000_000), 1))
    plain = path.with_suffix(".txt")
    plain.write_bytes(bytes(100_000_000))
    for file in (path, plain):
        times.clear()
        with open_content(file) as content:
            while content.read(1 << 20):
                pass
        assert 4 <= len(times) <= 10


def test_it_is_a_file_for_those_who_expect_one(path: Path) -> None:
    path.write_bytes(gzip.compress("Grüße\nund mehr\n".encode()))
    with io.TextIOWrapper(open_content(path), encoding="utf-8") as lines:
        assert list(lines) == ["Grüße\n", "und mehr\n"]
