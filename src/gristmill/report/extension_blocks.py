"""Context extension as blocks of the page: the loss by position before and after, and the map of needles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from markupsafe import Markup

from gristmill.evaluate.extension import Extension, extensions_of
from gristmill.report.blocks import heading, paragraph, table
from gristmill.train.watch.long_context import DIGITS, LongContext, Needles
from gristmill.units import counted


def extension_blocks(lines: Sequence[LongContext]) -> Iterator[Markup]:
    """Of every stage that extended the context; nothing where none did."""
    for found in extensions_of(lines):
        yield heading(f"Context extended from {found.after.old:,} to {found.after.new:,} tokens")
        yield paragraph(found.words)
        if found.spans:
            yield _by_position(found)
        if found.after.needles:
            yield _needles(found.after.needles)


def _by_position(found: Extension) -> Markup:
    rows = [
        (
            f"{span.begin:,} to {span.end - 1:,}",
            f"{span.before:.3f}",
            f"{span.after:.3f}",
            f"{span.difference.value:+.3f}",
            f"{span.difference.low:+.3f} to {span.difference.high:+.3f}" if span.difference.count > 1 else "",
            f"{span.p_adjusted:.2g}",
            span.difference.count,
        )
        for span in found.spans
    ]
    return table(
        f"Loss by position before and after {found.after.stage}, in nats per token of held-out documents of more than {found.after.old:,} tokens. "
        "The interval is over documents, p is Holm's over the rows; grey: not told apart.",
        ("position", "before", "after", "difference", "95 % interval", "p, Holm", "documents"),
        rows,
        numbers=(1, 2, 3, 5, 6),
        grey=[not span.decides for span in found.spans],
    )


def _needles(needles: Sequence[Needles]) -> Markup:
    depths = sorted({cell.depth for cell in needles})
    cells = {(cell.length, cell.depth): f"{cell.right} of {cell.asked}" for cell in needles}
    right, asked = sum(cell.right for cell in needles), sum(cell.asked for cell in needles)
    rows = [
        (f"{length:,}", *(cells[length, depth] for depth in depths))
        for length in sorted({cell.length for cell in needles})
    ]
    return table(
        f"Needles found again: a digit hidden in held-out text, by the length of the text and how deep it lies. {right} of {counted(asked, 'needle')}; "
        f"who guesses finds one in {DIGITS}.",
        ("tokens", *(f"depth {depth:.0%}" for depth in depths)),
        rows,
        numbers=range(1, len(depths) + 1),
    )
