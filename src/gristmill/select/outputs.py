"""What select leaves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gristmill.data.ledger import Ledger, read_ledger
from gristmill.graph.outputs import File, Files, Outputs
from gristmill.store.durable import read_json
from gristmill.written import Written


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
    """What one source lost to copies. max_source_loss: the limit of near_share; None where near copies stay."""

    documents: int
    exact_copies: int
    near_copies: int
    near_share: float
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
    """Items of a pack that were planted into copies of real documents and found, and those too short to be protected."""

    items: int
    sha256: str
    planted: int
    found: int
    unprotected_items: int
    unprotected_examples: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ContaminationHit(Written):
    """A real document that held items of packs, and the span."""

    id: str
    source: str
    items: tuple[str, ...]
    rule: str
    words: int
    start: int
    end: int
    excerpt: str


@dataclass(frozen=True, kw_only=True)
class ContaminationReport(Written):
    """rule: the parts of the rule in words. by_source, by_pack: documents removed; hits: the first of them."""

    rule: Mapping[str, str | int]
    packs: Mapping[str, PlantedRecall]
    documents_removed: int
    by_source: Mapping[str, int]
    by_pack: Mapping[str, int]
    hits: tuple[ContaminationHit, ...]


class Selected(Outputs):
    """Per source the documents to train on and those held out; then the account, and the evidence for each decision."""

    train = Files("{source}/train-[0-9][0-9][0-9][0-9][0-9].parquet")
    validation = Files("{source}/validation-[0-9][0-9][0-9][0-9][0-9].parquet")
    accounts = File("ledger.json", notes=True)
    rejected = File("rejected.parquet", notes=True)
    thresholds = File("thresholds.json", notes=True)
    near_duplicates = File("near_duplicates.json", notes=True)
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
    def duplicates(self) -> NearDuplicateReport:
        """What near_duplicates.json says."""
        return NearDuplicateReport.from_json(read_json(self.near_duplicates), where=self.near_duplicates)

    @property
    def contamination(self) -> ContaminationReport:
        """What decontamination.json says."""
        return ContaminationReport.from_json(read_json(self.decontamination), where=self.decontamination)
