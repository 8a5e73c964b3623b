"""From a manual page to text: a heading, a paragraph, a tag of a list a line each, and what is set as it stands as it stands.

roff.py: macros and lines ─→ Page: man(7) here, mdoc(7) in mdoc.py ─→ lines of text
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from gristmill.formats.mdoc import Mdoc
from gristmill.formats.roff import Roff
from gristmill.formats.typeset import Lines

IS_A_PAGE = re.compile(r"^[.'][ \t]*(?:TH|SH|Dd|Dt|Sh)\b", re.MULTILINE)
IS_A_LINK = re.compile(r"""(?:[.'][ \t]*(?:\\".*)?\n|\s)*[.']so[ \t]+\S+\s*(?:[.']\\".*\s*)*""")


class Told(NamedTuple):
    """What a page says, and bytes that it says nothing of, by reason."""

    text: str
    left_out: dict[str, int]


def text_of(page: str) -> Told:
    """The text of a page. Raises EndlessMacro."""
    roff = Roff(page)
    lines = Lines()
    man, mdoc = Man(lines), Mdoc(lines)
    for macro, given in roff:
        if macro == "":
            lines.add(given[0], is_line=True)
        elif macro in MACROS:
            MACROS[macro](man, given)
        else:
            mdoc.carry_out(macro, given)
    return Told(lines.text(), roff.left_out)


class Man:
    """The macros of man(7), with those of groff_man(7)."""

    def __init__(self, lines: Lines) -> None:
        self.lines = lines
        self._address = ""

    def _tagged(self, given: Sequence[str]) -> None:
        self.lines.paragraph()
        self.lines.ends_after_one = True

    def _tagged_too(self, given: Sequence[str]) -> None:
        self.lines.end()
        self.lines.ends_after_one = True

    def _synopsis(self, given: Sequence[str]) -> None:
        self.lines.end()
        self._in_one(given)

    def _indented(self, given: Sequence[str]) -> None:
        self.lines.paragraph()
        if given and given[0].strip():
            self.lines.tag(given[0])

    def _spaced(self, given: Sequence[str]) -> None:
        if given and given[0].startswith("-"):
            self.lines.end()
        else:
            self.lines.paragraph()

    def _in_turn(self, given: Sequence[str]) -> None:
        if given:
            self.lines.add("".join(given))

    def _in_one(self, given: Sequence[str]) -> None:
        if given:
            self.lines.add(" ".join(given))

    def _address_begins(self, given: Sequence[str]) -> None:
        self._address = given[0] if given else ""

    def _address_ends(self, given: Sequence[str]) -> None:
        if self._address:
            self.lines.add(f"<{self._address}>{''.join(given[:1])}")
        self._address = ""

    def _link(self, given: Sequence[str]) -> None:
        address, words, behind, *_ = [*given, "", "", ""]
        self.lines.add(f"{words} <{address}>{behind}".strip())

    def _other_page(self, given: Sequence[str]) -> None:
        name, section, behind, *_ = [*given, "", "", ""]
        self.lines.add(f"{name}({section}){behind}")

    def _option(self, given: Sequence[str]) -> None:
        self.lines.add(f"[{' '.join(given[:2])}]")

    def _literal(self, given: Sequence[str]) -> None:
        self.lines.end()
        self.lines.is_literal = True

    def _filled(self, given: Sequence[str]) -> None:
        self.lines.end()
        self.lines.is_literal = False


def _nothing(man: Man, given: Sequence[str]) -> None:
    """TH: the name, section and date of the page are in its heading and at its foot."""


MACROS: dict[str, Callable[[Man, Sequence[str]], None]] = {
    **dict.fromkeys(("SH", "SS"), lambda man, given: man.lines.heading(" ".join(given))),
    **dict.fromkeys(("PP", "P", "LP", "HP"), lambda man, given: man.lines.paragraph()),
    **dict.fromkeys(("br", "RS", "RE", "ti", "in", "ce", "YS"), lambda man, given: man.lines.end()),
    **dict.fromkeys(("BI", "BR", "IB", "IR", "RB", "RI"), Man._in_turn),
    **dict.fromkeys(("B", "I", "SM", "SB", "R", "CW"), Man._in_one),
    **dict.fromkeys(("nf", "EX", "DS"), Man._literal),
    **dict.fromkeys(("fi", "EE", "DE"), Man._filled),
    **dict.fromkeys(("UR", "MT"), Man._address_begins),
    **dict.fromkeys(("UE", "ME"), Man._address_ends),
    **dict.fromkeys(("URL", "MTO"), Man._link),
    "TP": Man._tagged,
    "TQ": Man._tagged_too,
    "IP": Man._indented,
    "sp": Man._spaced,
    "SY": Man._synopsis,
    "OP": Man._option,
    "MR": Man._other_page,
    "TH": _nothing,
}
