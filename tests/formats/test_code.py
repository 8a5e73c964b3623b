"""Source trees: folders, archives and files give the same documents; a tree is listed once and cut anywhere."""

from __future__ import annotations

import gzip
import itertools
import os
import random
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from accounting import num_bytes, read_whole, reasons, settings, texts
from gristmill.data.record import RawDocument, Record, Skip, Unread
from gristmill.formats.code import FORMAT, cut_tree, list_tree, read_code
from gristmill.formats.code_language import language_told
from source_trees import archive, fill


def tree() -> dict[str, bytes]:
    return {
        "src/a.py": b"print(1)\n",
        "src/b.c": b"int main;\n",
        "src/c.bin.py": b"\0\1",
        "readme.xyz": b"hello",
        "big.py": b"x" * 2000,
    }


def read(path: Path, name: str = "t", **options: Any) -> list[Record]:
    return [record for span in FORMAT.spans(path, name=name, limit=1) for record in read_code(span, **options)]


@pytest.mark.parametrize("form", ["folder", ".tar", ".tar.gz", ".tgz"])
def test_a_source_tree_as_folder_or_archive(tmp_path: Path, form: str) -> None:
    if form == "folder":
        path = fill(tmp_path / "tree", tree())
        (path / "link.py").symlink_to("/etc/passwd")
        (path / ".git").mkdir()
        (path / ".git" / "hidden.py").touch()
        os.mkfifo(path / "fifo.py")
    else:
        path = archive(tmp_path / f"t{form}", tree(), "w" if form == ".tar" else "w:gz")
    found: dict[str, Any] = {item.id: item for item in read(path, max_bytes=1000) if not isinstance(item, Skip)}
    assert set(found) == {f"t#{name}" for name in tree()}
    assert (found["t#src/a.py"].text, found["t#src/a.py"].language) == ("print(1)\n", "python")
    assert found["t#src/b.c"].language == "c"
    assert (found["t#src/c.bin.py"].kind, found["t#src/c.bin.py"].reason) == ("dropped", "binary_file")
    assert (found["t#readme.xyz"].kind, found["t#readme.xyz"].reason) == ("dropped", "other_extension")
    big = found["t#big.py"]
    assert (big.kind, big.reason, big.bytes_in) == ("failed", "file_too_large", 2000)
    assert all(found[f"t#{name}"].bytes_in == len(data) for name, data in tree().items())
    only_c = [item.id for item in read(path, extensions=[".c"]) if isinstance(item, RawDocument)]
    assert only_c == ["t#src/b.c"]
    read_whole("code", path)


def test_a_source_file_is_read_as_one_even_if_it_is_called_like_an_archive(tmp_path: Path) -> None:
    (tmp_path / "tarfile.py").write_text("print(1)\n", encoding="utf-8")
    (record,) = read(tmp_path / "tarfile.py", "lib/tarfile.py")
    assert isinstance(record, RawDocument)
    assert (record.id, record.text, record.language) == ("lib/tarfile.py#0", "print(1)\n", "python")
    read_whole("code", tmp_path / "tarfile.py")
    (tmp_path / "packed.py").write_bytes(gzip.compress(bytes(1000)))
    assert texts(read_whole("code", tmp_path / "packed.py")) == ["!binary_file"], (
        "what is called a source file is none else"
    )
    (dropped,) = read(tmp_path / "tarfile.py", extensions=[".c"])
    assert isinstance(dropped, Unread)
    assert dropped.reason == "other_extension"


@pytest.mark.parametrize(
    ("head", "license"),
    [
        ("# SPDX-License-Identifier: MIT\n", "MIT"),
        (
            "/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */\n",
            "GPL-2.0-only WITH Linux-syscall-note",
        ),
        ("<!-- SPDX-License-Identifier: CC-BY-4.0-->\r\n", "CC-BY-4.0"),
        (
            "//SPDX-License-Identifier:\t(LGPL-2.1+ OR (MIT AND BSD-3-Clause))\r\n",
            "(LGPL-2.1+ OR (MIT AND BSD-3-Clause))",
        ),
        ("\n" * 19 + "# SPDX-License-Identifier: MIT\n", "MIT"),
        ("\n" * 20 + "# SPDX-License-Identifier: MIT\n", None),
        ("# SPDX-License-Identifier:\n# MIT\n", None),
        ("# Licensed under the MIT licence.\n", None),
    ],
)
def test_a_source_file_keeps_the_licence_it_states_itself(tmp_path: Path, head: str, license: str | None) -> None:
    (tmp_path / "a.py").write_text(f"{head}print(1)\n", encoding="utf-8", newline="")
    (record,) = read(tmp_path / "a.py")
    assert isinstance(record, RawDocument)
    assert record.license == license


def test_names_that_leave_the_archive_are_only_names(tmp_path: Path) -> None:
    names = ["/etc/abs.py", "../../up.py", "a\nb\x1b[31m.py", "same.py", "same.py"]
    with tarfile.open(tmp_path / "t.tar", "w") as opened:
        for name in names:
            opened.addfile(tarfile.TarInfo(name))
    found = read_whole("code", tmp_path / "t.tar")
    assert [item.id for item in found if isinstance(item, RawDocument)] == [f"x#{name}" for name in names]
    assert [*tmp_path.iterdir()] == [tmp_path / "t.tar"]


