"""Tar archives: files are those that Python's tarfile finds; all bytes are told of, whatever is damaged."""

from __future__ import annotations

import gzip
import io
import random
import tarfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.data.record import Skip
from gristmill.formats.content import open_content
from gristmill.formats.tar import MAX_EXTENDED_BYTES, Damage, TarFile, read_tar

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
KINDS = (tarfile.REGTYPE, tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE)


def member(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(data)
    return info, data


def archive(*members: tuple[tarfile.TarInfo, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=format) as opened:
        for info, data in members:
            opened.addfile(info, io.BytesIO(data))
    return written.getvalue()


def numbered(*numbers: int) -> bytes:
    return archive(*(member(f"{number}.py", b"%d\n" % number * 300) for number in numbers))


def read(path: Path, data: bytes, *, packed: bool = False, largest: int = 1 << 20) -> list[TarFile | Damage | Skip]:
    path.write_bytes(gzip.compress(data) if packed else data)
    with open_content(path) as file:
        return list(read_tar(file, wanted=lambda name, size: size <= largest))


def taken(items: list[TarFile | Damage | Skip]) -> int:
    return sum(item.num_bytes for item in items)


def names(items: list[TarFile | Damage | Skip]) -> list[str]:
    return [item.name for item in items if isinstance(item, TarFile) and item.num_bytes == item.size]


# ── laws ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

NAME = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=8)
MEMBERS = st.lists(
    st.tuples(st.lists(NAME, min_size=1, max_size=60), st.binary(max_size=1500), st.sampled_from(KINDS)), max_size=6
)


@given(members=MEMBERS, format=st.sampled_from(sorted(FORMATS)), packed=st.booleans())
@settings(deadline=None, max_examples=150)
def test_files_are_those_that_tarfile_finds(
    tmp_path_factory: pytest.TempPathFactory,
    members: list[tuple[list[str], bytes, bytes]],
    format: str,
    packed: bool,
) -> None:
    made = [member("/".join(parts), data if kind == tarfile.REGTYPE else b"", kind) for parts, data, kind in members]
    fits = [one for one in made if format != "ustar" or len(one[0].name.encode()) < 90]
    data = archive(*fits, format=FORMATS[format])
    with tarfile.open(fileobj=io.BytesIO(data)) as opened:
        files = [one for one in opened if one.isfile()]
        expected = [(one.name, one.size, opened.extractfile(one).read()) for one in files]  # type: ignore[union-attr]
    items = read(tmp_path_factory.mktemp("any") / "x.tar", data, packed=packed)
    assert [(item.name, item.size, item.data) for item in items if isinstance(item, TarFile)] == expected
    assert not any(isinstance(item, Damage) for item in items)
    assert taken(items) == len(data)


@given(seed=st.integers(0, 1 << 32), packed=st.booleans())
@settings(deadline=None, max_examples=150)
def test_any_change_of_an_archive_leaves_bytes_that_add_up(
    tmp_path_factory: pytest.TempPathFactory, seed: int, packed: bool
) -> None:
    noise = random.Random(seed)
    long = "a/" * 100 + "b.py"
    data = bytearray(archive(member("x.py", b"x" * 700), member(long, b"y" * 10), member("d", kind=tarfile.DIRTYPE)))
    for _ in range(noise.randrange(1, 6)):
        at = noise.randrange(len(data))
        change = noise.choice(["flip", "cut", "insert", "number"])
        if change == "flip":
            data[at] ^= 1 << noise.randrange(8)
        elif change == "number":
            data[at // 512 * 512 + 124 : at // 512 * 512 + 136] = noise.choice(
                [b"\x80" + b"\0" * 6 + b"\x7f" * 5, b"7" * 12]
            )
        elif change == "cut":
            del data[at : at + noise.randrange(1, 700)]
        else:
            data[at:at] = noise.randbytes(noise.randrange(1, 700))
        data = data or bytearray(b"x")
    items = read(tmp_path_factory.mktemp("any") / "x.tar", bytes(data), packed=packed)
    assert taken(items) == len(data)


@given(flips=st.lists(st.integers(0, 1 << 20), min_size=1, max_size=3), cut=st.integers(0, 200))
@settings(deadline=None, max_examples=80)
def test_bytes_add_up_over_the_gaps_of_a_damaged_gzip_file(
    tmp_path_factory: pytest.TempPathFactory, flips: list[int], cut: int
) -> None:
    path = tmp_path_factory.mktemp("any") / "x.tar.gz"
    whole = archive(*(member(f"{n}.py", random.Random(n).randbytes(400).hex().encode()) for n in range(8)))
    third = len(whole) // 3
    data = bytearray(gzip.compress(whole[:third]) + gzip.compress(whole[third:]))
    for flip in flips:
        data[flip % len(data)] ^= 0x55
    path.write_bytes(bytes(data[: len(data) - cut]))
    with open_content(path) as file:
        items = list(read_tar(file, wanted=lambda name, size: True))
        delivered, gaps = file.tell(), sum(gap.num_bytes for gap in file.gaps)
    assert taken(items) == delivered + gaps


# ── damage and lies ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_damaged_header_costs_its_member(tmp_path: Path) -> None:
    data = bytearray(numbered(1, 2, 3))
    second = data.index(b"2.py")
    data[second] ^= 1
    items = read(tmp_path / "x.tar", bytes(data))
    assert names(items) == ["1.py", "3.py"]
    (damage,) = [item for item in items if isinstance(item, Damage)]
    assert (damage.position, damage.num_bytes) == (second, 512 + 1024)


def test_bytes_that_are_lost_in_the_middle_cost_the_member_there(tmp_path: Path) -> None:
    """What follows no longer lies at multiples of 512, which nothing but the next header can tell."""
    noise = random.Random(1)
    data = archive(*(member(f"{number}.py", noise.randbytes(2000)) for number in range(1, 5)))
    at = data.index(b"2.py") + 512 + 100
    path = tmp_path / "x.tar.gz"
    broken = bytearray(gzip.compress(data[:at]))
    broken[-30:] = b""
    path.write_bytes(bytes(broken) + gzip.compress(data[at + 77 :]))
    with open_content(path) as file:
        items = list(read_tar(file, wanted=lambda name, size: True))
    assert names(items) == ["1.py", "3.py", "4.py"]


@pytest.mark.parametrize("change", [77, -77])
def test_an_archive_that_is_no_longer_at_multiples_of_512_is_read_on(tmp_path: Path, change: int) -> None:
    data = numbered(1, 2, 3, 4)
    at = data.index(b"2.py") + 600
    items = read(tmp_path / "x.tar", data[: at + min(0, change)] + b"x" * max(0, change) + data[at:])
    expected = ["1.py", "2.py", "3.py", "4.py"] if change > 0 else ["1.py", "2.py", "4.py"]
    assert names(items) == expected, "what is missing of 2.py is taken from the padding, and from the header behind it"
    assert taken(items) == len(data) + change


def test_headers_without_magic_are_found_again_at_multiples_of_512(tmp_path: Path) -> None:
    data = bytearray(numbered(1, 2, 3))
    for name in (b"1.py", b"2.py", b"3.py"):  # as Unix had them until 1988
        start = data.index(name)
        data[start + 257 : start + 512] = bytes(255)
        data[start + 148 : start + 156] = b" " * 8
        data[start + 148 : start + 156] = b"%06o\0 " % sum(data[start : start + 512])
    data[data.index(b"2.py") + 5] ^= 1
    assert names(read(tmp_path / "x.tar", bytes(data))) == ["1.py", "3.py"]


def test_archives_one_after_the_other_are_all_read(tmp_path: Path) -> None:
    items = read(tmp_path / "x.tar", numbered(1, 2) + numbered(3) + bytes(5000), packed=True)
    assert names(items) == ["1.py", "2.py", "3.py"]
    assert not any(isinstance(item, Damage) for item in items)


def test_a_large_file_is_passed_over_and_the_files_behind_it_are_read(tmp_path: Path) -> None:
    size = 150_000_000
    data = archive(member("1.py", b"1"), member("big.py", bytes(size)), member("2.py", b"2"))
    path = tmp_path / "x.tar.gz"
    path.write_bytes(gzip.compress(data))
    tracemalloc.start()
    with open_content(path) as file:
        items = list(read_tar(file, wanted=lambda name, size: size < 1000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [(item.name, item.data) for item in items if isinstance(item, TarFile)] == [
        ("1.py", b"1"), ("big.py", None), ("2.py", b"2"),
    ]  # fmt: skip
    assert peak < 90_000_000


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XGLTYPE])
def test_a_header_above_the_limit_is_damage_and_the_member_behind_it_is_read(tmp_path: Path, kind: bytes) -> None:
    head, _ = member("head", kind=kind)
    head.size = MAX_EXTENDED_BYTES * 3
    data = head.tobuf(tarfile.GNU_FORMAT) + b"x" * head.size + numbered(1)
    items = read(tmp_path / "x.tar", data)
    assert names(items) == ["1.py"]
    (damage,) = [item for item in items if isinstance(item, Damage)]
    assert damage.num_bytes == 512 + head.size
    assert "the limit is 1,048,576" in damage.detail


def test_sparse_files_are_told_and_never_unpacked(tmp_path: Path) -> None:
    pax, _ = member("x", kind=tarfile.REGTYPE)
    pax.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.name": "hole.py", "GNU.sparse.realsize": str(1 << 60)}
    data = archive((pax, b""), member("1.py", b"1"))
    items = read(tmp_path / "x.tar", data)
    assert [(item.name, item.is_sparse) for item in items if isinstance(item, TarFile)] == [
        ("hole.py", True),
        ("1.py", False),
    ]
    assert taken(items) == len(data)


@pytest.mark.parametrize("size", [1 << 62, 5_000])
def test_a_size_beyond_the_end_is_a_file_that_is_not_whole(tmp_path: Path, size: int) -> None:
    head, _ = member("1.py")
    head.size = size
    data = head.tobuf(tarfile.GNU_FORMAT) + b"x" * 4000
    (file, _skip) = read(tmp_path / "x.tar", data)
    assert isinstance(file, TarFile)
    assert (file.size, file.num_bytes) == (size, 4000)


def test_an_empty_file_and_what_is_no_archive_are_damage(tmp_path: Path) -> None:
    for data in (b"", b"PK\x03\x04" * 500, b"x"):
        (damage,) = read(tmp_path / "x.tar", data)
        assert isinstance(damage, Damage)
        assert damage.num_bytes == len(data)
