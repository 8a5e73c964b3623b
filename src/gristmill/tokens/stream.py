"""The order of training data: a pure function of (seed, stage table, index of the sequence).

    index ──► stage ──► source, by the mixture's schedule ──► j, how often that source was drawn before, over all stages
          ──► epoch j // windows, window permutation(seed, source, selection, seq_len, epoch)[j % windows] ──► tokens

A stage may reshuffle: from its first draw of a source on, what is left of the epoch comes in another order, and so do all later epochs.
What was read before does not come again sooner than it would have.

So there is no state to save but one integer; a run that stops and resumes, runs on other ranks, or branches off meets the
same sequences; and how much of each source was drawn is known in closed form. Changing stages that lie ahead leaves all that
lies behind as it was. A new seq_len or selection of a source begins a permutation of its own.

Attention documents inside a window: the eos id that ends document k is the first token of the segment of document k + 1, so
every token has a target and text made from nothing begins with eos. Positions restart in each segment, and in each window.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gristmill.errors import DataError, RecipeError
from gristmill.tokens.batch import Batch, concatenate
from gristmill.tokens.permutation import key_of, left_size, mix, permute, unpermute
from gristmill.tokens.shards import TokenShard
from gristmill.tokens.stages import Draw, Origin, StreamStage, Use, stage_mixture
from gristmill.tokens.window_batch import WindowBatches
from gristmill.tokens.windows import Selection

# Of the order and the batches: this file, mixture, windows, window_batch, permutation, batch.
VERSION = 1

__all__ = ["Draw", "Origin", "Stream", "StreamStage", "Use"]

_BLOCK = 4096  # sequences resolved together
NEVER = -1  # of a lane before any reshuffle


@dataclass(frozen=True, eq=False)
class _Place:
    """Resolved sequences of one stage, one array element each: lane (a row of the lane table), epoch and window."""

    lane: NDArray[np.int64]
    epoch: NDArray[np.int64]
    window: NDArray[np.int64]


class _Rows(NamedTuple):
    """The same as it is read: lane, first token of the window in its selection, number of the source."""

    lane: list[int]
    first: list[int]
    source: list[int]


class Stream:
    """All sequences of a run. A lane is one draw of one stage; the arrays below have one element per lane."""

    def __init__(self, shards: Mapping[str, TokenShard], stages: Sequence[StreamStage], *, seed: int) -> None:
        """`shards` by source name; its order numbers the sources in `Batch.source_N`.

        Raises RecipeError for a stage that cannot be drawn and DataError for shards of different tokenizers or too few tokens.
        """
        _check_shards(shards)
        self.source_names = tuple(shards)
        self.stages = tuple(stages)
        self._shards = shards
        self._starts = [0]
        for stage in self.stages:
            self._starts.append(self._starts[-1] + stage.num_samples)
        self.num_samples = self._starts[-1]
        self._mixtures = [stage_mixture(stage) for stage in self.stages]
        self._first_lane: list[int] = []
        self._lane_draw: list[tuple[int, Draw]] = []
        self._selections: dict[tuple[str, int | None], Selection] = {}
        self._lane_selection: list[Selection] = []
        self._block: tuple[int, int, _Rows] | None = None
        first = shards[self.source_names[0]]
        self._batches = WindowBatches(first.tokens.dtype, first.eos_id)
        keys, windows, before, sources, since, keys_since = [], [], [], [], [], []
        drawn: dict[tuple[str, int | None, int], int] = {}
        reshuffled: dict[tuple[str, int | None, int], int] = {}
        first_reshuffled, reshuffle = _reshuffle_of(self.stages)
        for number, (stage, mixture) in enumerate(zip(self.stages, self._mixtures, strict=True)):
            self._first_lane.append(len(self._lane_draw))
            counts = mixture.counts_before(stage.num_samples)
            for place, draw in enumerate(stage.draws):
                selection = self._select(stage, draw)
                same = (draw.source, draw.min_document_tokens, stage.seq_len)
                keys.append(key_of("window order", seed, *same))
                windows.append(selection.num_windows(stage.seq_len))
                before.append(drawn.get(same, 0))
                if number >= first_reshuffled:
                    reshuffled.setdefault(same, before[-1])
                since.append(reshuffled.get(same, NEVER))
                keys_since.append(key_of("reshuffled order", seed, reshuffle, *same))
                sources.append(self.source_names.index(draw.source))
                drawn[same] = before[-1] + counts[place]
                self._lane_draw.append((number, draw))
                self._lane_selection.append(selection)
        self._key = np.array(keys, dtype=np.uint64)
        self._windows = np.array(windows, dtype=np.int64)
        self._left = np.array([left_size(size) for size in windows], dtype=np.uint64)
        self._before = np.array(before, dtype=np.int64)
        self._source = np.array(sources, dtype=np.int16)
        self._since = np.array(since, dtype=np.int64)
        self._key_since = np.array(keys_since, dtype=np.uint64)

    # ---- batches

    def sequences(self, start: int, stop: int) -> Batch:
        """Sequences [start, stop) of the run as one flat batch; they may lie in several stages."""
        if not 0 <= start < stop <= self.num_samples:
            raise IndexError(f"sequences {start} to {stop} of a stream of {self.num_samples}")
        batches = []
        while start < stop:
            stage = self.stage_at(start)
            until = min(stop, self._starts[stage + 1])
            batches.append(self._batch(stage, start, until))
            start = until
        return batches[0] if len(batches) == 1 else concatenate(batches)

    def batch_at(self, sample: int, global_batch_tokens: int, *, rank: int = 0, world_size: int = 1) -> Batch:
        """This rank's part of the step whose first sequence is `sample`; the ranks' parts in order are the one-rank batch.

        For runs whose sequence index and step have come apart (skipped data); else `batch`.
        """
        count = self._sequences_per_step(self.stage_at(sample), global_batch_tokens)
        if count % world_size:
            raise RecipeError(
                f"global_batch_tokens {global_batch_tokens} is {count} sequences, which {world_size} ranks cannot share "
                "equally. Use a number of ranks that divides it, or change global_batch_tokens."
            )
        share = count // world_size
        return self.sequences(sample + rank * share, sample + (rank + 1) * share)

    def batch(self, step: int, global_batch_tokens: int, rank: int = 0, world_size: int = 1) -> Batch:
        """This rank's part of step `step` (from 0): global_batch_tokens / world_size tokens."""
        sample = self.sample_at(step, global_batch_tokens)
        return self.batch_at(sample, global_batch_tokens, rank=rank, world_size=world_size)

    # ---- closed forms

    def stage_at(self, sample: int) -> int:
        """The number of the stage that sequence `sample` belongs to."""
        if not 0 <= sample < self.num_samples:
            raise IndexError(f"sequence {sample} of a stream of {self.num_samples}")
        return bisect_right(self._starts, sample) - 1

    def num_steps(self, global_batch_tokens: int) -> int:
        """Steps in the whole run. Raises RecipeError unless every stage is a whole number of steps."""
        return sum(self._steps_of(stage, global_batch_tokens) for stage in range(len(self.stages)))

    def sample_at(self, step: int, global_batch_tokens: int) -> int:
        """The first sequence of step `step`; for the number of steps itself, `num_samples`."""
        left = step
        for stage in range(len(self.stages)):
            steps = self._steps_of(stage, global_batch_tokens)
            if left < steps:
                return self._starts[stage] + left * self._sequences_per_step(stage, global_batch_tokens)
            left -= steps
        if left:
            raise IndexError(f"step {step} of a stream of {step - left} steps")
        return self.num_samples

    def uses_before(self, sample: int, *, skipped: Sequence[range] = ()) -> list[Use]:
        """What was drawn in all sequences before `sample` but those in `skipped` (ranges that were passed over), per (source,
        selection, seq_len)."""
        drawn = self._drawn_before(sample)
        for passed in skipped:
            drawn = drawn - self._drawn_before(min(sample, passed.stop)) + self._drawn_before(min(sample, passed.start))
        tokens: dict[tuple[str, int | None, int], int] = {}
        for (stage, draw), count in zip(self._lane_draw, drawn.tolist(), strict=True):
            same = (draw.source, draw.min_document_tokens, self.stages[stage].seq_len)
            tokens[same] = tokens.get(same, 0) + count
        return [
            Use(
                source=source,
                min_document_tokens=limit,
                seq_len=seq_len,
                tokens_drawn=count,
                unique_tokens=self._selections[source, limit].num_tokens,
            )
            for (source, limit, seq_len), count in tokens.items()
        ]

    def describe(self, step: int, global_batch_tokens: int) -> list[Origin]:
        """Where each sequence of a step comes from, in the order of the one-rank batch."""
        start = self.sample_at(step, global_batch_tokens)
        return self.origins(start, start + self._sequences_per_step(self.stage_at(start), global_batch_tokens))

    def origins(self, start: int, stop: int) -> list[Origin]:
        """Where sequences [start, stop) come from. Documents that give only a window's last target are not listed."""
        found: list[Origin] = []
        for sample in range(start, stop):
            stage = self.stage_at(sample)
            place = self._locate(stage, np.array([sample - self._starts[stage]]))
            draw, seq_len = self._lane_draw[int(place.lane[0])][1], self.stages[stage].seq_len
            window = int(place.window[0])
            parts = self._lane_selection[int(place.lane[0])].parts(window * seq_len, seq_len)
            found.append(
                Origin(
                    sample=sample,
                    stage=self.stages[stage].name,
                    source=draw.source,
                    epoch=int(place.epoch[0]),
                    window=window,
                    parts=tuple(parts),
                )
            )
        return found

    def sequences_of(self, source: str, document: int) -> list[int]:
        """All sequences with tokens of a document (a row of the source's shard), ascending, by the inverse of each permutation.

        A sequence that has a token of it only as the last target is not among them.
        """
        found = []
        for lane, (stage, draw) in enumerate(self._lane_draw):
            tokens = self._lane_selection[lane].place_of(document) if draw.source == source else None
            if tokens is None:
                continue
            seq_len, place = self.stages[stage].seq_len, lane - self._first_lane[stage]
            first, num_windows = int(self._before[lane]), int(self._windows[lane])
            end = first + self._mixtures[stage].count_before(place, self.stages[stage].num_samples)
            windows = np.arange(tokens[0] // seq_len, min((tokens[1] - 1) // seq_len + 1, num_windows))
            for epoch in range(first // num_windows, (end - 1) // num_windows + 1):
                turns = epoch * num_windows + self._turns(lane, epoch, windows)
                found += [
                    self._starts[stage] + self._mixtures[stage].place_of(place, turn - first)
                    for turn in turns.tolist()
                    if first <= turn < end
                ]
        return sorted(found)

    # ---- inside

    def _turns(self, lane: int, epoch: int, windows: NDArray[np.int64]) -> NDArray[np.int64]:
        """When these windows of a lane come within an epoch."""
        same = np.full(len(windows), lane, dtype=np.int64)
        epochs = np.full(len(windows), epoch, dtype=np.int64)
        turns = unpermute(
            windows.astype(np.uint64),
            size=self._windows[same].astype(np.uint64),
            left=self._left[same],
            key=mix(self._key[same] ^ mix(epochs.astype(np.uint64))),
        )
        return self._reshuffled(same, epochs, turns.astype(np.int64), unpermute)

    def _drawn_before(self, sample: int) -> NDArray[np.int64]:
        """Tokens of each lane in all sequences before `sample`."""
        drawn: list[int] = []
        for number, (stage, mixture) in enumerate(zip(self.stages, self._mixtures, strict=True)):
            inside = min(max(sample - self._starts[number], 0), stage.num_samples)
            drawn += [count * stage.seq_len for count in mixture.counts_before(inside)]
        return np.array(drawn, dtype=np.int64)

    def _locate(self, stage: int, index: NDArray[np.int64]) -> _Place:
        """`index` counts sequences from the stage's start."""
        mixture = self._mixtures[stage]
        lane = mixture.source_at(index).astype(np.int64) + self._first_lane[stage]
        epoch, turn = np.divmod(self._before[lane] + mixture.draw_at(index), self._windows[lane])
        turn = self._reshuffled(lane, epoch, turn, permute)
        window = permute(
            turn.astype(np.uint64),
            size=self._windows[lane].astype(np.uint64),
            left=self._left[lane],
            key=mix(self._key[lane] ^ mix(epoch.astype(np.uint64))),
        )
        return _Place(lane=lane, epoch=epoch, window=window.astype(np.int64))

    def _reshuffled(
        self,
        lane: NDArray[np.int64],
        epoch: NDArray[np.int64],
        turn: NDArray[np.int64],
        move: Callable[..., NDArray[np.uint64]],
    ) -> NDArray[np.int64]:
        """The turns of an epoch with those that a reshuffle reaches moved among each other, by `permute`, or back by `unpermute`."""
        begun, first = np.divmod(self._since[lane], self._windows[lane])
        first = np.where(epoch == begun, first, 0)  # turns of this epoch that came before the reshuffle
        is_moved = (self._since[lane] != NEVER) & (epoch >= begun) & (turn >= first)
        if not is_moved.any():
            return turn
        lane, epoch, first = lane[is_moved], epoch[is_moved], first[is_moved]
        left = self._windows[lane] - first
        sides = {size: left_size(size) for size in np.unique(left).tolist()}
        moved = move(
            (turn[is_moved] - first).astype(np.uint64),
            size=left.astype(np.uint64),
            left=np.array([sides[size] for size in left.tolist()], dtype=np.uint64),
            key=mix(self._key_since[lane] ^ mix(epoch.astype(np.uint64))),
        )
        found = turn.copy()
        found[is_moved] = first + moved.astype(np.int64)
        return found

    def _rows(self, stage: int, start: int, stop: int) -> _Rows:
        """Sequences [start, stop) of one stage, kept in blocks because resolving one batch at a time is expensive."""
        start, stop = start - self._starts[stage], stop - self._starts[stage]
        rows = _Rows([], [], [])
        for block in range(start // _BLOCK, (stop - 1) // _BLOCK + 1):
            if self._block is None or self._block[:2] != (stage, block):
                place = self._locate(stage, np.arange(block * _BLOCK, (block + 1) * _BLOCK))
                firsts = place.window * self.stages[stage].seq_len
                found = _Rows(place.lane.tolist(), firsts.tolist(), self._source[place.lane].tolist())
                self._block = stage, block, found
            inside = slice(max(0, start - block * _BLOCK), min(_BLOCK, stop - block * _BLOCK))
            for all_of_them, own in zip(rows, self._block[2]):
                all_of_them += own[inside]
        return rows

    def _batch(self, stage: int, start: int, stop: int) -> Batch:
        """Sequences [start, stop), all of one stage."""
        seq_len, selections = self.stages[stage].seq_len, self._lane_selection
        rows = self._rows(stage, start, stop)
        windows = [selections[lane].read(first, seq_len + 1) for lane, first in zip(rows.lane, rows.first)]
        return self._batches.make(windows, seq_len, np.array(rows.source, dtype=np.int16))

    def _select(self, stage: StreamStage, draw: Draw) -> Selection:
        """The selection a draw reads, made once. Raises when the source is unknown or has not one window."""
        if draw.source not in self._shards:
            raise RecipeError(
                f"stage {stage.name!r} draws from source {draw.source!r}, expected one of {', '.join(self._shards)}."
            )
        key = (draw.source, draw.min_document_tokens)
        if key not in self._selections:
            self._selections[key] = Selection(self._shards[draw.source], min_document_tokens=draw.min_document_tokens)
        selection = self._selections[key]
        if selection.num_windows(stage.seq_len) == 0:
            chosen = (
                ""
                if draw.min_document_tokens is None
                else f" in documents of {draw.min_document_tokens} tokens or more"
            )
            raise DataError(
                f"stage {stage.name!r}: source {draw.source!r} has {selection.num_tokens} tokens{chosen}, one window of seq_len "
                f"{stage.seq_len} takes {stage.seq_len + 1}. Use a shorter seq_len, a lower limit, or more text."
            )
        return selection

    def _sequences_per_step(self, stage: int, global_batch_tokens: int) -> int:
        seq_len = self.stages[stage].seq_len
        if global_batch_tokens < seq_len or global_batch_tokens % seq_len:
            raise RecipeError(
                f"global_batch_tokens is {global_batch_tokens}, expected a multiple of seq_len {seq_len} of stage "
                f"{self.stages[stage].name!r}."
            )
        return global_batch_tokens // seq_len

    def _steps_of(self, stage: int, global_batch_tokens: int) -> int:
        count = self._sequences_per_step(stage, global_batch_tokens)
        steps, rest = divmod(self.stages[stage].num_samples, count)
        if rest:
            raise RecipeError(
                f"stage {self.stages[stage].name!r} has {self.stages[stage].num_samples} sequences, expected a multiple of the "
                f"{count} in a step of {global_batch_tokens} tokens. Make its budget a whole number of steps."
            )
        return steps


def _reshuffle_of(stages: Sequence[StreamStage]) -> tuple[int, int | None]:
    """(number of the stage, its reshuffle) of the stage that reshuffles; behind the last stage where none does. Raises RecipeError for two."""
    found = [(number, stage.reshuffle) for number, stage in enumerate(stages) if stage.reshuffle is not None]
    if len(found) > 1:
        names = ", ".join(repr(stages[number].name) for number, _ in found)
        raise RecipeError(f"stages {names} reshuffle, expected one at most: the order of the first holds to the end.")
    return found[0] if found else (len(stages), None)


def _check_shards(shards: Mapping[str, TokenShard]) -> None:
    """One tokenizer for all: ids of different vocabularies must never meet in a batch."""
    if not shards:
        raise DataError("the stream has no sources; it needs at least one token shard.")
    first_name, first = next(iter(shards.items()))
    for name, shard in shards.items():
        if shard.facts.tokenizer_sha256 != first.facts.tokenizer_sha256 or shard.eos_id != first.eos_id:
            raise DataError(
                f"source {name!r} was tokenized by {shard.facts.tokenizer_sha256[:12]}, source {first_name!r} by "
                f"{first.facts.tokenizer_sha256[:12]}. Run the tokenize step again for both."
            )
