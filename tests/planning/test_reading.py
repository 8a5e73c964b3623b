"""What init read is told again, by this machine only."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gristmill.errors import ArtifactError
from gristmill.planning.reading import READING, keep_readings, kept_readings
from gristmill.planning.steps import Work

HTML, TEXT = (Work(ratio=f"extract {kind}", words="", cpu_seconds=2.0) for kind in ("html", "text"))


def test_the_newest_reading_of_a_ratio_is_kept_on_this_machine_alone(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    assert kept_readings(runs) == []
    keep_readings(runs, {HTML.ratio: (HTML, 3.0), TEXT.ratio: (TEXT, 4.0)})
    keep_readings(runs, {HTML.ratio: (HTML, 5.0)})
    assert kept_readings(runs) == [(HTML, 5.0), (TEXT, 4.0)]
    record = json.loads((runs / READING).read_text())
    (runs / READING).write_text(json.dumps({**record, "hardware": "another"}))
    assert kept_readings(runs) == []


@pytest.mark.parametrize("readings", [3, {"x": {"work": {}}}, {"x": {"seconds": 1.0}}])
def test_a_damaged_record_is_named(tmp_path: Path, readings: object) -> None:
    keep_readings(tmp_path, {})
    record = json.loads((tmp_path / READING).read_text())
    (tmp_path / READING).write_text(json.dumps({**record, "readings": readings}))
    with pytest.raises(ArtifactError, match=READING):
        kept_readings(tmp_path)
