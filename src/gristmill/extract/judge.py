"""The verdict of rule packs on a text.

The rules of a pack are judged in their order, the packs in the order of the recipe; the first that fails drops the document. A
rule that a source switches off is judged all the same and reported as `would_drop`, and so is one that does not fit the
document's language; a limit may be another for one source. A pack that edits does so first, and later packs see the edited text.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from gristmill.errors import RecipeError
from gristmill.extract.code_packs import CODE
from gristmill.extract.dclm_pack import DCLM_RW
from gristmill.extract.english_words import english_words
from gristmill.extract.maths_pack import OPENWEBMATH
from gristmill.extract.measures import Measures
from gristmill.extract.olmo_pack import OLMO2
from gristmill.extract.rules import (
    Edited,
    EditingPack,
    Failure,
    Language,
    Limit,
    Of,
    Pack,
    Rule,
    Tokens,
    fits,
    not_known,
)
from gristmill.extract.starcoder_pack import STARCODER
from gristmill.extract.tree_pack import TREE
from gristmill.extract.web_packs import C4, FINEWEB, GOPHER_QUALITY, GOPHER_REPETITION

PACKS: Mapping[str, Pack] = {
    "gopher_repetition@1": GOPHER_REPETITION,
    "gopher_quality@1": GOPHER_QUALITY,
    "c4@1": C4,
    "fineweb@1": FINEWEB,
    "dclm-rw@1": DCLM_RW,
    "openwebmath@1": OPENWEBMATH,
    "olmo2@1": OLMO2,
    "code@1": CODE,
    "starcoder@1": STARCODER,
    "tree@1": TREE,
}


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


def limits_of(pack: str) -> Sequence[Limit]:
    """The limits of a pack, in the order in which they are judged."""
    found = PACKS[pack]
    return found.limits if isinstance(found, EditingPack) else found


def reasons_of(pack: str) -> list[str]:
    """The reasons that a pack can give, in the order in which its rules are judged."""
    return [limit.reason for limit in limits_of(pack)]


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


def judge(
    text: str,
    packs: Sequence[str],
    *,
    off: Collection[str] = (),
    limits: Mapping[str, float] | None = None,
    language: Language = not_known,
    tokens: Tokens = english_words,
    own: Mapping[str, Sequence[Rule]] | None = None,
    name: str = "",
) -> Verdict:
    """The verdict of the packs on a text, in their order. Any text gets one; no rule of PACKS raises.

    `off` and `limits` are by reason. Judging stops at the first failure of a rule that is on; rules that are off and
    come later in the order are then not judged. language: asked for where a rule fails that does not fit all languages;
    None, which is not known, is judged as English is. tokens: cuts a text into words and punctuation marks.
    own: the rules of packs of a user's own, which may raise RuleError. name: the id of its record, for rules that go by the
    extension of a file.
    """
    limits, own = limits or {}, own or {}
    would_drop: list[Failure] = []
    lines_removed: Counter[str] = Counter()
    measures = Measures(text, tokens, name=name)
    for listed in packs:
        pack: Pack = own[listed] if listed in own else PACKS[listed]
        failures: Iterable[Failure | None]
        if isinstance(pack, EditingPack):
            edited = pack.edit(measures.text, tokens, language)
            lines_removed.update(edited.lines_removed)
            measures = Measures(edited.text, tokens, name=name)
            failures = _of_edited(pack, edited, limits)
        elif listed in own:
            failures = (_judge_own(listed, rule, measures, limits) for rule in pack)
        else:
            failures = (_judge_rule(rule, measures, limits) for rule in pack)
        for failure in failures:
            if failure is None:
                continue
            if failure.reason not in off and _fits(failure.of, language):
                return Verdict(
                    text=measures.text, drop=failure, would_drop=tuple(would_drop), lines_removed=lines_removed
                )
            would_drop.append(failure)
    return Verdict(text=measures.text, drop=None, would_drop=tuple(would_drop), lines_removed=lines_removed)


def _of_edited(pack: EditingPack, edited: Edited, limits: Mapping[str, float]) -> Iterator[Failure | None]:
    by_reason = {limit.reason: limit for limit in pack.limits}
    for reason, value in edited.measured.items():
        yield by_reason[reason].judge(value, limits.get(reason, by_reason[reason].limit))


def _judge_rule(rule: Rule, measures: Measures, limits: Mapping[str, float]) -> Failure | None:
    limit = rule.limit if rule.limit_of is None else rule.limit_of(measures)
    return None if limit is None else rule.judge(rule.measure(measures), limits.get(rule.reason, limit))


def _judge_own(pack: str, rule: Rule, measures: Measures, limits: Mapping[str, float]) -> Failure | None:
    try:
        value = rule.measure(measures)
        if not isinstance(value, int | float) or math.isnan(value):
            raise TypeError(f"expected a number, got {value!r:.40}")
        return rule.judge(float(value), limits.get(rule.reason, rule.limit))
    except MemoryError:
        raise
    except Exception as error:  # whatever code of the user's may raise
        raise RuleError(pack, rule.reason, error) from error


def _fits(of: Of, language: Language) -> bool:
    return of == "text" or (told := language()) is None or fits(of, told)
