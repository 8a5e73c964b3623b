"""Passages: a long text cut into pieces of at most so many characters, at paragraphs or else lines, sentences, words.

Among the places of the best kind that lie within reach that one is taken whose next words have the lowest hash. So a text is cut
at the same places wherever it begins, in a book and in its chapters, in a PDF and on a page, and copies of passages are found
as copies (cuts by content: Muthitacharoen, Chen and Mazières 2001, A low-bandwidth network file system).
"""

from __future__ import annotations

import itertools
import re

import xxhash

KINDS = tuple(
    map(
        re.compile,
        (
            r"\n[^\S\n]*\n\s*",  # a blank line
            r"\n\s*",
            r"[.!?…]\s+|[。！？]\s*",  # the end of a sentence
            r"\s+",
        ),
    )
)
SPACE, NO_SPACE, WORD = re.compile(r"\s+"), re.compile(r"\S"), re.compile(r"\w+")
HASHED_WORDS, HASHED_CHARS = 6, 120  # behind a place


def cut_passages(text: str, max_chars: int) -> list[str]:
    """The text in passages that, joined, give it back; none is blank unless the text is.

    Each has at least a quarter of max_chars and at most so many characters, blank ones at its ends apart; but where no word ends
    in time the passage is longer, and the next may be shorter.
    """
    if len(text) <= max_chars:
        return [text]
    start, end, cuts = len(text) - len(text.lstrip()), len(text.rstrip()), [0]
    while end - start > max_chars and (cut := _next_cut(text, start, end, max_chars)) < end:
        cuts.append(cut)
        start = NO_SPACE.search(text, cut).start()  # type: ignore[union-attr]  # it lies before the end
    return [text[a:b] for a, b in itertools.pairwise([*cuts, len(text)])]


def _next_cut(text: str, start: int, end: int, max_chars: int) -> int:
    first, last = start + max_chars // 2, min(start + max_chars, end - max_chars // 4)
    for kind in KINDS:
        if places := {_place(text, found) for found in kind.finditer(text, first, last)}:
            return min(places, key=lambda place: (_hash(text, place), place))
    behind = SPACE.search(text, last)
    return end if behind is None else _place(text, behind)


def _place(text: str, found: re.Match[str]) -> int:
    """Where the next passage begins: with the first line that is not blank, or in the middle of a line."""
    character = NO_SPACE.search(text, found.end())
    begins = len(text) if character is None else character.start()
    return text.rfind("\n", found.start(), begins) + 1 or begins


def _hash(text: str, place: int) -> int:
    words = itertools.islice(WORD.finditer(text, place, place + HASHED_CHARS), HASHED_WORDS)
    return xxhash.xxh3_64_intdigest(" ".join(word[0] for word in words).casefold().encode("utf-8", "surrogatepass"))


def passage_id(record_id: str, number: int) -> str:
    """The id of a passage of a record."""
    return f"{record_id}#{number}"


def record_id(passage_id: str) -> str:
    """The id of the record that a passage is of."""
    return passage_id.rpartition("#")[0]
