"""LICENSES.md, NOTICE and licenses/: what comes from where, and the licence texts as the packages carry them."""

from __future__ import annotations

import re

from sample_parts.packages import Origin, SampleError, files_in

# Package -> the file in it that holds its licence. libpython3.11-stdlib keeps its copyright file in -minimal.
_TEXTS = {
    "python3.11-doc": "usr/share/doc/python3.11-doc/copyright",
    "postgresql-doc-15": "usr/share/doc/postgresql-doc-15/copyright",
    "sqlite3-doc": "usr/share/doc/sqlite3-doc/copyright",
    "python-mpmath-doc": "usr/share/doc/python-mpmath-doc/copyright",
    "python-scipy-doc": "usr/share/doc/python-scipy-doc/copyright",
    "wordnet-base": "usr/share/doc/wordnet-base/copyright",
    "r-cran-janeaustenr": "usr/share/doc/r-cran-janeaustenr/copyright",
    "svgo": "package/LICENSE",
    "npkill": "package/LICENSE",
    "vxe-table": "package/LICENSE",
    "@arco-design/web-react": "package/LICENSE",
    "lupa": "lupa-2.8/third-party/lua54/lua.h",
    "hiredis": "hiredis-3.5.0/vendor/hiredis/COPYING",
}
_USED_FOR = {
    "python3.11-doc": "web: pages of the Python manual",
    "postgresql-doc-15": "web: pages of the PostgreSQL manual",
    "sqlite3-doc": "web: pages of the SQLite manual",
    "python-mpmath-doc": "web: pages of the mpmath manual",
    "python-scipy-doc": "web: pages of the SciPy manual",
    "postgresql-client-15": "web: message translations",
    "postgresql-15": "web: message translations; code: SQL",
    "wordnet-base": "glosses; packs/wordnet-cloze",
    "r-cran-janeaustenr": "novel",
    "libpython3.11-stdlib": "code: Python",
    "libpython3.11-minimal": "code: Python",
    "lupa": "code: C of the Lua 5.4 it carries (nothing of lupa itself)",
    "hiredis": "code: C of the hiredis library it carries",
}
_HOLDERS = {
    "PSF-2.0": "Copyright (c) 2001-2023 Python Software Foundation. All rights reserved.",
    "PostgreSQL": "Portions Copyright (c) 1996-2022, PostgreSQL Global Development Group; "
    "Portions Copyright (c) 1994, The Regents of the University of California.",
    "public-domain-SQLite": "The SQLite documentation is in the public domain.",
    "public-domain-Austen": "Pride and Prejudice (1813) is in the public domain; the package that carries its text, "
    "janeaustenr, is Copyright (c) 2016-2017 Julia Silge under the MIT licence.",
    "BSD-3-Clause-mpmath": "Copyright (c) 2005-2021 Fredrik Johansson and mpmath contributors.",
    "BSD-3-Clause-SciPy": "Copyright (c) 2001-2002 Enthought, Inc.; 2003-2023, SciPy Developers.",
    "WordNet-3.0": "WordNet 3.0 Copyright 2006 by Princeton University. All rights reserved.",
    "MIT-Lua": "Copyright (C) 1994-2025 Lua.org, PUC-Rio.",
    "BSD-3-Clause-hiredis": "Copyright (c) Salvatore Sanfilippo, Pieter Noordhuis and hiredis contributors.",
}


def texts(origins: dict[str, Origin]) -> dict[str, bytes]:
    """licenses/<licence>.txt -> the licence as its package states it."""
    out: dict[str, bytes] = {}
    for package, path in _TEXTS.items():
        raw = files_in(origins[package], path)[""]
        if package == "lupa":
            raw = _notice(raw)
        out[f"licenses/{origins[package].package.licence}.txt"] = raw
    missing = {f"licenses/{origin.package.licence}.txt" for origin in origins.values()} - out.keys()
    if missing:
        raise SampleError(f"no licence text for {', '.join(sorted(missing))}")
    return dict(sorted(out.items()))


def table(origins: dict[str, Origin]) -> str:
    """LICENSES.md."""
    rows = [
        f"| `{name}` | {origin.version} | {_USED_FOR.get(name, 'web: a translated README')} | {_KINDS[origin.package.kind]} | "
        f"[{origin.package.licence}](licenses/{origin.package.licence}.txt) | `{origin.sha256}` |"
        for name, origin in sorted(origins.items())
    ]
    return (
        "# Licences of the quickstart sample\n\n"
        "Every text here is somebody's published work under a permissive licence or in the public domain. "
        "`licenses/` holds the licence texts as the packages carry them; where such a file also speaks of a package's "
        "build scripts, those are not part of the sample. The SHA-256 is that of the package file the sample was built "
        "from.\n\n"
        "| package | version | used for | from | licence | SHA-256 of the package |\n|---|---|---|---|---|---|\n"
        + "\n".join(rows)
        + "\n\n`chat/everyday.jsonl`, `packs/sums`, the manifest and these notes were written for gristmill and are "
        "under its own licence, Apache-2.0. `packs/wordnet-cloze` consists of WordNet's text and is under WordNet's "
        "licence.\n\nWhat was changed: pages marked `near_duplicate` in the manifest lack their navigation bars and "
        "last two paragraphs; READMEs and message catalogues were set as plain HTML; one record's bytes were damaged "
        "on purpose. All other pages, files and texts are as published.\n"
    )


def notice(origins: dict[str, Origin]) -> str:
    """NOTICE: the copyright lines."""
    used = {origin.package.licence for origin in origins.values()}
    lines = [f"{licence}\n    {_HOLDERS[licence]}\n" for licence in sorted(used) if licence in _HOLDERS]
    rest = sorted(
        f"{origin.package.licence}\n    See licenses/{origin.package.licence}.txt ({name} {origin.version}).\n"
        for name, origin in origins.items()
        if origin.package.licence not in _HOLDERS
    )
    return "This folder holds text by others. LICENSES.md says which part is whose.\n\n" + "\n".join(lines + rest)


_KINDS = {"deb": "Debian 12", "npm": "npm", "sdist": "PyPI"}


def _notice(header: bytes) -> bytes:
    """The copyright comment at the end of lua.h, stars taken off."""
    found = re.search(rb"\* (Copyright \(C\).*?)\n\*{20,}", header, re.S)
    if found is None:
        raise SampleError("lua.h holds no copyright notice")
    return re.sub(rb"^\* ?", b"", found.group(1), flags=re.M) + b"\n"
