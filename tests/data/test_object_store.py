"""Sources in an object store: the files that were listed, whole, through any break; never two versions put together."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.data import object_store
from gristmill.data.download import Wanted
from gristmill.data.fetch_size import ask_sizes
from gristmill.data.object_store import StoreClient, list_store
from gristmill.errors import DataError, Interrupted, ResourceError
from gristmill.recipe.schema.fetching import FetchObjectStore
from gristmill.store.remote import Remote

CONTENT = {
    "data/a.txt": bytes(range(250)) * 2,
    "data/b.txt": b"b" * 97,
    "data/empty.txt": b"",
    "data/deep/c.txt": b"c",
    "other.csv": b"d",
}


class Versioned(MemoryFileSystem):
    """A store in memory that numbers versions; `breaks` are the calls of a range that fail."""

    protocol = "versioned"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    versions: ClassVar[dict[str, int]] = {}
    breaks: ClassVar[set[int]] = set()
    calls = 0

    def info(self, path: str, **more: Any) -> dict[str, Any]:
        version = self.versions.get(path, 1)
        return {**super().info(path, **more), "ETag": f'"{version}"', "VersionId": f"v{version}"}

    def find(self, path: str, **more: Any) -> Any:
        """A listing does not tell the id of a version, as that of s3fs does not."""
        return {name: {**self.info(name), "VersionId": None} for name in super().find(path)}

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **more: Any) -> bytes:
        Versioned.calls += 1
        if Versioned.calls in Versioned.breaks:
            raise ConnectionError("the line broke")
        return bytes(super().cat_file(path, start=start, end=end))


fsspec.register_implementation("versioned", Versioned, clobber=True)
ADDRESS = "versioned://bucket/top"
ROOT = fsspec.core.url_to_fs(ADDRESS)[1]


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> Remote:
    monkeypatch.setattr(object_store, "PIECE_BYTES", 60)
    filled()
    return Remote(ADDRESS)


def filled() -> None:
    for shared in (Versioned.store, Versioned.versions, Versioned.breaks):
        shared.clear()
    Versioned.calls = 0
    files = Versioned()
    for name, content in CONTENT.items():
        files.pipe_file(f"{ROOT}/{name}", content)


def replace(name: str, content: bytes) -> None:
    Versioned().pipe_file(f"{ROOT}/{name}", content)
    Versioned.versions[f"{ROOT}/{name}"] = 2


def fetched(client: StoreClient, one: Wanted, folder: Path) -> dict[str, Any]:
    (folder / "parts").mkdir(parents=True, exist_ok=True)
    return client.fetch(one, folder / "files" / one.name, folder / "parts" / "00000")


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (["data/*.txt"], ["data/a.txt", "data/b.txt", "data/empty.txt"]),
        (["**/*.txt", "*.csv"], ["data/a.txt", "data/b.txt", "data/deep/c.txt", "data/empty.txt", "other.csv"]),
    ],
)
def test_the_files_that_patterns_name_are_listed_with_size_and_version(
    remote: Remote, patterns: list[str], names: list[str]
) -> None:
    listed = list_store(remote, patterns)
    assert [one.name for one in listed] == names
    assert {one.num_bytes for one in listed} == {len(CONTENT[name]) for name in names}
    assert {one.version for one in listed} == {'ETag "1"'}
    with pytest.raises(DataError, match=r"has no file that \['\*\.pdf'\] names; it has data/a\.txt, .* other\.csv"):
        list_store(remote, ["*.pdf"])


@given(breaks=st.sets(st.integers(1, 14)), stops=st.sets(st.integers(0, 8), max_size=3))
@settings(deadline=None, max_examples=40)
def test_whatever_breaks_the_bytes_are_those_of_the_store(
    breaks: set[int], stops: set[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("fetched")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(object_store, "PIECE_BYTES", 60)
        filled()
        remote = Remote(ADDRESS)
        (one,) = list_store(remote, ["data/a.txt"])
        Versioned.breaks |= breaks
        asked = [0]

        def should_stop() -> bool:
            asked[0] += 1
            return asked[0] in stops

        client = StoreClient(remote=remote, should_stop=should_stop)
        for _ in range(len(breaks) + len(stops) + 1):
            try:
                facts = fetched(client, one, folder)
                break
            except (ResourceError, Interrupted):
                assert not (folder / "files" / one.name).exists()
        assert (folder / "files" / one.name).read_bytes() == CONTENT[one.name]
        assert facts == fetched(client, one, folder)  # as its note says
        assert Versioned.calls <= 9 + len(breaks)  # no piece twice


def test_a_file_that_was_replaced_is_refused_before_and_after(remote: Remote, tmp_path: Path) -> None:
    (one,) = list_store(remote, ["data/a.txt"])
    Versioned.breaks |= {3}
    with pytest.raises(ResourceError, match=r"versioned://bucket/top/data/a\.txt was not reached"):
        fetched(StoreClient(remote=remote), one, tmp_path)
    replace("data/a.txt", CONTENT["data/a.txt"][::-1])  # of the same size
    with pytest.raises(DataError, match="it was replaced"):
        fetched(StoreClient(remote=remote), one, tmp_path)

    def replaced_on_the_way(name: str, num_bytes: int) -> None:
        replace("data/b.txt", b"B" * 97)

    (other,) = list_store(remote, ["data/b.txt"])
    with pytest.raises(DataError, match="it was replaced"):
        fetched(StoreClient(remote=remote, count=replaced_on_the_way), other, tmp_path / "other")
    assert not [*tmp_path.rglob("*.txt")]


def test_an_empty_file_is_one(remote: Remote, tmp_path: Path) -> None:
    (one,) = list_store(remote, ["data/empty.txt"])
    assert fetched(StoreClient(remote=remote), one, tmp_path)["bytes"] == 0
    assert (tmp_path / "files" / one.name).read_bytes() == b""


def test_plan_is_told_how_large_it_is(remote: Remote) -> None:
    section = FetchObjectStore(kind="object_store", address=remote.address, files=["data/*"], max_files=2)
    told = ask_sizes({"texts": section})["texts"]
    assert (told.files, told.num_bytes, told.problem) == (2, 597, "")
