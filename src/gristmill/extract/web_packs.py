"""Packs for text of the web: Gopher's, C4's and FineWeb's, by their published thresholds.

Sources: Gopher (Rae et al. 2021, arXiv 2112.11446, table A1), C4 (Raffel et al. 2020, arXiv 1910.10683, section 2.2),
FineWeb (Penedo et al. 2024, arXiv 2406.17557, section 3).
Where papers and the code that made FineWeb differ (case-sensitive distinct stop words, no end-mark rule in C4, "-" and
"•" as the only bullets), the code is followed. Tokens: see `english_words.py`.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace

from gristmill.extract.english_words import english_words
from gristmill.extract.marks import END_MARKS, SENTENCE_MARKS
from gristmill.extract.measures import Measures
from gristmill.extract.rules import (
    OTHER_WORDS,
    Edited,
    EditingPack,
    Language,
    Limit,
    Tokens,
    at_least,
    at_most,
    not_known,
    of_words,
)

# ── Gopher ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _top_ngram(n: int) -> Callable[[Measures], float]:
    return lambda text: text.top_ngram_share(n)


def _duplicated_ngrams(n: int) -> Callable[[Measures], float]:
    return lambda text: text.duplicated_ngram_share(n)


GOPHER_REPETITION = (
    at_most("repeated_paragraphs", 0.30, lambda text: text.duplicate_paragraphs[0]),
    at_most("repeated_paragraph_characters", 0.20, lambda text: text.duplicate_paragraphs[1]),
    at_most("repeated_lines", 0.30, lambda text: text.duplicate_lines[0]),
    at_most("repeated_line_characters", 0.20, lambda text: text.duplicate_lines[1]),
    *of_words(
        *(at_most(f"top_{n}_gram", limit, _top_ngram(n)) for n, limit in ((2, 0.20), (3, 0.18), (4, 0.16))),
        *(
            at_most(f"repeated_{n}_grams", limit, _duplicated_ngrams(n))
            for n, limit in ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10))
        ),
    ),
)

STOP_WORDS = frozenset(["the", "be", "to", "of", "and", "that", "have", "with"])

GOPHER_QUALITY = (
    *of_words(
        at_least("too_few_words", 50, lambda text: text.num_words),
        at_most("too_many_words", 100_000, lambda text: text.num_words),
        at_least("words_too_short", 3, lambda text: text.mean_word_length),
        at_most("words_too_long", 10, lambda text: text.mean_word_length),
        at_most("too_many_hashes", 0.1, lambda text: text.per_token("#")),
        at_most("too_many_ellipses", 0.1, lambda text: text.per_token("...", "…")),
    ),
    at_most(
        "too_many_bullet_lines",
        0.9,
        lambda text: text.share_of_lines([line.lstrip().startswith(("•", "-")) for line in text.text.splitlines()]),
    ),
    at_most(
        "too_many_lines_end_in_ellipsis",
        0.3,
        lambda text: text.share_of_lines([line.rstrip().endswith(("...", "…")) for line in text.text.splitlines()]),
    ),
    *of_words(at_least("too_few_tokens_with_letters", 0.8, lambda text: text.share_with_letter)),
    replace(at_least("too_few_stop_words", 2, lambda text: text.num_distinct(STOP_WORDS)), of="english"),
)
# ── C4 ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────

_CITATION = re.compile(r"\[\d{0,9}\]|\[edit\]|\[citation needed\]")
POLICY_PHRASES = (
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
)


def edit_c4(text: str, tokens: Tokens = english_words, language: Language = not_known) -> Edited:
    """C4's work on lines: takes lines and citation marks out, and counts what condemns the whole page, in the order met.

    Lines are taken out for a word of over 1,000 characters, fewer than three words (one in languages without blanks),
    "javascript" or a policy phrase. "lorem ipsum" and "{" condemn the page, unless their line was taken out by a check before.
    C4's own demand for end marks is off, as in FineWeb.
    """
    edited = _edit_c4(text, tokens, min_words=3)
    if edited.lines_removed["too_few_words"] and not text.isascii() and language() in OTHER_WORDS:
        return _edit_c4(text, tokens, min_words=1)
    return edited


def _edit_c4(text: str, tokens: Tokens, *, min_words: int) -> Edited:
    kept: list[str] = []
    removed: Counter[str] = Counter()
    met: Counter[str] = Counter()
    num_sentences = 0
    for line in text.splitlines():
        line = line.strip()
        if len(line) > 1000 and max(map(len, line.split())) > 1000:
            removed["word_too_long"] += 1
            continue
        if len(line.split(None, min_words)) < min_words:
            removed["too_few_words"] += 1
            continue
        if "[" in line:
            line = _CITATION.sub("", line)
        lower = line.lower()
        if "lorem ipsum" in lower:
            met["lorem_ipsum"] += 1
        if "javascript" in lower:
            removed["javascript"] += 1
            continue
        if "{" in line:
            met["curly_bracket"] += 1
        if any(phrase in lower for phrase in POLICY_PHRASES):
            removed["policy"] += 1
            continue
        num_sentences += _sentences(tokens(line))
        kept.append(line)
    measured = {**met, "too_few_sentences": num_sentences}
    return Edited(text="\n".join(kept).strip(), lines_removed=removed, measured=measured)


def _sentences(tokens: Iterable[str]) -> int:
    """A sentence begins with the text, and with the first token after an end mark that is no punctuation."""
    count, has_ended = 1, False
    for token in tokens:
        if token in SENTENCE_MARKS:
            has_ended = True
        elif has_ended and not all(map(_is_punctuation, token)):
            count, has_ended = count + 1, False
    return count


@functools.cache
def _is_punctuation(character: str) -> bool:
    return unicodedata.category(character).startswith("P")


C4 = EditingPack(
    edit=edit_c4,
    limits=(
        Limit(reason="lorem_ipsum", kind="max", limit=0),
        Limit(reason="curly_bracket", kind="max", limit=0),
        Limit(reason="too_few_sentences", kind="min", limit=5, of="words"),
    ),
)
# ── FineWeb ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

FINEWEB = (
    at_least(
        "too_few_lines_end_in_punctuation",
        0.12,
        lambda text: text.share_of_lines([line.endswith(END_MARKS) for line in text.lines]),
    ),
    at_most("too_many_short_lines", 0.67, lambda text: text.share_of_lines([len(line) <= 30 for line in text.lines])),
    at_most("too_many_duplicate_line_characters", 0.01, lambda text: text.repeated_line_share),
    *of_words(at_most("too_many_newlines_per_word", 0.3, lambda text: text.text.count("\n") / max(1, text.num_tokens))),
)
