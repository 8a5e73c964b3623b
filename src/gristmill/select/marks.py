"""The mark of a working folder: by which rules and from which outside files the shards in it were made.

A step that resumes keeps shards of its own mark and makes others again. The identity of a step does not suffice: a file outside
the store may be exchanged while the step runs, and be put back. The mark is no part of what a step leaves, so that shards with
the same rows are the same output, whatever was searched for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gristmill.store.durable import read_json, write_json
from gristmill.store.fingerprint import fingerprint


def mark(folder: Path, *, shards: str, rules: Any) -> Path:
    """Removes the files named by the pattern `shards` unless they were made by these rules, and says so; returns the mark, to be
    removed when all are there."""
    path = folder / "made-by.json"
    now = {"made_by": fingerprint(rules)}
    if not path.is_file() or read_json(path) != now:
        for shard in folder.glob(shards):
            shard.unlink()
        write_json(path, now)
    return path
