"""Chat data made by rule: sums and questions about definitions. Everything is a pure function of its arguments.

Sums are named "sum/a+b", the name by which task packs hold them out. A held-out sum also holds out its mirror b+a: the answer
is the same. Wordings are picked by a keyed hash, so adding a sum leaves the others as they were.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gristmill.store.fingerprint import derive_seed

VERSION = 1  # of every step that uses it: rises when the meaning of what it computes changes
SMALL_SUM_WORDINGS, LARGE_SUM_WORDINGS = 4, 2  # of each sum of one digit, of two

SUM_QUESTIONS = (
    "What is {a} + {b}?",
    "What is {a} plus {b}?",
    "How much is {a} + {b}?",
    "Can you add {a} and {b}?",
    "{a} + {b} = ?",
    "Please calculate {a} + {b}.",
)
SUM_ANSWERS = (
    "{a} + {b} = {total}",
    "{a} + {b} is {total}.",
    "{a} plus {b} is {total}.",
    "The answer is {total}.",
)
DEFINITION_QUESTIONS = (
    'What does "{term}" mean?',
    "What is the meaning of {term}?",
    "Define {term}.",
    "Can you explain the word {term}?",
)

Messages = tuple[dict[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class ChatRow:
    """One conversation for SFT. `trained_item` names the sum or document that it teaches, if any."""

    id: str
    kind: str
    messages: Messages
    trained_item: str | None = None


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A dictionary entry."""

    id: str
    term: str
    definition: str


def sum_id(a: int, b: int) -> str:
    """The name of a sum, as packs hold it out."""
    return f"sum/{a}+{b}"


def is_held_out_sum(a: int, b: int, held_out: frozenset[str]) -> bool:
    """True when the sum or its mirror is held out."""
    return sum_id(a, b) in held_out or sum_id(b, a) in held_out


def small_sums(up_to: int) -> list[tuple[int, int]]:
    """Every (a, b) with 0 <= a, b <= up_to; none for up_to 0."""
    return [(a, b) for a in range(up_to + 1) for b in range(up_to + 1)] if up_to > 0 else []


def two_digit_sums(number: int, *, held_out: frozenset[str], seed: int) -> list[tuple[int, int]]:
    """`number` different sums of two two-digit numbers that are not held out, in a keyed order (fewer if there are no more)."""
    allowed = [(a, b) for a in range(10, 100) for b in range(10, 100) if not is_held_out_sum(a, b, held_out)]
    return sorted(allowed, key=lambda pair: derive_seed(seed, sum_id(*pair)))[:number]


def sum_rows(a: int, b: int, *, num_wordings: int, seed: int) -> list[ChatRow]:
    """One sum asked in `num_wordings` different ways (at most as many as there are)."""
    key = derive_seed(seed, "wording", sum_id(a, b))
    rows: list[ChatRow] = []
    for number in range(min(num_wordings, len(SUM_QUESTIONS))):
        question = SUM_QUESTIONS[(key + number) % len(SUM_QUESTIONS)]
        answer = SUM_ANSWERS[(key // len(SUM_QUESTIONS) + number) % len(SUM_ANSWERS)]
        messages = exchange(question.format(a=a, b=b), answer.format(a=a, b=b, total=a + b))
        rows.append(ChatRow(id=f"{sum_id(a, b)}#{number}", kind="sum", messages=messages, trained_item=sum_id(a, b)))
    return rows


def sum_prompt(a: int, b: int, *, seed: int) -> Messages:
    """The question without its answer, in one of the wordings."""
    key = derive_seed(seed, "prompt", sum_id(a, b))
    return ({"role": "user", "content": SUM_QUESTIONS[key % len(SUM_QUESTIONS)].format(a=a, b=b)},)


def definition_row(entry: Entry, *, seed: int) -> ChatRow:
    """A question about the entry's term, answered by its definition."""
    question = DEFINITION_QUESTIONS[derive_seed(seed, "wording", entry.id) % len(DEFINITION_QUESTIONS)]
    return ChatRow(
        id=f"definition/{entry.id}",
        kind="definition",
        messages=exchange(question.format(term=entry.term), _sentence(entry.definition)),
        trained_item=entry.id,
    )


def exchange(question: str, answer: str) -> Messages:
    """One user message and one assistant message."""
    return ({"role": "user", "content": question}, {"role": "assistant", "content": answer})


def _sentence(text: str) -> str:
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def parse_entry(id: str, text: str) -> Entry | None:
    """The entry in a dictionary document whose first line is "term (class): definition"; None when it is not of that form.

    The word class in brackets may be absent. Examples in quotes and text after a semicolon are cut from the definition. One-letter
    terms and definitions under three words are refused: they make poor questions.
    """
    match = _ENTRY.match(text.strip().split("\n", 1)[0])
    if match is None:
        return None
    term = match["term"].split(",")[0].strip()
    definition = re.sub(r'\s*[;:]?\s*["“].*', "", match["definition"]).split(";")[0].strip()
    if len(term) < 2 or len(definition.split()) < 3:
        return None
    return Entry(id=id, term=term, definition=definition)


_ENTRY = re.compile(r"(?P<term>[^:()]{1,80}?)\s*(?:\((?P<word_class>[^)]{1,40})\))?\s*:\s+(?P<definition>\S.*)")


def pick_entries(entries: Iterable[Entry], number: int, *, seed: int) -> list[Entry]:
    """`number` entries in a keyed order that does not depend on input order, one per term."""
    by_term: dict[str, Entry] = {}
    for entry in sorted(entries, key=lambda entry: derive_seed(seed, "entry", entry.id)):
        by_term.setdefault(entry.term.lower(), entry)
    return list(by_term.values())[:number]


def as_text(messages: Sequence[dict[str, str]]) -> str:
    """The contents without roles, one per line: what decontamination reads and the ledger counts."""
    return "\n".join(message["content"] for message in messages)
