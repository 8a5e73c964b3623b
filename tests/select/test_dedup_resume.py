"""The search for duplicates is killed, stopped, starved of disk and resumed, and leaves the same bytes."""

from __future__ import annotations

import dataclasses
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import oracle
import pytest
from searched import quick_folder, search, write_corpus

import gristmill
from gristmill.data.executor import InProcess
from gristmill.errors import ArtifactError, Interrupted
from gristmill.select.corpus import Corpus
from gristmill.select.dedup import SearchMemory, disk_bytes, find_duplicates
from gristmill.select.groups import LiveEntries
from gristmill.select.rules import DuplicateRules
from gristmill.select.stages import Stage
from gristmill.select.walk import Lists
from gristmill.store import durable
from gristmill.store.artifact import remove_leftovers
from gristmill.store.durable import OutOfSpaceError

RULES = DuplicateRules(num_bands=3, rows_per_band=1, ngram=2, min_jaccard=0.6, remove_near=True, max_listed=6)
MEMORY = SearchMemory(worker_bytes=30_000, walk_bytes=500, block_ngrams=150, window_ranks=12)
RESULTS = ("copies.parquet", "links.parquet", "duplicates.json")


class KilledError(BaseException):
    """Nothing catches it, as nothing catches a kill."""


def some_documents(count: int = 60, words: int = 30) -> list[oracle.Document]:
    rng = np.random.default_rng(3)
    texts = [[f"w{n}" for n in rng.integers(0, 60, words)] for _ in range(count)]
    for d in range(0, count, 3):
        texts[d] = list(texts[rng.integers(count)])
        texts[d][int(rng.integers(words))] = f"x{d % 4}"
    return [oracle.Document(id=f"d{d}", source="web", text=" ".join(text)) for d, text in enumerate(texts)]


@pytest.fixture
def folder() -> Path:
    with quick_folder() as path:
        yield path


@pytest.fixture
def corpus(folder: Path) -> Corpus:
    return write_corpus(folder, some_documents(), rules=RULES, shard_size=20)


@pytest.fixture
def whole(corpus: Corpus, folder: Path) -> dict[str, bytes]:
    """What an unbroken search leaves."""
    found = search(corpus, folder / "whole", rules=RULES, memory=MEMORY)
    assert found.counts["near_copies"] > 3
    return left_in(folder / "whole")


def left_in(work: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in work.iterdir()}


def test_stopped_between_any_two_stages_or_blocks_it_resumes_to_the_same_bytes(corpus, folder, whole) -> None:
    calls = 0

    def stop_at(number: int) -> bool:
        nonlocal calls
        calls += 1
        return calls == number

    stops = 0
    while True:
        stops, calls, work = stops + 1, 0, folder / f"stopped-{stops}"
        work.mkdir()
        options = {"rules": RULES, "work": work, "memory": MEMORY, "say": lambda _: None}
        at = stops
        try:
            find_duplicates(corpus, executor=InProcess(), should_stop=lambda at=at: stop_at(at), **options)
        except Interrupted:
            search(corpus, work, rules=RULES, memory=dataclasses.replace(MEMORY, worker_bytes=9_000, block_ngrams=40))
            assert left_in(work) == whole
            shutil.rmtree(work)
            continue
        break
    assert stops > 30  # stages, files of a stage, blocks of the walk


@pytest.mark.parametrize("after", [False, True], ids=["before the rename", "after the rename"])
def test_killed_at_any_file_it_resumes_to_the_same_bytes(corpus, folder, whole, monkeypatch, after) -> None:
    publish = durable.publish
    for number in range(0, 200, 3):
        seen = 0

        def publish_or_die(temporary: Path, path: Path, number: int = number) -> None:
            nonlocal seen
            seen += 1
            if seen > number and not after:
                raise KilledError
            publish(temporary, path)
            if seen > number:
                raise KilledError

        work = folder / f"killed-{number}"
        with monkeypatch.context() as patched:
            patched.setattr(durable, "publish", publish_or_die)
            try:
                search(corpus, work, rules=RULES, memory=MEMORY)
            except KilledError:
                pass
            else:
                assert number > 40
                break
        search(corpus, work, rules=RULES, memory=MEMORY)
        assert left_in(work) == whole
        shutil.rmtree(work)
    else:
        pytest.fail("no search was complete")


