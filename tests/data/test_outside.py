"""Outside files: every file counts, by its content and a name that does not depend on where the recipe lies."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import time
from glob import glob
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.data import outside
from gristmill.data.outside import FileHashes, NotHashedYet, _glob, find_outside
from gristmill.errors import Interrupted, RecipeError


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name, encoding="utf-8")
    return folder


def names(folder: Path, *patterns: str) -> list[str]:
    return list(find_outside(folder, patterns, where="here").files.values())


def hashes(cache: Path, threads: int = 2) -> FileHashes:
    return FileHashes(cache, threads=threads, say=lambda line: None)


# ── names ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_names_are_relative_to_the_fixed_part_of_the_pattern(tmp_path: Path) -> None:
    fill(tmp_path, "crawl/monday/part-0.jsonl", "crawl/tuesday/part-0.jsonl", "book.txt")
    assert names(tmp_path, "book.txt") == ["book.txt"]
    assert names(tmp_path, "crawl/monday/part-0.jsonl") == ["part-0.jsonl"]
    assert names(tmp_path, "crawl/*/*.jsonl") == ["monday/part-0.jsonl", "tuesday/part-0.jsonl"]
    assert names(tmp_path, "crawl") == ["crawl/monday/part-0.jsonl", "crawl/tuesday/part-0.jsonl"]
    assert names(tmp_path, "crawl/monday", "crawl/tuesday") == ["monday/part-0.jsonl", "tuesday/part-0.jsonl"]
    assert names(tmp_path, "crawl/*") == ["monday/part-0.jsonl", "tuesday/part-0.jsonl"]
    assert names(tmp_path, "**/*.jsonl") == ["crawl/monday/part-0.jsonl", "crawl/tuesday/part-0.jsonl"]


PATTERNS = ("data/web", "data/web/*.html", "data/**/*.html", "data/a.txt", "../elsewhere/*.txt")


@pytest.mark.parametrize("pattern", PATTERNS)
def test_neither_the_recipe_s_folder_nor_an_added_sibling_renames_a_file(tmp_path: Path, pattern: str) -> None:
    project = fill(tmp_path / "one", "data/web/a.html", "data/web/b/c.html", "data/a.txt")
    fill(tmp_path / "elsewhere", "x.txt")
    before = names(project, pattern)
    fill(tmp_path / "one", "data/z.txt", "other/a.html")
    fill(tmp_path / "deep" / "elsewhere", "x.txt")
    shutil.copytree(project, tmp_path / "deep" / "two")
    assert names(project, pattern) == before
    assert names(tmp_path / "deep" / "two", pattern) == before
    assert [name for name in names(project, pattern, "other") if name in before] == before


def test_one_name_from_two_patterns_is_refused_with_the_fix_and_the_fix_works(tmp_path: Path) -> None:
    fill(tmp_path, "monday/part.jsonl", "tuesday/part.jsonl")
    with pytest.raises(
        RecipeError, match=r"both name a file 'part.jsonl'(.|\n)*Name the folders(.|\n)*'\*/part.jsonl'"
    ):
        names(tmp_path, "monday/part.jsonl", "tuesday/part.jsonl")
    assert len(names(tmp_path, "monday", "tuesday")) == len(names(tmp_path, "*/part.jsonl")) == 2


def test_one_file_from_two_patterns_is_one_file(tmp_path: Path) -> None:
    fill(tmp_path, "data/a.txt", "data/b.txt")
    assert names(tmp_path, "data/*.txt", "data/a.txt") == ["a.txt", "b.txt"]
    assert names(tmp_path, "data", "data/a.txt") == ["data/a.txt", "data/b.txt"]


def test_hidden_files_of_a_folder_are_no_part_of_it_but_can_be_named(tmp_path: Path) -> None:
    fill(tmp_path, "tree/.git/index", "tree/a.py", ".hidden.txt")
    assert names(tmp_path, "tree") == ["tree/a.py"]
    assert names(tmp_path, ".hidden.txt") == [".hidden.txt"]


def test_a_file_whose_name_looks_like_a_pattern_is_found(tmp_path: Path) -> None:
    fill(tmp_path / "a [draft]", "facts[1].jsonl", "facts1.jsonl")
    assert names(tmp_path / "a [draft]", "facts[1].jsonl") == ["facts[1].jsonl"]
    assert names(tmp_path / "a [draft]", "*.jsonl") == ["facts1.jsonl", "facts[1].jsonl"]


def test_what_names_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecipeError, match=r"extract/web, source: 'x/\*.txt' matches no file"):
        find_outside(tmp_path, ["x/*.txt"], where="extract/web, source")
    with pytest.raises(RecipeError, match="folders without a single file"):
        names(tmp_path, "empty")
    assert names(tmp_path) == []


# ── hashes ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(contents=st.lists(st.binary(max_size=40), min_size=1, max_size=8), threads=st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_hashes_are_those_of_the_content_at_any_number_of_threads(
    tmp_path_factory: pytest.TempPathFactory, contents: list[bytes], threads: int
) -> None:
    folder = tmp_path_factory.mktemp("files")
    for number, content in enumerate(contents):
        (folder / f"{number}.bin").write_bytes(content)
    found = hashes(folder / "cache", threads).of(find_outside(folder, ["*.bin"], where="here"))
    assert found == {f"{n}.bin": hashlib.sha256(content).hexdigest() for n, content in enumerate(contents)}


def age(*paths: Path) -> None:
    """As if they had last changed a minute ago."""
    for path in paths:
        os.utime(path, ns=(time.time_ns(), time.time_ns() - 60 * 10**9))


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files whose content was read."""
    found: list[str] = []
    original = outside.file_sha256
    monkeypatch.setattr(outside, "file_sha256", lambda path: (found.append(path.name), original(path))[1])
    return found


