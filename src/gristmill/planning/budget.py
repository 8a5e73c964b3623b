"""How often each document is read: tokens asked of every source, over the tokens that one pass through its windows reads.

A *selection* is what one entry of a mixture draws from: a source, or the documents of a source that have at least so many
tokens. Selections of one source overlap, so exposure is counted per selection of documents, not per entry:

    epochs of T = sum over all draws so far of  asked of S / once(T)   if S lies within T: all of S is part of T
                                                asked of S / once(S)   if T lies within S: S is read evenly

The stream draws whole windows of the stage's seq_len, so once(S) is windows x seq_len of that draw: of 191 tokens, windows of
100 read the first 100 again and again, and 900 tokens asked are nine epochs, not 900 / 191.

The same arithmetic serves `plan`, the check after tokenize, and changes in the middle of a run. What is asked of a source in
a stage is exactly weight × tokens; the stream apportions it to within one sequence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_FLOOR, ROUND_HALF_EVEN, Context, Decimal
from typing import Literal, NamedTuple

from gristmill.errors import RecipeError
from gristmill.recipe.schema.section import MAX_WEIGHT_DECIMALS
from gristmill.recipe.schema.training import Pretrain, Stage
from gristmill.units import counted

Verdict = Literal["unused", "fine", "repeated", "allowed", "too many", "too short", "unknown"]


class Selection(NamedTuple):
    """What a draw reads: all documents of a source (None), or those of at least `min_document_tokens`."""

    source: str
    min_document_tokens: int | None = None

    def __str__(self) -> str:
        return (
            self.source if self.min_document_tokens is None else f"{self.source} ≥ {self.min_document_tokens:,} tokens"
        )


class Reading(NamedTuple):
    """So many tokens of a selection, read in windows of `seq_len`."""

    selection: Selection
    seq_len: int
    tokens: int


@dataclass(frozen=True, kw_only=True)
class SelectionBudget:
    """One selection along the stages.

    asked_tokens: per stage. unique_tokens: None when it is not known yet; unique_at_most is then what the whole source has.
    epochs: how often its documents were read by the end of each stage, by this and every overlapping draw. Where something is
    unknown they are the least that it can be, and is_lower_bound says so; empty when nothing at all is known.
    too_short_for: the first stage that asks for it and whose seq_len is longer than all of it together.
    """

    selection: Selection
    asked_tokens: tuple[int, ...]
    unique_tokens: int | None
    unique_at_most: int | None
    epochs: tuple[float, ...]
    is_lower_bound: bool
    too_short_for: str | None
    warn_epochs: float
    max_epochs: float
    allowed_because: str | None

    @property
    def total_tokens(self) -> int:
        """Tokens asked of this selection by all stages."""
        return sum(self.asked_tokens)

    @property
    def verdict(self) -> Verdict:
        """Against the recipe's limits, after the last stage."""
        if not self.total_tokens:
            return "unused"
        if self.too_short_for is not None:
            return "too short"
        if not self.epochs:
            return "unknown"
        found = epoch_verdict(
            self.epochs[-1],
            warn_epochs=self.warn_epochs,
            max_epochs=self.max_epochs,
            is_allowed=self.allowed_because is not None,
        )
        return "unknown" if self.is_lower_bound and found != "too many" else found


def epoch_verdict(epochs: float, *, warn_epochs: float, max_epochs: float, is_allowed: bool) -> Verdict:
    """What so many epochs are against the limits; is_allowed: the recipe says why this source may be read more often."""
    if epochs > max_epochs:
        return "too many"
    if epochs <= warn_epochs:
        return "fine"
    return "allowed" if is_allowed else "repeated"


