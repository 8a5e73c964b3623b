"""DCLM-RefinedWeb's rules about lines: lines of capitals, digits, counters, one word, and boilerplate of shops leave; a page that
loses too much by it is dropped.

Source: the lines of DCLM's published configuration `dclm_baseline_refinedweb.yaml` from the first word count on, as its code runs
them (Li et al. 2024, arXiv 2406.11794, appendix; RefinedWeb: Penedo et al. 2023, arXiv 2306.01116, appendix G.2). Each rule goes over
all lines before the next, with the text stripped in between.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

from gristmill.extract.english_words import english_words
from gristmill.extract.rules import OTHER_WORDS, Edited, EditingPack, Language, Limit, Tokens, not_known

SHORT_LINE_WORDS = 10  # in longer lines boilerplate stays
_COUNTED = "likes shares comments retweets reposts quotes bookmarks upvotes downvotes downloads views followers"

_COUNTER = re.compile(rf"\W*\d[\d,.]*[kmb]?\s+(?:{'|'.join(_COUNTED.split())})\W*")
# As published they are patterns: the dots stand for any character, and case does not count.
_BOILERPLATE = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (r"\s?items in cart", r"\s?read more...$", r"^sign-in\s?")
)  # fmt: skip
_WHITE_SPACE = re.compile(r"[ \n\r\t\v\f\0]+")  # fastText's


def _is_mostly_capitals(line: str) -> bool:
    return sum(map(str.isupper, line)) > 0.5 * len(line)


def _is_all_digits(line: str) -> bool:
    return sum(map(str.isdigit, line)) > 0.999999 * len(line)


def _is_counter(line: str) -> bool:
    return _COUNTER.fullmatch(line.lower()) is not None


def _is_one_word(line: str) -> bool:
    return len(line.split(None, 1)) < 2


# (reason, what condemns a line, whether the text is stripped after)
_LINE_RULES: Sequence[tuple[str, Callable[[str], bool], bool]] = (
    ("mostly_capitals", _is_mostly_capitals, True),
    ("all_digits", _is_all_digits, True),
    ("counter", _is_counter, True),
    ("one_word", _is_one_word, False),
)


def edit_dclm(text: str, tokens: Tokens = english_words, language: Language = not_known) -> Edited:
    """The text without the lines; what is measured is the share of words that went with them, 1 where nothing is left, or nothing was.

    Blank lines stay. In languages without blanks a line of one word stays, too.
    """
    edited = _edit(text, _LINE_RULES)
    if edited.lines_removed["one_word"] and not text.isascii() and language() in OTHER_WORDS:
        return _edit(text, [rule for rule in _LINE_RULES if rule[0] != "one_word"])
    return edited


def _edit(text: str, rules: Sequence[tuple[str, Callable[[str], bool], bool]]) -> Edited:
    before, removed = _count_words(text), Counter[str]()
    for reason, is_out, is_stripped in rules:
        lines = text.split("\n")
        kept = [line for line in lines if not line or not is_out(line)]
        removed[reason] += len(lines) - len(kept)
        text = "\n".join(kept).strip() if is_stripped else "\n".join(kept)
    for pattern in _BOILERPLATE:
        lines = text.split("\n")
        kept = [cut for line in lines if (cut := _without(pattern, line)) is not None]
        removed["boilerplate"] += len(lines) - len(kept)
        text = "\n".join(kept).strip()
    share = (before - _count_words(text)) / before if before and text else 1.0
    return Edited(text=text, lines_removed=+removed, measured={"too_many_words_removed": share})


def _without(pattern: re.Pattern[str], line: str) -> str | None:
    """A line without what the pattern finds, if it is short; None where nothing of it is left."""
    if not line or len(line.split()) > SHORT_LINE_WORDS:
        return line
    cut = pattern.sub("", line)
    return cut if cut.strip() else None


def _count_words(text: str) -> int:
    """Words between fastText's white space that begin with a letter or digit."""
    return sum(word[0].isalnum() for word in _WHITE_SPACE.split(text) if word)


DCLM_RW = EditingPack(
    edit=edit_dclm, limits=(Limit(reason="too_many_words_removed", kind="max", limit=0.05, of="words"),)
)