def test_what_has_not_changed_is_not_read_again(tmp_path: Path, read: list[str]) -> None:
    fill(tmp_path, "data/a.txt", "data/b.txt")
    age(tmp_path / "data" / "a.txt", tmp_path / "data" / "b.txt")
    found = find_outside(tmp_path, ["data"], where="here")
    first = hashes(tmp_path / "cache").of(found)
    assert sorted(read) == ["a.txt", "b.txt"]
    read.clear()
    assert hashes(tmp_path / "cache").of(found) == first
    assert read == []


def test_another_file_of_the_same_size_and_time_is_read(tmp_path: Path, read: list[str]) -> None:
    fill(tmp_path, "a.txt")
    age(tmp_path / "a.txt")
    found = find_outside(tmp_path, ["a.txt"], where="here")
    first = hashes(tmp_path / "cache").of(found)
    status = (tmp_path / "a.txt").stat()
    (tmp_path / "new").write_text("other", encoding="utf-8")
    os.utime(tmp_path / "new", ns=(status.st_atime_ns, status.st_mtime_ns))
    (tmp_path / "new").replace(tmp_path / "a.txt")
    assert hashes(tmp_path / "cache").of(found) != first


def test_a_file_that_was_written_just_now_is_read_again_by_the_next_process(tmp_path: Path, read: list[str]) -> None:
    fill(tmp_path, "a.txt")
    found = find_outside(tmp_path, ["a.txt"], where="here")
    mine = hashes(tmp_path / "cache")
    mine.of(found)
    mine.of(found)
    hashes(tmp_path / "cache").of(found)
    assert read == ["a.txt", "a.txt"]


def test_a_damaged_cache_is_only_a_cache(tmp_path: Path) -> None:
    fill(tmp_path, "a.txt")
    (tmp_path / "cache").write_text("{", encoding="utf-8")
    assert hashes(tmp_path / "cache").of(find_outside(tmp_path, ["a.txt"], where="here"))


def test_what_a_run_made_is_not_what_it_reads(tmp_path: Path) -> None:
    fill(tmp_path, "a.jsonl", "deep/b.jsonl", "runs/.store/pretrain/x/metrics.jsonl", "runs/tiny/recipe.jsonl")
    assert names(tmp_path, "**/*.jsonl") == ["a.jsonl", "deep/b.jsonl"]
    assert [name.partition("/")[2] for name in names(tmp_path, ".")] == ["a.jsonl", "deep/b.jsonl"]


def test_the_runs_may_lie_beside_the_recipe(tmp_path: Path) -> None:
    fill(tmp_path, "a.jsonl", "deep/b.jsonl", ".store/pretrain/x/metrics.jsonl", "tiny/.lock")
    (tmp_path / "tiny" / "pretrain").symlink_to("../.store/pretrain/x")
    assert names(tmp_path, "*.jsonl") == ["a.jsonl"]
    assert names(tmp_path, "**/*.jsonl") == ["a.jsonl", "deep/b.jsonl"]
    assert [name.partition("/")[2] for name in names(tmp_path, ".")] == ["a.jsonl", "deep/b.jsonl"]
    with pytest.raises(RecipeError, match="matches no file"):
        names(tmp_path, "tiny/*/*.jsonl")


