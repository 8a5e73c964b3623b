"""The ledger of a pretraining: how much of each selection was read after so many steps, in which stage, and how much is still to come.

One ledger along the lineage. A course has all stages from the first step on, the extension and every change that an intervention or
a fork brought, and no step of a sibling; skipped sequences are not read and do not count. All of it is a closed form of the stream
(tokens/stream.py), in windows that are really drawn: nothing was logged for it, and it agrees with the trace to the token.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

from gristmill.planning.budget import Reading, Selection, epochs_read
from gristmill.recipe.schema.training import Pretrain
from gristmill.tokens.stages import Use
from gristmill.tokens.stream import Stream
from gristmill.train.course import Course


@dataclass(frozen=True, kw_only=True)
class LedgerRow:
    """One selection. read, planned: tokens by stage, up to the step and up to the end. epochs: how often its documents were read by
    then, by overlapping draws too."""

    selection: Selection
    unique_tokens: int
    read: tuple[int, ...]
    planned: tuple[int, ...]
    epochs: float
    final_epochs: float
    warn_epochs: float
    max_epochs: float

    @property
    def read_tokens(self) -> int:
        """Tokens that all stages read so far."""
        return sum(self.read)

    @property
    def left_tokens(self) -> int:
        """Tokens that the stages still read."""
        return sum(self.planned) - self.read_tokens


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """Of one pretraining, at any step."""

    course: Course
    stream: Stream
    pretrain: Pretrain
    _known: dict[int, list[Use]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def rows(self, step: int) -> list[LedgerRow]:
        """Every selection that a stage draws, when `step` steps are done."""
        ends = [segment.last_step for segment in self.course.segments]
        so_far = self._by_stage([min(step, end) for end in ends])
        planned = self._by_stage(ends)
        epochs, final = self.epochs(step), self.epochs(self.course.num_steps)
        unique = {_selection(use): use.unique_tokens for use in self.uses(step)}
        return [
            LedgerRow(
                selection=selection,
                unique_tokens=tokens,
                read=tuple(stage.get(selection, 0) for stage in so_far),
                planned=tuple(stage.get(selection, 0) for stage in planned),
                epochs=epochs[selection],
                final_epochs=final[selection],
                warn_epochs=self.pretrain.warn_epochs,
                max_epochs=self.max_epochs(selection),
            )
            for selection, tokens in unique.items()
        ]

    def uses(self, step: int) -> list[Use]:
        """What was drawn of each selection at each length when `step` steps are done, without what was passed over."""
        if step not in self._known:
            sample = self.course.sample_of_step(step)
            self._known[step] = self.stream.uses_before(sample, skipped=[skip.samples for skip in self.course.skips])
        return self._known[step]

    def epochs(self, step: int) -> dict[Selection, float]:
        """How often the documents of each selection were read when `step` steps are done."""
        uses = self.uses(step)
        drawn = [Reading(_selection(use), use.seq_len, use.tokens_drawn) for use in uses]
        return epochs_read(drawn, {_selection(use): use.unique_tokens for use in uses})

    def max_epochs(self, selection: Selection) -> float:
        """The cap that the recipe sets for a selection."""
        allowed = self.pretrain.allow_epochs.get(selection.source)
        return self.pretrain.max_epochs if allowed is None else max(allowed.max, self.pretrain.max_epochs)

    def step_beyond(self, selection: Selection, epochs: float) -> int | None:
        """After how many steps the documents were read more than so often; None if they never are."""
        steps = range(self.course.num_steps + 1)
        found = bisect_left(steps, True, key=lambda step: self.epochs(step)[selection] > epochs)
        return found if found < len(steps) else None

    def _by_stage(self, ends: Sequence[int]) -> list[dict[Selection, int]]:
        """Tokens of each selection in each stage, of which the steps before `ends` are done."""
        found = []
        for segment, end in zip(self.course.segments, ends, strict=True):
            tokens: dict[Selection, int] = {}
            for sign, step in ((1, max(end, segment.first_step)), (-1, segment.first_step)):
                for use in self.uses(step):
                    selection = _selection(use)
                    tokens[selection] = tokens.get(selection, 0) + sign * use.tokens_drawn
            found.append(tokens)
        return found


def _selection(use: Use) -> Selection:
    return Selection(use.source, use.min_document_tokens)
