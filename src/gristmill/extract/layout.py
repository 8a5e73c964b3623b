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

import itertools
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import unescape
from typing import Literal

from gristmill.extract.maths import unused_word

Kind = Literal["code", "table"]

MAX_BLOCKS = 20_000
MAX_CELL = 1000  # characters; longer ones are parts of a page
MAX_SPAN = 20
MAX_DIGITS = 7  # of the number of a line
MAX_FILLERS = 50
MAX_FIGURE = 100_000  # bytes after a block

_TOKEN = re.compile(rb"<(?:!--|(/?)(pre|table|script|style|textarea)\b[^<>]*>)")
_TAG = re.compile(r"<[/a-zA-Z!][^<>]*>")
_TAG_BYTES = re.compile(rb"<[/a-z!][^<>]*>")
_HIDDEN = re.compile(r"<!--.*?-->|<(script|style|textarea)\b[^<>]*>.*?</\1\b[^<>]*>", re.IGNORECASE | re.DOTALL)
_BREAK = re.compile(r"<br\b[^<>]*>", re.IGNORECASE)
_BLOCK_TAG = re.compile(r"</?(?:p|div|li|ul|ol|dl|dt|dd|br|hr|blockquote)\b[^<>]*>", re.IGNORECASE)
_BUTTON = re.compile(r"<button\b[^<>]*>[^<>]*</button>", re.IGNORECASE)
_NUMBER = re.compile(r"<(span|a)\b([^<>]*)>\s*\d+\s*</\1>")
_OF_A_LINE = re.compile(r"\b(?:linenos?|line-?numbers?|lnt?)\b")
_ROW = re.compile(r"<tr\b[^<>]*>", re.IGNORECASE)
_CELL = re.compile(r"<t([dh])\b([^<>]*)>", re.IGNORECASE)
_SPAN = re.compile(r"\b(col|row)span=[\"']?(\d{1,4})", re.IGNORECASE)
_FIGURE, _FIGURE_END = b"<figure", b"</figure"  # extractors leave out figures
_NO_DATA = re.compile(rb"<(?:h[1-6]|form|input|select|script|style|pre|template|button)\b")
_NO_DATA_SIGNS = (b"display:none", b"display: none", b"ltx_eqn", b'role="presentation', b"role='presentation")


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

    name: bytes
    start: int
    inside: int
    inside_end: int
    end: int


def take_blocks(html: str, lowered: bytes) -> Blocks:
    """The page with each block of code and table of data replaced by words. lowered: it in UTF-8 and lower case."""
    if b"<pre" not in lowered and b"<table" not in lowered:
        return Blocks(html=html, stem="", blocks=())
    source = html.encode("utf-8", "surrogatepass")
    stem = unused_word(lowered, "layoutq")
    edits, blocks, last = dict[tuple[int, int], str](), list[Block](), 0
    for start, end, block in _found(source, lowered):
        if start < last or len(blocks) == MAX_BLOCKS:
            continue
        edits[start, end] = _in_place_of(block, stem, len(blocks)) if block is not None else ""
        if block is not None:
            blocks.append(block)
            figure = lowered.rfind(_FIGURE, last, start)
            if figure >= 0 and (closing := lowered.find(_FIGURE_END, figure, end + MAX_FIGURE)) >= end:
                edits[figure, figure + len(_FIGURE)] = "<div"
                edits[closing, closing + len(_FIGURE_END)] = "</div"
        last = end
    return Blocks(html=_edited(source, edits), stem=stem, blocks=tuple(blocks))


def _edited(source: bytes, edits: dict[tuple[int, int], str]) -> str:
    parts, last = list[str](), 0
    for (start, end), text in sorted(edits.items()):
        if start < last:  # the end of a figure in a block
            continue
        parts += [_text(source, last, start), text]
        last = end
    return "".join([*parts, _text(source, last, len(source))])


