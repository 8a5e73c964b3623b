"""A step of selection that is killed at any moment and run again leaves the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selecting import run_selection
from test_select import SELECT, made

from gristmill.select import sides

__all__ = ["made"]  # a fixture

DIE = Path(__file__).with_name("die_selecting.py")
FOLDERS = {"contamination/web": "{}.steps/contamination/web", "duplicates": "{}.steps/duplicates", "select": "{}"}
BEFORE = {"contamination/web": "signatures/web", "duplicates": "contamination/web", "select": "duplicates"}
KILLS = {"contamination/web": (2, 2), "duplicates": (3, 11, 23, 17, 12), "select": (6, 13, 11, 9, 14)}


def die_at(folder: Path, name: str, step: str, number: int) -> bool:
    """Runs the step and is killed at that change; False when it came to its end before."""
    places = [str(DIE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    found = subprocess.run(
        [sys.executable, DIE, folder, name, step, str(number)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(places)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert found.returncode in (0, -signal.SIGKILL), found.stderr
    return found.returncode != 0


def content(folder: Path) -> dict[str, bytes]:
    """Name → bytes of all that lies there, temporary files aside: those go when a folder is committed."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".tmp"
    }


def prepared(made: Path, step: str) -> tuple[Path, dict[str, bytes]]:
    """The folder of the step in a run that is ready for it, and what it leaves in one that was not killed."""
    whole, _ = run_selection(made, SELECT, name="whole", until=step)
    run_selection(made, SELECT, name="killed", until=BEFORE[step])
    return made / FOLDERS[step].format("killed"), content(whole)


@pytest.mark.parametrize("step", FOLDERS)
def test_killed_again_and_again_at_later_and_later_changes(made: Path, step: str) -> None:
    folder, expected = prepared(made, step)
    kills = sum(die_at(made, "killed", step, number) for number in KILLS[step])
    assert kills >= len(KILLS[step]) - 1, "it was done before the last kills"
    assert not die_at(made, "killed", step, 0)
    assert content(folder) == expected


def test_shards_that_are_written_are_not_written_again(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = run_selection(made, SELECT, name="whole")
    run_selection(made, SELECT, name="killed", until="duplicates")
    plain, written = sides._rows, list[str]()

    def stopping(documents: Path) -> Iterator[dict[str, Any]]:
        if len(written) == 3:
            raise RuntimeError("the fourth shard")
        written.append(f"{documents.parent.name}/{documents.name}")
        return plain(documents)

    monkeypatch.setattr(sides, "_rows", stopping)
    with pytest.raises(RuntimeError, match="the fourth shard"):
        run_selection(made, SELECT, name="killed")
    first = written.copy()
    written.clear()
    run_selection(made, SELECT, name="killed")
    assert (len(first), len(written)) == (3, 1)
    assert len({*first, *written}) == 4
    assert content(made / "killed") == content(whole)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("step", FOLDERS)
def test_killed_at_each_single_change(made: Path, step: str) -> None:
    _, expected = prepared(made, step)
    number, killed = 1, True
    while killed:
        name = f"killed-{number}"
        run_selection(made, SELECT, name=name, until=BEFORE[step])
        killed = die_at(made, name, step, number)
        if killed:
            assert not die_at(made, name, step, 0), f"after change {number}"
        assert content(made / FOLDERS[step].format(name)) == expected, f"after change {number}"
        number += 1
    assert number > 4, "the changes are not counted"
