"""What the steps of selection leave: signatures, contamination, duplicates, and select, which decides and writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from gristmill.data.ledger import Ledger, read_ledger
from gristmill.errors import DataError
from gristmill.graph.outputs import File, Files, Outputs
from gristmill.store.durable import read_json
from gristmill.written import Written

MOST_SEEN = (
    0.1  # of a source's validation text may also stand in training text before a score on it is no score on new text
)


@dataclass(frozen=True, kw_only=True)
class OtherThreshold(Written):
    """What another threshold would have kept of a source."""

    above: float
    documents: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class ThresholdUsed(Written):
    """The threshold of one source: what it kept, and where the scores lie."""

    classifier: str
    above: float
    documents: int
    kept_documents: int
    kept_bytes: int
    score_deciles: tuple[float, ...]
    other_thresholds: tuple[OtherThreshold, ...]


@dataclass(frozen=True, kw_only=True)
class DuplicateRule(Written):
    """How near-duplicates were searched. removed: near copies were dropped; otherwise they only guide the split."""

    num_bands: int
    rows_per_band: int
    ngram: int
    min_jaccard: float
    min_containment: float
    removed: bool
    signer: str
    signed_characters: int
    max_comparisons: int
    survivor: str


@dataclass(frozen=True, kw_only=True)
class ChanceFound(Written):
    """The probability that a pair with this similarity becomes a candidate."""

    jaccard: float
    found: float


@dataclass(frozen=True, kw_only=True)
class CopiesOfSource(Written):
    """What one source lost to copies. lost_share: to all survivors; largest_share: to the one that took most, `taken_by`.

    max_source_loss: the limit of largest_share; None where near copies stay.
    """

    documents: int
    exact_copies: int
    near_copies: int
    lost_share: float
    largest_share: float
    taken_by: str
    max_source_loss: float | None


@dataclass(frozen=True, kw_only=True)
class CopiesOfOne(Written):
    """A kept document, how many copies of it were dropped, and the copy with the weakest evidence."""

    removed: int
    survivor: str
    source: str
    excerpt: str
    weakest_jaccard: float
    weakest_copy: str
    weakest_excerpt: str
    copies: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class NearDuplicateReport(Written):
    """survivor_source: source of the copy → source of the survivor → copies."""

    rules: DuplicateRule
    curve: tuple[ChanceFound, ...]
    documents: int
    candidate_pairs: int
    compared_pairs: int
    refused_pairs: int
    documents_with_too_many_candidates: int
    sources: Mapping[str, CopiesOfSource]
    survivor_source: Mapping[str, Mapping[str, int]]
    largest_clusters: tuple[CopiesOfOne, ...]


@dataclass(frozen=True, kw_only=True)
class PlantedRecall(Written):
    """Items of a pack, and how many of them are not looked for. planted, found: items that were put into copies of real documents,
    by_form: (found, planted) in each form; in an account of several sources, all of theirs."""

    items: int
    sha256: str
    planted: int
    found: int
    by_form: Mapping[str, tuple[int, int]]
    unprotected_items: int
    unprotected_examples: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ContaminationHit(Written):
    """A real document that held items of packs, and the span."""

    id: str
    source: str
    items: tuple[str, ...]
    rule: str
    share: float
    words: int
    start: int
    end: int
    excerpt: str


@dataclass(frozen=True, kw_only=True)
class ContaminationReport(Written):
    """rule: by which items were looked for, such as "coverage@1". by_source, by_pack: documents removed; hits: the first of each pack."""

    rule: str
    packs: Mapping[str, PlantedRecall]
    documents_removed: int
    by_source: Mapping[str, int]
    by_pack: Mapping[str, int]
    hits: tuple[ContaminationHit, ...]


@dataclass(frozen=True, kw_only=True)
class SearchedForItems(Written):
    """What the documents of one source were searched for. held_out_ids: documents that packs hold out, in all sources."""

    rule: str
    packs: Mapping[str, PlantedRecall]
    held_out_ids: int


@dataclass(kw_only=True)
class TextTaken(Written):
    """What training text lost as repeated, in documents, units and bytes of text: kept documents that were edited, and those that
    were dropped because too little was left."""

    edited_documents: int = 0
    edited_units: int = 0
    edited_bytes: int = 0
    dropped_documents: int = 0
    dropped_bytes: int = 0

    def add(self, other: TextTaken) -> None:
        """Counts what another one counted."""
        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))

    @property
    def num_bytes(self) -> int:
        """Bytes of text that training text has less."""
        return self.edited_bytes + self.dropped_bytes


@dataclass(frozen=True, kw_only=True)
class RepeatedUnit(Written):
    """A unit that others lost, the document that keeps it, and its beginning. lost_by: documents. held_out: that one is validation text."""

    lost_by: int
    kept_by: str
    kept_in: str
    held_out: bool
    excerpt: str


@dataclass(frozen=True, kw_only=True)
class RepeatedReport(Written):
    """What repeated in the training text of the sources that took part. train_bytes: source → bytes of text before; taken: source → what
    of it went. most_frequent: the units that most documents lost."""

    unit: str
    min_words: int
    min_documents: int
    train_bytes: Mapping[str, int]
    taken: Mapping[str, TextTaken]
    most_frequent: tuple[RepeatedUnit, ...]

    def share(self, source: str) -> float:
        """Of the bytes of training text of a source, what went."""
        return self.taken[source].num_bytes / max(1, self.train_bytes[source])


class Signed(Outputs):
    """Exact hashes and band keys of one source's documents: same shards, same rows."""

    prints = Files("prints-[0-9][0-9][0-9][0-9][0-9].parquet")


