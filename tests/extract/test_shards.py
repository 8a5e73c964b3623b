"""Shards depend on names and sizes alone, and cover each byte once."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.data.outside import find_outside
from gristmill.data.record import Skip
from gristmill.extract.shards import find_files, plan_shards
from gristmill.formats.format import format_named
from gristmill.recipe.schema.formats import READERS, ReadFiles


def read(format: str) -> ReadFiles:
    return READERS[format].model_validate({"format": format, "paths": ["x"]})


def sparse(path: Path, size: int) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


@given(st.lists(st.integers(0, 30_000_000), min_size=1, max_size=6), st.sampled_from(["warc", "jsonl", "text"]))
@settings(deadline=None, max_examples=40)
def test_each_file_is_covered_once_and_no_cut_shard_is_too_large(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], format: str
) -> None:
    folder = tmp_path_factory.mktemp("files")
    files = [sparse(folder / f"{number}.x", size) for number, size in enumerate(sizes)]
    shards = plan_shards({file: file.name for file in files}, read(format))
    spans = [span for shard in shards for span in shard]
    for path, size in zip(files, sizes, strict=True):
        mine = [span for span in spans if span.path == path]
        assert mine[0].start == 0
        assert mine[-1].end in (None, size)
        assert all(before.end == after.start for before, after in itertools.pairwise(mine))
    assert [span.path for span in spans] == sorted((span.path for span in spans), key=files.index)
    least, most = format_named(format).shard_bytes
    assert all(len(shard) == 1 or sum(span.size for span in shard) <= most for shard in shards)
    if format != "text":
        assert all(span.size <= max(least, most) for span in spans)


def test_names_are_those_of_the_outside_files(tmp_path: Path) -> None:
    for name in ("a/x.txt", "b/c/y.txt"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("x")
    files = find_files(find_outside(tmp_path, ["a/x.txt", "b"], where="here"), read("text"))
    ((first, second),) = plan_shards(files, read("text"))
    assert (first.name, second.name) == ("b/c/y.txt", "x.txt")


def test_a_folder_is_searched_by_suffix_and_a_source_tree_is_one_item(tmp_path: Path) -> None:
    for name in ("a.html", "b.HTM", "c.txt", "d.warc.gz", "e.gz", ".hidden.html"):
        (tmp_path / name).write_text("x")
    folder = find_outside(tmp_path, ["."], where="here")
    assert [path.name for path in find_files(folder, read("html"))] == ["a.html", "b.HTM"]
    assert [path.name for path in find_files(folder, read("warc"))] == ["d.warc.gz"]
    assert [*find_files(folder, read("code"))] == [tmp_path]
    named = find_outside(tmp_path, [".", "e.gz"], where="here")
    assert [path.name for path in find_files(named, read("text"))] == ["c.txt", "e.gz"], "a file that is named is read"


def test_many_empty_files_are_many_shards_in_order(tmp_path: Path) -> None:
    files = {tmp_path / f"{number:05d}.txt": f"{number:05d}.txt" for number in range(20_000)}
    shards = plan_shards(files, read("text"))
    assert [span.path for shard in shards for span in shard] == [*files]
    least, _ = format_named("text").shard_bytes
    assert {len(shard) for shard in shards[:-1]} == {max(least, 20_000 * 4096 // 8) // 4096}


def test_a_large_tree_is_cut_and_the_files_of_its_shards_are_those_of_the_listing(tmp_path: Path) -> None:
    for number in range(5_000):
        folder = tmp_path / "tree" / str(number // 100)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.py").touch()
    files = find_files(find_outside(tmp_path, ["tree"], where="here"), read("code"))
    shards = plan_shards(files, read("code"))
    assert len(shards) == 3
    members = [member for shard in shards for span in shard for member in span.members]
    assert members == [
        path.relative_to(tmp_path / "tree").as_posix() for path in sorted((tmp_path / "tree").rglob("*.py"))
    ]


SUFFIXES = {"code": ".py"}


@pytest.mark.parametrize("format", [name for name in READERS if name != "parquet"])
def test_ids_depend_on_neither_a_second_path_nor_the_recipe_s_folder(tmp_path: Path, format: str) -> None:
    for name in ("a/deep/x", "b/y"):
        path = tmp_path / f"{name}{SUFFIXES.get(format, READERS[format].suffixes[0])}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('{"text": "a"}\n\ntext\n{"text": "b"}\n')

    def ids(recipe: Path, *patterns: str) -> list[str]:
        files = find_files(find_outside(recipe, patterns, where="here"), read(format))
        spans = [span for shard in plan_shards(files, read(format)) for span in shard]
        records = [record for span in spans for record in format_named(format).read(span, read(format))]
        return [record.id for record in records if not isinstance(record, Skip)]

    (tmp_path / "elsewhere").mkdir()
    for pattern in ("a", "a/deep", "a/**/*"):
        before = ids(tmp_path, pattern)
        assert before or format == "warc"
        assert [id for id in ids(tmp_path, pattern, "b") if id in before] == before
        assert ids(tmp_path / "elsewhere", f"../{pattern}") == before
