"""How good the model is, with the evidence, in a sentence or two: the beginning of the page and of the card."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from gristmill.evaluate.outputs import YARDSTICK, Figure
from gristmill.report.facts import Facts
from gristmill.select.outputs import MOST_SEEN
from gristmill.train.outputs import BITS, CHAT_STEPS
from gristmill.units import counted, in_bytes


def verdict(facts: Facts) -> str:
    """Prediction of held-out text, then held-out items of the last model; items that were trained on say nothing about quality."""
    last = next((name for name in reversed(CHAT_STEPS) if facts.has(name)), "pretrain")
    held_out = [row for row in facts.results if row.kind == "held_out"]
    text = [row for row in held_out if row.metric == BITS]
    items = list({row.task: row for row in reversed(held_out) if row.metric != BITS and row.model == last}.values())[
        ::-1
    ]
    parts = [
        _of_text(
            text, "It predicts" if last == "pretrain" else "Before fine-tuning it predicted", facts.seen if text else {}
        ),
        _of_items(items),
    ]
    return " ".join(part for part in parts if part) or "How good it is was not measured: the recipe evaluates nothing."


def _of_text(rows: Sequence[Figure], it_predicts: str, seen: Mapping[str, float]) -> str:
    """The pretrained model against the compressor, on the sources measured for both whose held-out text is new."""
    measured = {row.task: row for row in rows if row.model == "pretrain"}
    if not measured:
        return ""
    known = {source: seen[source] for source in measured if seen.get(source, 0.0) > MOST_SEEN}
    shares = ", ".join(f"{source} {share:.0%}" for source, share in known.items())
    ours = {source: row for source, row in measured.items() if source not in known}
    if not ours:
        return f"How well it predicts new text was not measured: held-out text stands in training text, too ({shares})."
    without = f" Left out is held-out text that stands in training text, too ({shares})." if known else ""
    mean = sum(row.value for row in ours.values()) / len(ours)
    documents = counted(sum(row.n for row in ours.values()), "held-out document")
    xz = {row.task: row.value for row in rows if row.model == YARDSTICK and row.task not in known}
    if xz.keys() != ours.keys():
        return f"{it_predicts} text that it never saw at {mean:.2f} bits per byte ({documents}).{without}"
    yardstick = sum(xz.values()) / len(xz)
    compressor = f"a compressor that has read {_primed_with(rows)}"
    basis = f"mean of {counted(len(ours), 'source')}, {documents}"
    half = _half_interval(list(ours.values()))
    if half is None:
        few = ", ".join(f"{source} {row.n:,}" for source, row in ours.items() if row.interval is None)
        return (
            f"{it_predicts} text that it never saw at {mean:.2f} bits per byte; {compressor} takes {yardstick:.2f} (fewer are better; {basis}). "
            f"With so few held-out documents, or so unequal ones, of a source ({few}) that says little of other text.{without}"
        )
    how = "about as well as" if abs(mean - yardstick) <= half else "better than" if mean < yardstick else "worse than"
    return f"{it_predicts} text that it never saw {how} {compressor}: {mean:.2f} against {yardstick:.2f} bits per byte ({basis}).{without}"


def _primed_with(rows: Sequence[Figure]) -> str:
    """What the compressor read beforehand."""
    [(read, of)] = {(row.training_bytes, row.all_training_bytes) for row in rows if row.model == YARDSTICK}
    return (
        "all of its training text"
        if read == of
        else f"{in_bytes(read or 0)} of its {in_bytes(of or 0)} of training text"
    )


def _half_interval(rows: Sequence[Figure]) -> float | None:
    """Half of the 95 % interval of the mean over sources; None where one of them has no interval."""
    intervals = [row.interval for row in rows if row.interval is not None]
    if len(intervals) < len(rows):
        return None
    return math.sqrt(sum(((high - low) / 2) ** 2 for low, high in intervals)) / len(rows)


def _of_items(rows: Sequence[Figure]) -> str:
    """Packs with a chance level are compared with it, by their first metric; for others the share of right answers is given."""
    if not rows:
        return ""
    above = [row for row in rows if row.chance is not None and not row.at_or_below_chance]
    level = [row for row in rows if row.at_or_below_chance]
    plain = [row for row in rows if row.chance is None and not row.at_or_below_chance]
    parts = []
    if above:
        parts.append(f"does better than guessing on {', '.join(map(_against_chance, above))}")
    if level:
        parts.append(f"cannot be told from guessing on {', '.join(map(_against_chance, level))}")
    if plain:
        parts.append(f"gets right {', '.join(f'{row.value:.0%} of {row.n:,} ({_name(row)})' for row in plain)}")
    return f"On questions kept out of training it {'; it '.join(parts)}."


def _against_chance(row: Figure) -> str:
    chance = "" if row.chance is None else f", chance {row.chance:.0%}"
    return f"{_name(row)} ({row.value:.0%} of {row.n:,}{chance})"


def _name(row: Figure) -> str:
    return row.task.replace("_", " ")
