"""The flow of a source's documents and bytes through the steps of curation: what each step took in, what it lost and why, what it passed on.

    came in → read → URL lists → language → rules → opt-out lists → score → test items → copies → near held-out → repeated text → kept

The ledgers count by reason; a reason belongs to one step. So a flow is the ledgers of extraction and selection in another order, and
its end is their end: `in = kept + dropped + failed`, and bytes `+ skipped + edited`, hold at every step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import pyarrow.compute as pc

from gristmill.data.document import read_batches
from gristmill.data.ledger import Count, SourceLedger
from gristmill.extract.urls import URL_REASONS
from gristmill.report.facts import Facts
from gristmill.select.outputs import Selected

FlowStep = Literal[
    "read", "URL lists", "language", "rules",
    "opt-out lists", "score", "test items", "copies", "near held-out", "repeated text", "other",
]  # fmt: skip
STEPS: tuple[FlowStep, ...] = get_args(FlowStep)
RULE_ERROR = "rule_error:"

# Records that are no documents, or hold no text. What else extraction drops was dropped by a rule, perhaps one of a user's own.
NO_TEXT = (
    "binary_file", "empty_file", "empty_main_text", "empty_text", "http_status", "link_to_page", "navigation", "no_cues", "no_manual_page",
    "no_records", "no_text", "no_text_field", "no_text_part", "not_html", "other_extension", "sparse_file",
)  # fmt: skip
EXTRACTION: Mapping[str, FlowStep] = {
    **dict.fromkeys(NO_TEXT, "read"),
    **dict.fromkeys(URL_REASONS, "URL lists"),
    **dict.fromkeys(("other_language", "language_unsure"), "language"),
}
SELECTION: Mapping[str, FlowStep] = {
    "opted_out": "opt-out lists",
    "score_too_low": "score",
    **dict.fromkeys(("held_out_item", "contaminated"), "test items"),
    **dict.fromkeys(("duplicate_id", "exact_duplicate", "near_duplicate", "contained_in_longer"), "copies"),
    **dict.fromkeys(("near_validation", "copy_of_held_out"), "near held-out"),
    "only_repeated": "repeated text",
}


@dataclass(kw_only=True)
class Passage:
    """One step: what came in, and what was lost of it. skipped: bytes of files that are no document. edited: kept documents that lost a
    part, and the bytes of it."""

    step: FlowStep
    came_in: Count = field(default_factory=Count)
    dropped: Count = field(default_factory=Count)
    failed: Count = field(default_factory=Count)
    edited: Count = field(default_factory=Count)
    skipped_bytes: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def lost(self) -> Count:
        """Documents that left, and all bytes that did."""
        parts = (self.dropped, self.failed)
        return Count(
            documents=sum(part.documents for part in parts),
            num_bytes=sum(part.num_bytes for part in (*parts, self.edited)) + self.skipped_bytes,
        )

    @property
    def kept(self) -> Count:
        """What the next step takes in."""
        came, lost = self.came_in, self.lost
        return Count(documents=came.documents - lost.documents, num_bytes=came.num_bytes - lost.num_bytes)

    @property
    def lost_something(self) -> bool:
        return self.lost != Count() or self.edited != Count()


@dataclass(frozen=True, kw_only=True)
class Flow:
    """All steps in order. held_out: what of the documents kept at the end is never trained on, with its raw bytes."""

    steps: tuple[Passage, ...]
    held_out: Count

    @property
    def came_in(self) -> Count:
        return self.steps[0].came_in

    @property
    def kept(self) -> Count:
        return self.steps[-1].kept

    @property
    def train(self) -> Count:
        """What is left to train on."""
        kept, held = self.kept, self.held_out
        return Count(documents=kept.documents - held.documents, num_bytes=kept.num_bytes - held.num_bytes)

    @property
    def shown(self) -> list[Passage]:
        """The steps that lost something."""
        return [step for step in self.steps if step.lost_something]


def flows_of(facts: Facts) -> dict[str, Flow]:
    """Source → its flow. Of the documents that are held out the raw bytes are read: no ledger has them apart."""
    held = {source: Count() for source in facts.sources}
    for path in facts.left("select", Selected).validation:
        for batch in read_batches(path, columns=["bytes_in"]):
            held[path.parent.name].add(batch.num_rows, pc.sum(batch.column("bytes_in")).as_py() or 0)
    return {source: flow_of(*both, held_out=held[source]) for source, both in facts.ledgers.items()}


def step_of_extraction(reason: str, *, failed: bool = False) -> FlowStep:
    """The step that a reason of extraction belongs to."""
    if failed:
        return "rules" if reason.startswith(RULE_ERROR) else "read"
    return EXTRACTION.get(reason, "rules")


def flow_of(extracted: SourceLedger, selected: SourceLedger, *, held_out: Count) -> Flow:
    """The flow of one source, from the ledgers of both steps, of which selection takes what extraction kept."""
    steps = {name: Passage(step=name) for name in STEPS}
    for reason, count in extracted.reasons("failed").items():
        step = steps[step_of_extraction(reason, failed=True)]
        _lose(step, step.failed, reason, count)
    for reason, count in extracted.reasons("dropped").items():
        step = steps[step_of_extraction(reason)]
        _lose(step, step.dropped, reason, count)
    steps["read"].skipped_bytes = extracted.skipped.total()
    for reason, count in selected.reasons("dropped").items():
        step = steps[SELECTION.get(reason, "other")]
        _lose(step, step.dropped, reason, count)
    for count in selected.edited.values():
        steps["repeated text"].edited.add(count.documents, count.num_bytes)
    return _joined(steps.values(), extracted.came_in, held_out)


def together(flows: Iterable[Flow]) -> Flow:
    """The flow of several sources as one."""
    steps = {name: Passage(step=name) for name in STEPS}
    came, held = Count(), Count()
    for flow in flows:
        came.add(flow.came_in.documents, flow.came_in.num_bytes)
        held.add(flow.held_out.documents, flow.held_out.num_bytes)
        for theirs in flow.steps:
            mine = steps[theirs.step]
            for ours, other in (
                (mine.dropped, theirs.dropped),
                (mine.failed, theirs.failed),
                (mine.edited, theirs.edited),
            ):
                ours.add(other.documents, other.num_bytes)
            mine.skipped_bytes += theirs.skipped_bytes
            mine.reasons.update(theirs.reasons)
    return _joined(steps.values(), came, held)


def _lose(step: Passage, where: Count, reason: str, count: Count) -> None:
    where.add(count.documents, count.num_bytes)
    step.reasons[reason] += count.documents


def _joined(steps: Iterable[Passage], came_in: Count, held_out: Count) -> Flow:
    """Each step takes in what the one before it kept."""
    passages = tuple(steps)
    for step in passages:
        step.came_in = came_in
        came_in = step.kept
    return Flow(steps=passages, held_out=held_out)
