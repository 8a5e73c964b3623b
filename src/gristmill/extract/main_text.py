"""The main text of an HTML page, by one of two extractors, within limits.

Some pages stop any HTML parser for minutes: very deep nesting, tags with very many attributes. Scans that
cost a fraction of the extraction refuse such pages before parsing; the guard around this step catches the rest.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

import trafilatura
from resiliparse.extract.html2text import extract_plain_text

from gristmill.data.record import clean_text
from gristmill.extract.layout import put_blocks_back, take_blocks
from gristmill.extract.maths import put_back, take_out
from gristmill.extract.nesting import is_deeper

Extractor = Literal["trafilatura", "resiliparse"]

MAX_HTML_CHARACTERS = 10_000_000
MAX_DEPTH = 1000
MAX_ATTRIBUTES = 5000

_VERBATIM_TAG = re.compile(r"<(/?)(pre|textarea|script|style|listing|xmp|plaintext)\b", re.IGNORECASE)
_EMPTY_ELEMENT = re.compile(
    r"<((?!(?:area|base|br|col|embed|hr|img|input|link|meta|param|source|track|wbr)\b)[a-zA-Z][\w:-]*)([^<>]*)/>"
)
_SOURCE_LINE_END = re.compile(r"\n[ \t\n]*")
_MERGED = (b"<html ", b"<body ")  # the attributes of all such tags become those of one element
_LONG_TAG = re.compile(r"<[a-zA-Z][^<>]{10000,}")


@dataclass(frozen=True, kw_only=True, slots=True)
class MainText:
    """The text (empty when the page has none), or the `reason` why the page was refused, with its value and limit."""

    text: str = ""
    reason: str | None = None
    value: float | None = None
    limit: float | None = None
    formulas_in: Counter[str] = field(default_factory=Counter)
    formulas_out: Counter[str] = field(default_factory=Counter)
    layout_in: Counter[str] = field(default_factory=Counter)
    layout_out: Counter[str] = field(default_factory=Counter)


def find_main_text(html: str, *, extractor: Extractor | None = "trafilatura", keep_maths: bool = True) -> MainText:
    """The main text of a page without navigation, comments and frame; formulas as $..$ when `keep_maths`.

    extractor: None for a page that is main text throughout, such as a chapter of a book: all of its body is the text.
    Trailing blanks are removed, and the ¶ links that documentation tools put behind headings.

    Reasons: html_too_large, nested_too_deeply, too_many_attributes, empty_main_text (the extractor found nothing, or
    gave up in silence, as those built on libxml2 do some hundred levels down).
    Formulas are counted by kind of markup, blocks of code and tables by kind, in the page and in the text.
    """
    html = clean_text(html)
    if len(html) > MAX_HTML_CHARACTERS:
        return MainText(reason="html_too_large", value=len(html), limit=MAX_HTML_CHARACTERS)
    lowered = html.encode("utf-8").lower()
    if (refused := refuse(html, lowered)) is not None:
        return refused
    taken = take_out(html, lowered) if keep_maths else None
    without_maths = html if taken is None else taken.html
    if without_maths is not html:
        lowered = without_maths.encode("utf-8").lower()
    blocks = take_blocks(without_maths, lowered)
    text, layout_out = put_blocks_back(_extract(blocks.html, extractor), blocks)
    formulas_out: Counter[str] = Counter()
    if taken is not None:
        text, formulas_out = put_back(text, taken)
    text = "\n".join(line.rstrip(" \t¶") for line in clean_text(text).split("\n")).strip()
    return MainText(
        text=text,
        reason=None if text else "empty_main_text",
        formulas_in=taken.counts() if taken is not None else Counter(),
        formulas_out=formulas_out,
        layout_in=blocks.counts(),
        layout_out=layout_out,
    )


def refuse(html: str, lowered: bytes) -> MainText | None:
    """The refusal of a page that no parser should see, or None. Takes time linear in the page. lowered: it in UTF-8 and lower case."""
    for match in _LONG_TAG.finditer(html):
        attributes = len(match.group().split())
        if attributes > MAX_ATTRIBUTES:
            return MainText(reason="too_many_attributes", value=attributes, limit=MAX_ATTRIBUTES)
    merged = sum(lowered.count(tag) for tag in _MERGED)
    if merged > MAX_ATTRIBUTES:
        return MainText(reason="too_many_attributes", value=merged, limit=MAX_ATTRIBUTES)
    if (depth := is_deeper(html, lowered, MAX_DEPTH)) is not None:
        return MainText(reason="nested_too_deeply", value=depth, limit=MAX_DEPTH)
    return None


def join_source_lines(html: str) -> str:
    """The page with line breaks of its source as blanks, but for verbatim elements; means the same to a browser.

    Trafilatura keeps source line breaks inside paragraphs that hold inline elements, and hard-wrapped prose is what
    line rules then judge and models learn.
    """
    parts: list[str] = []
    inside, last = "", 0
    for match in _VERBATIM_TAG.finditer(html):
        slash, name = match.group(1), match.group(2).lower()
        if not inside and not slash:
            parts.append(_SOURCE_LINE_END.sub(" ", html[last : match.start()]))
            inside, last = name, match.start()
        elif slash and name == inside:
            parts.append(html[last : match.start()])
            inside, last = "", match.start()
    rest = html[last:]
    parts.append(rest if inside else _SOURCE_LINE_END.sub(" ", rest))
    return "".join(parts)


def _extract(html: str, extractor: Extractor | None) -> str:
    if extractor is None:
        html = _EMPTY_ELEMENT.sub(r"<\1\2></\1>", html)  # XHTML: to a parser of HTML, <title/> has no end
        return str(extract_plain_text(html, preserve_formatting=True, alt_texts=False) or "")
    if extractor == "trafilatura":
        return trafilatura.extract(join_source_lines(html), fast=True, include_comments=False) or ""
    return str(extract_plain_text(html, main_content=True, alt_texts=False, comments=False, list_bullets=False) or "")
