"""The oracle of the search for duplicates: the same rule in memory, in plain loops, over sets of words.

It takes from the product the band keys of the texts and nothing else: order, exact copies, candidates, comparison and links are
its own.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Any

MIN_CONTAINMENT = 0.95
WIDENING = 8
MIN_DISTINCT = 0.9
Words = frozenset[tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class Copy:
    """A removed document, the survivor, and the evidence between the two."""

    document: int
    survivor: int
    exact: bool
    jaccard: float
    containment: float


@dataclass(frozen=True, kw_only=True)
class Document:
    """What the search knows of a document. score: 0 without one."""

    id: str
    source: str
    text: str
    priority: int = 0
    score: float = 0.0
    passed: bool = True


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Copies by document, links (exact ones by document, then near ones in the order of the walk), and counts."""

    copies: list[Copy]
    links: list[tuple[int, int]]
    counts: dict[str, int]


def find_duplicates(documents: list[Document], keys: list[list[int]], text_hashes: list[int], rules: Any) -> Answer:
    """Who is a copy of whom, by the rule that the module `dedup` states. keys: of the bands of each document."""
    passed = [d for d, document in enumerate(documents) if document.passed]
    order = sorted(passed, key=lambda d: _sort_key(documents[d], text_hashes[d]))
    first_with: dict[str, int] = {}
    original = {d: first_with.setdefault(_plain(documents[d].text), d) for d in order}
    sets = {d: ngrams(documents[d].text, rules.ngram) for d in passed}
    walk = _Walk(rules, sets, {d: documents[d].text for d in passed})
    members: dict[tuple[int, int], list[int]] = defaultdict(list)
    for d in order:
        if original[d] == d and sets[d]:
            for place in enumerate(keys[d]):
                members[place].append(d)
    touched = {d for group in members.values() if len(group) > 1 for d in group}
    rank = {d: r for r, d in enumerate(order)}
    for d in order:
        if d in touched:
            walk.take(d, rank, keys[d])
    exact = [
        Copy(document=d, survivor=original[d], exact=True, jaccard=1.0, containment=1.0)
        for d in passed
        if original[d] != d
    ]
    moved = [
        replace(walk.copies[copy.survivor], document=copy.document) if copy.survivor in walk.copies else copy
        for copy in exact
    ]
    copies = sorted([*moved, *walk.copies.values()], key=lambda copy: copy.document)
    links = [(copy.document, copy.survivor) for copy in exact] + walk.links
    counts = {
        "documents": len(passed),
        "exact_copies": sum(copy.exact for copy in copies),
        "near_copies": sum(not copy.exact for copy in copies),
        "links": len(links),
        "with_candidates": len(touched),
        **walk.counts,
    }
    return Answer(copies=copies, links=links, counts=counts)


def ngrams(text: str, n: int) -> Words:
    """The word n-grams of an ASCII text."""
    words = re.findall("[a-z0-9]+", text.lower())
    return frozenset(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def same_order_of(text: str, other: str, rules: Any) -> bool:
    """False where both texts have many n-grams twice, and too few runs of WIDENING × n words in common."""
    if not (_is_repetitive(text, rules.ngram) and _is_repetitive(other, rules.ngram)):
        return True
    mine, theirs = ngrams(text, rules.ngram * WIDENING), ngrams(other, rules.ngram * WIDENING)
    if not mine or not theirs:
        return True
    shared = len(mine & theirs)
    left = (2 * rules.min_jaccard / (1 + rules.min_jaccard)) ** WIDENING
    needed = left / (2 - left) * len(mine | theirs), MIN_CONTAINMENT**WIDENING * min(len(mine), len(theirs))
    return bool(shared >= min(needed))


def _is_repetitive(text: str, n: int) -> bool:
    count = len(re.findall("[a-z0-9]+", text.lower())) - n + 1
    return len(ngrams(text, n)) < MIN_DISTINCT * count


def _sort_key(document: Document, text_hash: int) -> tuple[Any, ...]:
    size = len(document.text.encode())
    return (document.priority, -document.score, -size, document.id.encode(), document.source.encode(), text_hash)


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).lower().split())


class _Walk:
    def __init__(self, rules: Any, sets: dict[int, Words], texts: dict[int, str]) -> None:
        self.rules = rules
        self.sets = sets
        self.texts = texts
        self.copies: dict[int, Copy] = {}
        self.links: list[tuple[int, int]] = []
        self.kept: dict[tuple[int, int], list[int]] = {}  # (band, key) -> kept documents, in survivor order
        self.counts = {"candidate_pairs": 0, "compared_pairs": 0, "refused_pairs": 0, "capped": 0}

    def take(self, d: int, rank: dict[int, int], keys: list[int]) -> None:
        """Decides document d: a copy of a kept one, or kept itself."""
        shared: dict[int, int] = {}
        for place in enumerate(keys):
            for other in self.kept.get(place, ()):
                shared[other] = shared.get(other, 0) + 1
        self.counts["candidate_pairs"] += len(shared)
        candidates = sorted(shared, key=lambda other: (-shared[other], rank[other]))
        self.counts["capped"] += len(candidates) > self.rules.max_comparisons
        for other in candidates[: self.rules.max_comparisons]:
            if self._is_copy(d, other) and self.rules.remove_near:
                return
        for place in enumerate(keys):
            listed = self.kept.setdefault(place, [])
            if len(listed) < self.rules.max_listed:
                listed.append(d)

    def _is_copy(self, d: int, other: int) -> bool:
        mine, theirs = self.sets[d], self.sets[other]
        shared = len(mine & theirs)
        jaccard, containment = shared / len(mine | theirs), shared / len(mine)
        contained = len(theirs) >= len(mine) and containment >= MIN_CONTAINMENT
        contains = shared / len(theirs) >= MIN_CONTAINMENT
        same_order = same_order_of(self.texts[d], self.texts[other], self.rules)
        is_copy = same_order and (jaccard >= self.rules.min_jaccard or contained)
        self.counts["compared_pairs"] += 1
        self.counts["refused_pairs"] += not is_copy
        if is_copy or (same_order and contains):
            self.links.append((d, other))
        if is_copy and self.rules.remove_near:
            self.copies[d] = Copy(document=d, survivor=other, exact=False, jaccard=jaccard, containment=containment)
        return is_copy
