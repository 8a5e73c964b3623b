"""Whether a context extension worked: the loss at each position before and after it, on the same documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from gristmill.evaluate.compare import LEVEL
from gristmill.statistics import PairedDifference, holm, paired_difference
from gristmill.train.watch.long_context import LongContext


@dataclass(frozen=True, kw_only=True)
class Span:
    """Positions from `begin` up to `end`, without it. Nats per token; difference: after less before, by document; p_adjusted: Holm over spans."""

    begin: int
    end: int
    before: float
    after: float
    tokens: int
    difference: PairedDifference
    p_adjusted: float

    @property
    def decides(self) -> bool:
        """Whether before and after are told apart."""
        return self.p_adjusted < LEVEL


@dataclass(frozen=True, kw_only=True)
class Extension:
    """What one stage that extends the context did. before: None where nothing was read before it."""

    before: LongContext | None
    after: LongContext
    spans: Sequence[Span]
    beyond: Span | None

    @property
    def words(self) -> str:
        """The verdict, at positions beyond the old length."""
        old, stage = self.after.old, self.after.stage
        if not self.after.documents:
            return f"No held-out document is longer than {old:,} tokens, so what {stage} did beyond them is not known."
        if self.before is None or self.beyond is None:
            return f"What the model made of positions beyond {old:,} before {stage} was not measured."
        found = self.beyond
        told = f"At positions beyond {old:,}, the old length, the loss was {found.before:.3f} nats per token before {stage} and is {found.after:.3f} after it"
        if not found.decides:
            return f"{told}: no difference can be told from {found.difference.count} documents."
        low, high = sorted((abs(found.difference.low), abs(found.difference.high)))
        which = "less" if found.difference.value < 0 else "more"
        return f"{told}: {abs(found.difference.value):.3f} {which} ({low:.3f} to {high:.3f})."


def extensions_of(lines: Sequence[LongContext]) -> list[Extension]:
    """Each stage that extended the context, in order: `lines` are those of positions.jsonl."""
    before = {(line.old, line.new, line.stage): line for line in lines if not line.is_after}
    return [_judged(before.get((line.old, line.new, line.stage)), line) for line in lines if line.is_after]


def _judged(before: LongContext | None, after: LongContext) -> Extension:
    if before is None or not after.documents or len(before.documents) != len(after.documents):
        return Extension(before=before, after=after, spans=(), beyond=None)
    places = [(place,) for place in range(len(after.edges) - 1)]
    new = tuple(place for place, (begin, _) in enumerate(pairwise(after.edges)) if begin >= after.old)
    spans = [_span(before, after, chosen) for chosen in places if any(_tokens(after, chosen))]
    adjusted = holm([span.difference.p_value for span in spans])
    return Extension(
        before=before,
        after=after,
        spans=[_with_p(span, p) for span, p in zip(spans, adjusted, strict=True)],
        beyond=_span(before, after, new),
    )


def _span(before: LongContext, after: LongContext, places: Sequence[int]) -> Span:
    tokens = _tokens(after, places)
    kept = [number for number, count in enumerate(tokens) if count]
    sizes = [tokens[number] for number in kept]
    nats = [
        [sum(line.documents[number].nats[place] for place in places) for number in kept] for line in (before, after)
    ]
    difference = paired_difference(nats[1], nats[0], sizes=sizes)
    return Span(
        begin=after.edges[places[0]],
        end=after.edges[places[-1] + 1],
        before=sum(nats[0]) / sum(sizes),
        after=sum(nats[1]) / sum(sizes),
        tokens=sum(sizes),
        difference=difference,
        p_adjusted=difference.p_value,
    )


def _tokens(line: LongContext, places: Sequence[int]) -> list[int]:
    return [sum(document.tokens[place] for place in places) for document in line.documents]


def _with_p(span: Span, p_adjusted: float) -> Span:
    return Span(**{**vars(span), "p_adjusted": p_adjusted})