SCRIPT = """
import sys
from pathlib import Path
from searched import opened, search
from test_dedup_resume import MEMORY, RULES
print("ready", flush=True)
search(opened(Path(sys.argv[1])), Path(sys.argv[2]), rules=RULES, memory=MEMORY)
"""


def environment() -> dict[str, str]:
    paths = [Path(__file__).parent, Path(gristmill.__file__).parent.parent]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}


def kill_and_resume(folder: Path, work: Path, seconds: Sequence[float]) -> None:
    """Runs the search in processes that are killed so many seconds after its beginning, then once to the end; before each what a killed
    writer left is removed, as a run does."""
    for wait in (*seconds, None):
        remove_leftovers(work)
        command = [sys.executable, "-c", SCRIPT, str(folder), str(work)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment()) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            if wait is not None:
                time.sleep(wait)
                process.kill()
    assert process.returncode == 0


@pytest.mark.parametrize("times", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_by_the_system_at_random_moments_it_resumes_to_the_same_bytes(corpus, folder, whole, times) -> None:
    rng = random.Random(times)
    for attempt in range(times):
        work = folder / f"work-{attempt}"
        kill_and_resume(folder, work, [rng.uniform(0, 0.2) for _ in range(3)])
        assert left_in(work) == whole


def test_a_search_over_other_documents_is_refused_until_its_folder_is_removed(corpus, folder, whole) -> None:
    work = folder / "work"
    work.mkdir()
    calls = iter(range(100))
    with pytest.raises(Interrupted):
        find_duplicates(
            corpus, rules=RULES, work=work, memory=MEMORY, executor=InProcess(),
            should_stop=lambda: next(calls) > 5, say=lambda _: None,
        )  # fmt: skip
    turns = np.load(corpus.turns)
    np.save(corpus.turns, np.where(np.arange(len(turns)) == 4, 1 - turns, turns))
    with pytest.raises(ArtifactError, match="holds an unfinished search over 60 other documents"):
        search(corpus, work, rules=RULES, memory=MEMORY)
    np.save(corpus.turns, turns)
    search(corpus, work, rules=RULES, memory=MEMORY)
    assert left_in(work) == whole


def test_a_full_disk_at_any_file_names_the_folder_and_the_bytes_needed_and_nothing_is_lost(
    corpus, folder, whole, monkeypatch
) -> None:
    needed = disk_bytes(len(corpus), num_bands=3, ngrams_per_document=500)["search"]
    publish = durable.publish
    for number in range(1, 41, 3):
        work, left = folder / f"full-{number}", number

        def full_at_last(temporary: Path, path: Path) -> None:
            nonlocal left
            left -= 1
            if not left:
                raise OSError(28, "No space left on device")
            publish(temporary, path)

        with monkeypatch.context() as patched:
            patched.setattr(durable, "publish", full_at_last)
            with pytest.raises(OutOfSpaceError) as raised:
                search(corpus, work, rules=RULES, memory=MEMORY)
        assert f"takes up to {needed:,} bytes in {work / 'search'} for 60 documents" in str(raised.value)
        search(corpus, work, rules=RULES, memory=MEMORY)
        assert left_in(work) == whole


FULL_SCRIPT = """
import subprocess, sys
from dataclasses import replace
from pathlib import Path
from searched import opened, search
from test_dedup_resume import MEMORY, RULES
from gristmill.store.durable import OutOfSpaceError
folder, disk = Path(sys.argv[1]), Path(sys.argv[2])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "none", disk], check=True)
errors = 0
for kilobytes in range(8, 4000, 24):
    subprocess.run(["mount", "-o", f"remount,size={kilobytes}k", disk], check=True)
    try:
        search(opened(folder), disk / "work", rules=RULES, memory=replace(MEMORY, walk_bytes=0))
    except OutOfSpaceError as error:
        assert "bytes in" in str(error), error
        errors += 1
    else:
        break
for path in (disk / "work").iterdir():
    (folder / "left" / path.name).write_bytes(path.read_bytes())
print(errors)
"""


def may_mount() -> bool:
    tried = subprocess.run(["unshare", "-rm", "true"], capture_output=True) if shutil.which("unshare") else None
    return tried is not None and tried.returncode == 0


@pytest.mark.skipif(not may_mount(), reason="needs a user namespace, to mount a small disk in")
def test_on_a_disk_that_is_really_full_it_resumes_as_space_is_freed(corpus, folder, whole) -> None:
    for name in ("disk", "left"):
        (folder / name).mkdir()
    command = ["unshare", "-rm", sys.executable, "-c", FULL_SCRIPT, str(folder), str(folder / "disk")]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 3
    assert left_in(folder / "left") == whole


def test_the_disk_that_a_search_takes_is_at_most_the_estimate(folder) -> None:
    documents = some_documents(3000, words=60)
    corpus = write_corpus(folder, documents, rules=RULES, shard_size=500)
    work, most = folder / "work", 0
    work.mkdir()

    def measure() -> bool:
        nonlocal most
        most = max(most, sum(path.stat().st_size for path in work.rglob("*") if path.is_file()))
        return False

    counts = find_duplicates(
        corpus, rules=RULES, work=work, executor=InProcess(), should_stop=measure, say=lambda _: None
    )
    estimate = disk_bytes(
        3000, num_bands=3, ngrams_per_document=59, share_with_candidates=counts.with_candidates / 3000
    )
    assert most > 0.3 * estimate["search"]
    assert most < estimate["search"]
    assert sum(shard.prints.stat().st_size for shard in corpus.shards) < estimate["prints"]


def test_the_walking_process_holds_what_is_promised_or_maps_it(folder, monkeypatch) -> None:
    """16 bytes per document, and 8 for each entry of a band that is shared; the block aside."""
    documents = some_documents(2000, words=40)
    corpus = write_corpus(folder, documents, rules=RULES, shard_size=500)
    held: dict[str, np.ndarray] = {}
    make = Stage.array

    def array(stage: Stage, name: str, count: int, dtype: object) -> np.ndarray:
        held[name] = make(stage, name, count, dtype)
        return held[name]

    entries = 0
    of_window = LiveEntries.of_window

    def counted(live: LiveEntries, window: int) -> np.ndarray:
        nonlocal entries
        found = of_window(live, window)
        entries += len(found)
        return found

    monkeypatch.setattr(Stage, "array", array)
    monkeypatch.setattr(LiveEntries, "of_window", counted)
    for walk_bytes, kind in ((10**9, np.ndarray), (0, np.memmap)):
        held.clear()
        entries = 0
        search(corpus, folder / str(walk_bytes), rules=RULES, memory=SearchMemory(walk_bytes=walk_bytes))
        sizes = {name: array.nbytes for name, array in held.items()}
        lists = sizes.pop("lists.scratch")
        assert entries > 2 * 3000  # each window is read twice: for the ranks that occur, and for the walk
        assert 0 < lists <= 8 * entries / 2
        assert sizes.pop("ranks.scratch") <= 16 * 2000  # before the walk, and gone
        assert sizes.pop("exact.scratch") <= 16 * 2000
        assert sum(sizes.values()) <= 16 * 2000
        assert all(type(array) is kind for array in held.values())


def test_lists_of_kept_documents_end_at_their_limit(tmp_path) -> None:
    stage = Stage(
        folder=tmp_path, texts=InProcess(), columns=InProcess(), array_bytes=10**6, should_stop=lambda: False, say=print
    )
    one, other = (Lists(stage, num_slots=8, num_touched=9, max_listed=3) for _ in range(2))
    rows = [(0, 0), (0, 4), (1, 0), (2, 0), (3, 0), (3, 4)]
    for t in range(4):
        one.add(t, np.array([slot for document, slot in rows if document == t]))
    other.append(np.array([t for t, _ in rows[:3]]), np.array([slot for _, slot in rows[:3]]))
    other.append(np.array([t for t, _ in rows[3:]]), np.array([slot for _, slot in rows[3:]]))
    for lists in (one, other):
        assert lists.candidates(np.array([0, 4])) == [0, 1, 2, 3]
        assert lists.candidates(np.array([0])) == [0, 1, 2]
        lists.add(1, np.array([4]))
        assert lists.candidates(np.array([0, 4])) == [0, 1, 2, 3]  # 0 and 1 are in both
        assert lists.candidates(np.array([4])) == [0, 1, 3]
    later = Lists(stage, num_slots=12, num_touched=9, max_listed=3)
    for t, slots in ((0, [0]), (1, [4, 8]), (2, [0, 4, 8])):
        later.add(t, np.array(slots))
    assert later.candidates(np.array([0, 4, 8])) == [2, 1, 0]  # those in most lists come first