def test_a_cut_archive_gives_its_files_and_says_so(tmp_path: Path) -> None:
    noise = random.Random(1)
    files = {f"{number}.py": noise.randbytes(3000).hex().encode() for number in range(20)}
    path = archive(tmp_path / "t.tar.gz", files)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    found = read(path)
    documents = [item for item in found if isinstance(item, RawDocument)]
    assert [item.text for item in documents] == [data.decode() for data in files.values()][: len(documents)]
    assert 5 < len(documents) < 15
    cut_off, gap = [item for item in found if isinstance(item, Unread)]
    assert (cut_off.id, cut_off.reason) == (f"t#{len(documents)}.py", "corrupt_archive")
    assert (gap.reason, gap.detail) == ("corrupt_archive", "gzip: truncated")


# ── trees in spans ───────────────────────────────────────────────────────────────────────────────────────────────────


PATHS = st.lists(st.sampled_from(["a", "b-", "b", "b.py", "c.py", "é.c"]), min_size=1, max_size=4)


@given(paths=st.lists(PATHS, max_size=12), limit=st.sampled_from([1, 9000, 1 << 30]))
@hypothesis_settings(deadline=None, max_examples=60)
def test_spans_of_a_tree_give_each_file_once_in_the_order_of_paths(
    tmp_path_factory: pytest.TempPathFactory, paths: list[list[str]], limit: int
) -> None:
    folder = tmp_path_factory.mktemp("tree")
    for number, parts in enumerate(paths):
        path = folder.joinpath(*parts)
        if not path.exists() and all(parent.is_dir() or not parent.exists() for parent in path.parents):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(str(number))
    expected = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    spans = cut_tree(folder, list_tree(folder), name="x", limit=limit)
    found = read_whole("code", folder, spans=spans)
    assert [item.id for item in found if isinstance(item, RawDocument | Unread)] == [f"x#{name}" for name in expected]
    assert [item.entry for item in found if isinstance(item, RawDocument | Unread)] == [*range(len(expected))]
    assert num_bytes(found) == sum((folder / name).stat().st_size for name in expected)
    assert [member for span in spans for member in span.members] == expected
    for span in spans:
        for later in range(span.start, (span.end or 0) + 1):
            rest = list(FORMAT.read(replace(span, start=later), settings("code")))
            assert rest == [
                item for item in found if not isinstance(item, Skip) and later <= (item.entry or 0) < (span.end or 0)
            ]
            follows = FORMAT.next_entry(span, later)
            assert follows == (later + 1 if later + 1 < (span.end or 0) else None)


def test_a_span_does_not_look_at_the_folder_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fill(tmp_path / "tree", tree())
    (span,) = FORMAT.spans(folder, name="x", limit=1 << 30)
    fill(folder, {"later.py": b"x = 1"})
    for walk in ("scandir", "walk", "listdir"):
        monkeypatch.setattr(os, walk, lambda *_: pytest.fail("the folder was listed again"))
    assert len([*FORMAT.read(span, settings("code"))]) == len(tree())


def test_a_large_tree_is_cut_into_shards(tmp_path: Path) -> None:
    listing = [(f"{number}.py", number % 9000) for number in range(100_000)]
    spans = cut_tree(tmp_path, listing, name="x", limit=64_000_000)
    assert 6 < len(spans) < 12
    assert all(span.size <= 64_000_000 for span in spans)
    assert [member for span in spans for member in span.members] == [name for name, _ in listing]
    assert [(span.start, span.end) for span in spans[1:]] == [
        (a.end, (a.end or 0) + len(b.members)) for a, b in itertools.pairwise(spans)
    ]
    empty = cut_tree(tmp_path, [(f"{number}.py", 0) for number in range(100_000)], name="x", limit=64_000_000)
    assert len(empty) == 7, "an empty file counts, too"