def put_blocks_back(text: str, taken: Blocks) -> tuple[str, Counter[str]]:
    """The extracted text with its blocks on lines of their own, each once, and how many of them it holds, by kind."""
    if not taken.blocks:
        return text, Counter()
    written: set[int] = set()

    def write(match: re.Match[str]) -> str:
        index = int(match.group(1))
        if index >= len(taken.blocks):
            return match.group(0)
        if index in written:  # the page spelled out our word, say as `&#108;ayoutq0z`
            return " "
        written.add(index)
        block = taken.blocks[index]
        before = "" if match.start() == 0 else "\n"
        after = "" if match.end() == len(match.string) else "\n"
        return f"{before}{block.text}{after}"

    stem = taken.stem
    words = re.compile(rf"(?:^[ \t]*- )?[ \t]{{0,4}}{stem}(\d{{1,6}})z(?: +{stem}z)*[ \t]{{0,4}}")
    fillers = re.compile(rf" ?{stem}z")
    parts, last = list[str](), 0
    while (at := text.find(stem, last)) >= 0:
        start = max(last, text.rfind("\n", last, at) + 1)
        end = len(text) if (found := text.find("\n", at)) < 0 else found
        parts += [text[last:start], fillers.sub("", words.sub(write, text[start:end]))]
        last = end
    return "".join([*parts, text[last:]]), Counter(taken.blocks[index].kind for index in written)


