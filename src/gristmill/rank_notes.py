"""What each rank of an array leaves in the working folder of a step: a note of its time, and whether its share is done.

The run that commits the step adds the times to its own, names the ranks that are not done, and removes the notes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gristmill.graph.share import Share
from gristmill.store.artifact import note_beside
from gristmill.store.durable import read_json, write_json

NAMED_RANKS = 10
TOTALS = ("seconds", "watched_seconds", "busy_core_seconds")


def note_of_rank(working: Path, share: Share) -> Path:
    """Where the note of a rank is."""
    return working / f"rank-{share.rank:05d}-of-{share.size:05d}.json"


def take_in_ranks(working: Path) -> list[str]:
    """Moves what the ranks noted into the note beside the folder; returns what is to be said of them, a line for each array."""
    found = {path: dict(read_json(path)) for path in sorted(working.glob("rank-*-of-*.json"))}
    if not found:
        return []
    ranks: dict[int, dict[int, Any]] = {}
    for path, noted in found.items():
        _, rank, _, size = path.stem.split("-")
        ranks.setdefault(int(size), {})[int(rank)] = noted
    note = note_beside(working)
    total = dict(read_json(note))
    for key in TOTALS:
        total[key] = total.get(key, 0.0) + sum(noted.get(key, 0.0) for noted in found.values())
    write_json(note, total)
    for path in found:
        path.unlink()
    return [_in_words(size, noted) for size, noted in sorted(ranks.items())]


def _in_words(size: int, noted: dict[int, Any]) -> str:
    missing = [rank for rank in range(size) if not noted.get(rank, {}).get("done")]
    if not missing:
        return f"all {size} ranks made their shares"
    listed = ", ".join(map(str, missing[:NAMED_RANKS])) + (", …" if len(missing) > NAMED_RANKS else "")
    return f"{len(missing)} of {size} ranks did not finish their shares ({listed}); what is missing is made here"
