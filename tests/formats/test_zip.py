"""ZIP archives, against Python's zipfile; slots and tail are the file whatever is in it."""

from __future__ import annotations

import io
import struct
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.formats.zip import Refused, list_zip, unpacked_whole
from hostile.books import zipped

NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12).filter(
    lambda name: not name.endswith("/")
)
METHODS = st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
MEMBERS = st.dictionaries(NAMES, st.tuples(st.binary(max_size=400), METHODS, st.booleans()), max_size=8)


def read(data: bytes) -> dict[str, bytes | str]:
    """Name → content, or the reason why there is none; fails unless slots and tail are the file."""
    file = io.BytesIO(data)
    listing = list_zip(file)
    assert sum(member.num_bytes for member in listing.members) + listing.tail == len(data)
    assert all(a.end == b.start for a, b in zip(listing.members, listing.members[1:]))
    found: dict[str, bytes | str] = {}
    for member in listing.members:
        try:
            found[member.name] = unpacked_whole(file, member, max_bytes=10_000_000)
        except Refused as error:
            found[member.name] = error.reason
    return found


@given(members=MEMBERS, prefix=st.binary(max_size=50), comment=st.binary(max_size=50), folders=st.booleans())
@settings(deadline=None, max_examples=100)
def test_members_are_those_that_zipfile_wrote(
    members: dict[str, tuple[bytes, int, bool]], prefix: bytes, comment: bytes, folders: bool
) -> None:
    written = io.BytesIO(prefix)
    written.seek(len(prefix))
    with zipfile.ZipFile(written, "a") as opened:
        for name, (content, method, is_wide) in members.items():
            if folders:
                opened.writestr(f"{name}.d/", b"")
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            with opened.open(info, "w", force_zip64=is_wide) as file:
                file.write(content)
        opened.comment = comment
    wanted = {zipfile.ZipInfo(name).filename: content for name, (content, _, _) in members.items()}
    assert read(written.getvalue()) == wanted


@given(data=st.binary(max_size=400), cut=st.integers(0, 400))
@settings(deadline=None, max_examples=200)
def test_changed_archives_are_refused_or_their_slots_are_the_file(data: bytes, cut: int) -> None:
    sound = zipped({"a.txt": b"some words " * 9, "b.txt": b"others"})
    cut = min(cut, len(sound))
    reasons = set()
    try:
        read(sound[:cut] + data + sound[cut + len(data) :])
    except Refused as error:
        reasons.add(error.reason)
    assert reasons <= {"corrupt_archive"}


def test_names_in_any_encoding_cost_nothing() -> None:
    data = zipped({"Grüße.txt": b"1", "aaaa.txt": b"2", "bbbb.txt": b"3"})
    data = data.replace(b"aaaa", b"\x81ber").replace("Gr\u00fc\u00dfe".encode(), b"Gr\xff\xfe\xff\xffe")
    assert read(data) == {"Gr\\xff\\xfe\\xff\\xffe.txt": b"1", "über.txt": b"2", "bbbb.txt": b"3"}
    with pytest.raises(UnicodeDecodeError):
        zipfile.ZipFile(io.BytesIO(data))


def directory_entry(data: bytes, name: bytes) -> int:
    """Where the line of the directory about a member begins."""
    return data.rfind(name) - 46


@pytest.mark.parametrize(
    ("at", "value", "reason"),
    [
        (8, struct.pack("<H", 1), "encrypted"),
        (10, struct.pack("<H", 14), "unsupported_compression"),
        (16, bytes(4), "corrupt_member"),
        (24, struct.pack("<L", 20_000_000), "file_too_large"),
        (24, struct.pack("<L", 9_000_000), "unpacked_too_large"),
        (24, struct.pack("<L", 3), "corrupt_member"),
        (20, struct.pack("<L", 90), "overlapping_members"),
        (42, bytes(4), "overlapping_members"),
    ],
)
def test_a_member_that_cannot_be_read_is_refused_and_the_others_are_read(at: int, value: bytes, reason: str) -> None:
    data = bytearray(zipped({"a.txt": b"first", "b.txt": b"words " * 10, "c.txt": b"last"}))
    place = directory_entry(bytes(data), b"b.txt") + at
    data[place : place + len(value)] = value
    found = read(bytes(data))
    assert reason in found.values()
    assert [found["a.txt"], found["c.txt"]] == [b"first", b"last"] or reason == "overlapping_members"
    assert found["c.txt"] == b"last"


def test_a_link_is_no_text() -> None:
    info = zipfile.ZipInfo("l.txt")
    info.create_system, info.external_attr = 3, 0o120777 << 16
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as opened:
        opened.writestr(info, "/etc/passwd")
    assert read(written.getvalue()) == {"l.txt": "link"}


def test_members_that_the_directory_does_not_name_are_told() -> None:
    members = {f"{number}.txt": bytes(range(256)) * 100 for number in range(3)}
    data = zipped(members, zipfile.ZIP_STORED)
    begin, end = directory_entry(data, b"1.txt"), directory_entry(data, b"2.txt")
    cut = bytearray(data[:begin] + data[end:])
    struct.pack_into("<L", cut, len(cut) - 10, struct.unpack_from("<L", data, len(data) - 10)[0] - (end - begin))
    listing = list_zip(io.BytesIO(bytes(cut)))
    assert [(member.name, member.framing[0]) for member in listing.members] == [
        ("0.txt", "not_in_zip_directory"),
        ("2.txt", "zip_framing"),
    ]
