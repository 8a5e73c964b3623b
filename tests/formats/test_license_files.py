"""Licences of a tree: told by the text of their files, alike in folders and archives, and each document gets the nearest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from gristmill.data.record import RawDocument, Record
from gristmill.formats import license_files
from gristmill.formats.code import FORMAT, cut_tree, list_tree
from gristmill.formats.license_files import MAX_PATH, UNKNOWN, is_license_file, license_told
from gristmill.recipe.schema.formats import ReadCode
from hostile import trees
from hostile.hostile import Maker
from source_trees import archive, fill

MIT = (
    "Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated files, to deal in "
    "the Software\n * without restriction: The above copyright notice and this permission notice shall be included in all copies or\n * "
    "substantial portions of the Software."
)
ISC = "Permission to use, copy, modify, and/or distribute this software for any purpose with or without fee is hereby granted"
BSD = "Redistributions of source code must retain the above copyright\n   notice, this list of conditions and the following disclaimer."
ENDORSE = "Neither the name of the holder may be used to endorse or promote products derived from this software."
ADVERTISE = "All advertising materials mentioning features or use of this software must display the following:"
GPL = "GNU GENERAL PUBLIC LICENSE\n   Version 3, 29 June 2007"
LGPL = "GNU LESSER GENERAL PUBLIC LICENSE\n   Version 3, 29 June 2007"
OTHER = "This is the licence of a company, which allows you nothing at all. " * 20


@pytest.mark.parametrize(
    ("text", "license"),
    [
        (MIT, "MIT"),
        (f"{MIT}\n\n{OTHER}", "MIT"),
        (BSD, "BSD-2-Clause"),
        (f"{BSD} {ENDORSE}", "BSD-3-Clause"),
        (f"{BSD} {ADVERTISE} {ENDORSE}", "BSD-4-Clause"),
        (f"{BSD} The end-user documentation included with the redistribution {ENDORSE}", UNKNOWN),  # Apache 1.1
        ("Apache License\n  Version 2.0, January 2004\n... Grant of Patent License.", "Apache-2.0"),
        ('Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except in compliance', "Apache-2.0"),
        ("GNU GENERAL PUBLIC LICENSE\n\t\tVersion 2, June 1991", "GPL-2.0"),
        (GPL, "GPL-3.0"),
        ("GNU LIBRARY GENERAL PUBLIC LICENSE  Version 2, June 1991", "LGPL-2.0"),
        ("GNU LESSER GENERAL PUBLIC LICENSE  Version 2.1, February 1999", "LGPL-2.1"),
        (f"{GPL} {LGPL}", "LGPL-3.0"),
        ("GNU AFFERO GENERAL PUBLIC LICENSE Version 3, 19 November 2007", "AGPL-3.0"),
        ("subject to the terms of the Mozilla Public\nLicense, v. 2.0.", "MPL-2.0"),
        (f"{ISC}, provided that the above copyright notice and this permission notice appear in all copies.", "ISC"),
        (f"{ISC}.", "0BSD"),
        ("This is free and unencumbered software released into the public domain.", "Unlicense"),
        ("Creative Commons Legal Code\n\nCC0 1.0 Universal", "CC0-1.0"),
        (f"{MIT} {BSD} {ENDORSE}", "BSD-3-Clause AND MIT"),
        (f"“Commons Clause” License Condition v1.0 {MIT}", UNKNOWN),
        (OTHER, UNKNOWN),
        ("Made available under either of the licenses in LICENSE.MIT and LICENSE.BSD.", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_a_licence_is_told_by_its_text(text: str, license: str) -> None:
    assert license_told(text) == license
    assert license_told("".join(f"# {line}\n" for line in text.upper().split("\n"))) == license


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        *((name, True) for name in ["LICENSE", "Licence.txt", "LICENSE.md", "LICENSE-MIT", "LICENSE.APACHE2", "COPYING", "COPYING.LESSER"]),
        *((name, True) for name in ["UNLICENSE", "MIT-LICENSE.txt", "COPYING.LIB", "LICENSE-2.0.txt", "copying.rst", "GPL_LICENSE"]),
        *((name, False) for name in ["license.py", "LICENSE.json", "licenses", "README", "copying.c", "license_test.go", "COPYRIGHT"]),
        ("x" * 10**6 + "LICENSE", False),
    ],
)  # fmt: skip
def test_a_licence_file_is_told_by_its_name(name: str, is_one: bool) -> None:
    assert is_license_file(name) is is_one


def licenses(path: Path, *, pieces: bool = False) -> dict[str, str | None]:
    settings = ReadCode(format="code", paths=["t"], license_files=True)
    spans = cut_tree(path, list_tree(path), name="t", limit=1) if pieces else FORMAT.spans(path, name="t", limit=10**9)
    records = [record for span in spans for record in FORMAT.read(span, settings)]
    return {record.id.removeprefix("t#"): record.license for record in records if isinstance(record, RawDocument)}


TREE = {
    "p/z.py": "print(1)\n",
    "p/own.py": "# SPDX-License-Identifier: CC0-1.0\n",
    "p/LICENSE": MIT,
    "p/bundled/a.py": "",
    "p/bundled/deep/b.py": "",
    "p/bundled/COPYING": GPL,
    "p/bundled/COPYING.LESSER": LGPL,
    "p/both/a.c": "",
    "p/both/LICENSE-MIT": MIT,
    "p/both/LICENSE-BSD": BSD,
    "p/other/a.c": "",
    "p/other/LICENSE": OTHER,
    "p/pointer/a.c": "",
    "p/pointer/LICENSE": "See LICENSE.MIT.",
    "p/pointer/LICENSE.MIT": MIT,
    "bare.py": "",
}
TOLD = {
    "p/z.py": "MIT",
    "p/own.py": "CC0-1.0",
    "p/bundled/a.py": "LGPL-3.0",
    "p/bundled/deep/b.py": "LGPL-3.0",
    "p/both/a.c": "BSD-2-Clause AND MIT",
    "p/other/a.c": UNKNOWN,
    "p/pointer/a.c": "MIT",
    "bare.py": None,
}


def test_a_document_has_the_licence_of_the_nearest_folder_that_states_one(tmp_path: Path) -> None:
    folder = fill(tmp_path / "tree", TREE)
    assert licenses(folder) == licenses(folder, pieces=True) == TOLD
    assert licenses(archive(tmp_path / "t.tar.gz", TREE)) == TOLD
    without = ReadCode(format="code", paths=["t"])
    read = [record for span in FORMAT.spans(folder, name="t", limit=10**9) for record in FORMAT.read(span, without)]
    assert {record.license for record in read if isinstance(record, RawDocument)} == {None, "CC0-1.0"}


FOLDERS = st.sampled_from(["", "a/", "a/b/", "a/b/c/", "d/"])


@given(
    stated=st.dictionaries(FOLDERS, st.sampled_from([MIT, GPL, OTHER])),
    sources=st.sets(FOLDERS, min_size=1),
    order=st.randoms(use_true_random=False),
)
@hypothesis_settings(deadline=None, max_examples=25)
def test_folders_and_archives_in_any_order_tell_alike(
    stated: dict[str, str], sources: set[str], order: object, tmp_path_factory: pytest.TempPathFactory
) -> None:
    files = {f"{folder}LICENSE": text for folder, text in stated.items()} | {f"{folder}x.py": "" for folder in sources}
    names = sorted(files)
    order.shuffle(names)  # type: ignore[attr-defined]
    place = tmp_path_factory.mktemp("t")
    found = licenses(fill(place / "tree", files))
    assert licenses(archive(place / "t.tar.gz", {name: files[name] for name in names})) == found
    for folder in sources:
        above = [one for one in stated if folder.startswith(one)]
        assert found[f"{folder}x.py"] == (license_told(stated[max(above, key=len)]) if above else None)


def test_names_without_end_and_licences_without_number_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = "a/" * 300_000
    files = {f"{deep}x.py": "", f"{deep}LICENSE": MIT, "./a/LICENSE": BSD}
    assert licenses(archive(tmp_path / "deep.tar.gz", files)) == {f"{deep}x.py": "BSD-2-Clause"}
    assert len(deep) > MAX_PATH
    monkeypatch.setattr(license_files, "MAX_LICENSE_FILES", 3)
    many = {f"{n}/LICENSE": MIT for n in range(4)} | {"0/x.py": ""}
    assert licenses(archive(tmp_path / "many.tar.gz", many)) == {"0/x.py": UNKNOWN}


def test_a_licence_file_that_is_a_link_or_cannot_be_read_states_nothing(tmp_path: Path) -> None:
    folder = fill(tmp_path / "tree", {"a/x.py": "", "b/x.py": "", "LICENSE": BSD})
    (tmp_path / "MIT").write_text(MIT)
    (folder / "a" / "LICENSE").symlink_to(tmp_path / "MIT")
    (folder / "b" / "LICENSE").mkdir()
    assert licenses(folder) == {"a/x.py": "BSD-2-Clause", "b/x.py": "BSD-2-Clause"}
    (tmp_path / "alone.py").write_text("")
    (tmp_path / "LICENSE").write_text(MIT)
    assert licenses(tmp_path / "alone.py") == {"0": None}, "a file alone has no tree"


@pytest.mark.parametrize("maker", trees.SETS, ids=lambda maker: maker.__name__)
def test_looking_for_licences_changes_nothing_else_of_a_hostile_tree(maker: Maker, tmp_path: Path) -> None:
    made = maker(tmp_path, 0.001)

    def read(*, license_files: bool) -> list[Record]:
        settings = ReadCode(format="code", paths=["t"], license_files=license_files)
        records = [
            record for span in FORMAT.spans(made.path, name="t", limit=10**9) for record in FORMAT.read(span, settings)
        ]
        return [replace(record, license=None) if isinstance(record, RawDocument) else record for record in records]

    assert read(license_files=True) == read(license_files=False)
