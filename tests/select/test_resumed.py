"""A step of selection that is killed at any moment and run again leaves the same bytes."""

from __future__ import annotations

import os
import shutil
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
KILLS = {"contamination/web": (2, 2), "duplicates": (3, 11, 23), "select": (6, 13, 11)}


class Deaths:
    """Runs one step of runs in this folder, each time in a process that may be killed in the middle."""

    def __init__(self, folder: Path, step: str, *, section: tuple[str, str] = ("test_select", "SELECT")) -> None:
        """section: the module and the name of the section `select`."""
        places = [str(DIE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            [sys.executable, DIE, folder, step, *section],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(places)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Deaths:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def at(self, name: str, number: int) -> bool:
        """Runs the step of this run until that change, where it is killed; False when it came to its end before."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{name} {number}\n")
        self._process.stdin.flush()
        status = int(self._process.stdout.readline())
        assert status in (0, -signal.SIGKILL), f"{name} ended with {status}"
        return status != 0


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
    with Deaths(made, step) as deaths:
        kills = sum(deaths.at("killed", number) for number in KILLS[step])
        assert kills >= len(KILLS[step]) - 1, "it was done before the last kills"
        assert not deaths.at("killed", 0)
    assert content(folder) == expected


def test_shards_that_are_written_are_not_written_again(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = run_selection(made, SELECT, name="whole")
    run_selection(made, SELECT, name="killed", until="duplicates")
    plain, written = sides._rows, list[str]()

    def stopping(documents: Path, *more: Any) -> Iterator[dict[str, Any]]:
        if len(written) == 3:
            raise RuntimeError("the fourth shard")
        written.append(f"{documents.parent.name}/{documents.name}")
        return plain(documents, *more)

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
def test_killed_at_each_single_change(made: Path, step: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder, expected = prepared(made, step)
    ready = tmp_path_factory.mktemp("ready")
    for path in made.glob("killed*"):
        shutil.copytree(path, ready / path.name)
    number, killed = 1, True
    with Deaths(made, step) as deaths:
        while killed:
            killed = deaths.at("killed", number)
            assert not killed or not deaths.at("killed", 0), f"after change {number}"
            assert content(folder) == expected, f"after change {number}"
            for path in made.glob("killed*"):
                shutil.rmtree(path)
            for path in ready.iterdir():
                shutil.copytree(path, made / path.name)
            number += 1
    assert number > 4, "the changes are not counted"