class Searched(Outputs):
    """The documents of one source that packs hold out by id, or that hold items of packs: by shard, with their row."""

    matches = Files("matches-[0-9][0-9][0-9][0-9][0-9].parquet")
    report = File("report.json")

    @property
    def findings(self) -> SearchedForItems:
        """What report.json says."""
        return SearchedForItems.from_json(read_json(self.report), where=self.report)


class Deduplicated(Outputs):
    """Who takes part (a byte a document), who is a copy of whom, and whom a split must not part. Documents are numbered over
    all sources, as `catalogue` does."""

    fates = File("fates.npy")
    copies = File("copies.parquet")
    links = File("links.parquet")
    near_duplicates = File("near_duplicates.json", notes=True)

    @property
    def findings(self) -> NearDuplicateReport:
        """What near_duplicates.json says."""
        return NearDuplicateReport.from_json(read_json(self.near_duplicates), where=self.near_duplicates)


REJECTED, EDITED = (f"{{source}}/{stem}-[0-9][0-9][0-9][0-9][0-9].parquet" for stem in ("rejected", "edited"))
REPEATED = "repeated.json"


class NothingLeft(DataError):
    """Selection leaves nothing of a source."""

    def __init__(self, source: str, account: str) -> None:
        super().__init__(f"select leaves nothing of source {source!r}:\n{account}")
        self.source = source


class Selected(Outputs):
    """Per source the documents to train on and those held out; then the account, and the evidence for each decision."""

    train = Files("{source}/train-[0-9][0-9][0-9][0-9][0-9].parquet")
    validation = Files("{source}/validation-[0-9][0-9][0-9][0-9][0-9].parquet")
    accounts = File("ledger.json", covers=("ledger.json", REPEATED), notes=True)
    rejected = Files(REJECTED, covers=(REJECTED, EDITED), notes=True)
    thresholds = File("thresholds.json", notes=True)
    decontamination = File("decontamination.json", notes=True)
    split = File("split.json", notes=True)

    @property
    def ledger(self) -> Ledger:
        """Documents and bytes: in, kept, dropped."""
        return read_ledger(self.accounts)

    @property
    def thresholds_used(self) -> dict[str, ThresholdUsed]:
        """Source → the threshold that decided, for sources that have one."""
        rows = read_json(self.thresholds)
        return {source: ThresholdUsed.from_json(row, where=self.thresholds) for source, row in rows.items()}

    @property
    def seen(self) -> dict[str, float]:
        """Source → the share of its validation text's 13-grams that training text has, too."""
        return {source: float(row["seen"]) for source, row in read_json(self.split).items()}

    @property
    def repeated(self) -> Path:
        """The account of repeated text; there where the recipe asks for it."""
        return self.accounts.with_name(REPEATED)

    @property
    def repeated_text(self) -> RepeatedReport | None:
        """What repeated.json says; None where the recipe did not ask."""
        path = self.repeated
        return RepeatedReport.from_json(read_json(path), where=path) if path.is_file() else None

    @property
    def contamination(self) -> ContaminationReport:
        """What decontamination.json says."""
        return ContaminationReport.from_json(read_json(self.decontamination), where=self.decontamination)
