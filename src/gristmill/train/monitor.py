"""The diary of a training run: metrics.jsonl and samples.jsonl, one JSON object a line.

A line has `step`, `tokens` and `kind`: "train" for the averages of the steps up to `step`, "eval" and "sample" for what the
hooks of `step` found. A run that was killed has written lines past its last checkpoint; `rewind` cuts them off, so that the
finished diary has the same lines as one of a run that was never stopped, but for timings. Nothing here knows the model.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gristmill.errors import DataError
from gristmill.recipe.artifact import out_of_space_is_a_resource_error

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
                with path.open("rb") as file:
                    os.fsync(file.fileno())

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


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a diary file; a last line that a kill tore is left out. Raises DataError for a torn line elsewhere."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    found: list[dict[str, Any]] = []
    for number, text in enumerate(lines, start=1):
        if not text:
            continue
        try:
            found.append(json.loads(text))
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise DataError(
                    f"{path}, line {number} is not JSON: {text[:80]!r} ({error}). Remove that line."
                ) from error
    return found


def _cut_back(path: Path, step: int) -> int:
    if not path.exists():
        return 0
    num_before = path.read_text(encoding="utf-8", errors="replace").rstrip("\n").count("\n") + 1
    kept = [
        line for line in read_lines(path) if line["step"] < step or (line["step"] == step and line["kind"] == "train")
    ]
    part = path.with_name(path.name + ".part")
    with out_of_space_is_a_resource_error(path), part.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in kept)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    return num_before - len(kept)
