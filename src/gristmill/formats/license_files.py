"""Which licence a source tree states: its files LICENSE, COPYING and their kin, told by what their text says.

    name of a file ─→ is_license_file ─→ its text ─→ license_told ─→ Licenses: of each folder ─→ of a file: the nearest above it

A licence is told by phrases that all copies of it have and no other licence, as SPDX names it (spdx.org/licenses). Of the GNU licences
the text tells the version, not whether later ones are allowed: GPL-2.0, not GPL-2.0-only or GPL-2.0-or-later.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from functools import cache, partial
from pathlib import Path, PurePosixPath

from gristmill.data import deadline
from gristmill.data.charset import decode
from gristmill.formats.content import ContentFile, open_content
from gristmill.formats.tar import TarFile, read_tar
from gristmill.recipe.schema.formats import ReadText, packing_by_name

UNKNOWN = "unknown"
MAX_LICENSE_BYTES = 200_000  # of a file that are looked at; texts of licences that are bundled reach 100,000
MAX_READ_BYTES = 4_000_000  # a larger file of an archive is none
MAX_LICENSE_FILES = 10_000  # of an archive
MIN_LICENSE_CHARS = 600  # the shortest licences here have as many
MAX_PATH = 1000  # characters of a file's path below which its licence is looked for

_NAMED = re.compile(
    r"(?:[a-z0-9.+]{1,20}[-_])?(?:un)?licen[sc]e(?:[-_.][a-z0-9.+-]{1,40})?|copying(?:[-_.][a-z0-9.+-]{1,40})?"
)
_KINDS = re.compile(r"\.(?:mit|apache2?|bsd\d?|l?gplv?\d?|lesser|lib|mpl\d?|isc|cc0|zlib|boost|\d+|v\d+|[0-9.-]+)")
_OTHER_SIGNS = re.compile(r"[^a-z0-9]+")

_REDISTRIBUTED = "redistributions of source code must retain the above copyright notice"
_ADVERTISED = "all advertising materials mentioning features or use of this software"
_ENDORSED = "endorse or promote products derived from"
_ISC = re.compile(
    "permission to use copy modify and (?:or )?distribute this software for any purpose with or without fee"
)
_TOLD: Mapping[str, tuple[str, ...]] = {
    "AGPL-3.0": ("gnu affero general public license version 3 19 november 2007",),
    "Apache-2.0": ("apache license version 2 0 january 2004", "grant of patent license"),
    "BSL-1.0": ("boost software license version 1 0", "to use reproduce display distribute execute"),
    "CC0-1.0": ("cc0 1 0 universal",),
    "GPL-2.0": ("gnu general public license version 2 june 1991",),
    "GPL-3.0": ("gnu general public license version 3 29 june 2007",),
    "LGPL-2.0": ("gnu library general public license version 2 june 1991",),
    "LGPL-2.1": ("gnu lesser general public license version 2 1 february 1999",),
    "LGPL-3.0": ("gnu lesser general public license version 3 29 june 2007",),
    "MIT": (
        "permission is hereby granted free of charge to any person obtaining a copy of this software",
        "copyright notice and this permission notice shall be included in all copies or substantial portions",
    ),
    "PSF-2.0": ("python software foundation license version 2",),
    "Unlicense": ("this is free and unencumbered software released into the public domain",),
    "Zlib": ("altered source versions must be plainly marked as such",),
}
_NOTICES: Mapping[str, re.Pattern[str]] = {  # short texts that stand for the whole one
    "Apache-2.0": re.compile(
        "licensed under the apache license version 2 0 the license you may not use this file except in"
    ),
    "MPL-2.0": re.compile(r"\bmozilla public licen[cs]e (?:mpl )?(?:version |v )?2 0\b|\bmpl v ?2 0\b"),
}
_NOT_THE_LICENSE = (  # a term that is added to a licence; Apache-1.1, which begins as BSD does
    "commons clause",
    "the end user documentation included with the redistribution",
)


def is_license_file(name: str) -> bool:
    """True for the name of a file that states a licence: LICENSE, LICENCE.txt, LICENSE-MIT, COPYING.LESSER, UNLICENSE, MIT-LICENSE."""
    name = name.lower()
    stem = name.removesuffix(ReadText.suffix_in(name) or "") if packing_by_name(name) is None else name
    suffix = PurePosixPath(stem).suffix
    return _NAMED.fullmatch(stem) is not None and (not suffix or _KINDS.fullmatch(suffix) is not None)


def license_told(text: str) -> str:
    """The SPDX identifiers of all licences that a text holds, joined by AND; UNKNOWN where it holds none, or adds terms to one;
    "" for a short text that holds none: it points to the files that do.

    Whoever heeds them all heeds the licence, also where the authors offer a choice.
    """
    words = _OTHER_SIGNS.sub(" ", text.lower())
    if any(phrase in words for phrase in _NOT_THE_LICENSE):
        return UNKNOWN
    told = {name for name, phrases in _TOLD.items() if all(phrase in words for phrase in phrases)}
    told |= {name for name, notice in _NOTICES.items() if notice.search(words)}
    if _REDISTRIBUTED in words:
        told.add(f"BSD-{4 if _ADVERTISED in words else 3 if _ENDORSED in words else 2}-Clause")
    if (found := _ISC.search(words)) is not None:
        told.add(
            "ISC" if words.startswith(" is hereby granted provided that the above copyright", found.end()) else "0BSD"
        )
    return joined(told) if told or len(words) >= MIN_LICENSE_CHARS else ""


def joined(licenses: Iterable[str]) -> str:
    """Licences that hold together. LGPL-3.0 is text that is added to GPL-3.0, which then lies beside it."""
    all_told = {one for license in licenses if license for one in license.split(" AND ")}
    if not all_told or UNKNOWN in all_told:
        return UNKNOWN
    if "LGPL-3.0" in all_told:
        all_told.discard("GPL-3.0")
    return " AND ".join(sorted(all_told))


class Licenses:
    """What the folders of a tree state. stated: the licence of a folder by its path in the tree, "" for the tree's own; None where it has no
    licence file."""

    def __init__(self, stated: Callable[[str], str | None]) -> None:
        self._stated = stated

    def of(self, path: str) -> str | None:
        """The licence of a file: that of the nearest folder above it that states one; None where none does."""
        parts = folder_of(path).split("/")
        folders = ("/".join(parts[:depth]) for depth in range(len(parts), -1, -1))
        return next((license for folder in folders if (license := self._stated(folder)) is not None), None)


def licenses_of_folder(tree: Path) -> Licenses:
    """Of a folder, looked into when it is asked for. Links are not followed; what cannot be read states nothing."""
    return Licenses(cache(partial(_stated_in, tree)))


def licenses_of_archive(archive: Path) -> Licenses:
    """Of a tar archive, read once through: a licence may lie behind the files that it is about. UNKNOWN, all of it, above MAX_LICENSE_FILES."""
    found: dict[str, list[str]] = {}
    with closing(open_content(archive)) as content:
        for number, file in enumerate(_license_files(content)):
            if number == MAX_LICENSE_FILES:
                return Licenses(lambda folder: UNKNOWN)
            text = file.data[:MAX_LICENSE_BYTES] if file.data is not None else b""
            found.setdefault(folder_of(file.name), []).append(license_told(decode(text)[0]))
    stated = {folder: joined(licenses) for folder, licenses in found.items()}
    return Licenses(stated.get)


def _stated_in(tree: Path, folder: str) -> str | None:
    try:
        with os.scandir(tree / folder) as entries:
            files = [
                entry.path for entry in entries if is_license_file(entry.name) and entry.is_file(follow_symlinks=False)
            ]
        heads = []
        for file in sorted(files):
            with open(file, "rb") as opened:
                heads.append(opened.read(MAX_LICENSE_BYTES))
    except OSError:
        return None
    return joined(license_told(decode(head)[0]) for head in heads) if heads else None


def _license_files(content: ContentFile) -> Iterator[TarFile]:
    def is_wanted(name: str, size: int) -> bool:
        return _is_license_path(name) and size <= MAX_READ_BYTES

    for item in read_tar(content, wanted=is_wanted):
        deadline.extend()
        if isinstance(item, TarFile) and _is_license_path(item.name):
            yield item


def _is_license_path(path: str) -> bool:
    return len(path) <= MAX_PATH and is_license_file(path.rpartition("/")[2])


def folder_of(path: str) -> str:
    """The folder of a file in a tree, of a path's first MAX_PATH characters: names in archives may have millions."""
    return "/".join(part for part in path[:MAX_PATH].split("/")[:-1] if part not in ("", "."))
