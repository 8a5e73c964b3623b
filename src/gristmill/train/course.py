"""The course of a pretraining: which rate and which sequences each step has, as pure functions of the recipe's section.

    segments    one per stage: its steps, its sequences, what it draws, its rope base
    peaks       the peak of the learning rate from some step on; the shape of the schedule is scaled by it
    skips       sequences that are passed over: the step after `after_step` begins behind them

Steps are counted from 0; a step number of `n` in `after_step` or `num_steps` means that n steps are done. Skipped sequences
have places in the order like all others, so a stage's order and what later stages draw do not depend on who passes over what.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace

from gristmill.recipe.schema.training import Pretrain
from gristmill.tokens.stages import Draw, StreamStage
from gristmill.train.schedule import Schedule, wsd


@dataclass(frozen=True, kw_only=True)
class Segment:
    """One stage. `first_step` steps are done when it begins, `last_step` when it ends; `num_samples` has skipped ones too."""

    first_step: int
    last_step: int
    batch_tokens: int
    seq_len: int
    draws: tuple[Draw, ...]
    rope_theta: float
    first_sample: int
    num_samples: int
    reshuffle: int | None = None

    @property
    def sequences_per_step(self) -> int:
        """Sequences in one step's batch."""
        return self.batch_tokens // self.seq_len


@dataclass(frozen=True, kw_only=True)
class Peak:
    """From `after_step` on, the learning rate's peak is `peak_lr`."""

    after_step: int
    peak_lr: float


@dataclass(frozen=True, kw_only=True)
class Skip:
    """Sequences that nobody trains on: they lie between the last one before `after_step` and the first one after it."""

    after_step: int
    samples: range


@dataclass(frozen=True, kw_only=True)
class Course:
    """What `course_of` makes. `schedule` has the first peak; `peaks` begins with it, after step 0, and names real changes only."""

    segments: tuple[Segment, ...]
    schedule: Schedule
    peaks: tuple[Peak, ...]
    skips: tuple[Skip, ...]

    @property
    def num_steps(self) -> int:
        """Steps of all stages."""
        return self.segments[-1].last_step

    @property
    def total_tokens(self) -> int:
        """Tokens that are trained on, which skipped ones are not."""
        return self.schedule.total_tokens

    def segment_at(self, step: int) -> Segment:
        """The segment that step `step` belongs to."""
        if not 0 <= step < self.num_steps:
            raise IndexError(f"step {step} of a course of {self.num_steps}")
        return self.segments[bisect_right(self.segments, step, key=lambda segment: segment.first_step) - 1]

    def extensions_at(self, step: int) -> list[int]:
        """The numbers of the segments that begin or end after `step` steps and read longer sequences than the one before them."""
        return [
            number
            for number in range(1, len(self.segments))
            if self.segments[number].seq_len > self.segments[number - 1].seq_len
            and step in (self.segments[number].first_step, self.segments[number].last_step)
        ]

    def tokens_done(self, step: int) -> int:
        """Tokens trained on when `step` steps are done."""
        begun = [segment for segment in self.segments if segment.first_step < step]
        return sum((min(step, segment.last_step) - segment.first_step) * segment.batch_tokens for segment in begun)

    def lr_of_step(self, step: int) -> float:
        """The learning rate of step `step`: the schedule's at the tokens after it, with the peak that holds then."""
        self.segment_at(step)
        peak = self.peaks[bisect_right(self.peaks, step, key=lambda peak: peak.after_step) - 1]
        return replace(self.schedule, peak_lr=peak.peak_lr).lr_at(self.tokens_done(step + 1))

    def sample_of_step(self, step: int) -> int:
        """The first sequence of step `step`; for `num_steps` itself, the number of all sequences."""
        if step == self.num_steps:
            return self.segments[-1].first_sample + self.segments[-1].num_samples
        segment = self.segment_at(step)
        inside = [skip for skip in self.skips if segment.first_step <= skip.after_step <= step]
        skipped = sum(len(skip.samples) for skip in inside)
        return segment.first_sample + (step - segment.first_step) * segment.sequences_per_step + skipped

    def step_of_sample(self, sample: int) -> int | None:
        """The step that trains on a sequence; None for one that is passed over."""
        step = bisect_right(range(self.num_steps), sample, key=self.sample_of_step) - 1
        is_inside = sample < self.sample_of_step(step) + self.segment_at(step).sequences_per_step
        return step if is_inside else None

    def skipped_before(self, step: int) -> list[range]:
        """Ranges of sequences before `sample_of_step(step)` that no step was given."""
        return [skip.samples for skip in self.skips if skip.after_step <= step]

    def stream_stages(self) -> list[StreamStage]:
        """The stage table of the stream that `sample_of_step` counts in."""
        return [
            StreamStage(
                name=f"stage {number}",
                num_samples=segment.num_samples,
                seq_len=segment.seq_len,
                draws=segment.draws,
                reshuffle=segment.reshuffle,
            )
            for number, segment in enumerate(self.segments, start=1)
        ]


def course_of(pretrain: Pretrain, *, rope_theta: float) -> Course:
    """The course that a recipe's section asks for, its changes applied. `rope_theta` is the model's own rope base."""
    pretrain = pretrain.as_changed()
    skip_steps: dict[int, int] = {}
    for change in pretrain.changes:
        skip_steps[change.after_step] = skip_steps.get(change.after_step, 0) + change.skip_steps
    segments: list[Segment] = []
    skips: list[Skip] = []
    step = sample = 0
    for stage in pretrain.stages:
        rope_theta = rope_theta if stage.rope_theta is None else stage.rope_theta
        last_step = step + stage.tokens // pretrain.global_batch_tokens
        per_step = pretrain.global_batch_tokens // stage.seq_len
        num_samples = (last_step - step) * per_step
        for after_step, skipped in skip_steps.items():
            if skipped and step <= after_step < last_step:
                begins = sample + num_samples - (last_step - after_step) * per_step
                samples = range(begins, begins + skipped * per_step)
                skips.append(Skip(after_step=after_step, samples=samples))
                num_samples += len(samples)
        segments.append(
            Segment(
                first_step=step,
                last_step=last_step,
                batch_tokens=pretrain.global_batch_tokens,
                seq_len=stage.seq_len,
                draws=tuple(
                    Draw(source=draw.source, weight=draw.weight, min_document_tokens=draw.min_document_tokens)
                    for draw in stage.mixture
                ),
                rope_theta=rope_theta,
                first_sample=sample,
                num_samples=num_samples,
                reshuffle=stage.reshuffle,
            )
        )
        step, sample = last_step, sample + num_samples
    schedule = wsd(
        peak_lr=pretrain.optimizer.peak_lr,
        warmup_tokens=pretrain.warmup_tokens,
        total_tokens=pretrain.total_tokens,
        decay_tokens=pretrain.decay_tokens,
        shape=pretrain.decay_shape,
    )
    return Course(segments=tuple(segments), schedule=schedule, peaks=_peaks(pretrain), skips=tuple(skips))


def _peaks(pretrain: Pretrain) -> tuple[Peak, ...]:
    """The peaks in order, one a step at most, each other than the one before."""
    last_said = {0: pretrain.optimizer.peak_lr}
    for change in pretrain.changes:
        if change.peak_lr is not None:
            last_said[change.after_step] = change.peak_lr
    peaks: list[Peak] = []
    for after_step, peak_lr in last_said.items():
        if not peaks or peaks[-1].peak_lr != peak_lr:
            peaks.append(Peak(after_step=after_step, peak_lr=peak_lr))
    return tuple(peaks)
