"""The language below manual pages, as far as pages use it: conditions, strings, numbers and macros of their own are carried out.

    lines of a page ─→ Roff: (macro, its arguments) and ("", [a line of text]), escapes as characters

Names and meanings: groff(7), groff_char(7). The device is a terminal that fills no lines. Tables, equations and pictures are not
drawn: they are left out, and their bytes counted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from gristmill.formats.roff_characters import CHARACTERS, STRINGS

GLUE = "\0"  # at the end, or at the beginning, of a text: no space there
MAX_EXPANDED = (
    2_000_000,
    10,
)  # characters of strings and macros, and per character of the page: beyond it they call themselves
CALL = 30  # characters that the call of a macro counts as
DRAWN = {"TS": "TE", "EQ": "EN", "PS": "PE", "G1": "G2", "[": "]"}
SKIPPED = {"TS": "table", "EQ": "equation"}

_CONDITIONAL = re.compile(r"[.'][ \t]*(if|ie|el)(?=[ \t\\!']|$)[ \t]*")
_NAME = r"(?:\((..)|\[([^\]]{0,99})\]|(.))"
_REFERENCE = re.compile(rf"""\\(?:(["#].*)|([*n])[-+]?{_NAME}|.)""", re.DOTALL)
_ARGUMENT = re.compile(r'"((?:[^"]|"")*)"?|((?:\\.|[^ \t\\])+|\\)')
_QUOTED = r"(['\"|!/^])(.{0,999}?)\4"
_ESCAPE = re.compile(
    rf"\\(?:[fFmMgkO](?:\(..|\[[^\]]{{0,99}}\]|.)|s[-+]?(?:\(..|\[[^\]]{{0,9}}\]|'[^']{{0,9}}'|[1-3][0-9]|.)|\((..)|\[([^\]]{{0,99}})\]"
    rf"|([hvwlLoDxbXYABNRSHZC]){_QUOTED}|(.)|$)",
    re.DOTALL,
)
_PLAIN = {
    "-": "-",
    " ": " ",
    "~": " ",
    "0": " ",
    "e": "\\",
    "\\": "\\",
    "'": "´",
    "`": "`",
    "_": "_",
    "t": "\t",
    "c": GLUE,
}
_PLAIN |= dict.fromkeys("|^&)/,%:{}adurpz!?EV", "")
_NUMBER = re.compile(r"(\d+(?:\.\d+)?)[a-zA-Z]?")
_OPERATOR = re.compile(r"<=|>=|==|[-+*/%<>=&:]")
_OPERATIONS: dict[str, Callable[[float, float], float]] = {
    "+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b, "/": lambda a, b: a // b if b else 0,
    "%": lambda a, b: a % b if b else 0, "<": lambda a, b: a < b, ">": lambda a, b: a > b, "=": lambda a, b: a == b,
    "==": lambda a, b: a == b, "<=": lambda a, b: a <= b, ">=": lambda a, b: a >= b,
    "&": lambda a, b: a > 0 and b > 0, ":": lambda a, b: a > 0 or b > 0,
}  # fmt: skip


class EndlessMacro(Exception):
    """Strings or macros of the page grew beyond MAX_EXPANDED."""


class Roff:
    """Iterates over what a page says. left_out: kind of drawing → bytes of it, when all is read."""

    def __init__(self, text: str) -> None:
        self.left_out: dict[str, int] = {}
        self._lines = text.split("\n")[::-1]  # the next one is the last
        self._strings, self._numbers = dict(STRINGS), {".g": 1.0}
        self._macros: dict[str, list[str]] = {}
        self._translated: dict[int, str] = {}
        self._expanded, self._limit = 0, MAX_EXPANDED[0] + MAX_EXPANDED[1] * len(text)
        self._holds = [True]  # the conditions of .ie that wait for their .el

    def __iter__(self) -> Iterator[tuple[str, list[str]]]:
        while self._lines:
            yield from self._told(self._whole_line())

    def _whole_line(self) -> str:
        """The next line and those that it goes on in, without comments, with strings and numbers in their places."""
        line = self._with_references(self._lines.pop())
        parts = []
        while len(line) - len(line.rstrip("\\")) & 1 and self._lines:
            parts.append(line[:-1])
            line = self._with_references(self._lines.pop())
        return "".join(parts) + line

    def _told(self, line: str) -> Iterator[tuple[str, list[str]]]:
        while (found := _CONDITIONAL.match(line)) is not None:
            self._count(len(line))
            line = self._conditional(found[1], line[found.end() :])
            if not line:
                return
        if line[:1] not in (".", "'"):
            yield "", [self.characters(line)]
            return
        name, _, rest = line[1:].lstrip().replace("\t", " ", 1).partition(" ")
        name = name.replace("\\}", "")
        if name in self._macros:
            self._call(self._macros[name], arguments(rest))
        elif name in REQUESTS:
            REQUESTS[name](self, rest.lstrip())
        elif name in DRAWN:
            kind = SKIPPED.get(name, "picture")
            num_bytes = len(line.encode("utf-8", "replace")) + 1 + self._pass_over(DRAWN[name])
            self.left_out[kind] = self.left_out.get(kind, 0) + num_bytes
        elif name == "nop":
            yield "", [self.characters(rest)]
        elif name:
            yield name, [self.characters(one) for one in arguments(rest)]

    # ── strings, numbers, macros ──

    def _with_references(self, line: str) -> str:
        return _REFERENCE.sub(self._referred, line) if "\\" in line else line

    def _referred(self, found: re.Match[str]) -> str:
        comment, kind, *names = found.groups()
        if comment is not None:
            return ""
        if kind is None:
            return found[0]
        name = next((name for name in names if name is not None), "")
        if kind == "n":
            return f"{self._numbers.get(name, 0):g}"
        return self._counted(self._strings.get(name, ""))

    def _counted(self, text: str) -> str:
        self._count(len(text) + 1)
        return text

    def _count(self, size: int) -> None:
        self._expanded += size
        if self._expanded > self._limit:
            raise EndlessMacro

    def _call(self, body: list[str], given: list[str]) -> None:
        self._count(CALL)
        values = {str(number): value for number, value in enumerate(given, 1)}
        values |= {"*": " ".join(given), "@": " ".join(f'"{value}"' for value in given)}
        for line in reversed(body):
            line = re.sub(r"\\n\(\.\$|\\n\[\.\$\]", str(len(given)), line)
            filled = re.sub(r"\\\$(.)", lambda found: values.get(found[1], ""), line)
            self._lines.append(self._counted(filled))

    def _define(self, rest: str, *, is_more: bool = False) -> None:
        name, end, *_ = [*arguments(rest), "", ""]
        body = [*self._macros.get(name, [])] if is_more else []
        self._count(len(body))
        while self._lines and not _is_call(line := self._lines.pop(), end or "."):
            body.append(line.replace("\\\\", "\\"))
        self._macros[name] = body

    def _set_string(self, rest: str, *, is_more: bool = False) -> None:
        name, _, value = rest.partition(" ")
        value = value.lstrip().removeprefix('"').replace("\\\\", "\\")
        self._strings[name] = self._counted(self._strings.get(name, "") + value if is_more else value)

    def _set_number(self, rest: str) -> None:
        name, value, *_ = [*arguments(rest), "", ""]
        before = self._numbers.get(name, 0.0) if value[:1] in ("+", "-") and len(value) > 1 else 0.0
        self._numbers[name] = before + value_of(value)

    def _alias(self, rest: str) -> None:
        new, old, *_ = [*arguments(rest), "", ""]
        self._macros[new] = self._macros.get(old, [f".{old} \\$@"])

    def _remove(self, rest: str) -> None:
        for name in arguments(rest):
            self._macros.pop(name, None)
            self._strings.pop(name, None)

    def _translate(self, rest: str) -> None:
        signs = self.characters(rest)
        self._translated |= {ord(a): b for a, b in zip(signs[::2], signs[1::2])}

    def _pass_over(self, end: str) -> int:
        """Leaves out lines up to the macro `end`; returns their bytes."""
        num_bytes = 0
        while self._lines:
            line = self._lines.pop()
            num_bytes += len(line.encode("utf-8", "replace")) + 1
            if _is_call(line, end):
                break
        return num_bytes

    # ── conditions ──

    def _conditional(self, name: str, rest: str) -> str:
        """What is left of the line where the condition holds; else nothing, and its block is passed over."""
        if name == "el":
            holds = not (self._holds.pop() if len(self._holds) > 1 else True)
        else:
            holds, rest = self._condition(rest)
        if name == "ie":
            self._holds.append(holds)
        body = rest.lstrip()
        if holds:
            return body.removeprefix("\\{").lstrip()
        depth = body.count("\\{") - body.count("\\}")
        while depth > 0 and self._lines:
            line = self._lines.pop()
            depth += line.count("\\{") - line.count("\\}")
        return ""

    def _condition(self, rest: str) -> tuple[bool, str]:
        """(whether it holds, what follows it)."""
        bare = rest.lstrip("! ")
        if rest.count("!", 0, len(rest) - len(bare)) & 1:
            holds, rest = self._condition(bare)
            return not holds, rest
        rest = bare
        sign = rest[:1]
        if sign in ("n", "o", "e", "t", "v"):
            return sign in "noe", rest[1:]
        if sign in ("d", "r", "m", "F", "S", "c"):
            name, _, rest = rest[1:].lstrip().partition(" ")
            known = self._numbers if sign == "r" else {*self._strings, *self._macros}
            return name in known, rest
        if sign in ("'", '"'):
            first, second, rest = [*rest[1:].split(sign, 2), "", ""][:3]
            return first == second, rest
        number, _, rest = rest.partition(" ")
        return value_of(number.partition("\\{")[0]) > 0, number[
            number.find("\\{") :
        ] + rest if "\\{" in number else rest

    # ── characters ──

    def characters(self, text: str) -> str:
        """The text with its escapes as characters."""
        if "\\" in text:
            text = _ESCAPE.sub(_character, text)
        return text.translate(self._translated) if self._translated else text


REQUESTS: dict[str, Callable[[Roff, str], None]] = {
    **dict.fromkeys(("de", "de1", "dei"), Roff._define),
    "am": lambda page, rest: page._define(rest, is_more=True),
    "ds": Roff._set_string,
    "as": lambda page, rest: page._set_string(rest, is_more=True),
    "nr": Roff._set_number,
    "als": Roff._alias,
    "rm": Roff._remove,
    "tr": Roff._translate,
    "ig": lambda page, rest: page._define(f"{GLUE} {rest}"),
    "do": lambda page, rest: page._lines.append(page._counted(f".{rest}")),
}


def _is_call(line: str, name: str) -> bool:
    return line[:1] in (".", "'") and line[1:].split()[:1] == [name]


def arguments(rest: str) -> list[str]:
    """The arguments of a macro; in quotes they hold spaces, and "" is a quote."""
    return [quoted.replace('""', '"') if quoted or not bare else bare for quoted, bare in _ARGUMENT.findall(rest)]


def value_of(expression: str) -> float:
    """A sum of numbers, from left to right; 0 where it is none."""
    value, operator, place = 0.0, "+", 0
    expression = expression.replace("(", "").replace(")", "")
    while place < len(expression):
        if (number := _NUMBER.match(expression, place)) is not None:
            value, operator = float(_OPERATIONS[operator](value, float(number[1]))), "+"
            place = number.end()
        elif (found := _OPERATOR.match(expression, place)) is not None:
            operator, place = found[0], found.end()
        else:
            return 0.0
    return value


def _character(found: re.Match[str]) -> str:
    two, name, kind, _, inner, one = found.groups()
    if two is not None or name is not None:
        return named(two or name or "")
    if kind == "h":
        return "" if inner.startswith("-") else " "
    if kind == "C":
        return named(inner)
    if kind == "N" and inner.isdecimal() and 31 < int(inner) < 0xD800:
        return chr(int(inner))
    if kind == "o":
        return _ESCAPE.sub(_character, inner)[:1]
    return "" if one is None else _PLAIN.get(one, one)


def named(name: str) -> str:
    """A character by its name: of the table, u and hexadecimal digits, or one character and more that are accents."""
    if name in CHARACTERS:
        return CHARACTERS[name]
    if re.fullmatch("u[0-9A-F]{4,6}(?:_[0-9A-F]{4,6})*", name):
        codes = [int(code, 16) for code in name[1:].split("_")]
        return "".join(chr(code) for code in codes if code < 0x110000 and not 0xD800 <= code < 0xE000)
    if re.fullmatch(r"char[0-9]{2,3}", name):  # by its number in Latin-1
        return chr(int(name[4:])) if 31 < int(name[4:]) < 256 else ""
    return name if len(name) == 1 else "".join(CHARACTERS.get(part, "") for part in name.split()[:1])
