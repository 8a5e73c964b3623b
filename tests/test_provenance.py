"""The clock of a step: seconds and the load of other processes, over all attempts."""

from __future__ import annotations

from pathlib import Path

import pytest

from gristmill import provenance
from gristmill.provenance import WorkClock


class Load:
    """Cores kept busy by others, as a watch tells them; None where the last look was too short ago."""

    told: list[float | None]

    def busy_cores(self) -> float | None:
        return self.told.pop(0)


def test_load_is_the_mean_by_time_over_all_attempts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(provenance, "CoreWatch", Load)
    monkeypatch.setattr(provenance.time, "monotonic", lambda: now[0])
    (tmp_path / "step.partial.json").write_text("{}")
    first = WorkClock(tmp_path / "step.partial.json")
    Load.told = [None, 2.0]
    assert first.busy_cores() is None
    now[0] = 10.0
    first.save()
    now[0] = 500.0  # the machine was off
    second = WorkClock(tmp_path / "step.partial.json")
    Load.told = [0.5]
    now[0] = 530.0
    assert second.busy_cores() == pytest.approx((10 * 2.0 + 30 * 0.5) / 40, abs=0.01)
    assert second.total() == 40.0
