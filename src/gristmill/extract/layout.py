"""Code and tables: taken out of a page before the extractor sees it, put back into the text after, line by line.

Extractors join the lines of code that stands in lists, drop its blank lines, and break the rows of a table at the paragraphs in its cells. So each block of
code and each table of data is written as text here, and words that occur nowhere in the page are left in its place: about as many as it has,
since extractors judge a part by the length of its text, and linked where most of it was links. A block in a part that the extractor drops
is dropped with it, and counted.

Code keeps its lines, indentation and blank lines; line numbers and copy buttons go. A row of a table is one line, `| a | b |`, with a line of dashes below
a header; a bar in a cell is `\\|`. Tables that lay out a page stay as they are: those with a table, heading, form or code block in them, a
cell above 1,000 characters, or fewer than two rows and two columns.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape
from typing import Literal

from gristmill.extract.maths import unused_word

Kind = Literal["code", "table"]

MAX_BLOCKS = 20_000
MAX_CELL = 1000  # characters; longer ones are parts of a page
MAX_SPAN = 20
MAX_FILLERS = 50

_TOKEN = re.compile(r"<!--|<(/?)(pre|table|script|style|textarea)\b[^<>]*>", re.IGNORECASE)
_TAG = re.compile(r"</?[a-zA-Z!][^<>]*>")
_BREAK = re.compile(r"<br\b[^<>]*>", re.IGNORECASE)
_BLOCK_TAG = re.compile(r"</?(?:p|div|li|ul|ol|dl|dt|dd|br|hr|blockquote)\b[^<>]*>", re.IGNORECASE)
_BUTTON = re.compile(r"<button\b[^<>]*>[^<>]*</button>", re.IGNORECASE)
_NUMBER = re.compile(r"<(span|a)\b([^<>]*)>\s*\d+\s*</\1>")
_OF_A_LINE = re.compile(r"\b(?:linenos?|line-?numbers?|lnt?)\b")
_LINK = re.compile(r"<a\b", re.IGNORECASE)
_LINK_END = re.compile(r"</a\b", re.IGNORECASE)
_ROW = re.compile(r"<tr\b[^<>]*>", re.IGNORECASE)
_CELL = re.compile(r"<t([dh])\b([^<>]*)>", re.IGNORECASE)
_SPAN = re.compile(r"\b(col|row)span=[\"']?(\d{1,4})", re.IGNORECASE)
_NO_DATA = re.compile(
    r"<(?:h[1-6]|form|input|select|script|style|pre|template|button)\b|display:\s*none|\bltx_eqn|role=[\"']presentation",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """Code or a table, as the text is to hold it."""

    text: str
    kind: Kind
    is_linked: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Blocks:
    """A page whose blocks are words `<stem><number>z <stem>z ...`; write them back with `put_blocks_back`."""

    html: str
    stem: str
    blocks: tuple[Block, ...]

    def counts(self) -> Counter[str]:
        return Counter[str](block.kind for block in self.blocks)


@dataclass(frozen=True, slots=True)
class _Element:
    """Where an element and what is in it begin and end."""

    name: str
    start: int
    inside: int
    inside_end: int
    end: int


def take_blocks(html: str, lowered: bytes) -> Blocks:
    """The page with each block of code and table of data replaced by words. lowered: it in UTF-8 and lower case."""
    if b"<pre" not in lowered and b"<table" not in lowered:
        return Blocks(html=html, stem="", blocks=())
    stem = unused_word(html, "layoutq")
    parts, blocks, last = list[str](), list[Block](), 0
    for start, end, block in _found(html):
        if start < last or len(blocks) == MAX_BLOCKS:
            continue
        parts.append(html[last:start])
        if block is not None:
            parts.append(_in_place_of(block, stem, len(blocks)))
            blocks.append(block)
        last = end
    return Blocks(html="".join([*parts, html[last:]]), stem=stem, blocks=tuple(blocks))


def put_blocks_back(text: str, taken: Blocks) -> tuple[str, Counter[str]]:
    """The extracted text with its blocks on lines of their own, and how many of them it holds, by kind."""
    if not taken.blocks:
        return text, Counter()
    written: Counter[str] = Counter()

    def write(match: re.Match[str]) -> str:
        index = int(match.group(1))
        if index >= len(taken.blocks):
            return match.group(0)
        block = taken.blocks[index]
        written[block.kind] += 1
        before = "" if match.start() == 0 or text[match.start() - 1] == "\n" else "\n"
        after = "" if match.end() == len(text) or text[match.end()] == "\n" else "\n"
        return f"{before}{block.text}{after}"

    stem = taken.stem
    result = re.sub(rf"(?:(?m:^)[ \t]*- )?[ \t]{{0,4}}{stem}(\d{{1,6}})z(?: +{stem}z)*[ \t]{{0,4}}", write, text)
    return re.sub(rf" ?{stem}z", "", result), written


def _in_place_of(block: Block, stem: str, index: int) -> str:
    fillers = min(MAX_FILLERS, len(block.text) // len(f"{stem}z "))
    words = f"{stem}{index}z" + f" {stem}z" * fillers
    words = f'<a href="#">{words}</a>' if block.is_linked else words
    return f"<pre>{words}</pre>" if block.kind == "code" else f"<p>{words}</p>"


def _found(html: str) -> Iterator[tuple[int, int, Block | None]]:
    """Start, end and text of each block, in the order of the page; None for what goes. A table comes before what is in it."""
    elements = sorted(_elements(html), key=lambda element: element.start)
    code = [element for element in elements if element.name == "pre"]
    texts = [_code(html[element.inside : element.inside_end]) for element in code]
    starts = [element.start for element in code]
    for element in elements:
        inside = html[element.inside : element.inside_end]
        first = bisect_left(starts, element.start)
        has_numbers = first + 1 < len(texts) and starts[first] < element.end and _are_numbers(*texts[first : first + 2])
        text: str | None
        if element.name == "pre" and has_numbers:
            yield element.start, element.end, None
        elif element.name == "pre" or (has_numbers and starts[first + 1] < element.end):
            text = texts[first + (element.name != "pre")]
            if text:
                yield element.start, element.end, Block(text=text, kind="code", is_linked=_is_linked(inside))
        elif (text := _table(html[element.start : element.inside], inside)) is not None:
            yield element.start, element.end, Block(text=text, kind="table", is_linked=_is_linked(inside))


def _elements(html: str) -> Iterator[_Element]:
    """The outermost `pre`, and tables without one in them, outside comments and scripts."""
    at, depth = 0, 0  # of `pre`
    pre = table = (0, 0)
    in_table = False
    while (token := _TOKEN.search(html, at)) is not None:
        at = token.end()
        slash, name = token.group(1), (token.group(2) or "").lower()
        if not name or (name not in ("pre", "table") and not slash):
            at = html.find("-->", at) if not name else _end_of(name, html, at)
            if at < 0:
                return
        elif name == "pre":
            pre = token.span() if not depth else pre
            depth = max(0, depth + (-1 if slash else 1))
            if slash and not depth and pre[1]:
                yield _Element(name, *pre, token.start(), token.end())
                pre = (0, 0)
        elif name == "table" and not depth:
            if slash and in_table:
                yield _Element(name, *table, token.start(), token.end())
            in_table = not slash
            table = token.span()


def _end_of(name: str, html: str, at: int) -> int:
    found = re.compile(f"</{name}", re.IGNORECASE).search(html, at)
    return found.start() if found is not None else -1


def _code(source: str) -> str:
    """The lines of a `pre`, as a browser shows them, without blank lines around them."""
    if "<" in source:
        source = _NUMBER.sub(lambda match: "" if _OF_A_LINE.search(match.group(2)) else match.group(0), source)
        source = _TAG.sub("", _BREAK.sub("\n", _BUTTON.sub("", source)))
    lines = [line.rstrip() for line in unescape(source).replace("\r\n", "\n").split("\n")]
    return "\n".join(lines).strip("\n")


def _are_numbers(numbers: str, code: str) -> bool:
    """Whether the first is the line numbers of the second: as many, one after the other."""
    lines = numbers.split()
    return (
        numbers[:1].isdecimal()
        and all(line.isdecimal() for line in lines)
        and len(lines) == code.count("\n") + 1
        and int(lines[-1]) - int(lines[0]) == len(lines) - 1
    )


def _table(start_tag: str, source: str) -> str | None:
    """The rows of a table of data; None for one that lays out a page, or has words outside its cells."""
    if _NO_DATA.search(start_tag) or _NO_DATA.search(source):
        return None
    caption, *rows = _ROW.split(source)
    lines, num_rows, below = [_words(caption)], 0, Counter[int]()
    for row in rows:
        before, *parts = _CELL.split(row)
        if _words(before):
            return None
        cells = list[str]()
        kinds, attributes, texts = parts[::3], parts[1::3], [_words(part) for part in parts[2::3]]
        if any(len(text) > MAX_CELL for text in texts):
            return None
        for attribute, text in zip(attributes, texts, strict=True):
            spans = {name.lower(): min(int(number), MAX_SPAN) for name, number in _SPAN.findall(attribute)}
            _skip(cells, below)
            for column in range(len(cells), len(cells) + max(1, spans.get("col", 1))):
                below[column] += max(0, spans.get("row", 1) - 1)
            cells += [text] + [""] * (spans.get("col", 1) - 1)
        _skip(cells, below)
        num_rows += len(texts) > 1
        if any(cells):
            lines.append(f"| {' | '.join(cells)} |")
            if len(lines) == 2 and all(kind in "hH" for kind in kinds):
                lines.append(f"|{'---|' * len(cells)}")
    return "\n".join(line for line in lines if line) if num_rows > 1 else None


def _skip(cells: list[str], below: Counter[int]) -> None:
    """Leaves empty what a cell of a row above reaches into."""
    while below[len(cells)] > 0:
        below[len(cells)] -= 1
        cells.append("")


def _words(source: str) -> str:
    """The words of a cell, on one line."""
    if "<" in source:
        source = _TAG.sub("", _BLOCK_TAG.sub(" ", source))
    return " ".join(unescape(source).split()).rstrip("¶").replace("|", "\\|")


def _is_linked(source: str) -> bool:
    """Whether more of the text is in links than outside, as in navigation."""
    pieces = _LINK.split(source)
    linked = sum(len(_words("<a" + _LINK_END.split(piece, maxsplit=1)[0])) for piece in pieces[1:])
    return bool(linked) and 2 * linked > len(_words(source))
