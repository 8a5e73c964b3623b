"""Heuristic rules, as named and versioned packs with published thresholds.

A rule is a measure, a limit and a reason that names what failed. Rules are judged in the order of their pack; the
first that fails drops the document. A rule that a source switches off is judged all the same and reported as
`would_drop`; a limit may be another for one source. c4@1 edits the text first, and later packs see the edited text.
A rule of the English language, or one that counts words, is off for documents in languages that it does not fit: the
papers' thresholds are of English, and FineWeb2 (Penedo et al. 2025, arXiv 2506.20920) fits its own to each.

Sources: Gopher (Rae et al. 2021, arXiv 2112.11446, table A1), C4 (Raffel et al. 2020, arXiv 1910.10683, section 2.2),
FineWeb (Penedo et al. 2024, arXiv 2406.17557, section 3), StarCoder (Li et al. 2023, arXiv 2305.06161, section 3).
Where papers and the code that made FineWeb differ (case-sensitive distinct stop words, no end-mark rule in C4, "-" and
"•" as the only bullets), the code is followed. Tokens: see `english_words.py`.
"""

from __future__ import annotations

import functools
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from gristmill.errors import RecipeError
from gristmill.extract.english_words import english_words
from gristmill.extract.marks import END_MARKS, SENTENCE_MARKS
from gristmill.extract.measures import Measures

# Languages whose words are no runs of letters: written without blanks, in syllables, or with vowel signs that are marks.
_OTHER_WORDS = "as bh bn bo bpy dty dv gom gu hi ja km kn ko lo mai ml mr my ne new or pa sa si ta te th wuu yue zh"
OTHER_WORDS = frozenset(_OTHER_WORDS.split())


Of = Literal["text", "words", "english"]


def fits(of: Of, language: str) -> bool:
    """Whether what judges `of` a text judges texts in this language."""
    return language == "en" if of == "english" else of == "text" or language not in OTHER_WORDS


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """Drops a text whose measure is above (`max`) or below (`min`) the limit; the limit itself is allowed.

    of: what it judges, so the languages that it fits: all, all but OTHER_WORDS, English.
    """

    reason: str
    kind: Literal["min", "max"]
    limit: float
    measure: Callable[[Measures], float]
    of: Of = "text"

    def fails(self, value: float, limit: float) -> bool:
        return value > limit if self.kind == "max" else value < limit


@dataclass(frozen=True, kw_only=True, slots=True)
class Edited:
    """A text with lines taken out, how many by reason, and how often words were met that condemn the whole page."""

    text: str
    lines_removed: Counter[str]
    met: Counter[str]
    num_sentences: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """A rule that failed: what was measured and what is allowed. of: what the rule judges."""

    reason: str
    value: float
    limit: float
    of: Of = "text"


class RuleError(Exception):
    """A rule of a user's own that raised on a text, or gave no number."""

    def __init__(self, pack: str, reason: str, cause: Exception) -> None:
        super().__init__(f"{pack}, {reason}: {cause}")
        self.pack, self.reason, self.cause = pack, reason, cause


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """The text as the packs left it, the failure that drops it (None: it stays), and failures of rules that are off."""

    text: str
    drop: Failure | None
    would_drop: tuple[Failure, ...] = ()
    lines_removed: Counter[str] = field(default_factory=Counter)


def _max(reason: str, limit: float, measure: Callable[[Measures], float]) -> Rule:
    return Rule(reason=reason, kind="max", limit=limit, measure=measure)


def _min(reason: str, limit: float, measure: Callable[[Measures], float]) -> Rule:
    return Rule(reason=reason, kind="min", limit=limit, measure=measure)


def _of_words(*rules: Rule) -> tuple[Rule, ...]:
    return tuple(replace(rule, of="words") for rule in rules)


# ── Gopher ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _top_ngram(n: int) -> Callable[[Measures], float]:
    return lambda text: text.top_ngram_share(n)


def _duplicated_ngrams(n: int) -> Callable[[Measures], float]:
    return lambda text: text.duplicated_ngram_share(n)


GOPHER_REPETITION = (
    _max("repeated_paragraphs", 0.30, lambda text: text.duplicate_paragraphs[0]),
    _max("repeated_paragraph_characters", 0.20, lambda text: text.duplicate_paragraphs[1]),
    _max("repeated_lines", 0.30, lambda text: text.duplicate_lines[0]),
    _max("repeated_line_characters", 0.20, lambda text: text.duplicate_lines[1]),
    *_of_words(
        *(_max(f"top_{n}_gram", limit, _top_ngram(n)) for n, limit in ((2, 0.20), (3, 0.18), (4, 0.16))),
        *(
            _max(f"repeated_{n}_grams", limit, _duplicated_ngrams(n))
            for n, limit in ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10))
        ),
    ),
)

