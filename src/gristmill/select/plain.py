"""Texts as they were before somebody wrote them down in another form: for comparing words, not for reading.

An evaluation item gets into a corpus inside JSON, inside a page set in narrow columns, with invisible characters between its
letters. `plain` undoes that, for items and documents alike, so that both have the same words:

    characters of no width      left out     zero-width space and joiners, byte order mark, soft hyphen
    hyphen at the end of a line left out, with the line break, between two letters
    \\n \\r \\t of JSON and code    blanks       one or more backslashes before them; before LaTeX commands such as \\nu they stay
    \\u00e9 of JSON               the character

`origin` says which character of the given text a character of the plain text was.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from gristmill.select.words import composed

VERSION = 1  # of every step that uses it: rises when the meaning of what it computes changes

ESCAPES = ("\\n", "\\r", "\\t", "\\u")
NO_WIDTH = "\u200b\u200c\u200d\u2060\ufeff\u00ad"
# LaTeX commands that begin like an escape, without their first letter; \text, \theta, \times, \right and others read as words
# that no text begins with, so they are told by their first letters alone.
_COMMANDS = (
    r"(?:(?<=n)(?:u|e|eq|eg|i|ot|otin|abla|ewline|olimits|onumber|mid|leq|geq)|"
    r"(?<=t)(?:o|au|an|anh|op|ag|frac|ilde|riangle\w*|ext\w*|heta|imes|herefore|binom)|"
    r"(?<=r)(?:ho|m|ight\w*|angle|floor|ceil|brace|oot))(?![a-z])"
)
# Each branch begins with a character that says what it is, so that the search runs from one such character to the next.
_FORMS = re.compile(
    rf"[{NO_WIDTH}]+"
    r"|-\r?\n[ \t]*(?=[^\W\d_])"
    rf"|\\+(?:[nrt](?!{_COMMANDS})|u[0-9a-fA-F]{{4}}(?:\\+u[dD][c-fC-F][0-9a-fA-F]{{2}})?)"
)


def plain(text: str) -> str:
    """The text in NFC without the forms above; most texts come back as they are."""
    text = composed(text)
    return _FORMS.sub(_without, text) if _may_hold_forms(text) else text


def origin(text: str, place: int) -> int:
    """The place in `composed(text)` of what is at `place` in `plain(text)`."""
    moved = 0  # characters that the composed text has more than the plain one, before the place
    for start, end, kept in _changes(composed(text)):
        if start - moved + kept > place:
            break
        moved += end - start - kept
    return place + moved


def _changes(text: str) -> Iterator[tuple[int, int, int]]:
    if _may_hold_forms(text):
        for found in _FORMS.finditer(text):
            yield found.start(), found.end(), len(_without(found))


def _may_hold_forms(text: str) -> bool:
    """Whether it is worth a search; a look for a few fixed characters costs far less."""
    if "-\n" in text or "-\r" in text or ("\\" in text and any(escape in text for escape in ESCAPES)):
        return True
    return not text.isascii() and any(character in text for character in NO_WIDTH)


def _without(found: re.Match[str]) -> str:
    form = found.group()
    if form[0] == "-":
        return "" if found.start() and found.string[found.start() - 1].isalpha() else form
    if form[0] != "\\":
        return ""
    letter = form.lstrip("\\")
    if letter[0] != "u":
        return " "
    unit = int(letter[1:5], 16)
    if len(letter) > 5 and 0xD800 <= unit < 0xDC00:
        low = int(letter[-4:], 16)
        return chr(0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00))
    return chr(unit) + (chr(int(letter[-4:], 16)) if len(letter) > 5 else "")
