"""What a rule is: a measure, a limit, a reason that names what failed, and the languages that it fits.

    rules.py ─→ web_packs.py, code_packs.py: the packs that come with gristmill ─→ judge.py: the verdict on a text
             └→ own_packs.py: packs of a user's own ─────────────────────────────┘

A rule of the English language, or one that counts words, is off for documents in languages that it does not fit: the
papers' thresholds are of English, and FineWeb2 (Penedo et al. 2025, arXiv 2506.20920) fits its own to each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from gristmill.extract.measures import Measures

# Languages whose words are no runs of letters: written without blanks, in syllables, or with vowel signs that are marks.
_OTHER_WORDS = "as bh bn bo bpy dty dv gom gu hi ja km kn ko lo mai ml mr my ne new or pa sa si ta te th wuu yue zh"
OTHER_WORDS = frozenset(_OTHER_WORDS.split())

Of = Literal["text", "words", "english"]
Tokens = Callable[[str], Sequence[str]]
Language = Callable[[], str | None]


def not_known() -> str | None:
    """The language of a text where nobody asks for it."""
    return None


def fits(of: Of, language: str) -> bool:
    """Whether what judges `of` a text judges texts in this language."""
    return language == "en" if of == "english" else of == "text" or language not in OTHER_WORDS


@dataclass(frozen=True, kw_only=True, slots=True)
class Limit:
    """What drops a text whose measure is above (`max`) or below (`min`) the limit; the limit itself is allowed.

    of: what it judges, so the languages that it fits: all, all but OTHER_WORDS, English.
    """

    reason: str
    kind: Literal["min", "max"]
    limit: float
    of: Of = "text"

    def judge(self, value: float, limit: float) -> Failure | None:
        """The failure, where the value is beyond the limit."""
        fails = value > limit if self.kind == "max" else value < limit
        return Failure(reason=self.reason, value=value, limit=limit, of=self.of) if fails else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule(Limit):
    """A limit, and what is measured of a text. limit_of: where texts have limits of their own; None: not judged."""

    measure: Callable[[Measures], float]
    limit_of: Callable[[Measures], float | None] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """A rule that failed: what was measured and what is allowed. of: what the rule judges."""

    reason: str
    value: float
    limit: float
    of: Of = "text"


@dataclass(frozen=True, kw_only=True, slots=True)
class Edited:
    """A text with lines taken out: how many by reason, and what was measured on the way, in the order in which it is judged."""

    text: str
    lines_removed: Counter[str] = field(default_factory=Counter)
    measured: Mapping[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class EditingPack:
    """A pack that takes lines out and judges what it met: the limits of what `edit` measures."""

    edit: Callable[[str, Tokens, Language], Edited]
    limits: tuple[Limit, ...]


Pack = Sequence[Rule] | EditingPack


def at_most(reason: str, limit: float, measure: Callable[[Measures], float]) -> Rule:
    """A rule that drops what is above the limit."""
    return Rule(reason=reason, kind="max", limit=limit, measure=measure)


def at_least(reason: str, limit: float, measure: Callable[[Measures], float]) -> Rule:
    """A rule that drops what is below the limit."""
    return Rule(reason=reason, kind="min", limit=limit, measure=measure)


def of_words(*rules: Rule) -> tuple[Rule, ...]:
    """The rules, as such that judge words."""
    return tuple(replace(rule, of="words") for rule in rules)