STOP_WORDS = frozenset(["the", "be", "to", "of", "and", "that", "have", "with"])

GOPHER_QUALITY = (
    *_of_words(
        _min("too_few_words", 50, lambda text: text.num_words),
        _max("too_many_words", 100_000, lambda text: text.num_words),
        _min("words_too_short", 3, lambda text: text.mean_word_length),
        _max("words_too_long", 10, lambda text: text.mean_word_length),
        _max("too_many_hashes", 0.1, lambda text: text.per_token("#")),
        _max("too_many_ellipses", 0.1, lambda text: text.per_token("...", "…")),
    ),
    _max(
        "too_many_bullet_lines",
        0.9,
        lambda text: text.share_of_lines([line.lstrip().startswith(("•", "-")) for line in text.text.splitlines()]),
    ),
    _max(
        "too_many_lines_end_in_ellipsis",
        0.3,
        lambda text: text.share_of_lines([line.rstrip().endswith(("...", "…")) for line in text.text.splitlines()]),
    ),
    *_of_words(_min("too_few_tokens_with_letters", 0.8, lambda text: text.share_with_letter)),
    replace(_min("too_few_stop_words", 2, lambda text: text.num_distinct(STOP_WORDS)), of="english"),
)

# ── C4 ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

_CITATION = re.compile(r"\[\d{0,9}\]|\[edit\]|\[citation needed\]")
POLICY_PHRASES = (
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
)


def edit_c4(text: str, tokens: Callable[[str], Sequence[str]] = english_words, *, min_words: int = 3) -> Edited:
    """C4's work on lines: takes lines and citation marks out, and counts what condemns the whole page, in the order met.

    Lines are taken out for a word of over 1,000 characters, fewer than `min_words`, "javascript" or a policy phrase.
    "lorem ipsum" and "{" condemn the page, unless their line was taken out by a check before. C4's own demand for
    end marks is off, as in FineWeb.
    """
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
    return Edited(text="\n".join(kept).strip(), lines_removed=removed, met=met, num_sentences=num_sentences)


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


_C4_LIMITS = {"lorem_ipsum": 0.0, "curly_bracket": 0.0, "too_few_sentences": 5.0}

# ── FineWeb ──────────────────────────────────────────────────────────────────────────────────────────────────────────

FINEWEB = (
    _min(
        "too_few_lines_end_in_punctuation",
        0.12,
        lambda text: text.share_of_lines([line.endswith(END_MARKS) for line in text.lines]),
    ),
    _max("too_many_short_lines", 0.67, lambda text: text.share_of_lines([len(line) <= 30 for line in text.lines])),
    _max("too_many_duplicate_line_characters", 0.01, lambda text: text.repeated_line_share),
    *_of_words(_max("too_many_newlines_per_word", 0.3, lambda text: text.text.count("\n") / max(1, text.num_tokens))),
)

# ── code ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

_ENCODED = re.compile(r"^(?:[A-Za-z0-9+/]{40,}={0,2}\n){2,}", re.MULTILINE)
GENERATED_PHRASES = ("auto-generated", "autogenerated", "automatically generated", "generated by", "do not edit")


def _share(text: Measures, holds: Callable[[str], bool]) -> float:
    return sum(map(holds, text.text)) / text.num_characters


def _longest_encoded(text: Measures) -> float:
    return max((len(match.group()) for match in _ENCODED.finditer(text.text)), default=0)


def _says_generated(text: Measures) -> float:
    head = "\n".join(text.text[:5000].split("\n", 5)[:5]).lower()
    return float(any(phrase in head for phrase in GENERATED_PHRASES))


CODE = (
    _max("line_too_long", 1000, lambda text: max(map(len, text.text.split("\n")))),
    _max("lines_too_long_on_average", 100, lambda text: len(text.text) / (text.text.count("\n") + 1)),
    _min("too_few_letters_and_digits", 0.25, lambda text: _share(text, str.isalnum)),
    _min("too_few_letters", 0.25, lambda text: _share(text, str.isalpha)),
    _max("xml_header", 0, lambda text: float("<?xml" in text.text[:100])),
    _max("generated_file", 0, _says_generated),
    _max("encoded_data", 1024, _longest_encoded),
)

# ── judging ──────────────────────────────────────────────────────────────────────────────────────────────────────────

PACKS: Mapping[str, tuple[Rule, ...]] = {
    "gopher_repetition@1": GOPHER_REPETITION,
    "gopher_quality@1": GOPHER_QUALITY,
    "c4@1": (),
    "fineweb@1": FINEWEB,
    "code@1": CODE,
}


