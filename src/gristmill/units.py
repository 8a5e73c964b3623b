"""Numbers as people read them: counts, bytes, rates, durations, shares."""

from __future__ import annotations

_PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_LETTERS = ((1e15, "Q"), (1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def scale(value: float) -> str:
    """A count with three digits and a letter, B for a thousand million: 1.64M."""
    for size, letter in _LETTERS:
        if abs(value) >= 0.9995 * size:  # what rounds to 1,000 of one letter is 1 of the next
            return f"{_three_digits(value / size)}{letter}"
    return f"{value:.3g}"


def in_units(value: float, unit: str) -> str:
    """1234567 "B" → "1.23 MB"; with decimal prefixes."""
    for size, prefix in _PREFIXES:
        if abs(value) >= 0.9995 * size:
            return f"{_three_digits(value / size)} {prefix}{unit}"
    return f"{value:.3g} {unit}"


def on_axis(value: float) -> str:
    """A mark of an axis, with all its digits where it has a letter: 1.234M, 0.25, 5e-04."""
    for size, letter in _LETTERS:
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:.3g}" if abs(value) >= 1e-3 or value == 0 else f"{value:.0e}"


def megabytes(value: float) -> str:
    """1234567 → "1.23", for a column of megabytes."""
    return f"{value / 1e6:,.2f}"


def in_bytes(value: float) -> str:
    """1234567 → "1.23 MB"."""
    return in_units(value, "B")


def counted(number: int, noun: str) -> str:
    """1200 "item" → "1,200 items"; 1 "item" → "1 item"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def seconds(value: float) -> str:
    """A duration in the unit a person would use."""
    if value < 90:
        return f"{value:.0f} s"
    if value < 5400:
        return f"{value / 60:.1f} min"
    if value < 48 * 3600:
        return f"{value / 3600:.1f} h"
    days = value / 86400
    return f"{days:,.1f} days" if days < 2 * 365.25 else f"{days / 365.25:,.1f} years"


def passes(value: float) -> str:
    """How often text is read: 2.5 → "2.5 passes", .0407 → "0.041 passes", for a part of one is read, not nothing."""
    return f"{value:.1f} passes" if value >= 0.95 else f"{value:.2g} passes"


def percent(value: float) -> str:
    """.125 → "12.5%"."""
    return f"{value:.1%}"


def _three_digits(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 999.5 else f"{value:,.0f}"
