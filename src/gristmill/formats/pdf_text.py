"""From the lines of pages to text: running heads and page numbers removed, paragraphs and hyphenated words joined.

A PDF file gives the position of each character and no paragraphs. The rules use only geometry and the document's own words:

    running heads   lines at the edge of pages, set apart, at one height on many of them, whose text repeats except for numbers
    paragraphs      a line continues in the next one if that is not set apart and its first word would not have fitted
    hyphens         a word hyphenated at a line's end is joined, and keeps its hyphen if the document writes it so elsewhere
"""

from __future__ import annotations

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

HYPHEN = "\ufffe"  # PDFium's mark for a hyphen at a line's end together with the line end
MIN_RUNNING_PAGES = 3
MIN_RUNNING_SHARE = 0.1  # of the pages; the first page of a chapter has no head, and heads change by chapter
MIN_REPEATED_SHARE = 0.5  # of the lines at that height: prose also begins at one height, but does not repeat
MAX_RUNNING_LINES = 3  # at each edge
SAME_HEIGHT = 2.0  # points
SET_APART = 1.5  # heights of a line
NUMBERS = re.compile(r"\d+|\b[ivxlc]+\b")
BULLET = re.compile(r"([•◦▪‣·–—*-]|\(?(\d{1,3}|[a-z])[.)])\s")
ENDS_SENTENCE = re.compile(r"[.!?:;…。！？][\"'”’)\]]*$")
HYPHENS = "-\u2010\xad"
CUT_WORD = re.compile(rf"(\w+)([{HYPHENS}]\n|{HYPHEN})(\w+)")
WORD = re.compile(r"\w+(?:-\w+)*")
WIDE_GAP = 1.3  # times the usual distance of lines
OTHER_SIZE = 0.15
Edge = Callable[[Iterable[float]], float]  # max: the upper one
CJK = re.compile("[\u3000-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef]")


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """A line of a page; lengths in points, from the lower left corner. is_hyphenated: its last word continues in the next line."""

    text: str
    left: float
    right: float
    bottom: float
    height: float
    is_hyphenated: bool = False


def text_of(pages: Sequence[Sequence[Line]]) -> str:
    """The text of a document, paragraphs separated by blank lines."""
    parts: list[str] = []
    last: Line | None = None
    for page in without_running_lines(pages):
        page_parts = list(_joined(page))
        if page and last is not None:
            parts.append(_between_pages(last, page[0]))
        parts += page_parts
        last = page[-1] if page else last
    return _without_hyphens("".join(parts))


# ── running heads ────────────────────────────────────────────────────────────────────────────────────────────────────


def without_running_lines(pages: Sequence[Sequence[Line]]) -> list[list[Line]]:
    """The pages without the lines that run along their edges: heads, feet, page numbers."""
    left = [list(page) for page in pages]
    edges: tuple[Edge, Edge] = (max, min)
    for edge in edges:
        for _ in range(MAX_RUNNING_LINES):
            running = _running(left, edge)
            if not running:
                break
            for page, lines in running.items():
                left[page] = [line for line in left[page] if line not in lines]
    return left


def _running(pages: Sequence[Sequence[Line]], edge: Edge) -> dict[int, list[Line]]:
    """Page → its lines nearest to an edge, of those pages where they run."""
    outermost: dict[int, list[tuple[int, list[Line]]]] = defaultdict(list)
    for number, page in enumerate(pages):
        if page and _is_set_apart(page, edge):
            height = edge(line.bottom for line in page)
            lines = [line for line in page if abs(line.bottom - height) <= SAME_HEIGHT]
            outermost[round(height / SAME_HEIGHT)].append((number, lines))
    found: dict[int, list[Line]] = {}
    for height, here in outermost.items():
        beside = [*here, *outermost.get(height - 1, []), *outermost.get(height + 1, [])]
        keys = Counter(_key(lines) for _, lines in beside)
        repeated = sum(count for count in keys.values() if count > 1)
        if len(beside) >= max(MIN_RUNNING_PAGES, MIN_RUNNING_SHARE * len(pages)) and (
            repeated >= MIN_REPEATED_SHARE * len(beside)
        ):
            found.update(dict(here))
    return found


