"""What no source reads is listed: nothing that lies where sources look is missing from both lists."""

from __future__ import annotations

import cProfile
import io
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from gristmill.commands.inspect_files import inspect_files
from gristmill.data.outside import find_outside
from gristmill.draft.folder import files_by_kind, sources_of
from gristmill.errors import DataError
from gristmill.extract.not_read import NotRead, keep_not_read, kept_not_read, not_read_beside, not_read_in
from gristmill.extract.shards import find_files
from gristmill.recipe.schema.formats import READERS, ReadFiles


def read(format: str, *paths: str) -> ReadFiles:
    return READERS[format].model_validate({"format": format, "paths": list(paths)})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files of text and one page, and beside them what nobody reads; one of them in a folder that is called like a file."""
    data = tmp_path / "data"
    for name in ("a.txt", "deep/b.txt", "c.html", "t.xlsx", "deep/u.XLSX", "x.txt/v.qqq", "README", "n.qqq.gz"):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_text("words " * 10)
    (data / "gone.txt").symlink_to("nowhere")
    (data / "loop.txt").symlink_to("loop.txt")
    os.mkfifo(data / "pipe.txt")
    with socket.socket(socket.AF_UNIX) as bound:
        here = os.open(data, os.O_RDONLY)  # the name of a socket is short, the folder's is not
        bound.bind(f"/proc/self/fd/{here}/s.txt")
        os.close(here)
    (data / ".hidden.xlsx").write_text("x")
    return data


WANTED = {".xlsx": 2, ".qqq": 1, "without suffix": 1, ".qqq.gz": 1, "dangling_link": 2, "special_file": 2}


def counts(found: list[NotRead]) -> dict[str, int]:
    return {one.kind: one.files for one in found}


def test_a_folder_is_what_is_read_and_what_is_not(folder: Path) -> None:
    found = not_read_in(folder)
    assert counts(found) == WANTED
    assert sum(one.num_bytes for one in found) == 5 * 60
    assert str(found[0]) == ".xlsx: 2 files, 120 B: save each sheet as CSV"


@pytest.mark.parametrize(
    ("sources", "more"),
    [
        ({"text": ["data"], "html": ["data"]}, {}),
        ({"text": ["data/**/*.txt"], "html": ["data/*.html"]}, {}),
        ({"text": ["data"]}, {".html": 1}),
        ({"text": ["data/**/*.txt", "data/README"], "html": ["data/c.html"]}, {"without suffix": None}),
        ({"code": ["data"]}, dict.fromkeys(WANTED.keys() - {"dangling_link", "special_file"})),
    ],
)
def test_what_lies_beside_the_files_of_sources_is_read_by_one_of_them_or_listed(
    folder: Path, sources: dict[str, list[str]], more: dict[str, int | None]
) -> None:
    reads = [read(format, *paths) for format, paths in sources.items()]
    wanted = {kind: number for kind, number in {**WANTED, **more}.items() if number is not None}
    assert counts(not_read_beside(folder.parent, reads, has_chat=False)) == wanted
    files = set().union(*(find_files(find_outside(folder.parent, one.paths, where="x"), one) for one in reads))
    if "code" not in sources:
        listed = sum(number for kind, number in wanted.items() if kind not in ("dangling_link", "special_file"))
        assert len(files) + listed == sum(path.is_file() for path in folder.rglob("[!.]*"))


def test_conversations_are_no_files_that_were_forgotten_where_the_recipe_has_a_chat(folder: Path) -> None:
    (folder / "chat.jsonl").write_text('{"messages": [{"role": "user", "content": "Hello"}]}\n')
    (folder / "rows.jsonl").write_text('{"messages": "three"}\n')
    (folder / "broken.jsonl").write_text("{")
    for has_chat, number in ((False, 3), (True, 2)):
        found = not_read_beside(folder.parent, [read("text", "data")], has_chat=has_chat)
        assert counts(found)[".jsonl"] == number


def test_what_is_no_file_is_named(folder: Path) -> None:
    told = list(map(str, not_read_in(folder)))
    assert "2 paths, link that leads nowhere (gone.txt, loop.txt): put back what it leads to, or remove it" in told
    assert "2 paths, pipe, socket or device (pipe.txt, s.txt): nothing can be read from it; remove it" in told
    beside = not_read_beside(folder.parent, [read("text", "data")], has_chat=False)
    assert ("data/gone.txt", "data/loop.txt") in [one.names for one in beside]


def test_what_init_wrote_for_an_older_model_is_no_text_and_is_named(folder: Path) -> None:
    older = folder / "older"
    (older / "data").mkdir(parents=True)
    for name in ("schema.json", "conversations.jsonl", "data/conversations.jsonl"):
        (older / name).write_text("{}\n")
    assert "project_file" not in counts(not_read_in(folder))  # somebody else's
    (older / "recipe.yaml").write_text("# a comment\nschema_version: 1\n")
    wanted = "3 paths, written by init for a model (older/conversations.jsonl, older/recipe.yaml, older/schema.json): "
    assert wanted + "not your text; name the file itself to read it" in list(map(str, not_read_in(folder)))
    for pattern in ("data", "data/**/*.json*"):
        found = find_outside(folder.parent, [pattern], where="x").files
        assert [
            path.relative_to(folder).as_posix() for path in found if path.suffix in (".jsonl", ".json", ".yaml")
        ] == ["older/data/conversations.jsonl"]
    assert [*find_outside(older, ["*.jsonl"], where="x").files] == [older / "conversations.jsonl"]  # of its own recipe


def test_what_to_do_depends_on_what_it_is(folder: Path) -> None:
    (folder / "spec.info.gz").write_bytes(b"x")
    advice = {one.kind: one.advice for one in not_read_beside(folder.parent, [read("text", "data")], has_chat=False)}
    assert advice[".html"] == (
        "no source reads it; if `gristmill inspect` finds text in it, name it in a source with `format: html`"
    )
    assert advice[".xlsx"] == "save each sheet as CSV"
    assert advice[".info.gz"].startswith("if what is packed in it is plain text, name it")
    assert advice[".qqq"] == "if it is plain text, name it under `paths` of a source with `format: text`"


def test_of_an_empty_file_nothing_is_advised_that_a_run_would_refuse(folder: Path) -> None:
    (folder / "none.pdf").touch()
    (folder / "none.qqq").touch()
    (empty,) = [
        one
        for one in not_read_beside(folder.parent, [read("text", "data")], has_chat=False)
        if one.names[:1] == ("data/none.pdf",)
    ]
    assert str(empty) == "2 paths, empty (data/none.pdf, data/none.qqq): nothing can be read from it"


def test_beside_a_file_that_is_named_nothing_is_looked_for(folder: Path) -> None:
    assert not_read_beside(folder.parent, [read("text", "data/a.txt")], has_chat=False) == []


def test_what_was_told_is_kept_for_the_report(folder: Path) -> None:
    found = not_read_in(folder)
    assert kept_not_read(folder) == []
    keep_not_read(folder, found)
    assert kept_not_read(folder) == found


def test_inspect_lists_it_and_refuses_a_pipe(folder: Path, tmp_path: Path) -> None:
    shown = io.StringIO()
    inspect_files(folder, samples=0, console=Console(file=shown, width=200))
    told: Any = [
        line.removeprefix("not read: ") for line in shown.getvalue().splitlines() if line.startswith("not read: ")
    ]
    assert told == list(map(str, not_read_in(folder)))
    with pytest.raises(DataError, match="special_file"):
        inspect_files(folder / "pipe.txt", samples=0, console=Console(file=shown))


def test_a_link_to_a_file_that_is_read_is_no_text_of_its_own(tmp_path: Path) -> None:
    """Manuals come with a link for each language of a page; a cache has links to files that lie elsewhere."""
    data = tmp_path / "data"
    (data / "deep").mkdir(parents=True)
    (data / "page.html").write_text("<p>words</p>" * 20)
    (data / "page.en.html").symlink_to("page.html")
    (data / "deep" / "again.html").symlink_to("../page.html")
    (data / "page.txt").symlink_to("page.html")  # as a text it is read by another source
    (tmp_path / "blob").write_text("<p>other words</p>" * 20)
    (data / "other.html").symlink_to("../blob")
    for paths in (["data"], ["data/**/*.html"], ["data/*.html", "data/deep"]):
        found = find_outside(tmp_path, paths, where="x")
        read_now = {path.relative_to(data).as_posix() for path in find_files(found, read("html", *paths))}
        assert read_now == {"page.html", "other.html"}
    alone = find_outside(tmp_path, ["data/page.en.html"], where="x")
    assert [*find_files(alone, read("html", "data/page.en.html")).values()] == ["page.en.html"]
    (link,) = not_read_beside(tmp_path, [read("html", "data"), read("text", "data")], has_chat=False)
    assert (link.kind, link.files, link.names) == ("inner_link", 2, ("data/deep/again.html", "data/page.en.html"))
    assert [(one.kind, one.files) for one in not_read_in(data)] == [("inner_link", 2)]
    (source, *_) = sources_of({"html": files_by_kind(data)["html"]}, {}, data, tmp_path)
    assert (source.is_listed, len(source.files)) == (False, 2)
    shown = io.StringIO()
    inspect_files(data, samples=0, console=Console(file=shown, width=200))
    assert "2 paths, link to a file that is read (deep/again.html, page.en.html)" in shown.getvalue()


def test_what_a_link_to_a_folder_shows_again_is_not_told_as_unread(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "real").mkdir(parents=True)
    for name in ("a.sh", "b.qqq"):
        (data / "real" / name).write_text("words " * 10)
    (data / "again").symlink_to("real")
    reads = [read("code", "data/[r]eal/a.sh"), read("text", "data/**/*.txt")]
    (data / "x.txt").write_text("words")
    assert counts(not_read_beside(tmp_path, reads, has_chat=False)) == {"inner_link": 1, ".qqq": 1}


def test_the_work_grows_in_proportion_to_the_files(tmp_path: Path) -> None:
    def calls(files: int) -> int:
        data = tmp_path / str(files) / "data"
        data.mkdir(parents=True)
        for number in range(files):
            (data / f"{number}.cpp").write_text("int x;\n", encoding="utf-8")
            (data / f"{number}.qqq").write_text("x", encoding="utf-8")
        profile = cProfile.Profile()
        reads = [read("code", "data/**/*.cpp")]
        (left,) = profile.runcall(not_read_beside, data.parent, reads, has_chat=False)
        assert left.files == files
        return sum(entry.callcount for entry in profile.getstats())

    assert calls(400) < 2.5 * calls(200)
