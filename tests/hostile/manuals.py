"""Hostile manual pages."""

from __future__ import annotations

from pathlib import Path

from hostile.hostile import Hostile, prose, scaled

HEAD = ".TH X 1\n.SH NAME\n"


def page(folder: Path, body: str, *, documents: int = 1, reasons: dict[str, int] | None = None) -> Hostile:
    """A page with this below its heading."""
    path = folder / "x.1"
    path.write_text(HEAD + body)
    return Hostile(kind="man", path=path, documents=documents, reasons=reasons or {})


def man_macro_of_itself(folder: Path, scale: float) -> Hostile:
    """A macro that calls itself twice."""
    return page(folder, ".de A\n.A\n.A\n..\n.A\n", documents=0, reasons={"endless_macro": 1})


def man_string_bomb(folder: Path, scale: float) -> Hostile:
    """Each string is the one before ten times."""
    strings = "".join(f".ds {b} " + f"\\*{a}" * 10 + "\n" for a, b in zip("abcdefghij", "bcdefghijk"))
    return page(folder, f".ds a {prose(1)}\n{strings}\\*k\n", documents=0, reasons={"endless_macro": 1})


def man_conditions(folder: Path, scale: float) -> Hostile:
    """Conditions in conditions, none of which ends."""
    number = scaled(300_000, scale)
    return page(folder, ".if n \\{\n" * number + ".ie t \\{\n" * number)


def man_conditions_in_a_line(folder: Path, scale: float) -> Hostile:
    """A line of conditions."""
    return page(folder, ".if n " * scaled(1_000_000, scale), documents=0, reasons={"endless_macro": 1})


def man_open_escapes(folder: Path, scale: float) -> Hostile:
    """Escapes that begin and never end."""
    number = scaled(500_000, scale)
    return page(folder, "\\[" * number + "\n" + "\\h|" * (number & ~1) + "\\h'" + "a" * number + "\n" + "\\*[" * number)


def man_one_paragraph(folder: Path, scale: float) -> Hostile:
    """Millions of words in one paragraph, and in one line of macros."""
    number = scaled(400_000, scale)
    return page(folder, "word\nword\\\n" * number + "\n.Op " + "Fl a " * number + "\n")


def man_open_table(folder: Path, scale: float) -> Hostile:
    """A table without an end."""
    return page(folder, prose(1) + "\n.TS\n" + "a\tb\n" * scaled(1_000_000, scale), reasons={"table": 1})


SETS = [
    man_macro_of_itself, man_string_bomb, man_conditions, man_conditions_in_a_line, man_open_escapes, man_one_paragraph, man_open_table,
]  # fmt: skip