def _is_set_apart(page: Sequence[Line], edge: Edge) -> bool:
    """Whether there is a gap behind the first lines from an edge, or nothing else on the page."""
    heights = sorted({line.bottom for line in page}, reverse=edge is max)[: MAX_RUNNING_LINES + 1]
    gaps = [abs(a - b) for a, b in itertools.pairwise(heights)]
    return not gaps or max(gaps) > SET_APART * page[0].height


def _key(lines: Sequence[Line]) -> str:
    return NUMBERS.sub("0", " ".join(line.text for line in lines).lower())


# ── paragraphs ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _joined(page: Sequence[Line]) -> Iterator[str]:
    """The lines of a page and the separators between them."""
    steps = [above.bottom - below.bottom for above, below in itertools.pairwise(page)]
    down = [step for step, line in zip(steps, page) if 0.3 * line.height < step < 3 * line.height]
    usual = median(down) if down else 0.0
    columns = _columns(page)
    for number, line in enumerate(page):
        yield line.text
        if number + 1 < len(page):
            yield _between(line, page[number + 1], usual=usual, column_right=columns[number])


def _columns(page: Sequence[Line]) -> list[float]:
    """For each line, how far the lines with about the same left edge reach to the right."""
    reach: dict[int, float] = defaultdict(float)
    for line in page:
        place = round(line.left / max(1.0, 2 * line.height))
        reach[place] = max(reach[place], line.right)
    return [max(reach.get(round(line.left / max(1.0, 2 * line.height)) + k, 0.0) for k in (-1, 0, 1)) for line in page]


def _between(line: Line, following: Line, *, usual: float, column_right: float) -> str:
    """The separator between a line and the next one: a blank line, a line end, a space, or nothing."""
    step = line.bottom - following.bottom
    if line.is_hyphenated:
        return HYPHEN
    if abs(step) <= 0.3 * line.height:
        return " "  # beside it
    if step < 0:
        return _between_pages(line, following)  # the next column
    if step > WIDE_GAP * usual or abs(line.height - following.height) > OTHER_SIZE * line.height:
        return "\n\n"
    if BULLET.match(following.text):
        return "\n"
    if _is_cut(line, following):
        return "\n"  # see _without_hyphens
    char_width = (line.right - line.left) / len(line.text)
    first_word = following.text.split(maxsplit=1)[0] if following.text else ""
    if line.right + char_width * (len(first_word) + 1) < column_right:
        return "\n"
    if following.left - line.left > 0.8 * line.height and not BULLET.match(line.text):
        return "\n\n"
    return _space(line, following)


def _between_pages(line: Line, following: Line) -> str:
    """The separator between the last line of a page or column and the first line of the next."""
    if line.is_hyphenated:
        return HYPHEN
    goes_on = not ENDS_SENTENCE.search(line.text) and not following.text[:1].isupper()
    return _space(line, following) if goes_on and not BULLET.match(following.text) else "\n\n"


def _space(line: Line, following: Line) -> str:
    if _is_cut(line, following):
        return "\n"  # see _without_hyphens
    return "" if CJK.match(line.text[-1:]) and CJK.match(following.text[:1]) else " "


def _is_cut(line: Line, following: Line) -> bool:
    """Whether a line ends in a hyphen that PDFium did not mark."""
    return line.text.endswith(tuple(HYPHENS)) and line.text[-2:-1].isalpha() and following.text[:1].islower()


# ── hyphens ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _without_hyphens(text: str) -> str:
    """Joins hyphenated words as the document writes them elsewhere; otherwise without hyphen, unless both halves are words of it."""
    words: set[str] = set()
    if CUT_WORD.search(text):
        words = {word.lower() for word in WORD.findall(CUT_WORD.sub(" ", text))}

    def whole(found: re.Match[str]) -> str:
        first, _, second = found.groups()
        joined, hyphenated = first + second, f"{first}-{second}"
        if joined.lower() in words:
            return joined
        is_compound = hyphenated.lower() in words or {first.lower(), second.lower()} <= words
        return hyphenated if is_compound else joined

    return CUT_WORD.sub(whole, text).replace(HYPHEN, "")
