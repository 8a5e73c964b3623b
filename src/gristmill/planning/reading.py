"""How long `init` took to read a folder, by what its files are read as: kept beside the runs, for the times that plan tells of extract.

The record lies in `<runs_dir>/.reading.json`, and is used only on the machine that it was measured on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from gristmill.errors import ArtifactError
from gristmill.planning.speed import hardware_name
from gristmill.planning.steps import Work
from gristmill.store.durable import read_json, write_json

READING = ".reading.json"
VERSION = 1


def keep_readings(runs_dir: Path, found: Mapping[str, tuple[Work, float]]) -> None:
    """Adds (work, seconds) by ratio, in the seconds of one process; each replaces an older one of its ratio."""
    kept = {work.ratio: {"work": asdict(work), "seconds": seconds} for work, seconds in kept_readings(runs_dir)}
    new = {ratio: {"work": asdict(work), "seconds": seconds} for ratio, (work, seconds) in found.items()}
    runs_dir.mkdir(parents=True, exist_ok=True)
    write_json(runs_dir / READING, {"version": VERSION, "hardware": hardware_name(), "readings": kept | new})


def kept_readings(runs_dir: Path) -> list[tuple[Work, float]]:
    """(work, seconds) of what was read on this machine. Raises ArtifactError for a damaged record."""
    path = runs_dir / READING
    if not path.is_file():
        return []
    data = read_json(path)
    try:
        if (data["version"], data["hardware"]) != (VERSION, hardware_name()):
            return []
        return [(Work(**one["work"]), float(one["seconds"])) for one in data["readings"].values()]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"{path} is no record of what was read: {error}. Remove it; `gristmill init` makes it anew."
        ) from error