def test_a_folder_that_cannot_be_listed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, list_folder = fill(tmp_path / "tree", {"a.py": b"a", "locked/b.py": b"b", "z.py": b"z"}), os.scandir

    def refuse(path: Path) -> Any:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return list_folder(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = read_whole("code", folder)
    assert texts(found) == ["a", "!unreadable_file", "z"]
    assert [item.id for item in found if isinstance(item, Unread)] == ["x#locked"]


def test_a_file_that_went_away_or_shrank_is_counted(tmp_path: Path) -> None:
    folder = fill(tmp_path / "tree", {"a.py": b"a" * 50, "b.py": b"b", "c.py": b"c"})
    spans = FORMAT.spans(folder, name="x", limit=1)
    (folder / "a.py").write_bytes(b"a")
    (folder / "b.py").unlink()
    found = read_whole("code", folder, spans=spans)
    assert texts(found) == ["a", "!unreadable_file", "c"]
    assert reasons(found) == {"unreadable_file": 1}


def test_runs_of_gristmill_are_no_part_of_a_tree(tmp_path: Path) -> None:
    for name in ("a.py", "runs/.store/x/y.py", "runs/quickstart/recipe.py", "lib/b.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("pass", encoding="utf-8")
    assert [path for path, _ in list_tree(tmp_path)] == ["a.py", "lib/b.py"]


@pytest.mark.parametrize(
    ("name", "text", "language"),
    [
        (
            "a.h",
            "#ifndef A\n#define A\n/* class X : public Y {}; */\nint class_of(void); // std::string\n#endif\n",
            "c",
        ),
        ("a.h", '#ifdef __cplusplus\nextern "C" {\n#endif\nstruct a { int b : 3; };\nstruct x;\n', "c"),
        ("a.h", "  template <typename T>\nT f(T);\n", "cpp"),
        ("a.h", "class API_EXPORT Wheel final : public Part {\n", "cpp"),
        ("a.h", "struct Wheel : Part {\n", "cpp"),
        ("a.h", "#  include <vector>\n", "cpp"),
        ("a.h", "namespace mill::stone {\n", "cpp"),
        ("a.h", "@interface Wheel : NSObject\n@end\n", "objective-c"),
        ("a.H", "using namespace std;\n", "cpp"),
        ("a.pl", "use strict;\nmy $x = shift;\nprint $x->{a}(1);\n", "perl"),
        ("a.pl", ":- module(mill, [turn/1]).\nturn(X) :- wheel(X).\n", "prolog"),
        ("a.m", "% x = [1, 2]\nfunction y = turn (x)\n  y = x';  #import it\nend\n", "matlab"),
        ("a.m", "#import <Foundation/Foundation.h>\nint main() {}\n", "objective-c"),
        ("a.m", "/* a wheel */\n- (void) turn: (int)n\n{\n}\n", "objective-c"),
        ("a.m", "(* ::Package:: *)\n", "mathematica"),
        ("a.m", "turn[n_Integer] := 2 n\n", "mathematica"),
        ("a.t", 'ok(1);\nprint "# done"\n  . "\\n";\n', "perl"),
        ("a.t", "use Test::More;\n\n=pod\n\n  $ prove\n\n=cut\n", "perl"),
        ("a.t", "The wheel turns:\n  $ turn --times 3\n  > x\n  done\n", "cram"),
        ("a.t", '.\\" Copyright\n.NH 1\nThe wheel\nuse it;\n', "troff"),
        ("a.v", "// Module of the wheel\nmodule wheel(input Set);\n  Set = 1;\nendmodule\n", "verilog"),
        ("a.v", "(* keep *) module wheel();\nendmodule\n", "verilog"),
        ("a.v", "(** The wheel *)\nVariant x := A.\n", "coq"),
        ("a.v", "From mill Require Import wheel.\n", "coq"),
        ("a.v", "  Program Definition turn := 1.\n", "coq"),
        ("a.ts", "const page = `<?xml?>`;\n", "typescript"),
        ("a.ts", '<?xml version="1.0"?>\n<!DOCTYPE TS>\n<TS/>\n', "xml"),
        ("a.py", "class A:\n", "python"),
    ],
)
def test_what_is_written_tells_languages_that_share_an_extension(
    tmp_path: Path, name: str, text: str, language: str
) -> None:
    told = settings("code", language_by="content")
    folder = fill(tmp_path / "t", {f"b/{name}": text.encode()})
    for path in (folder, folder / "b" / name, archive(tmp_path / "t.tar", {f"b/{name}": text.encode()}, "w")):
        (span,) = FORMAT.spans(path, name=path.name, limit=10**9)
        documents = [record for record in FORMAT.read(span, told) if isinstance(record, RawDocument)]
        assert [document.language for document in documents] == [language]


def test_what_only_content_tells_is_read_where_content_is_asked_or_the_recipe_names_it(tmp_path: Path) -> None:
    folder = fill(tmp_path / "t", {"a.m": b"x = 1;\n", "b.py": b"x = 1\n"})
    (span,) = FORMAT.spans(folder, name="t", limit=10**9)

    def told(**keys: Any) -> list[str | None]:
        return [item.language for item in FORMAT.read(span, settings("code", **keys)) if isinstance(item, RawDocument)]

    assert told() == ["python"]
    assert told(language_by="content") == ["matlab", "python"]
    assert told(language_by="content", extensions=[".py"]) == ["python"]
    assert told(extensions=[".m"]) == [None], "by its extension alone it has no language"


@pytest.mark.parametrize(
    "run",
    [
        "use a",
        "a[_",
        "a_",
        "Set = ",
        "- (a",
        "  $ ",
        "#",
        ".",
        "(*",
        "class A" + " " * 100,
        "class A:" + " " * 100_000,
        "namespace\n",
        "using a",
        "f(a",
        " ",
        "/*",
        "struct A_",
    ],
)
def test_long_runs_are_told_in_linear_time(run: str) -> None:
    # Nothing is timed: a pattern that is quadratic in one of these would take minutes.
    for extension in (".h", ".m", ".pl", ".t", ".ts", ".v"):
        assert language_told(extension, run * (200_000 // len(run)))
