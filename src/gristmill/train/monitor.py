"""The metrics log of a training run: metrics.jsonl, samples.jsonl, positions.jsonl and events.jsonl, one JSON object per line.

A line has `step`, `tokens` and `kind`: "train" for the averages of the steps up to `step`, "eval", "sample" and "positions" for what the
hooks of `step` found, or a kind of events.py; and `origin`, the run that wrote it, where it was inherited from a training of another recipe. Each checkpoint holds the log up to its
step, and resuming restores that: so a finished log has the same lines as that of a run that was never stopped, but for
timings, and a run that continues another's training has its lines too. Nothing here knows the model.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gristmill.store.jsonl import append_jsonl, read_log, write_jsonl
from gristmill.train.events import EVENTS, AnyEvent, line_of
from gristmill.train.sinks import Sinks

METRICS = "metrics.jsonl"
SAMPLES = "samples.jsonl"
POSITIONS = "positions.jsonl"
FILES = (METRICS, SAMPLES, POSITIONS, EVENTS)


class Monitor:
    """Appends to the log in `folder`. A value that is not finite is written as null: JSON has no other way to say it.

    Of several ranks that train together one `writes`; to the others' logs nothing happens.
    """

    def __init__(self, folder: Path, *, writes: bool = True) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._writes = folder, writes
        self._shown = Sinks({})

    def show_in(self, sinks: Sinks) -> None:
        """From here on the numbers of each line go to these programs too."""
        self._shown = sinks

    def close(self) -> None:
        """The training is over, or interrupted."""
        self._shown.close()

    def train(self, step: int, tokens: int, values: Mapping[str, float]) -> None:
        """Averages over the steps since the last line."""
        self._append(METRICS, {"step": step, "tokens": tokens, "kind": "train", **values})
        self._shown.log(step, {"tokens": tokens, **values})

    def evaluation(self, step: int, tokens: int, values: Mapping[str, float]) -> None:
        """What an evaluation at this step found."""
        self._append(METRICS, {"step": step, "tokens": tokens, "kind": "eval", **values})
        self._shown.log(step, {"tokens": tokens, **values})

    def sample(self, step: int, tokens: int, values: Mapping[str, Any]) -> None:
        """A text the model wrote at this step."""
        self._append(SAMPLES, {"step": step, "tokens": tokens, "kind": "sample", **values})

    def positions(self, line: Mapping[str, Any]) -> None:
        """What the model made of long texts, see positions.py."""
        self._append(POSITIONS, line)

    def event(self, event: AnyEvent) -> None:
        """What happened besides the steps."""
        self._append(EVENTS, line_of(event))

    def copy_to(self, folder: Path) -> None:
        """Copies the log into a checkpoint's folder, which then holds all lines up to its step."""
        for name in FILES:
            if (self.folder / name).exists():
                shutil.copyfile(self.folder / name, folder / name)

    def restore(self, checkpoint: Path | None, *, origin: str | None = None) -> int:
        """Replaces the log by what a checkpoint holds of it, or by nothing. Returns how many lines were discarded.

        origin: the run that wrote those lines, where it is another one; it is noted in each.
        """
        discarded = 0
        for name in FILES if self._writes else ():
            path = self.folder / name
            lines = read_log(checkpoint / name) if checkpoint is not None else []
            discarded += max(0, len(read_log(path)) - len(lines))
            if lines or path.exists():
                write_jsonl(path, (line if origin is None else {"origin": origin, **line} for line in lines))
        return discarded

    def _append(self, name: str, line: Mapping[str, Any]) -> None:
        plain = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in line.items()
        }
        if self._writes:
            append_jsonl(self.folder / name, [plain])