def reasons_of(pack: str) -> list[str]:
    """The reasons that a pack can give, in the order in which its rules are judged."""
    return list(_C4_LIMITS) if pack == "c4@1" else [rule.reason for rule in PACKS[pack]]


def check_rules(
    packs: Sequence[str],
    off: Collection[str],
    limits: Mapping[str, float],
    *,
    where: str,
    own: Mapping[str, Sequence[Rule]] | None = None,
) -> None:
    """Raises RecipeError for a pack that does not exist, or a reason in `off` or `limits` that none of `packs` has."""
    own = own or {}
    for pack in packs:
        if pack not in PACKS and pack not in own:
            raise RecipeError(
                f"{where}.packs names {pack!r}; there are {', '.join(PACKS)}, and your own as FILE.py:NAME."
            )
    known = {rule.reason for rules in own.values() for rule in rules}
    known |= {reason for pack in packs if pack in PACKS for reason in reasons_of(pack)}
    for name, reasons in (("off", off), ("limits", limits)):
        if unknown := sorted(set(reasons) - known):
            raise RecipeError(
                f"{where}.{name} names {', '.join(map(repr, unknown))}, a reason of none of its packs.\n"
                f"  They have {', '.join(sorted(known)) or 'no reasons: no packs are listed'}."
            )


def _judge_rule(rule: Rule, measures: Measures, limits: Mapping[str, float]) -> Failure | None:
    value, limit = rule.measure(measures), limits.get(rule.reason, rule.limit)
    return Failure(reason=rule.reason, value=value, limit=limit, of=rule.of) if rule.fails(value, limit) else None


def _judge_own(pack: str, rule: Rule, measures: Measures, limits: Mapping[str, float]) -> Failure | None:
    def measure(text: Measures) -> float:
        value = rule.measure(text)
        if not isinstance(value, int | float) or math.isnan(value):
            raise TypeError(f"expected a number, got {value!r:.40}")
        return float(value)

    try:
        return _judge_rule(replace(rule, measure=measure), measures, limits)
    except MemoryError:
        raise
    except Exception as error:  # whatever code of the user's may raise
        raise RuleError(pack, rule.reason, error) from error


def _judge_c4(edited: Edited, limits: Mapping[str, float]) -> Iterator[Failure | None]:
    for reason, times in edited.met.items():
        value = float(times)
        limit = limits.get(reason, _C4_LIMITS[reason])
        yield Failure(reason=reason, value=value, limit=limit) if value > limit else None
    limit = limits.get("too_few_sentences", _C4_LIMITS["too_few_sentences"])
    if edited.num_sentences < limit:
        yield Failure(reason="too_few_sentences", value=edited.num_sentences, limit=limit, of="words")


def judge(
    text: str,
    packs: Sequence[str],
    *,
    off: Collection[str] = (),
    limits: Mapping[str, float] | None = None,
    language: Callable[[], str | None] = lambda: None,
    tokens: Callable[[str], Sequence[str]] = english_words,
    own: Mapping[str, Sequence[Rule]] | None = None,
) -> Verdict:
    """The verdict of the packs on a text, in their order. Any text gets one; no rule of PACKS raises.

    `off` and `limits` are by reason. Judging stops at the first failure of a rule that is on; rules that are off and
    come later in the order are then not judged. language: asked for where a rule fails that does not fit all languages;
    None, which is not known, is judged as English is. tokens: cuts a text into words and punctuation marks.
    own: the rules of packs of a user's own, which may raise RuleError.
    """
    limits, own = limits or {}, own or {}
    would_drop: list[Failure] = []
    lines_removed: Counter[str] = Counter()
    measures = Measures(text, tokens)
    failures: Iterable[Failure | None]
    for pack in packs:
        if pack == "c4@1":
            edited = edit_c4(measures.text, tokens)
            if edited.lines_removed["too_few_words"] and not measures.text.isascii() and language() in OTHER_WORDS:
                edited = edit_c4(measures.text, tokens, min_words=1)
            lines_removed.update(edited.lines_removed)
            measures = Measures(edited.text, tokens)
            failures = _judge_c4(edited, limits)
        elif pack in own:
            failures = (_judge_own(pack, rule, measures, limits) for rule in own[pack])
        else:
            failures = (_judge_rule(rule, measures, limits) for rule in PACKS[pack])
        for failure in failures:
            if failure is None:
                continue
            if failure.reason not in off and _fits(failure.of, language):
                return Verdict(
                    text=measures.text, drop=failure, would_drop=tuple(would_drop), lines_removed=lines_removed
                )
            would_drop.append(failure)
    return Verdict(text=measures.text, drop=None, would_drop=tuple(would_drop), lines_removed=lines_removed)


def _fits(of: Of, language: Callable[[], str | None]) -> bool:
    return of == "text" or (told := language()) is None or fits(of, told)
