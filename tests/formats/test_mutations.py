"""Mutated files of every format: no exception, bytes that add up, records within bounds.

GRISTMILL_MUTATIONS=N python -m pytest -m slow tests/formats/test_mutations.py   reads N files, a million by default
"""

from __future__ import annotations

import os
import random
import resource
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from accounting import read_whole
from gristmill.data.record import RawDocument, Skip
from mutations import FILES, LARGEST, PACKED, mutated, packed

KEYS: dict[str, list[dict[str, Any]]] = {
    "jsonl": [{}, {"id_field": "id"}],
    "json": [{}, {"id_field": "id"}],
    "csv": [{}, {"id_column": "id"}],
    "text": [{}, {"split_at": r"Chapter \d+$"}],
    "parquet": [{}, {"id_column": "id"}],
}
IN_SUITE = 500
IN_ALL = int(os.environ.get("GRISTMILL_MUTATIONS", "1000000"))
SHARES = {
    "jsonl": 4,
    "json": 3,
    "csv": 4,
    "text": 3,
    "html": 1,
    "subtitles": 1,
    "mbox": 2,
    "code": 4,
    "parquet": 1,
    "warc": 3,
    "epub": 2,
}  # of the files in all


@pytest.fixture
def little_memory() -> Iterator[None]:
    """As in a guarded child: a file that says that one of its pages has 2 GB is refused by the system."""
    if sys.platform != "linux":
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + 500_000_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def check_one(kind: str, seed: int, folder: Path, sound: list[bytes]) -> None:
    """One mutated file, made from its seed; fails with it."""
    noise = random.Random(f"{kind} {seed}")
    data = mutated(noise.choice(sound), noise, sound)
    if kind in PACKED and (form := noise.randrange(3)):
        data = packed(data if form == 1 else noise.choice(sound), noise, zstd=kind != "warc")
        data = mutated(data, noise, [data]) if form == 2 else data
    path = folder / "x.any"
    path.write_bytes(data)
    try:
        found = read_whole(kind, path, limit=noise.choice([1 << 40, 700]), **noise.choice(KEYS.get(kind, [{}])))
    except MemoryError:
        assert kind == "parquet", "only Arrow believes what a file says of its size"
        return
    except BaseException as error:
        (folder / f"{kind}-{seed}.bin").write_bytes(data)
        raise AssertionError(f"seed {seed} of {kind}: {''.join(traceback.format_exception(error))}") from error
    for item in found:
        size = item.num_bytes if isinstance(item, Skip) else item.bytes_in
        assert 0 <= size <= 2000 * LARGEST
        assert not isinstance(item, RawDocument) or len(item.text or "") <= 2000 * LARGEST


def sound_files(kind: str) -> list[bytes]:
    return [FILES[kind](random.Random(number)) for number in range(40)]


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("kind", FILES)
def test_mutated_files_are_read_and_accounted_for(kind: str, tmp_path: Path) -> None:
    sound = sound_files(kind)
    for seed in range(IN_SUITE):
        check_one(kind, seed, tmp_path, sound)


@pytest.mark.parametrize("kind", FILES)
def test_unchanged_files_give_documents(kind: str, tmp_path: Path) -> None:
    for number, data in enumerate(sound_files(kind)):
        (tmp_path / "x.any").write_bytes(
            packed(data, random.Random(number), zstd=kind != "warc") if kind in PACKED else data
        )
        found = read_whole(kind, tmp_path / "x.any")
        assert not any(
            item.reason.startswith(("corrupt", "bad")) for item in found if not isinstance(item, RawDocument)
        )


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("kind", FILES)
def test_a_million_mutated_files_are_read_and_accounted_for(kind: str, tmp_path: Path) -> None:
    sound = sound_files(kind)
    for seed in range(IN_SUITE, IN_SUITE + IN_ALL * SHARES[kind] // sum(SHARES.values())):
        check_one(kind, seed, tmp_path, sound)
