"""Executors give each item one outcome, whatever happens to its process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gristmill.data.executor import InProcess, LocalProcesses, LocalThreads
from gristmill.errors import Interrupted, ResourceError


@pytest.fixture
def square(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    import hostile_jobs

    return hostile_jobs.square


def test_in_process_yields_results_and_errors_in_order(square: Any) -> None:
    outcomes = list(InProcess().map(square, [1, 3, 4]))
    assert outcomes[0] == (1, 1)
    assert isinstance(outcomes[1][1], ValueError)
    assert outcomes[2] == (4, 16)


def test_local_processes_give_each_item_one_outcome_though_one_process_dies(square: Any) -> None:
    outcomes = dict(LocalProcesses(processes=2).map(square, range(8)))
    assert set(outcomes) == set(range(8))
    assert isinstance(outcomes[3], ValueError)
    assert isinstance(outcomes[5], ResourceError)
    assert "exit code -9" in str(outcomes[5])
    assert {n: outcomes[n] for n in (0, 1, 2, 4, 6, 7)} == {n: n * n for n in (0, 1, 2, 4, 6, 7)}


def test_local_threads_give_each_item_one_outcome() -> None:
    def half(number: int) -> int:
        if number % 2:
            raise ValueError(f"{number} is odd")
        return number // 2

    outcomes = dict(LocalThreads(threads=3).map(half, range(20)))
    assert set(outcomes) == set(range(20))
    assert {n: outcome for n, outcome in outcomes.items() if n % 2 == 0} == {n: n // 2 for n in range(0, 20, 2)}
    assert all(isinstance(outcomes[n], ValueError) for n in range(1, 20, 2))


def test_local_threads_start_nothing_new_after_the_signal() -> None:
    done: list[int] = []
    outcomes = LocalThreads(threads=1, should_stop=lambda: len(done) >= 3).map(lambda number: number, range(10))
    for _ in range(3):
        done.append(next(outcomes)[0])
    with pytest.raises(Interrupted):
        next(outcomes)
    assert done == [0, 1, 2]
