"""Hostile archives and folders."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from hostile.hostile import Hostile, prose, scaled
from hostile.lines import packed, repeated


def source(number: int) -> bytes:
    """A sound source file."""
    return f"# {prose(number)}\ndef f{number}(x):\n    return x + {number}\n".encode() * 10


def head(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    """The header of a member."""
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = size, kind, link
    return info.tobuf(tarfile.GNU_FORMAT)


def whole(name: str, data: bytes) -> bytes:
    """A member: header, data, padding."""
    return head(name, len(data)) + data + bytes(-len(data) % 512)


END = bytes(1024)


def tar_odd_members(folder: Path, scale: float) -> Hostile:
    """Names that leave the archive or the terminal, links, devices, two files of one name, an empty file."""
    names = ["good.py", "/etc/abs.py", "../../up.py", "same.py", "same.py", "a\nb\x1b[31m.py", "e.py"]
    data = b"".join(whole(name, source(number) if name != "e.py" else b"") for number, name in enumerate(names))
    data += head("l.py", 0, tarfile.SYMTYPE, "/etc/passwd") + head("h.py", 0, tarfile.LNKTYPE, "good.py")
    data += (
        head("dev.py", 0, tarfile.CHRTYPE) + head("fifo.py", 0, tarfile.FIFOTYPE) + head("d.py/", 0, tarfile.DIRTYPE)
    )
    data += whole("nul.py", b"print\0()\n") + whole("a.xyz", b"other") + END
    (folder / "x.tar.gz").write_bytes(gzip.compress(data))
    reasons = {"binary_file": 1, "other_extension": 1, "tar_link": 2, "tar_special_file": 2, "tar_folder": 1}
    return Hostile(kind="code", path=folder / "x.tar.gz", documents=len(names), reasons=reasons)


def tar_large_member(folder: Path, scale: float) -> Hostile:
    """A member of 8 GB, and one behind it."""
    size = scaled(8 << 30, scale) // 512 * 512

    def pieces() -> Iterator[bytes]:
        yield whole("good.py", source(1)) + head("bomb.py", size)
        yield from repeated(b"a", size)
        yield whole("after.py", source(2)) + END

    path = packed(folder / "x.tar.gz", pieces())
    return Hostile(kind="code", path=path, documents=2, reasons={"file_too_large": 1})


def tar_large_pax_header(folder: Path, scale: float) -> Hostile:
    """A pax header of 3 GB, and a member behind it."""
    size = scaled(3 << 30, scale) // 512 * 512

    def pieces() -> Iterator[bytes]:
        yield whole("good.py", source(1)) + head("x", size, tarfile.XHDTYPE)
        yield from repeated(b"\0", size)
        yield whole("after.py", source(2)) + END

    path = packed(folder / "x.tar.gz", pieces())
    return Hostile(kind="code", path=path, documents=2, reasons={"corrupt_archive": 1})


def tar_large_name(folder: Path, scale: float) -> Hostile:
    """A name of 3 GB."""
    size = scaled(3 << 30, scale) // 512 * 512

    def pieces() -> Iterator[bytes]:
        yield head("././@LongLink", size, tarfile.GNUTYPE_LONGNAME)
        yield from repeated(b"n", size)
        yield whole("short.py", source(2)) + END

    path = packed(folder / "x.tar.gz", pieces())
    return Hostile(kind="code", path=path, documents=1, reasons={"corrupt_archive": 1})


def tar_many_headers(folder: Path, scale: float) -> Hostile:
    """A hundred thousand headers that say the name of one member."""
    number = scaled(100_000, scale)
    one = head("././@LongLink", 8, tarfile.GNUTYPE_LONGNAME) + b"name.py\0".ljust(512, b"\0")
    path = packed(folder / "x.tar.gz", iter([one * number, whole("short.py", source(2)), END]))
    return Hostile(kind="code", path=path, documents=1)


def tar_of_zeros(folder: Path, scale: float) -> Hostile:
    """8 GB of padding, and an archive behind it."""

    def pieces() -> Iterator[bytes]:
        yield whole("good.py", source(1)) + END
        yield from repeated(b"\0", scaled(8 << 30, scale) // 512 * 512)
        yield whole("after.py", source(2)) + END

    return Hostile(kind="code", path=packed(folder / "x.tar.gz", pieces()), documents=2)


def tar_sparse_bomb(folder: Path, scale: float) -> Hostile:
    """A file of an exabyte, all of it a hole."""
    info = tarfile.TarInfo("hole.py")
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(1 << 60)}
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=tarfile.PAX_FORMAT) as opened:
        opened.addfile(info)
        good = tarfile.TarInfo("good.py")
        good.size = len(source(1))
        opened.addfile(good, io.BytesIO(source(1)))
    (folder / "x.tar").write_bytes(written.getvalue())
    return Hostile(kind="code", path=folder / "x.tar", documents=1, reasons={"sparse_file": 1})


def tar_cut_off(folder: Path, scale: float) -> Hostile:
    """An archive that ends in the middle of a file."""
    data = b"".join(whole(f"{number}.py", source(number)) for number in range(40))
    size = len(whole("1.py", source(10)))
    cut = len(b"".join(whole(f"{number}.py", source(number)) for number in range(30))) + size // 2
    (folder / "x.tar").write_bytes(data[:cut])
    return Hostile(kind="code", path=folder / "x.tar", documents=30, reasons={"corrupt_archive": 1})


def tar_damaged_headers(folder: Path, scale: float) -> Hostile:
    """Every third header is damaged."""
    number = scaled(30_000, scale) // 3 * 3
    members = [bytearray(whole(f"{one}.py", source(one % 10))) for one in range(number)]
    for member in members[1::3]:
        member[0] ^= 1
    (folder / "x.tar").write_bytes(b"".join(map(bytes, members)) + END)
    return Hostile(
        kind="code", path=folder / "x.tar", documents=number // 3 * 2, reasons={"corrupt_archive": number // 3}
    )


def tar_that_is_a_zip(folder: Path, scale: float) -> Hostile:
    """Another kind of archive."""
    with zipfile.ZipFile(folder / "x.tar.gz", "w") as opened:
        opened.writestr("a.py", source(1))
    return Hostile(kind="code", path=folder / "x.tar.gz", documents=0, reasons={"corrupt_archive": 1})


def tree_of_links(folder: Path, scale: float) -> Hostile:
    """A loop, a link to nothing, a pipe that nobody writes to, a file that nobody may read, a folder called like a file."""
    tree = folder / "tree"
    (tree / "x.py").mkdir(parents=True)
    (tree / "good.py").write_bytes(source(1))
    (tree / "loop").symlink_to(".")
    (tree / "dangling.py").symlink_to("nowhere")
    (tree / "link.py").symlink_to("good.py")
    os.mkfifo(tree / "pipe.py")
    return Hostile(kind="code", path=tree, documents=1)


def tree_of_empty_files(folder: Path, scale: float) -> Hostile:
    """A hundred thousand empty files."""
    number, tree = scaled(100_000, scale), folder / "tree"
    for one in range(number):
        if one % 1000 == 0:
            (tree / str(one // 1000)).mkdir(parents=True)
        os.close(os.open(f"{tree}/{one // 1000}/{one}.py", os.O_CREAT))
    return Hostile(kind="code", path=tree, documents=number)


SETS = [
    tar_odd_members, tar_large_member, tar_large_pax_header, tar_large_name, tar_many_headers, tar_of_zeros, tar_sparse_bomb,
    tar_cut_off, tar_damaged_headers, tar_that_is_a_zip, tree_of_links, tree_of_empty_files,
]  # fmt: skip
