"""One bad document costs one reason code, and nothing else."""

from __future__ import annotations

import os
from multiprocessing import Pipe
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gristmill.data import guard
from gristmill.data.guard import Finished, run_guarded
from gristmill.errors import DataError


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    import hostile_jobs

    return hostile_jobs


def outcome(job: Any, *, deadline_seconds: float = 20.0, max_memory_mb: int = 1000) -> tuple[list[Any], int]:
    *results, last = run_guarded(job, deadline_seconds=deadline_seconds, max_memory_mb=max_memory_mb)
    assert isinstance(last, Finished)
    return results, last.num_documents


@pytest.mark.parametrize(
    ("action", "deadline_seconds", "max_memory_mb", "reason"),
    [
        ("raise", 20.0, 1000, "error:ValueError"),
        ("segfault", 20.0, 1000, "killed:SIGSEGV"),
        ("hang", 0.5, 1000, "timeout"),
        ("hang_in_c", 0.5, 1000, "timeout"),
        ("eat_memory", 20.0, 300, "out_of_memory"),
    ],
)
def test_a_bad_document_gets_its_reason_and_all_others_survive(
    jobs: Any, action: str, deadline_seconds: float, max_memory_mb: int, reason: str
) -> None:
    job = jobs.HostileJob(100, {70: action})
    results, num_documents = outcome(job, deadline_seconds=deadline_seconds, max_memory_mb=max_memory_mb)
    assert num_documents == 100
    assert results == [(position, reason if position == 70 else "ok") for position in range(100)]


def test_a_document_that_was_slow_once_is_kept(jobs: Any, tmp_path: Path) -> None:
    results, _ = outcome(jobs.HostileJob(10, {7: f"{jobs.ONCE}{tmp_path / 'mark'}"}), deadline_seconds=0.5)
    assert results == [(n, "ok") for n in range(10)]


def test_a_child_that_ends_in_the_middle_of_a_message_is_started_again() -> None:
    receiver, sender = Pipe(duplex=False)
    os.write(sender.fileno(), (1000).to_bytes(4, "big") + b"half")
    sender.close()
    assert list(guard._messages(SimpleNamespace(pid=None, exitcode=-9), receiver, 1.0)) == []  # type: ignore[arg-type]


def test_many_bad_documents_of_all_kinds_in_one_job(jobs: Any) -> None:
    bad = {0: "raise", 1: "segfault", 2: "segfault", 50: "hang", 99: "segfault"}
    results, _ = outcome(jobs.HostileJob(100, bad), deadline_seconds=0.5)
    reasons = {"raise": "error:ValueError", "segfault": "killed:SIGSEGV", "hang": "timeout"}
    assert results == [(n, reasons[bad[n]] if n in bad else "ok") for n in range(100)]


def test_an_error_of_the_reader_is_raised_after_the_results_before_it(jobs: Any) -> None:
    guarded = run_guarded(jobs.HostileJob(10, fail_reading_at=4), deadline_seconds=20.0, max_memory_mb=1000)
    assert [next(guarded) for _ in range(4)] == [(n, "ok") for n in range(4)]
    with pytest.raises(DataError, match="record 4 is no record"):
        next(guarded)


def test_closing_the_generator_ends_the_child(jobs: Any) -> None:
    import multiprocessing

    guarded = run_guarded(jobs.HostileJob(1_000_000, {}, -1, 0.01), deadline_seconds=60.0, max_memory_mb=1000)
    first = next(guarded)
    assert first == (0, "ok")
    guarded.close()
    assert multiprocessing.active_children() == []
