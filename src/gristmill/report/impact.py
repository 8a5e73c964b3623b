"""What each rule hits: which languages, sites and subjects it takes far more of than of the rest of its source.

A rule is harmless by its count and yet may remove a whole subject. So for every reason and every trait of documents (the language,
the site, a word among the first 300 characters) the share that was dropped is set against that of all other documents:

    of 42 documents with "theorem" 83 % were dropped as too_many_symbols, of the others 9 %

A trait is named when the difference is no chance: by the hypergeometric distribution, over all pairs of reason and trait that were
looked at (Bonferroni, ALPHA a source), and when it is large (TIMES as many, and MORE of them). Whole shards are read, evenly spread,
until MOST_DOCUMENTS are seen; the account says of how many documents.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from gristmill.data.document import open_parquet, read_batches
from gristmill.data.ledger import EXCERPT_CHARACTERS
from gristmill.extract.language import detect_language

MOST_DOCUMENTS = 20_000  # of a source
ALPHA = 0.01
TIMES, MORE = 2.0, 0.1
LEAST_DOCUMENTS = 10  # with a trait
SHOWN = 3  # traits of a reason
NEARLY_ALL, NEARLY_ALL_DOCUMENTS = 0.8, 20
WORD = re.compile(r"[^\W\d_]{4,}")
HOST = re.compile(r"https?://\S+")


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A document as far as impact goes: what it is, and why it left ("" where it is kept)."""

    traits: frozenset[tuple[str, str]]
    reason: str


@dataclass(frozen=True, kw_only=True)
class Hit:
    """A trait of which a reason took far more than of the rest. kind: language, site or word."""

    reason: str
    kind: str
    trait: str
    documents: int
    dropped: int
    share_of_others: float

    @property
    def share(self) -> float:
        """Of the documents with the trait, how many left for the reason."""
        return self.dropped / self.documents

    @property
    def words(self) -> str:
        """As part of a sentence."""
        what = {"language": f"in {self.trait}", "site": f"of {self.trait}", "word": f"with “{self.trait}”"}[self.kind]
        return f"{self.share:.0%} of {self.documents:,} documents {what}, {self.share_of_others:.0%} of the others"


@dataclass(kw_only=True)
class Impact:
    """Of one source: documents seen, those that left by reason, and the traits that reasons hit, largest effect first."""

    documents: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    hits: list[Hit] = field(default_factory=list)

    def of(self, reason: str) -> list[Hit]:
        """The SHOWN largest hits of a reason."""
        return [hit for hit in self.hits if hit.reason == reason][:SHOWN]

    @property
    def nearly_all(self) -> list[Hit]:
        """Traits of which a reason took nearly all, of no few documents: a whole language, site or subject."""
        return [hit for hit in self.hits if hit.share >= NEARLY_ALL and hit.documents >= NEARLY_ALL_DOCUMENTS]


def impact_of(seen: Iterable[Seen]) -> Impact:
    """Which traits each reason hits. Memory grows with the number of traits, time with that of documents."""
    found = Impact()
    with_trait = Counter[tuple[str, str]]()
    both: defaultdict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
    for document in seen:
        found.documents += 1
        with_trait.update(document.traits)
        if document.reason:
            found.dropped[document.reason] += 1
            both[document.reason].update(document.traits)
    common = {
        trait: count
        for trait, count in with_trait.items()
        if LEAST_DOCUMENTS <= count <= found.documents - LEAST_DOCUMENTS
    }
    looked_at = len(common) * len(found.dropped)
    for reason, dropped in found.dropped.items():
        for trait, count in common.items():
            hit = both[reason][trait]
            others = (dropped - hit) / (found.documents - count)
            if hit / count < max(TIMES * others, others + MORE):
                continue
            if looked_at * chance_of_so_many(hit, count, dropped, found.documents) <= ALPHA:
                found.hits.append(
                    Hit(
                        reason=reason,
                        kind=trait[0],
                        trait=trait[1],
                        documents=count,
                        dropped=hit,
                        share_of_others=others,
                    )
                )
    found.hits.sort(key=lambda hit: (-hit.dropped * (hit.share - hit.share_of_others), hit.kind, hit.trait))
    return found


def chance_of_so_many(hit: int, count: int, dropped: int, total: int) -> float:
    """The probability that of `count` documents `hit` or more leave when `dropped` of `total` do at random."""
    whole = _log_choose(total, dropped)
    terms = (
        math.exp(_log_choose(count, k) + _log_choose(total - count, dropped - k) - whole)
        for k in range(max(hit, dropped - (total - count)), min(count, dropped) + 1)
    )
    return min(1.0, math.fsum(terms))


def seen_in(extracted: Sequence[Path], rejected: Sequence[Path], left: Sequence[Path]) -> Iterator[Seen]:
    """The documents of one source, from whole shards. extracted, rejected: what extraction kept and did not, by shard;
    left: those that selection did not keep. Files of a shard have the same number."""
    sizes = {path: open_parquet(path).metadata.num_rows for path in extracted}
    step = max(1, math.ceil(sum(sizes.values()) / MOST_DOCUMENTS))
    for path in list(extracted)[::step]:
        number = path.stem.rpartition("-")[2]
        gone = {
            (row["id"]): row["reason"]
            for other in left
            if other.stem.endswith(number)
            for row in _rows(other, ["id", "reason"])
        }
        for row in _rows(path, ["id", "text", "url", "language"]):
            text = row["text"][:EXCERPT_CHARACTERS]
            language = row["language"] or detect_language(text)[0]
            yield Seen(traits=_traits(row["id"], row["url"], text, language), reason=gone.get(row["id"], ""))
        for other in rejected:
            if other.stem.endswith(number):
                for row in _rows(other, ["id", "reason", "detail", "excerpt"]):
                    url = HOST.search(row["detail"])
                    language = detect_language(row["excerpt"])[0]
                    traits = _traits(row["id"], url.group() if url else None, row["excerpt"], language)
                    yield Seen(traits=traits, reason=row["reason"])


def _rows(path: Path, columns: list[str]) -> Iterator[dict[str, str]]:
    for batch in read_batches(path, columns=columns):
        yield from batch.to_pylist()


def _traits(name: str, url: str | None, text: str, language: str | None) -> frozenset[tuple[str, str]]:
    traits = {("word", word.lower()) for word in WORD.findall(text)}
    if language is not None:
        traits.add(("language", language))
    site = urlsplit(url).hostname if url else name.rpartition("/")[0].partition("#")[0]
    if site:
        traits.add(("site", site))
    return frozenset(traits)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) if 0 <= k <= n else -math.inf