def test_files_are_read_by_several_threads_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(3, timeout=20)
    original = outside.file_sha256
    monkeypatch.setattr(outside, "file_sha256", lambda path: (together.wait(), original(path))[1])
    fill(tmp_path, "a.txt", "b.txt", "c.txt")
    found = hashes(tmp_path / "cache", threads=3).of(find_outside(tmp_path, ["*.txt"], where="here"))
    assert len(set(found.values())) == 3


def test_progress_of_reading_is_said_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "a.txt", "b.txt", "c.txt")  # five bytes each
    found = find_outside(tmp_path, ["*.txt"], where="here")
    said: list[str] = []
    FileHashes(tmp_path / "cache", threads=2, say=said.append).of(found)
    assert said == [], "what takes a moment is not talked about"
    monkeypatch.setattr(outside, "SAY_EVERY_SECONDS", -1.0)
    FileHashes(tmp_path / "cache", threads=2, say=said.append).of(found)
    assert said == [f"hashing outside files: {done} B of 15 B" for done in (5, 10, 15)]


def test_asked_to_stop_it_reads_no_further_file(tmp_path: Path, read: list[str]) -> None:
    fill(tmp_path, *(f"{number}.txt" for number in range(9)))
    found = find_outside(tmp_path, ["*.txt"], where="here")
    stopping = FileHashes(tmp_path / "cache", threads=2, say=lambda line: None, should_stop=lambda: len(read) >= 3)
    with pytest.raises(Interrupted):
        stopping.of(found)
    assert 3 <= len(read) <= 4, "the files under way are read to their end, no other is begun"


def test_more_than_is_allowed_is_not_read_unless_it_is_known(tmp_path: Path, read: list[str]) -> None:
    fill(tmp_path, "a.txt", "b.txt")  # five bytes each
    for name in ("a.txt", "b.txt"):
        age(tmp_path / name)
    found = find_outside(tmp_path, ["*.txt"], where="here")

    def limited(max_bytes: int) -> FileHashes:
        return FileHashes(tmp_path / "cache", threads=2, say=lambda line: None, max_bytes=max_bytes)

    with pytest.raises(NotHashedYet, match="10 B of"):
        limited(9).of(found)
    assert read == []
    assert limited(10).of(found) == hashes(tmp_path / "elsewhere").of(found)
    assert limited(0).of(found) == limited(10).of(found)


def test_files_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    fill(tmp_path, "z/a.jsonl", "a/b.jsonl", "c/a.jsonl", "c/b.jsonl")
    assert names(tmp_path, "z/a.jsonl", "a/b.jsonl") == names(tmp_path, "c/*.jsonl") == ["a.jsonl", "b.jsonl"]


def test_a_folder_and_the_files_in_it_by_name_are_not_the_same(tmp_path: Path, read: list[str]) -> None:
    """A folder is searched by suffix; files that are named are read whatever they are called."""
    fill(tmp_path, "in/a.jsonl", "in/b.json")
    by_folder, by_name = (find_outside(tmp_path, [pattern], where="here") for pattern in ("in", "*/*"))
    assert by_folder.files == by_name.files
    assert hashes(tmp_path / "cache").of(by_folder) != hashes(tmp_path / "cache").of(by_name)


def test_an_edit_that_puts_the_old_time_back_is_seen(tmp_path: Path) -> None:
    fill(tmp_path, "a.txt")
    age(tmp_path / "a.txt")
    found = find_outside(tmp_path, ["a.txt"], where="here")
    first = hashes(tmp_path / "cache").of(found)
    status = (tmp_path / "a.txt").stat()
    (tmp_path / "a.txt").write_text("b.txt", encoding="utf-8")
    os.utime(tmp_path / "a.txt", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert hashes(tmp_path / "cache").of(found) != first


@pytest.mark.parametrize("text", ["[]", '{"a": 1}', '{"a": [1]}'])
def test_a_cache_of_another_shape_is_left_aside(tmp_path: Path, text: str) -> None:
    fill(tmp_path, "a.txt")
    (tmp_path / "cache").write_text(text, encoding="utf-8")
    assert hashes(tmp_path / "cache").of(find_outside(tmp_path, ["a.txt"], where="here"))


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="a file whose reading fails for root, too")
def test_a_file_that_cannot_be_read_is_left_to_its_reader(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "good.txt").write_text("good", encoding="utf-8")
    (tmp_path / "data" / "mem.txt").symlink_to("/proc/self/mem")
    found = find_outside(tmp_path, ["data"], where="here")
    hashes = FileHashes(tmp_path / "known.json", threads=1, say=lambda line: None).of(found)
    assert hashes["data/mem.txt"].startswith("unreadable: E")
    assert len(hashes["data/good.txt"]) == 64


