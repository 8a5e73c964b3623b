"""The diary of a training run: metrics.jsonl and samples.jsonl, one JSON object a line.

A line has `step`, `tokens` and `kind`: "train" for the averages of the steps up to `step`, "eval" and "sample" for what the
hooks of `step` found. A run that was killed has written lines past its last checkpoint; `rewind` cuts them off, so that the
finished diary has the same lines as one of a run that was never stopped, but for timings. Nothing here knows the model.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gristmill.store.durable import flush_to_disk, out_of_space_is_a_resource_error
from gristmill.store.jsonl import read_log, write_jsonl

METRICS = "metrics.jsonl"
SAMPLES = "samples.jsonl"


class Monitor:
    """Appends to the diary in `folder`. A value that is not finite is written as null: JSON has no other way to say it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder

    def train(self, step: int, tokens: int, values: Mapping[str, float]) -> None:
        """Averages over the steps since the last line."""
        self._append(METRICS, {"step": step, "tokens": tokens, "kind": "train", **values})

    def evaluation(self, step: int, tokens: int, values: Mapping[str, float]) -> None:
        """What an evaluation at this step found."""
        self._append(METRICS, {"step": step, "tokens": tokens, "kind": "eval", **values})

    def sample(self, step: int, tokens: int, values: Mapping[str, Any]) -> None:
        """A text the model wrote at this step."""
        self._append(SAMPLES, {"step": step, "tokens": tokens, "kind": "sample", **values})

    def sync(self) -> None:
        """Forces the diary to disk; a checkpoint calls it first, so that it never is ahead of the diary."""
        for name in (METRICS, SAMPLES):
            path = self.folder / name
            if path.exists():
                flush_to_disk(path)

    def rewind(self, step: int) -> int:
        """Cuts back to the checkpoint of `step` and returns how many lines went.

        Kept: all before `step`, and the train line of `step` itself. Hooks of `step` run again after resuming, so what they wrote goes.
        """
        return sum(_cut_back(self.folder / name, step) for name in (METRICS, SAMPLES))

    def _append(self, name: str, line: Mapping[str, Any]) -> None:
        plain = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in line.items()
        }
        text = json.dumps(plain, ensure_ascii=False, allow_nan=False)
        path = self.folder / name
        with out_of_space_is_a_resource_error(path), path.open("a", encoding="utf-8") as file:
            file.write(text + "\n")


def _cut_back(path: Path, step: int) -> int:
    if not path.exists():
        return 0
    num_before = path.read_text(encoding="utf-8", errors="replace").rstrip("\n").count("\n") + 1
    kept = [
        line for line in read_log(path) if line["step"] < step or (line["step"] == step and line["kind"] == "train")
    ]
    return num_before - write_jsonl(path, kept)
