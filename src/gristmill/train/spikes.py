"""What is done about a step that is an outlier, as `pretrain.on_spike` says. The rule itself is stability.py.

    log       the step is taken like any other
    skip      its update is left out: weights and optimizer stay as they were, the schedule goes on
    rewind    the state before it is saved, and the run passes over its data by an intervention
    stop      the state before it is saved, and the run ends with what to do

The step is judged before its update, so going back to the state before it takes no training again. Whatever is done, the documents of
the batch lie in the run's folder, and an event in the log:

    runs/<run>/spikes/0001234-0098720.jsonl     the event; then a line for each part of a document. Named after step and first sequence
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gristmill.errors import GristmillError
from gristmill.graph.ranks import is_first
from gristmill.graph.step import PassOver
from gristmill.recipe.schema.changes import SKIP_STEPS
from gristmill.recipe.schema.training import OnSpike
from gristmill.select.outputs import Selected
from gristmill.store.jsonl import read_log, write_jsonl
from gristmill.store.store import RunLinks
from gristmill.tokens.shards import TokenShard
from gristmill.tokens.stream import Stream
from gristmill.tokens.tokenizer import Tokenizer
from gristmill.train.batch_text import Files, parts_of
from gristmill.train.course import Course
from gristmill.train.events import MixtureEvent, NotFiniteEvent, PassedOverEvent, SpikeEvent, line_of
from gristmill.train.loop import Progress
from gristmill.train.monitor import METRICS
from gristmill.train.optimizer_step import StepOutcome
from gristmill.train.outputs import last_measured
from gristmill.train.session import Session
from gristmill.train.stability import Settling, Stability

FOLDER = "spikes"
NOTES = "stability"  # a key of what a checkpoint carries along
MAX_TEXTS = 100  # files a training writes; `gristmill trace` shows the text of any step
MAX_CHARACTERS = 1_000_000  # of text in one of them
MAX_PASSED_OVER = 3
PASSED_OVER_WINDOW = 100


class TrainingSpiked(GristmillError):
    """A step is an outlier and the recipe asks to stop there; its update was not applied."""


@dataclass(kw_only=True)
class SpikeWatch:
    """Judges each step of a pretraining. All ranks ask with the numbers of the whole batch, so they decide alike; the first writes the texts.

    stage_name: of a stage's number. run: whose folder takes the texts.
    """

    session: Session
    course: Course
    stream: Stream
    shards: Mapping[str, TokenShard]
    tokenizer: Tokenizer
    policy: OnSpike
    run: RunLinks
    stage_name: Callable[[int], str]

    def __post_init__(self) -> None:
        kept: Mapping[str, Any] | None = self.session.notes.get(NOTES)
        self.stability = Stability() if kept is None else Stability.from_json(kept["rule"])
        self._texts: int = 0 if kept is None else kept["texts"]

    def note(self) -> None:
        """Puts the state into what the next checkpoint carries along."""
        self.session.notes[NOTES] = {"rule": self.stability.to_json(), "texts": self._texts}

    def begin_stage(self, number: int) -> None:
        """A stage begins with its first step: steps of another mixture or length cannot be compared with those before."""
        before, now = self.course.segments[number - 1 : number + 1] if number else (None, None)
        if now is None or before is None:
            return
        if (before.draws, before.seq_len, before.rope_theta) != (now.draws, now.seq_len, now.rope_theta):
            sources = {draw.source for draw in now.draws}
            self._tell(self.stability.change_mixture(now.first_step, sources), step=now.first_step)

    def end(self) -> None:
        """The training is at its end: closes what is followed."""
        self._tell(self.stability.end(), step=self.course.num_steps)

    def accepts(self, save: Callable[[Progress], None], progress: Progress, outcome: StepOutcome) -> bool:
        """Whether the update of the step after `progress` is applied. Raises PassOver or TrainingSpiked, with the state saved, where the
        step is not taken at all."""
        step = progress.step + 1
        event = self._judged(step, outcome)
        if event is not None:
            self._write_text(event)
        if isinstance(event, SpikeEvent) and self.policy in ("rewind", "stop"):
            save(progress)
            self._leave(event, progress)
        for skip in self.course.skips:  # after the state before the step was saved, which knows nothing of it
            if skip.after_step == progress.step:
                tokens = self.course.tokens_done(step)
                self.session.monitor.event(PassedOverEvent(step=step, tokens=tokens, sequences=len(skip.samples)))
        if event is not None:
            self.session.monitor.event(event)
            self.session.runtime.say(f"{event} ({event.outcome}). Its documents: {self._place(event)}.")
        if outcome.is_finite:
            self._tell(self.stability.take(step, outcome.averages), step=step)
        return event is None or event.applied

    def _judged(self, step: int, outcome: StepOutcome) -> SpikeEvent | NotFiniteEvent | None:
        """What is remarkable about a step."""
        tokens = self.course.tokens_done(step)
        if not outcome.is_finite:
            return NotFiniteEvent.of(
                outcome.loss, outcome.grad_norm, step=step, tokens=tokens, text=self._text_of(step)
            )
        spike = self.stability.judge(outcome.averages)
        if spike is None:
            return None
        applied = self.policy == "log"
        return SpikeEvent.of(spike, step=step, tokens=tokens, applied=applied, text=self._text_of(step))

    def _leave(self, event: SpikeEvent, progress: Progress) -> None:
        """Raises what passes over the step, or stops before it."""
        words = str(event)
        place = f"  The update was not applied; the state before it is saved. Its documents: {self._place(event)}\n"
        passed = sum(
            len(skip.samples) // self.course.segment_at(skip.after_step).sequences_per_step
            for skip in self.course.skips
            if progress.step - PASSED_OVER_WINDOW < skip.after_step <= progress.step
        )
        if self.policy == "rewind" and passed < MAX_PASSED_OVER:
            noted = {
                "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                "step": progress.step,
                "measured": last_measured(read_log(self.session.out / METRICS)),
                "spike": line_of(event),
            }
            raise PassOver({"after_step": progress.step, "set": {SKIP_STEPS: 1}, "why": words}, noted)
        if self.policy == "rewind":
            raise TrainingSpiked(
                f"{words}.\n{place}  The data of {passed} steps within the last {PASSED_OVER_WINDOW} was passed over already, so it is "
                "hardly the data of one batch. Lower the rate from here on by a change of optimizer.peak_lr, or continue with "
                "pretrain.on_spike=log."
            )
        raise TrainingSpiked(
            f"{words}.\n{place}"
            f'  To pass over it: gristmill rewind RECIPE --to {progress.step} --skip 1 --why "…", then run again.\n'
            "  To train on it: run again with pretrain.on_spike=log. To leave out such updates: pretrain.on_spike=skip from the beginning."
        )

    def _tell(self, settled: Settling | None, *, step: int) -> None:
        """Logs how the sources went after a change of mixture, if that is known now."""
        if settled is not None:
            event = MixtureEvent.of(settled, step=step, tokens=self.course.tokens_done(step))
            self.session.monitor.event(event)

    # ── the text of a batch ──

    def _text_of(self, step: int) -> str | None:
        """Where the text of a step goes, in the run's folder; None when there are enough."""
        if self._texts >= MAX_TEXTS:
            return None
        self._texts += 1
        return f"{FOLDER}/{step:07d}-{self.course.sample_of_step(step - 1):07d}.jsonl"

    def _place(self, event: SpikeEvent | NotFiniteEvent) -> str:
        return f"gristmill trace RUN --step {event.step}" if event.text is None else str(self.run.folder / event.text)

    def _write_text(self, event: SpikeEvent | NotFiniteEvent) -> None:
        if event.text is None or not is_first(self.session.runtime.ranks):
            return
        segment, first = self.course.segment_at(event.step - 1), self.course.sample_of_step(event.step - 1)
        parts = parts_of(
            self.stream.origins(first, first + segment.sequences_per_step),
            step=event.step,
            stage=self.stage_name(self.course.segments.index(segment)),
            shards=self.shards,
            tokenizer=self.tokenizer,
            files_of=self._files_of,
            max_characters=MAX_CHARACTERS,
        )
        path = self.run.folder / event.text
        path.parent.mkdir(parents=True, exist_ok=True)
        write_jsonl(path, [line_of(event), *map(vars, parts)])

    def _files_of(self, source: str) -> Files | None:
        """The documents that a source's shard was made from; None where they are not here, or not those any more."""
        selected = self.run.made_from("tokenize").get("select")
        if selected is None:
            return None
        files = Files(Selected(selected, source=source).train)
        return files if len(files) == self.shards[source].num_documents else None
