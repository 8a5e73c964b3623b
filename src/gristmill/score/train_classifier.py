"""STEP classifier/<name>: a quality classifier from labelled documents of one source, and what each threshold would mean.

Reads extract/<source>, the annotation files and the packs: documents that a pack holds out are neither learnt from nor counted.
Writes model.npz (trained on all labels), out_of_fold.parquet (id, score,
label: each labelled document scored by a model that did not see it), report.json (agreement of annotators, classes,
threshold table).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from gristmill.data.document import Document, read_batches, read_documents
from gristmill.data.packs import held_out_ids, is_held_out, packs_of
from gristmill.data.write import write_table
from gristmill.errors import DataError, Interrupted
from gristmill.extract.outputs import Extracted
from gristmill.graph.step import StepContext
from gristmill.recipe.schema.curation import Classifier as ClassifierSection
from gristmill.score.agreement import agreement
from gristmill.score.annotations import Annotation, merge_small_classes, read_annotations
from gristmill.score.classifiers import Classifier, fit_classifier
from gristmill.score.outputs import Agreement, ClassifierReport
from gristmill.score.thresholds import folds_of, out_of_fold_scores, threshold_table
from gristmill.store.durable import write_json
from gristmill.units import counted

VERSION = 2
SECOND = "second annotations"
SAMPLE_DOCUMENTS = 20_000  # documents of the source that are scored for the threshold table


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """A document with its label."""

    id: str
    text: str
    label: int


def run(ctx: StepContext) -> dict[str, Any]:
    """Trains and reports. Raises DataError when too few annotations belong to documents of the source."""
    section: ClassifierSection = ctx.config["classifier"]
    documents: Extracted = ctx.inputs["documents"]
    shards = documents.documents
    held_out = held_out_ids(packs_of(ctx.files))
    path = ctx.files["annotations"].only
    annotations = read_annotations(path)
    check_rubric(annotations, section, path=path)
    labelled = join(annotations, shards, held_out=held_out, max_chars=section.max_chars)
    check_enough(labelled, annotations, section, path=path)
    texts, labels = [row.text for row in labelled], [row.label for row in labelled]
    merged = merge_small_classes(labels, min_class_size=section.min_class_size)
    targets = [merged[label] for label in labels]
    for label, target in merged.items():
        if label != target:
            count = labels.count(label)
            ctx.say(
                f"{ctx.name}: {counted(count, 'document')} labelled {label} trained as {target}: a class of {label} would be too small"
            )
    if ctx.should_stop():
        raise Interrupted(f"stopped before {ctx.name} was trained.")
    model = _fit(section, texts, targets, ctx.seed)
    fold_N = folds_of(texts, labels, num_folds=section.num_folds, seed=ctx.seed)
    scores = out_of_fold_scores(texts, targets, fold_N, fit=lambda some, theirs: _fit(section, some, theirs, ctx.seed))
    ids = [row.id for row in labelled]
    model.save(ctx.out / "model.npz")
    columns = {"id": ids, "score": pa.array(scores, pa.float32()), "label": pa.array(labels, pa.int8())}
    write_table(ctx.out / "out_of_fold.parquet", pa.table(columns))
    sample = score_sample(model, shards, dict(zip(ids, scores.tolist(), strict=True)), held_out=held_out)
    report = ClassifierReport(
        source=section.source,
        rubric=section.rubric,
        features=section.features,
        crop=f"the first {section.max_chars} characters",
        annotations=len(annotations),
        labelled_documents=len(labelled),
        annotators=dict(Counter(annotation.annotator for annotation in annotations)),
        labels={str(label): count for label, count in sorted(Counter(labels).items())},
        trained_as={str(label): target for label, target in merged.items()},
        num_folds=section.num_folds,
        out_of_fold_correlation=_correlation(scores, labels),
        source_documents=sample["source_documents"],
        source_bytes=sample["source_bytes"],
        scored_documents=len(sample["sample_scores"]),
        thresholds=tuple(threshold_table(labels=labels, out_of_fold=scores, **sample)),
        agreement=_agreement(ctx, section, annotations),
    )
    write_json(ctx.out / "report.json", report.to_json())
    ctx.say(f"{ctx.name}: learnt from {len(labelled)} labelled documents of {section.source}")
    return {"labelled_documents": len(labelled), "annotations_without_document": len(annotations) - len(labelled)}


def join(
    annotations: Sequence[Annotation], shards: Sequence[Path], *, held_out: frozenset[str], max_chars: int
) -> list[Labelled]:
    """The annotated documents that are not held out, in the order of the shards, each found by its id, else by its URL.

    Of several documents with one URL, or found by their URL and with one id, the first has the label.
    """
    by_id = {bare_id(a.record_id): a for a in annotations if a.record_id}
    by_url = {a.url: a for a in annotations if a.url}
    found: list[tuple[Document, Annotation]] = []
    used: set[int] = set()
    by_later_url: list[tuple[Document, Annotation]] = []
    for shard in shards:
        for document in read_documents(shard):
            if is_held_out(document.id, held_out):
                continue
            if (annotation := by_id.get(bare_id(document.id))) is not None:
                if id(annotation) not in used:
                    found.append((document, annotation))
                used.add(id(annotation))
            elif document.url is not None and (annotation := by_url.get(document.url)) is not None:
                by_later_url.append((document, annotation))
    names = {document.id for document, _ in found}
    for document, annotation in by_later_url:
        if id(annotation) not in used and document.id not in names:
            used.add(id(annotation))
            names.add(document.id)
            found.append((document, annotation))
    return [Labelled(id=d.id, text=d.text[:max_chars], label=a.label) for d, a in found]


def bare_id(name: str) -> str:
    """A record id without the decoration of WARC: "<urn:uuid:x>" and "x" name the same record."""
    return name.removeprefix("<").removesuffix(">").removeprefix("urn:uuid:")


def check_rubric(annotations: Sequence[Annotation], section: ClassifierSection, *, path: Path) -> None:
    """Raises DataError for labels given under another rubric than the recipe's; labels that name none are believed."""
    if others := sorted({annotation.rubric for annotation in annotations} - {section.rubric, ""}):
        raise DataError(
            f"{path} has labels under the rubric {', '.join(map(repr, others))}; the recipe's is {section.rubric!r}.\n"
            "  Labels of two rubrics do not mean the same: name the right one in the classifier's rubric, or another file."
        )


