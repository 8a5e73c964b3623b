"""The macros of mdoc(7), in which the manuals of the BSDs, of OpenSSH and others are written."""

from __future__ import annotations

from collections.abc import Sequence

from gristmill.formats.roff import GLUE
from gristmill.formats.typeset import Lines

CLOSING = frozenset([".", ",", ":", ";", ")", "]", "?", "!"])
OPENING = frozenset(["(", "["])
ENCLOSED = {
    "Op": "[]", "Dq": "“”", "Sq": "‘’", "Pq": "()", "Bq": "[]", "Brq": "{}", "Aq": "<>", "Ql": "‘’", "Qq": '""',
}  # fmt: skip
BEGIN = {"Oo": "[", "Po": "(", "Bo": "[", "Bro": "{", "Ao": "<", "Do": "“", "So": "‘", "Qo": '"', "Xo": ""}
END = {"Oc": "]", "Pc": ")", "Bc": "]", "Brc": "}", "Ac": ">", "Dc": "”", "Sc": "’", "Qc": '"', "Xc": ""}
SYSTEMS = {
    "Ux": "UNIX",
    "Bx": "BSD",
    "Nx": "NetBSD",
    "Fx": "FreeBSD",
    "Ox": "OpenBSD",
    "Dx": "DragonFly",
    "Bsx": "BSD/OS",
}
SYSTEMS |= {"At": "AT&T UNIX"}
PLAIN = frozenset(
    [
        "Ad",
        "An",
        "Ar",
        "Cd",
        "Cm",
        "Dv",
        "Em",
        "Er",
        "Ev",
        "Fa",
        "Fl",
        "Fn",
        "Ft",
        "Ic",
        "In",
        "Lb",
        "Li",
        "Lk",
        "Ms",
        "Mt",
        "Nm",
        "No",
        "Ns",
        "Pa",
        "Pf",
        "Ap",
        "St",
        "Sx",
        "Sy",
        "Ta",
        "Tn",
        "Va",
        "Vt",
        "Xr",
    ]
)
CALLED = PLAIN | ENCLOSED.keys() | BEGIN.keys() | END.keys() | SYSTEMS.keys()
DASHES = {"-bullet": "•", "-dash": "-", "-hyphen": "-"}


