"""One bad record costs one reason code, and nothing else."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gristmill.data import guard
from gristmill.data import job as job_module
from gristmill.data.cursor import READING, Cursor, State
from gristmill.data.guard import run_guarded
from gristmill.errors import DataError, Interrupted, ResourceError

REASONS = {
    "raise": "error:ValueError",
    "segfault": "killed:SIGSEGV",
    "hang": "timeout",
    "hang_in_c": "timeout",
    "eat_memory": "out_of_memory",
}


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    import hostile_jobs

    return hostile_jobs


def results_of(job: Any, tmp_path: Path, *, deadline_seconds: float = 20.0, max_memory_mb: int = 1000) -> Any:
    spool = tmp_path / "spool"
    results = run_guarded(job, spool=spool, deadline_seconds=deadline_seconds, max_memory_mb=max_memory_mb)
    assert not spool.exists()
    assert multiprocessing.active_children() == []
    return results


def expected(num_items: int, bad: dict[int, str]) -> list[tuple[int, str]]:
    return [(n, REASONS[bad[n]] if n in bad else "ok") for n in range(num_items)]


@pytest.mark.parametrize(
    ("action", "deadline_seconds", "max_memory_mb"),
    [
        ("raise", 20.0, 1000),
        ("segfault", 20.0, 1000),
        ("hang", 0.5, 1000),
        ("hang_in_c", 0.5, 1000),
        ("eat_memory", 20.0, 300),
    ],
)
@pytest.mark.parametrize("when", ["processing", "reading"])
def test_a_bad_record_gets_its_reason_and_all_others_survive(
    jobs: Any, tmp_path: Path, when: str, action: str, deadline_seconds: float, max_memory_mb: int
) -> None:
    job = jobs.HostileJob(100, **{when: {70: action}})
    results = results_of(job, tmp_path, deadline_seconds=deadline_seconds, max_memory_mb=max_memory_mb)
    assert results == expected(100, {70: action})


@pytest.mark.parametrize("when", ["processing", "reading"])
def test_a_record_that_was_slow_once_is_kept(jobs: Any, tmp_path: Path, when: str) -> None:
    job = jobs.HostileJob(10, **{when: {7: f"{jobs.ONCE}{tmp_path / 'mark'}"}})
    assert results_of(job, tmp_path, deadline_seconds=0.5) == expected(10, {})


def test_reading_in_pieces_may_take_longer_than_the_deadline(jobs: Any, tmp_path: Path) -> None:
    job = jobs.HostileJob(3, reading={1: "work in pieces"})
    assert results_of(job, tmp_path, deadline_seconds=0.5) == expected(3, {})


def test_a_child_that_ignores_its_deadline_is_ended_by_the_parent(
    jobs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_module, "GRACE_SECONDS", 0.5)
    job = jobs.HostileJob(3, {1: "hang and ignore the signal"})
    results = results_of(job, tmp_path, deadline_seconds=0.2)
    assert results == [(0, "ok"), (1, "timeout"), (2, "ok")]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_results_do_not_depend_on_how_often_a_child_was_started(
    jobs: Any, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, 20))
    some = st.dictionaries(st.integers(0, count - 1), st.sampled_from(["raise", "segfault"]), max_size=3)
    processing, reading = data.draw(some), data.draw(some)
    every, part_size = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 30))
    job = jobs.HostileJob(count, processing, reading, every=every, part_size=part_size)
    results = results_of(job, tmp_path_factory.mktemp("spool"))
    wanted: list[tuple[int, str]] = []
    while (position := len(wanted)) < count:
        if position not in reading:
            wanted.append(expected(count, processing)[position])
            continue
        resume = next(n for n in range(position + 1, count + 100) if n % part_size % every == 0)
        wanted += [(n, REASONS[reading[position]]) for n in range(position, min(resume, count))]
    assert results == wanted


def test_no_number_of_crashes_ends_a_job_but_their_share_does(
    jobs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "MIN_CRASHES", 5)
    bad = dict.fromkeys(range(0, 40, 4), "segfault")
    assert results_of(jobs.HostileJob(40, bad), tmp_path) == expected(40, bad)
    message = r"5 of the first 17 records ended the process that read them \(killed:SIGSEGV 5\); the limit is 25%"
    with pytest.raises(DataError, match=message):
        run_guarded(
            jobs.HostileJob(40, bad), spool=tmp_path / "spool", deadline_seconds=20.0, max_memory_mb=1000, max_crashed=0.25
        )  # fmt: skip


def test_what_lies_between_records_does_not_thin_the_share_of_those_that_crash(
    jobs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "MIN_CRASHES", 5)
    job = jobs.HostileJob(80, dict.fromkeys(range(0, 80, 8), "segfault"), between=4)
    message = r"5 of the first 9 records ended the process that read them"
    with pytest.raises(DataError, match=message):
        run_guarded(job, spool=tmp_path / "spool", deadline_seconds=20.0, max_memory_mb=1000, max_crashed=0.4)


def test_items_that_have_results_are_passed_over_for_longer_than_one_deadline(jobs: Any, tmp_path: Path) -> None:
    slow = dict.fromkeys(range(12), "work slowly")
    job = jobs.HostileJob(14, {12: "segfault"}, reading=slow, every=100)
    assert results_of(job, tmp_path, deadline_seconds=0.3) == expected(14, {12: "segfault"})


def test_a_crash_costs_two_starts_at_the_place_of_the_crash(jobs: Any, tmp_path: Path) -> None:
    started = tmp_path / "started"
    job = jobs.HostileJob(100, {30: "segfault", 31: "segfault", 90: "segfault"}, started=started, every=10)
    assert [n for n, reason in results_of(job, tmp_path) if reason != "ok"] == [30, 31, 90]
    assert started.read_text().splitlines() == ["0 0", *["0 30"] * 4, *["0 90"] * 2]


def test_what_ran_out_of_memory_is_read_again_alone(jobs: Any, tmp_path: Path) -> None:
    job = jobs.HostileJob(20, crowd=frozenset([7]))
    assert results_of(job, tmp_path, max_memory_mb=300) == expected(20, {})


def test_a_crash_in_the_end_is_tried_again_and_then_named(jobs: Any, tmp_path: Path) -> None:
    assert results_of(jobs.HostileJob(3, finishing="at first"), tmp_path) == expected(3, {})
    with pytest.raises(ResourceError, match=r"writing its results ended its process 3 times: killed:SIGSEGV"):
        results_of(jobs.HostileJob(3, finishing="always"), tmp_path)


@pytest.mark.parametrize("how", ["hang_in_c", "hang and ignore the signal"])
def test_an_end_that_hangs_is_ended_and_named(
    jobs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(job_module, "GRACE_SECONDS", 0.5)
    with pytest.raises(ResourceError, match=r"writing its results ended its process 3 times: timeout"):
        run_guarded(
            jobs.HostileJob(3, finishing=f"hangs: {how}"),
            spool=tmp_path / "spool",
            deadline_seconds=20.0,
            max_memory_mb=1000,
            finish_seconds=0.4,
        )


def test_an_end_may_take_long_while_it_takes_results(jobs: Any, tmp_path: Path) -> None:
    job = jobs.HostileJob(12, finishing="slowly")
    results = run_guarded(job, spool=tmp_path / "spool", deadline_seconds=0.3, max_memory_mb=1000, finish_seconds=0.6)
    assert results == expected(12, {})


def test_a_refusal_of_the_reader_is_raised_as_it_is(jobs: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="record 4 is no record"):
        results_of(jobs.HostileJob(10, refuse_at=4), tmp_path)


def test_stopping_ends_the_child(jobs: Any, tmp_path: Path) -> None:
    job = jobs.HostileJob(1_000_000, seconds_per_item=0.01)
    with pytest.raises(Interrupted):
        run_guarded(job, spool=tmp_path / "spool", deadline_seconds=60.0, max_memory_mb=1000, should_stop=lambda: True)
    assert multiprocessing.active_children() == []
    assert not (tmp_path / "spool").exists()


def test_a_disk_that_takes_no_more_is_no_fault_of_the_record(jobs: Any, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="File too large"):
        results_of(jobs.HostileJob(3, {1: "fill the disk"}), tmp_path)


def test_a_state_is_read_whole_whenever_its_writing_ends() -> None:
    numbers = [0, 0, *State(0, 0, 0, 0, 0, READING), *State(0, 0, 0, 0, 0, READING)]
    before, after = State(1, 2, 3, 4, 5, 0), State(6, 7, 8, 9, 10, 1)

    class Ending(list):  # type: ignore[type-arg]
        """Numbers of which only the first so many can be written."""

        left = 0

        def __setitem__(self, place: Any, value: Any) -> None:
            places = range(*place.indices(len(self))) if isinstance(place, slice) else [place]
            for one, number in zip(places, value if isinstance(place, slice) else [value], strict=True):
                if not self.left:
                    raise KeyboardInterrupt
                self.left -= 1
                super().__setitem__(one, number)

    for writes in range(9):
        shared = Ending(numbers)
        cursor = Cursor(shared)
        shared.left = 100
        cursor.write(before)
        shared.left = writes
        try:
            cursor.write(after)
        except KeyboardInterrupt:
            assert cursor.read() in (before, after)
    assert cursor.read() == after
