"""What the steps of scoring leave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gristmill.graph.outputs import File, Files, Outputs
from gristmill.store.durable import read_json
from gristmill.written import Estimate, Written


@dataclass(frozen=True, kw_only=True)
class Agreement(Written):
    """How far two annotators agree on the documents that both labelled."""

    count: int
    equal_share: float
    kappa: Estimate
    quadratic_kappa: Estimate


@dataclass(frozen=True, kw_only=True)
class ThresholdRow(Written):
    """What a threshold keeps of the whole source, scaled up from a scored sample, and how well it agrees with the labels."""

    above: float
    kept_document_share: float
    kept_document_share_interval: tuple[float, float]
    kept_byte_share: float
    kept_documents: int
    kept_bytes: int
    kept_tokens_estimate: int
    test_documents: int
    test_positives: int
    f1: Estimate
    precision: Estimate
    recall: Estimate


@dataclass(frozen=True, kw_only=True)
class ClassifierReport(Written):
    """What a classifier learnt from. labels: documents by label. trained_as: label → the class that it was merged into."""

    source: str
    rubric: str
    features: str
    crop: str
    annotations: int
    labelled_documents: int
    annotators: Mapping[str, int]
    labels: Mapping[str, int]
    trained_as: Mapping[str, int]
    num_folds: int
    out_of_fold_correlation: float
    source_documents: int
    source_bytes: int
    scored_documents: int
    thresholds: tuple[ThresholdRow, ...]
    agreement: Agreement | None


class TrainedClassifier(Outputs):
    """A classifier, the out-of-fold scores of the documents it was trained on, and what each threshold would keep."""

    model = File("model.npz")
    out_of_fold = File("out_of_fold.parquet")
    report = File("report.json", notes=True)

    @property
    def findings(self) -> ClassifierReport:
        """What report.json says."""
        return ClassifierReport.from_json(read_json(self.report), where=self.report)


class Scored(Outputs):
    """A score for each document of one source, shard by shard."""

    scores = Files("scores-[0-9][0-9][0-9][0-9][0-9].parquet")