def test_a_glob_passes_over_pipes_and_links_that_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "good.txt").write_text("good", encoding="utf-8")
    (tmp_path / "nowhere.txt").symlink_to("gone")
    os.mkfifo(tmp_path / "pipe.txt")
    assert list(find_outside(tmp_path, ["*.txt"], where="here").files.values()) == ["good.txt"]
    with pytest.raises(RecipeError, match=r"'pipe\.txt' matches no file"):
        find_outside(tmp_path, ["pipe.txt"], where="here")


@pytest.mark.parametrize(
    ("link", "target"), [("deep/loop", ".."), ("deep/loop", "."), ("up", ".."), ("deep/gone", "x")]
)
def test_a_glob_names_each_file_once_although_a_link_leads_back(tmp_path: Path, link: str, target: str) -> None:
    fill(tmp_path / "data", "a.txt", "deep/b.txt")
    (tmp_path / "data" / link).symlink_to(target)
    assert names(tmp_path, "data/**/*.txt") == ["a.txt", "deep/b.txt"]


@pytest.mark.timeout(20)
def test_links_that_lead_to_and_fro_end(tmp_path: Path) -> None:
    fill(tmp_path / "data", "one/a.txt", "other/b.txt")
    for link, target in (("one/up", ".."), ("one/x", "../other"), ("other/up", ".."), ("other/y", "../one")):
        (tmp_path / "data" / link).symlink_to(target)
    assert names(tmp_path, "data/**/*.txt") == ["one/a.txt", "one/x/b.txt", "other/b.txt", "other/y/a.txt"]


PARTS = st.sampled_from(["**", "*", "a", "b*", "?", "[ab]", "*.txt"])


@given(st.lists(PARTS, min_size=1, max_size=4))
@settings(max_examples=150, deadline=None)
def test_patterns_name_what_glob_names(tmp_path_factory: pytest.TempPathFactory, parts: list[str]) -> None:
    folder, pattern = tmp_path_factory.getbasetemp() / "patterns", "/".join(parts)
    if not folder.exists():
        fill(
            folder, "a.txt", "a/a.txt", "a/b/c/d.txt", "b/b.txt", "b/a/a/x.md", ".hidden/a.txt", "b/.secret.txt", "bb/c"
        )
    files = {Path(path).relative_to(folder).as_posix() for path in glob(f"{folder}/{pattern}", recursive=True)}
    wanted = sorted(name for name in files if (folder / name).is_file())
    _, found = _glob(folder, pattern)
    assert sorted({path.relative_to(folder).as_posix() for path in found if path.is_file()}) == wanted


def test_a_name_that_is_no_utf8_can_be_written_down(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff.txt")).write_text("good", encoding="utf-8")
    found = find_outside(tmp_path, ["*.txt"], where="here")
    assert [*found.files.values()] == ["bad\\xff.txt"]
    hashes = FileHashes(tmp_path / "runs" / "known.json", threads=1, say=lambda line: None)
    assert [*hashes.of(found)] == ["bad\\xff.txt"]
    hashes._keep()


def test_what_lies_beside_is_looked_for_once_for_patterns_that_differ_in_the_last_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a/x.txt", "a/b/y.md", "a/b/z.bin"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    looked: list[str] = []
    plain = outside._glob
    monkeypatch.setattr(outside, "_glob", lambda folder, pattern: looked.append(pattern) or plain(folder, pattern))
    found = [path.name for path, _ in outside.files_beside(tmp_path, ["a/**/*.txt", "a/**/*.md", "a/**/*.rst"])]
    assert sorted(found) == ["x.txt", "y.md", "z.bin"]
    assert looked == ["a/**/*"]
