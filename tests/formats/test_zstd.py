"""A zstd file gives all that its undamaged blocks hold, says where something is missing, and both are measured apart."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accounting import read_whole, reasons, texts
from gristmill.formats import coverage_zstd, frames
from gristmill.formats.content import open_content
from gristmill.formats.coverage import unpacked_bytes
from gristmill.formats.members import Disk, Gap

CODEC = pa.Codec("zstd", compression_level=1)
CONTENTS = st.lists(
    st.binary(max_size=200)
    | st.binary(min_size=1, max_size=9).map(lambda some: some * 3000)
    | st.integers(0, 9).map(lambda seed: random.Random(seed).randbytes(300_000)),
    max_size=4,
)
SKIPPABLE = b"\x53\x2a\x4d\x18\x05\0\0\0abcde"


def frame(content: bytes, *, checksum: bool = False, size: bool = True) -> bytes:
    """A frame; as the stream of pyarrow writes it without its size, or as its codec does. The checksum is a wrong one."""
    if size:
        data = bytearray(CODEC.compress(content, asbytes=True))
        if checksum:
            data[4] |= 0x04
            data += b"\1\2\3\4"
        return bytes(data)
    written = pa.BufferOutputStream()
    with pa.CompressedOutputStream(written, "zstd") as stream:
        stream.write(content)
    return bytes(written.getvalue())


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("zstd") / "x.zst"


def read(path: Path, data: bytes) -> tuple[bytes, list[Gap]]:
    """What the file gives and misses; what is measured apart is both together."""
    path.write_bytes(data)
    with open_content(path) as file:
        content, gaps = file.read(), file.gaps
    assert unpacked_bytes(path) == len(content) + sum(gap.num_bytes for gap in gaps)
    return content, gaps


@given(CONTENTS.filter(len), st.booleans(), st.booleans())
@settings(deadline=None, max_examples=40)
def test_frames_in_a_row_are_their_contents(path: Path, contents: list[bytes], size: bool, skip: bool) -> None:
    between = SKIPPABLE if skip else b""
    assert read(path, between.join(frame(content, size=size) for content in contents)) == (b"".join(contents), [])


@pytest.mark.skipif(shutil.which("zstd") is None, reason="needs the command zstd")
@pytest.mark.parametrize("options", [["-1"], ["-19", "--no-check"], ["--long=27", "-T2"], ["--ultra", "-22"]])
def test_files_of_the_zstd_command_are_read(tmp_path: Path, options: list[str]) -> None:
    data = random.Random(1).randbytes(400_000) + b"The miller walked down to the river.\n" * 30_000
    (tmp_path / "x.txt").write_bytes(data)
    subprocess.run(["zstd", "-q", *options, tmp_path / "x.txt"], check=True)
    packed = (tmp_path / "x.txt.zst").read_bytes()
    assert read(tmp_path / "x.txt.zst", packed + packed) == (data + data, [])
    flipped = bytearray(packed)
    flipped[200_000] ^= 0xFF
    content, gaps = read(tmp_path / "x.txt.zst", bytes(flipped) + packed)
    assert content.endswith(data)
    assert "--no-check" in options or len(gaps) == 1


@given(CONTENTS.filter(len), st.data())
@settings(deadline=None, max_examples=40)
def test_a_file_cut_anywhere_gives_its_whole_blocks_and_says_so(
    path: Path, contents: list[bytes], data: st.DataObject
) -> None:
    packed = [frame(content) for content in contents]
    keep = data.draw(st.integers(5, len(packed[-1]) - 1))
    sound = b"".join(contents[:-1])
    content, gaps = read(path, b"".join(packed[:-1]) + packed[-1][:keep])
    assert content.startswith(sound)
    assert contents[-1].startswith(content[len(sound) :])
    assert len(content) < len(sound + contents[-1]) or contents[-1] == b""
    (gap,) = gaps
    assert (gap.position, gap.offset + gap.num_bytes, gap.packing) == (len(content), path.stat().st_size, "zstd")


def test_a_damaged_block_costs_itself_and_the_rest_of_its_frame(path: Path) -> None:
    noise = random.Random(1).randbytes(3 * 128 << 10)
    words = b"".join(b"the miller walked %d times down to the river\n" % number**5 for number in range(20_000))
    broken = bytearray(frame(noise + words, size=False))
    place = broken.index(noise[-100:]) + 100  # the head of the block behind the noise
    broken[place] |= 0x06  # of a type that there is not
    content, gaps = read(path, frame(b"before") + bytes(broken) + frame(b"after"))
    assert content.startswith(b"before" + noise)
    assert content.endswith(b"after")
    assert len(content) == len(b"before" + noise + b"after")
    assert len(gaps) == 1
    assert gaps[0].fault == "damaged"


def test_a_wrong_checksum_is_a_gap_and_its_content_is_there(path: Path) -> None:
    content, gaps = read(path, frame(b"abc" * 50, checksum=True) + frame(b"def"))
    assert content == b"abc" * 50 + b"def"
    assert [(gap.position, gap.num_bytes, gap.fault) for gap in gaps] == [(150, 4, "damaged")]


@given(
    CONTENTS,
    CONTENTS,
    st.binary(min_size=1, max_size=60),
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=5),
)
@settings(deadline=None, max_examples=40)
def test_any_bytes_raise_nothing_and_add_up(
    path: Path, before: list[bytes], after: list[bytes], garbage: bytes, changes: list[tuple[int, int]]
) -> None:
    data = bytearray(b"".join([*map(frame, before), garbage, *(frame(one, size=False) for one in after)]))
    for place, value in changes:
        data[place % len(data)] = value
    content, gaps = read(path, frames.MAGIC + data)
    assert [gap.position for gap in gaps] == sorted(gap.position for gap in gaps)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frames, "READ_BYTES", 77_777)
        patch.setattr(frames, "WINDOW_BYTES", 200_000)
        assert read(path, frames.MAGIC + data) == (content, gaps)


def test_the_limit_of_gaps_is_the_same_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (frames.MAX_GAPS, frames.MAX_EMPTY_BLOCKS) == (coverage_zstd.MAX_GAPS, coverage_zstd.MAX_EMPTY)
    for module in (frames, coverage_zstd):
        monkeypatch.setattr(module, "MAX_GAPS", 5)
    _, gaps = read(path, (frame(b"broken things", checksum=True) + b"x") * 300)
    assert len(gaps) == 6


def test_lines_rows_and_texts_are_read_from_zstd_and_lost_at_gaps_only(tmp_path: Path) -> None:
    lines = [b'{"text": "line %d"}\n' % number for number in range(50)]
    path = tmp_path / "x.jsonl.zst"
    path.write_bytes(frame(b"".join(lines[:20])) + b"garbage" + frame(b"".join(lines[20:])))
    found = read_whole("jsonl", path)
    assert len([text for text in texts(found) if text.startswith("line")]) == 50
    assert reasons(found) == {"corrupt_zstd": 1}
    (tmp_path / "x.tsv.zst").write_bytes(frame(b"id\ttext\n1\ta\n2\tb\n"))
    assert texts(read_whole("csv", tmp_path / "x.tsv.zst")) == ["a", "b"]
    (tmp_path / "x.txt.zst").write_bytes(frame("ein Wörterbuch\n".encode()))
    assert texts(read_whole("text", tmp_path / "x.txt.zst")) == ["ein Wörterbuch\n"]


def test_the_file_below_is_entered_where_it_is_asked(path: Path) -> None:
    path.write_bytes(frame(b"one") + frame(b"two"))
    with path.open("rb") as file:
        assert b"".join(piece for piece in frames.unpack_frames(Disk(file)) if isinstance(piece, bytes)) == b"onetwo"
