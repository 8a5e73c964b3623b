"""How much of a file of source code is comments: Python with its docstrings, Java and JavaScript.

A scan for strings and comments, not a parser: it needs no grammar, so files of any version of a language are measured alike. It does not
know regular expressions of JavaScript, in which a quotation mark or "/*" is taken for what it looks like.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Iterator

PYTHON = frozenset({"bzl", "gyp", "py", "pyde", "pyw"})

_PYTHON = re.compile(
    r"""(?P<comment>\#[^\n]*)
      | [rRuUbBfF]{0,2}(?P<quotes>\"{3}|'{3})(?P<long>.*?)(?:(?<!\\)(?P=quotes)|\Z)
      | [rRuUbBfF]{0,2}(?P<quote>["'])(?P<short>(?:[^"'\\\n]|\\.|(?!(?P=quote))["'])*+)(?:(?P=quote)|(?=\n)|\\?\Z)""",
    re.DOTALL | re.VERBOSE,
)
_C_LIKE = re.compile(
    r"""(?P<comment>//[^\n]*|/\*.*?(?:\*/|\Z))
      | \"{3}.*?(?:(?<!\\)\"{3}|\Z)
      | "(?:[^"\\\n]|\\.)*+"? | '(?:[^'\\\n]|\\.)*+'? | `(?:[^`\\]|\\.)*+`?""",
    re.DOTALL | re.VERBOSE,
)


@functools.lru_cache(maxsize=1)  # two rules ask it of a file
def comment_share(text: str, extension: str) -> float:
    """Characters of comments over those of the file, at most 1. Of Python without "#", and with docstrings, their indentation taken off
    and tabs set to spaces."""
    if extension in PYTHON:
        said = "\n".join(_docstrings(text)), "".join(_comments(text, _PYTHON)).replace("#", "")
        return min(1.0, len("\n".join(said).strip()) / max(1, len(text)))
    return sum(map(len, _comments(text, _C_LIKE))) / max(1, len(text))


def _comments(text: str, scan: re.Pattern[str]) -> Iterator[str]:
    return (found for match in scan.finditer(text) if (found := match["comment"]))


def _docstrings(text: str) -> Iterator[str]:
    """Strings that begin a line, at the beginning of the file or behind a colon."""
    end, before = 0, ":"
    for match in _PYTHON.finditer(text):
        between = text[end : match.start()]
        before = between.rstrip()[-1:] or before
        begins_line = not between.rpartition("\n")[2].strip() and ("\n" in between or not end)
        end = match.end()
        if match["comment"]:
            continue
        if before == ":" and begins_line:
            yield inspect.cleandoc(match["long"] if match["quotes"] else match["short"])
        before = '"'