def _in_place_of(block: Block, stem: str, index: int) -> str:
    fillers = min(MAX_FILLERS, len(block.text) // len(f"{stem}z "))
    words = f"{stem}{index}z" + f" {stem}z" * fillers
    words = f'<a href="#">{words}</a>' if block.is_linked else words
    return f"<pre>{words}</pre>" if block.kind == "code" else f"<p>{words}</p>"


def _text(source: bytes, start: int, end: int) -> str:
    return source[start:end].decode("utf-8", "surrogatepass")


def _found(source: bytes, lowered: bytes) -> Iterator[tuple[int, int, Block | None]]:
    """Start, end and text of each block, in the order of the page; None for what goes. A table comes before what is in it."""
    elements = sorted(_elements(lowered), key=lambda element: element.start)
    code = [element for element in elements if element.name == b"pre"]
    texts = [_code(_text(source, element.inside, element.inside_end)) for element in code]
    starts = [element.start for element in code]
    are_numbers = [
        _are_numbers(*texts[k : k + 2]) and _is_bare(lowered[code[k].end : starts[k + 1]]) for k in range(len(code) - 1)
    ]
    for element in elements:
        first = bisect_left(starts, element.start)
        has_numbers = first < len(are_numbers) and are_numbers[first] and starts[first] < element.end
        text: str | None
        kind: Kind = "code"
        if element.name == b"pre" and has_numbers:
            yield element.start, element.end, None
            continue
        if element.name == b"pre":
            text = texts[first]
        elif has_numbers and _are_all(lowered, element, *code[first : first + 2]):
            text = texts[first + 1]
        elif _may_hold_data(lowered[element.start : element.inside_end]):
            text, kind = _table(_text(source, element.inside, element.inside_end)), "table"
        else:
            continue
        if text:
            is_linked = _is_linked(lowered[element.inside : element.inside_end], text)
            yield element.start, element.end, Block(text=text, kind=kind, is_linked=is_linked)


def _elements(lowered: bytes) -> Iterator[_Element]:
    """The outermost `pre`, and tables without one in them, outside comments and scripts."""
    at, depth = 0, 0  # of `pre`
    pre = table = (0, 0)
    in_table = False
    while (token := _TOKEN.search(lowered, at)) is not None:
        at = token.end()
        slash, name = token.groups()
        if name not in (b"pre", b"table"):
            at = at if slash else lowered.find(b"-->" if name is None else b"</" + name, at)
            if at < 0:
                return
        elif name == b"pre":
            pre = token.span() if not depth else pre
            depth = max(0, depth + (-1 if slash else 1))
            if slash and not depth and pre[1]:
                yield _Element(name, *pre, token.start(), token.end())
                pre = (0, 0)
        elif not depth:
            if slash and in_table:
                yield _Element(name, *table, token.start(), token.end())
            in_table = not slash
            table = token.span()


def _are_all(lowered: bytes, table: _Element, first: _Element, last: _Element) -> bool:
    """Whether a table holds no words but those of these two, its numbers and its code."""
    return (
        last.end <= table.end
        and _is_bare(lowered[table.inside : first.start])
        and _is_bare(lowered[last.end : table.inside_end])
    )


def _is_bare(html: bytes) -> bool:
    """Whether it is tags and blanks only."""
    return not _TAG_BYTES.sub(b"", html).strip()


def _may_hold_data(lowered: bytes) -> bool:
    """Whether a table has two rows of two cells, and nothing in it that only parts of a page have."""
    rows = lowered.split(b"<tr")[1:]
    return (
        sum(row.count(b"<td") + row.count(b"<th") > 1 for row in rows) > 1
        and _NO_DATA.search(lowered) is None
        and not any(sign in lowered for sign in _NO_DATA_SIGNS)
    )


def _is_linked(lowered: bytes, text: str) -> bool:
    """Whether more of the text is in links than outside, as in navigation."""
    linked = b"".join(piece.partition(b"</a")[0].partition(b">")[2] for piece in lowered.split(b"<a ")[1:])
    return bool(linked) and 2 * len(_TAG_BYTES.sub(b"", linked)) > len(text.encode())


def _code(source: str) -> str:
    """The lines of a `pre`, as a browser shows them, without blank lines around them."""
    if "<" in source:
        if _OF_A_LINE.search(source):
            source = _NUMBER.sub(lambda match: "" if _OF_A_LINE.search(match.group(2)) else match.group(0), source)
        source = _HIDDEN.sub(
            lambda match: match.group(0) if (match.group(1) or "").lower() == "textarea" else "", source
        )
        source = _TAG.sub("", _BREAK.sub("\n", _BUTTON.sub("", source) if "<button" in source else source))
    lines = [line.rstrip() for line in unescape(source).replace("\r\n", "\n").split("\n")]
    return "\n".join(lines).strip("\n")


def _are_numbers(numbers: str, code: str) -> bool:
    """Whether the first is the line numbers of the second: as many, one after the other; of one line, 1."""
    lines = numbers.split()
    return (
        numbers[:1].isdecimal()
        and all(line.isdecimal() and len(line) <= MAX_DIGITS for line in lines)
        and len(lines) == code.count("\n") + 1
        and int(lines[-1]) - int(lines[0]) == len(lines) - 1
        and (len(lines) > 1 or int(numbers) == 1)
    )


def _table(source: str) -> str | None:
    """The rows of a table of data; None for one that lays out a page, or has words outside its cells."""
    source = source.replace("\x1e", " ").replace("\x1f", " ")  # which part rows and cells below
    attributes = iter(_CELL.findall(source))
    words = _TAG.sub("", _BLOCK_TAG.sub(" ", _CELL.sub("\x1f", _ROW.sub("\x1e", source))))
    caption, *rows = unescape(words).replace("|", "\\|").split("\x1e")
    lines, below = [" ".join(caption.split())], Counter[int]()
    has_spans = _SPAN.search(source) is not None
    for row in rows:
        before, *texts = [" ".join(text.split()).rstrip("¶") for text in row.split("\x1f")]
        if before or max(map(len, texts), default=0) > MAX_CELL:
            return None
        of_cells = [*itertools.islice(attributes, len(texts))]
        cells = _spanned(texts, of_cells, below) if has_spans else texts
        if any(cells):
            lines.append(f"| {' | '.join(cells)} |")
            if len(lines) == 2 and all(kind in "hH" for kind, _ in of_cells):
                lines.append(f"|{'---|' * len(cells)}")
    return "\n".join(line for line in lines if line)


def _spanned(texts: Sequence[str], of_cells: Sequence[tuple[str, str]], below: Counter[int]) -> list[str]:
    """The cells of a row, with an empty one wherever another reaches. below: column → how many rows more a cell above reaches."""
    cells = list[str]()
    for text, (_, attribute) in zip(texts, of_cells, strict=True):
        spans = {name.lower(): min(int(number), MAX_SPAN) for name, number in _SPAN.findall(attribute)}
        columns, rows_below = max(1, spans.get("col", 1)), max(0, spans.get("row", 1) - 1)
        _skip(cells, below)
        below.update({len(cells) + column: rows_below for column in range(columns) if rows_below})
        cells += [text] + [""] * (columns - 1)
    _skip(cells, below)
    return cells


def _skip(cells: list[str], below: Counter[int]) -> None:
    """Leaves empty what a cell of a row above reaches into."""
    while below[len(cells)] > 0:
        below[len(cells)] -= 1
        cells.append("")