class Mdoc:
    """Carries the macros of a page out."""

    def __init__(self, lines: Lines) -> None:
        self.lines = lines
        self._name = ""
        self._section = ""
        self._lists: list[tuple[str, int]] = []  # the lists that are open: their kind, and how many items they had
        self._in_function = self._has_argument = False
        self._reference: list[str] | None = None
        self._is_spaced = True
        self._in_long_tag = False

    def carry_out(self, macro: str, given: Sequence[str]) -> None:
        """One macro of a line; one that is none of mdoc says nothing."""
        if macro in ("Sh", "Ss"):
            self._section = " ".join(given) if macro == "Sh" else self._section
            self.lines.heading(self.inline(given))
        elif macro in ("Pp", "Lp"):
            self.lines.paragraph()
        elif macro in ("Bd", "Ed"):
            self.lines.paragraph()
            self.lines.is_literal = macro == "Bd" and bool({"-literal", "-unfilled"} & {*given})
        elif macro in ("D1", "Dl"):
            self.lines.end()
            self._say(given)
            self.lines.end()
        elif macro == "Bl":
            self._lists.append((next((one for one in given if one.startswith("-")), ""), 0))
        elif macro == "El":
            self.lines.end()
            del self._lists[-1:]
        elif macro == "It":
            self._item(given)
        elif macro == "Nd":
            self.lines.add(f"— {self.inline(given)}")
        elif macro == "Sm":
            self._is_spaced = given[0] == "on" if given else not self._is_spaced
        elif macro == "Ex":
            self._say(["The", self._name, "utility", "exits 0 on success, and >0 if an error occurs."])
        elif macro == "Rv":
            self._say(
                ["The", f"{self._name}()", "function", "returns the value 0 if successful; otherwise the value -1 is"]
            )
            self._say(["returned and the global variable errno is set to indicate the error."])
        elif macro == "Rs":
            self._reference = []
        elif macro.startswith("%") and self._reference is not None:
            self._reference.append(self.inline(given))
        elif macro == "Re" and self._reference is not None:
            self.lines.add(f"{', '.join(self._reference)}.")
            self._reference = None
        else:
            self._call(macro, given)

    def _call(self, macro: str, given: Sequence[str]) -> None:
        in_synopsis = self._section == "SYNOPSIS"
        if in_synopsis and macro in ("Nm", "Ft", "Fd", "In", "Cd", "Vt"):
            self.lines.end()
        if macro == "Nm" and not self._name and given:
            self._name = given[0]
        if macro == "Fo":
            self._in_function, self._has_argument = True, False
            self.lines.add(f"{' '.join(given[:1])}({GLUE}")
        elif macro == "Fc":
            self._in_function = False
            self.lines.add(f"{GLUE}){''.join(given)}{';' if in_synopsis else ''}")
            self.lines.end() if in_synopsis else None
        elif macro == "Fa" and self._in_function:
            self.lines.add(f"{GLUE}, " * self._has_argument + ", ".join(given))
            self._has_argument = True
        elif macro == "Fd":
            self.lines.add(" ".join(given))
            self.lines.end()
        elif macro in CALLED:
            self._say([macro, *given])
            if macro == "Xc" and self._in_long_tag:
                self._in_long_tag = False
                self.lines.end()
            if in_synopsis and macro in ("Fn", "In", "Ft", "Vt", "Cd"):
                self.lines.end()

    def _item(self, given: Sequence[str]) -> None:
        kind, number = self._lists.pop() if self._lists else ("-tag", 0)
        self._lists.append((kind, number + 1))
        if kind in DASHES or kind in ("-enum", "-item"):
            self.lines.paragraph()
            self.lines.add(DASHES.get(kind, "" if kind == "-item" else f"{number + 1}."))
        elif kind == "-column":
            self.lines.end()
            self._say([part for one in given for part in (one.replace("\t", " Ta ").split() if "\t" in one else [one])])
            self.lines.end()
        else:
            self.lines.paragraph()
            self._in_long_tag = "Xo" in given
            self.lines.ends_after_one = kind != "-inset" and not self._in_long_tag
            self._say(given)

    def _say(self, words: Sequence[str]) -> None:
        if text := self.inline(words):
            self.lines.add(text if self._is_spaced else f"{GLUE}{text.strip(GLUE)}{GLUE}")

    def inline(self, words: Sequence[str]) -> str:
        """What a line of words and macros says."""
        line = _Line()
        tail = len(words)
        while tail and words[tail - 1] in CLOSING:
            tail -= 1
        closing: list[str] = []
        macro, place = "", 0
        while place < tail:
            word, following = words[place], words[place + 1 : place + 2]
            is_bare = place + 1 >= tail or following[0] in CALLED or following[0] in CLOSING
            place += 1
            line.is_glued |= not self._is_spaced
            if word not in CALLED:
                line.add(f"-{word}" if macro == "Fl" and word not in (*CLOSING, *OPENING, "|") else word)
                continue
            macro = word
            if word in ENCLOSED:
                line.open(ENCLOSED[word][0])
                closing.append(ENCLOSED[word][1])
            elif word in BEGIN:
                line.open(BEGIN[word])
            elif word in END:
                line.close(END[word])
            elif word in SYSTEMS:
                line.add(
                    SYSTEMS[word]
                    if is_bare or word == "Ux"
                    else f"{words[place]}{SYSTEMS[word]}"
                    if word == "Bx"
                    else SYSTEMS[word]
                )
                place += word == "Bx" and not is_bare
            elif word in ("Ns", "Ap"):
                line.glue("'" if word == "Ap" else "")
            elif word == "Pf" and not place >= tail:
                line.open(words[place])
                place += 1
            elif word == "Nm" and is_bare:
                line.add(self._name)
            elif word == "Ar" and is_bare:
                line.add("file ...")
            elif word == "Fl" and is_bare:
                line.open("-")
                line.is_glued = place < tail and words[place] not in CLOSING
            elif word == "Xr" and place + 1 < tail and words[place + 1] not in CLOSING:
                line.add(f"{words[place]}({words[place + 1]})")
                place += 2
            elif word == "In" and not is_bare:
                line.add(f"#include <{words[place]}>" if self._section == "SYNOPSIS" else f"<{words[place]}>")
                place += 1
            elif word == "Fn" and not is_bare:
                end = next((n for n in range(place, tail) if words[n] in CALLED or words[n] in CLOSING), tail)
                behind = ";" if self._section == "SYNOPSIS" else ""
                line.add(f"{words[place]}({', '.join(words[place + 1 : end])}){behind}")
                place = end
        for sign in reversed(closing):
            line.close(sign)
        for sign in words[tail:]:
            line.close(sign)
        return line.text()


class _Line:
    """A line in the making. is_glued: the next word follows without a space."""

    def __init__(self) -> None:
        self.is_glued = False
        self._parts: list[str] = []

    def add(self, word: str) -> None:
        """A word."""
        if self._parts and not self.is_glued and word not in CLOSING:
            self._parts.append(" ")
        self._parts.append(word)
        self.is_glued = word in OPENING

    def open(self, sign: str) -> None:
        """What the next word follows without a space."""
        self.add(sign)
        self.is_glued = True

    def close(self, sign: str) -> None:
        """What follows without a space, also at the beginning of a line."""
        self._parts += [sign] if self._parts else [GLUE, sign]
        self.is_glued = False

    def glue(self, sign: str) -> None:
        """What has no space on either side."""
        self.close(sign)
        self.is_glued = True

    def text(self) -> str:
        """The line, with what says that the one behind it follows without a space."""
        return "".join(self._parts) + GLUE * (self.is_glued and bool(self._parts))