def check_enough(
    labelled: Sequence[Labelled], annotations: Sequence[Annotation], section: ClassifierSection, *, path: Path
) -> None:
    """Raises DataError when there are fewer labelled documents than folds, or labels of one kind only."""
    if len(labelled) < 2 * section.num_folds:
        names = [annotation.names[0] for annotation in annotations[:3]]
        raise DataError(
            f"{path} has {len(annotations)} annotations, but only {len(labelled)} of them name a document that "
            f"source {section.source!r} kept; {section.num_folds} folds need {2 * section.num_folds} or more.\n"
            f"  The first annotations name {names}. Compare record_id and url with the documents of the source."
        )
    if len({row.label for row in labelled}) < 2:
        raise DataError(
            f"all {len(labelled)} labelled documents of {path} have the label {labelled[0].label}; there is nothing to learn."
        )


def score_sample(
    model: Classifier, shards: Sequence[Path], known: dict[str, float], *, held_out: frozenset[str]
) -> dict[str, Any]:
    """Scores, and bytes of text, of up to SAMPLE_DOCUMENTS documents chosen by a hash of their id, and the source's totals.

    Labelled documents take their out-of-fold score. Held-out ones are no part of the source here.
    """
    total = sum(_count_rows(shard, held_out) for shard in shards)
    limit = 2**64 if total <= SAMPLE_DOCUMENTS else int(2**64 * SAMPLE_DOCUMENTS / total)
    scores: list[np.ndarray[Any, np.dtype[np.float32]]] = [np.empty(0, dtype=np.float32)]
    sizes: list[int] = []
    source_bytes = 0
    for shard in shards:
        for batch in read_batches(shard, columns=["id", "text"]):
            both = zip(batch.column("id").to_pylist(), batch.column("text").to_pylist(), strict=True)
            rows = [(name, text) for name, text in both if not is_held_out(name, held_out)]
            source_bytes += sum(len(text.encode()) for _, text in rows)
            rows = [row for row in rows if xxhash.xxh3_64_intdigest(row[0].encode()) < limit]
            raw = model.score([text for _, text in rows])
            scores.append(np.array([known.get(name, s) for (name, _), s in zip(rows, raw.tolist())], dtype=np.float32))
            sizes += [len(text.encode()) for _, text in rows]
    return {
        "sample_scores": np.concatenate(scores),
        "sample_bytes": np.array(sizes, dtype=np.int64),
        "source_bytes": source_bytes,
        "source_documents": total,
    }


def _count_rows(shard: Path, held_out: frozenset[str]) -> int:
    batches = read_batches(shard, columns=["id"], batch_rows=65_536)
    return sum(not is_held_out(name, held_out) for batch in batches for name in batch.column("id").to_pylist())


def _fit(section: ClassifierSection, texts: list[str], targets: list[int], seed: int) -> Classifier:
    return fit_classifier(section.features, texts, targets, max_chars=section.max_chars, seed=seed)


def _correlation(scores: Any, labels: Sequence[int]) -> float:
    """Pearson correlation; 0 where the scores do not vary."""
    return float(np.corrcoef(scores, labels)[0, 1]) if np.std(scores) > 0 else 0.0


def _agreement(ctx: StepContext, section: ClassifierSection, annotations: list[Annotation]) -> Agreement | None:
    if SECOND not in ctx.files:
        return None
    path = ctx.files[SECOND].only
    second = read_annotations(path)
    check_rubric(second, section, path=path)
    return agreement(annotations, second, seed=ctx.seed)
