"""Executors give each item one outcome, whatever happens to its process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gristmill.data.executor import InProcess, LocalProcesses
from gristmill.errors import ResourceError


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