def num_windows(num_tokens: int, seq_len: int) -> int:
    """Whole windows of `seq_len` inputs in so many tokens, the last one's target included; the rest is never drawn."""
    return max(0, (num_tokens - 1) // seq_len)


def asked_readings(stages: Sequence[Stage]) -> list[list[Reading]]:
    """What each stage asks of each selection."""
    return [
        [
            Reading(
                selection=Selection(draw.source, draw.min_document_tokens),
                seq_len=stage.seq_len,
                tokens=int((Decimal(repr(draw.weight)) * stage.tokens).quantize(Decimal(1), ROUND_HALF_EVEN)),
            )
            for draw in stage.mixture
        ]
        for stage in stages
    ]


def asked_tokens(stages: Sequence[Stage]) -> dict[Selection, tuple[int, ...]]:
    """Tokens that each stage asks of each selection, in the order of first use."""
    asked: dict[Selection, list[int]] = {}
    for index, readings in enumerate(asked_readings(stages)):
        for reading in readings:
            asked.setdefault(reading.selection, [0] * len(stages))[index] = reading.tokens
    return {selection: tuple(row) for selection, row in asked.items()}


def token_budget(
    pretrain: Pretrain,
    sources: Sequence[str],
    unique_tokens: Mapping[Selection, int],
    *,
    drawn_before: Sequence[Reading] = (),
) -> list[SelectionBudget]:
    """The budget of every selection that the stages draw, and of every one of `sources` that none of them draws.

    unique_tokens: training tokens of each selection; absent entries are unknown. drawn_before: what the lineage read before
    the first stage.
    """
    stages = pretrain.as_changed().stages
    asked = asked_tokens(stages)
    drawn = {selection.source for selection in asked}
    unused = [Selection(name) for name in sources if name not in drawn]
    order = list(dict.fromkeys(selection.source for selection in asked))
    rows = []
    for selection in [*sorted(asked, key=lambda selection: order.index(selection.source)), *unused]:
        allowed = pretrain.allow_epochs.get(selection.source)
        epochs, is_lower_bound = _epochs_along_stages(
            selection, asked_readings(stages), unique_tokens, drawn_before=drawn_before
        )
        rows.append(
            SelectionBudget(
                selection=selection,
                asked_tokens=asked.get(selection, (0,) * len(stages)),
                unique_tokens=unique_tokens.get(selection),
                unique_at_most=_at_most(selection, unique_tokens),
                epochs=epochs,
                is_lower_bound=is_lower_bound,
                too_short_for=_too_short_for(selection, pretrain, unique_tokens),
                warn_epochs=pretrain.warn_epochs,
                max_epochs=max(allowed.max, pretrain.max_epochs) if allowed else pretrain.max_epochs,
                allowed_because=allowed.reason if allowed else None,
            )
        )
    return rows


def check_epochs(
    pretrain: Pretrain,
    sources: Sequence[str],
    unique_tokens: Mapping[Selection, int],
    *,
    drawn_before: Sequence[Reading] = (),
) -> list[SelectionBudget]:
    """The budget of `token_budget`, or the RecipeError of `check_budget`."""
    rows = token_budget(pretrain, sources, unique_tokens, drawn_before=drawn_before)
    check_budget(rows, pretrain)
    return rows


def check_budget(rows: Sequence[SelectionBudget], pretrain: Pretrain) -> None:
    """Raise RecipeError when documents would be read more often than the recipe's cap.

    Refused too: a selection without a single window. The error names each source and the first stage that passes the cap,
    with the numbers, how many tokens would fit, and the line that would allow it. Where unique tokens are unknown the least
    possible number of epochs counts; check again when they are counted.
    """
    problems = [_explain(row, pretrain) for row in rows if row.epochs and row.epochs[-1] > row.max_epochs]
    problems += [_explain_too_short(row, pretrain) for row in rows if row.verdict == "too short"]
    if problems:
        raise RecipeError("\n".join(problems))


def epochs_read(drawn: Sequence[Reading], unique_tokens: Mapping[Selection, int]) -> dict[Selection, float]:
    """How often the documents of each selection were read when so much was drawn, overlapping draws included."""
    selections = dict.fromkeys(reading.selection for reading in drawn)
    found = {selection: _epochs_along_stages(selection, [drawn], unique_tokens)[0] for selection in selections}
    return {selection: epochs[-1] for selection, epochs in found.items() if epochs}


def _epochs_along_stages(
    selection: Selection,
    stages: Sequence[Sequence[Reading]],
    unique_tokens: Mapping[Selection, int],
    *,
    drawn_before: Sequence[Reading] = (),
) -> tuple[tuple[float, ...], bool]:
    """Epochs of the selection's documents after each stage, and whether they are only a lower bound."""
    if all(reading.selection != selection for readings in stages for reading in readings):
        return (), False
    epochs = [0.0]
    is_lower_bound = False
    for readings in (drawn_before, *stages):
        epochs.append(epochs[-1])
        for reading in readings:
            if reading.selection.source == selection.source:
                outer = selection if _lies_within(reading.selection, selection) else reading.selection
                windows = num_windows(_at_most(outer, unique_tokens) or 0, reading.seq_len)
                if not windows:
                    return (), False
                epochs[-1] += reading.tokens / (windows * reading.seq_len)
                is_lower_bound |= outer not in unique_tokens
    return tuple(epochs[2:]), is_lower_bound


def _too_short_for(selection: Selection, pretrain: Pretrain, unique_tokens: Mapping[Selection, int]) -> str | None:
    """The first stage that asks for the selection and finds not one window in it."""
    unique = _at_most(selection, unique_tokens)
    for stage, readings in zip(pretrain.stages, asked_readings(pretrain.as_changed().stages)):
        asks = any(reading.selection == selection for reading in readings)
        if asks and unique is not None and not num_windows(unique, stage.seq_len):
            return stage.name
    return None


def _at_most(selection: Selection, unique_tokens: Mapping[Selection, int]) -> int | None:
    """The selection's unique tokens; where they are unknown, those of the whole source."""
    return unique_tokens.get(selection, unique_tokens.get(Selection(selection.source)))


def _lies_within(inner: Selection, outer: Selection) -> bool:
    """True when every document of `inner` belongs to `outer` (same source)."""
    return (inner.min_document_tokens or 0) >= (outer.min_document_tokens or 0)


def _explain(row: SelectionBudget, pretrain: Pretrain) -> str:
    stages = pretrain.stages
    unique = row.unique_at_most or 0
    index = next(position for position, epochs in enumerate(row.epochs) if epochs > row.max_epochs)
    stage, before = stages[index], row.epochs[index - 1] if index else 0.0
    once = num_windows(unique, stage.seq_len) * stage.seq_len
    read = round((row.epochs[index] - before) * once)
    fits = max(0, math.floor((row.max_epochs - before) * once))
    needed = math.ceil(row.epochs[-1] * 10) / 10
    return (
        f"pretrain.stages[{stage.name}]: {row.selection} would be read {row.epochs[index]:.2f} times; the cap is "
        f"{row.max_epochs:g} epochs.\n"
        f"  This stage reads {counted(read, 'token')} of it, all stages ask {row.total_tokens:,}; it has {_has(row)}, of which "
        f"windows of {stage.seq_len:,} read {once:,}.\n"
        f"  This stage may read {counted(fits, 'token')} of it (a weight of {_rounded_down(fits / stage.tokens)} instead of "
        f"{read / stage.tokens:.3g}): lower its weight, add text, or allow it under pretrain:\n"
        f'    allow_epochs: {{{row.selection.source}: {{max: {needed:g}, reason: "why repeating it is worth it"}}}}'
    )


def _rounded_down(share: float) -> str:
    """A weight of three digits, at most 1, that is not above the share."""
    digits = Context(prec=3, rounding=ROUND_FLOOR).create_decimal(repr(min(1.0, share)))
    return f"{digits.quantize(Decimal(1).scaleb(-MAX_WEIGHT_DECIMALS), ROUND_FLOOR).normalize():f}"


def _explain_too_short(row: SelectionBudget, pretrain: Pretrain) -> str:
    stage = next(stage for stage in pretrain.stages if stage.name == row.too_short_for)
    if not row.unique_at_most:
        return (
            f"the stages ask {counted(row.total_tokens, 'token')} of {row.selection}, which has none.\n"
            "  Take it out of the mixtures, or lower min_document_tokens."
        )
    return (
        f"pretrain.stages[{stage.name}]: {row.selection} has {_has(row)}; one window of seq_len {stage.seq_len:,} takes "
        f"{stage.seq_len + 1:,}.\n"
        "  Take it out of the mixture, shorten the stage's seq_len, lower min_document_tokens, or add text."
    )


def _has(row: SelectionBudget) -> str:
    return f"{'at most ' if row.unique_tokens is None else ''}{counted(row.unique_at_most or 0, 'unique token')}"
