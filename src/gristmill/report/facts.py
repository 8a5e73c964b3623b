"""What the report knows: everything read from the records, metrics and accounts that the steps of a run left behind."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from gristmill.align.outputs import PreferencePairs
from gristmill.data.document import read_batches
from gristmill.data.ledger import REJECTED_SCHEMA, SourceLedger
from gristmill.evaluate.outputs import Comparison, Evaluated, Figure
from gristmill.extract.not_read import NotRead, kept_not_read
from gristmill.extract.outputs import Extracted
from gristmill.extract.redact import in_words
from gristmill.graph.outputs import Outputs
from gristmill.graph.record import Record
from gristmill.graph.step import StepContext, by_source
from gristmill.planning.budget import Reading, Selection, asked_tokens, epochs_read
from gristmill.recipe.schema.training import ModelSection, Stage
from gristmill.report.impact import Impact, impact_of, seen_in
from gristmill.report.watching import GroupTable, group_table
from gristmill.score.outputs import ClassifierReport, TrainedClassifier
from gristmill.select.outputs import (
    MOST_SEEN,
    ContaminationReport,
    Deduplicated,
    NearDuplicateReport,
    RepeatedReport,
    Selected,
    ThresholdUsed,
)
from gristmill.store.durable import read_json
from gristmill.synthesize.outputs import Conversations
from gristmill.tokens.outputs import Tokenized, TokenizerFiles
from gristmill.tokens.shards import TokenShard
from gristmill.train.events import AnyEvent
from gristmill.train.outputs import (
    BITS,
    LoggedLine,
    Pretrained,
    PretrainingCounts,
    ReleasedModel,
    ReleasedOrigin,
    TrainedModel,
    WrittenText,
)
from gristmill.train.watch.long_context import LongContext
from gristmill.train.watch.watched import Point, Watched, WatchedPack, read_watched
from gristmill.units import counted, scale, seconds

VERSION = 8  # part of the identity of every step that uses it; rises when the meaning of its output changes

SAMPLES_PER_REASON = 2
Left = TypeVar("Left", bound=Outputs)


@dataclass(frozen=True, kw_only=True)
class Labels:
    """What the recipe calls things. licenses: of every source, in the order of the recipe."""

    name: str
    description: str
    licenses: Mapping[str, str]
    stage_names: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Caps:
    """How often text may be read before it is said, and before it is refused."""

    warn_epochs: float
    max_epochs: float


@dataclass(frozen=True, kw_only=True)
class SelectionUse:
    """Tokens of a selection: unique, planned by the recipe, drawn; epochs as the cap counts them."""

    unique: int
    planned: int
    drawn: int
    epochs: float


@dataclass(frozen=True, kw_only=True)
class StageOfRun:
    """A stage with its stretch of the token axis. seconds: what it took; None where nobody knows."""

    stage: Stage
    first_token: int
    last_token: int
    seconds: float | None

    @property
    def mixture(self) -> str:
        """The shares in words."""
        return ", ".join(
            f"{draw.source}{f' ≥ {draw.min_document_tokens:,}' if draw.min_document_tokens else ''} {draw.weight:.0%}"
            for draw in self.stage.mixture
        )


@dataclass(frozen=True, kw_only=True)
class ChangeMade:
    """A change in the middle of pretraining: what it set after `step` steps of `tokens` tokens, and why."""

    step: int
    tokens: int
    what: str
    why: str


class Facts:
    """The facts of one run. `inputs` are what its steps left, in the order in which they were made."""

    def __init__(
        self,
        labels: Labels,
        caps: Caps,
        inputs: Mapping[str, Outputs],
        *,
        locked: Collection[str] = (),
        not_read: Sequence[NotRead] = (),
        changes: Sequence[ChangeMade] = (),
    ) -> None:
        self.labels, self.caps, self.inputs, self._locked, self.not_read = labels, caps, inputs, locked, not_read
        self.changes = changes

    @classmethod
    def of(cls, ctx: StepContext) -> Self:
        """The facts that a step is given: labels in its config, caps, changes and packs that stay locked, and what all steps left."""
        config, watching = ctx.config, ctx.watching
        labels, caps = Labels(**config["labels"]), Caps(**watching.config["caps"])
        changes = [ChangeMade(**change) for change in watching.config.get("changes", ())]
        locked = watching.config["locked"]
        return cls(labels, caps, ctx.inputs, locked=locked, not_read=kept_not_read(ctx.run.folder), changes=changes)

    def has(self, step: str) -> bool:
        """True when the run made this step."""
        return step in self.inputs

    def left(self, step: str, kind: type[Left]) -> Left:
        """What a step left."""
        found = self.inputs[step]
        assert isinstance(found, kind), f"{step} left {type(found).__name__}, not {kind.__name__}"
        return found

    @cached_property
    def released(self) -> ReleasedOrigin | None:
        """The model that training continued from; None where it began with new weights."""
        return self.left("start", ReleasedModel).origin if self.has("start") else None

    # ── the head of the page ──

    @property
    def sentence(self) -> str:
        """What was made, in one sentence."""
        after = ["fine-tuned on conversations"] if self.has("sft") else []
        if self.has("dpo"):
            pairs = self.left("pairs", PreferencePairs).counts.pairs
            after.append(f"then on {counted(pairs, 'preference pair')}")
        first = f"A model of {scale(self.pretraining.parameters)} parameters, trained "
        if self.released is not None:
            first = f"{self.released.name}, a released model of {scale(self.pretraining.parameters)} parameters, trained further "
        return (
            f"{first}on {scale(self.pretraining.tokens)} tokens drawn from "
            f"{scale(self.unique_tokens)} unique ones of {len(self.sources)} sources{''.join(f', {words}' for words in after)}, "
            f"in {seconds(self.wall_seconds)} of work."
        )

    @property
    def documents_left(self) -> tuple[str, str]:
        """How many documents are left to train on, and of how many."""
        came = sum(extracted.came_in.documents for extracted, _ in self.ledgers.values())
        kept = sum(selected.total("kept").documents for _, selected in self.ledgers.values())
        held = sum(self.held_out.values())
        return scale(kept - held), f"documents to train on, of {came:,} that came in; {held:,} more are held out"

    @property
    def tiles(self) -> list[tuple[str, str]]:
        """The figures on top of the page, each with its label."""
        is_new = all(share <= MOST_SEEN for share in self.seen.values())
        best = self.final_bits if is_new else None
        return [
            self.documents_left,
            (scale(self.unique_tokens), "unique training tokens"),
            (scale(self.pretraining.tokens), "tokens trained on"),
            (scale(self.pretraining.parameters), "parameters"),
            *([(best, "bits per byte, held-out text, mean of sources")] if best else []),
            (seconds(self.wall_seconds), "work of all steps"),
        ]

    @property
    def records(self) -> dict[str, Record]:
        """Step → how it was made."""
        return {name: made.record for name, made in self.inputs.items()}

    @property
    def wall_seconds(self) -> float:
        return sum(map(seconds_of, self.records.values()))

    @property
    def sources(self) -> list[str]:
        return list(self.labels.licenses)

    # ── data ──

    @cached_property
    def ledgers(self) -> dict[str, tuple[SourceLedger, SourceLedger]]:
        """Source → its ledgers, of extraction and of selection, which takes what extraction kept."""
        chosen = self.left("select", Selected).ledger
        return {
            source: (self.left(f"extract/{source}", Extracted).ledger.source(source), chosen.source(source))
            for source in self.sources
        }

    @cached_property
    def held_out(self) -> dict[str, int]:
        """Source → documents of the kept ones that are never trained on."""
        split = read_json(self.left("select", Selected).split)
        return {source: int(row["validation"]["documents"]) for source, row in split.items()}

    @cached_property
    def seen(self) -> dict[str, float]:
        """Source → the share of its validation text that training text has, too."""
        return self.left("select", Selected).seen

    @property
    def languages(self) -> set[str]:
        """Those that sources were filtered for."""
        filters = [self.left(f"extract/{source}", Extracted).language for source in self.sources]
        return {code for one in filters if one is not None for code in one.keep}

    @property
    def asked_of_sources(self) -> set[str]:
        """Of main_text, language and rules those that at least one source asks for."""
        return {key for source in self.sources for key in self.left(f"extract/{source}", Extracted).asked}

    @cached_property
    def rejected_samples(self) -> list[dict[str, Any]]:
        """A few rejected documents of every source and reason, as rows of REJECTED_SCHEMA."""
        files = [path for source in self.sources for path in self.left(f"extract/{source}", Extracted).rejected]
        files += self.left("select", Selected).rejected
        found: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for path in files:
            for batch in read_batches(path, columns=REJECTED_SCHEMA.names):
                for row in batch.to_pylist():
                    kept = found.setdefault((row["source"], row["reason"]), [])
                    if len(kept) < SAMPLES_PER_REASON:
                        kept.append(row)
        return [row for rows in found.values() for row in rows]

    @property
    def replaced(self) -> dict[str, str]:
        """Source → the personal data that was replaced in its text, in words; sources with none are left out."""
        found = {source: in_words(self.left(f"extract/{source}", Extracted).counts.details) for source in self.sources}
        return {source: words for source, words in found.items() if words}

    @cached_property
    def impact(self) -> dict[str, Impact]:
        """Source → what the reasons of extraction and selection hit."""
        left: dict[str, list[Path]] = {source: [] for source in self.sources}
        for path in self.left("select", Selected).rejected:
            left[path.parent.name].append(path)
        found = {}
        for source in self.sources:
            extracted = self.left(f"extract/{source}", Extracted)
            found[source] = impact_of(seen_in(extracted.documents, extracted.rejected, left[source]))
        return found

    @cached_property
    def classifiers(self) -> dict[str, ClassifierReport]:
        made: dict[str, TrainedClassifier] = by_source(self.inputs, "classifier/")
        return {name: classifier.findings for name, classifier in made.items()}

    @property
    def thresholds(self) -> dict[str, ThresholdUsed]:
        """Source → the threshold that decided."""
        return self.left("select", Selected).thresholds_used

    @cached_property
    def near_duplicates(self) -> NearDuplicateReport | None:
        """What was removed; None where near copies stay."""
        found = self.left("duplicates", Deduplicated).findings
        return found if found.rules.removed else None

    @cached_property
    def repeated_text(self) -> RepeatedReport | None:
        """What was taken out of training text because it stands in others; None where the recipe does not ask."""
        return self.left("select", Selected).repeated_text

    def repeated_tokens(self, source: str) -> int | None:
        """About how many tokens that is of one source: as many a byte as in what is left. None where there are no tokens yet."""
        report = self.repeated_text
        assert report is not None
        if not self.has("tokenize"):
            return None
        taken = report.taken[source].num_bytes
        left = report.train_bytes[source] - taken
        return round(taken * TokenShard(self.left("tokenize", Tokenized).of(source).train).num_tokens / max(1, left))

    @cached_property
    def contamination(self) -> ContaminationReport:
        return self.left("select", Selected).contamination

    # ── tokens and training ──

    @property
    def unique_tokens(self) -> int:
        tokenized = self.left("tokenize", Tokenized)
        return sum(TokenShard(tokenized.of(source).train).num_tokens for source in self.sources)

    @property
    def vocab_size(self) -> int:
        return self.left("tokenizer", TokenizerFiles).findings.vocab_size

    @property
    def model(self) -> ModelSection:
        """The shape of the model."""
        return self.left("pretrain", Pretrained).shape

    @cached_property
    def pretraining(self) -> PretrainingCounts:
        """What pretraining counted."""
        return self.left("pretrain", Pretrained).counts

    @property
    def token_budget(self) -> dict[str, SelectionUse]:
        """What was read of each selection."""
        planned = {selection: sum(tokens) for selection, tokens in asked_tokens(self._trained_stages).items()}
        draws = self.pretraining.draws
        readings = [
            Reading(Selection(draw.source, draw.min_document_tokens), draw.seq_len, draw.tokens_drawn) for draw in draws
        ]
        unique = {reading.selection: draw.unique_tokens for reading, draw in zip(readings, draws)}
        epochs = epochs_read(readings, unique)
        return {
            str(selection): SelectionUse(
                unique=unique[selection],
                planned=planned[selection],
                drawn=sum(reading.tokens for reading in readings if reading.selection == selection),
                epochs=epochs[selection],
            )
            for selection in unique
        }

    @property
    def planned_tokens(self) -> int:
        """The tokens of the stages, as the recipe asks for them."""
        return sum(stage.tokens for stage in self._trained_stages)

    @property
    def stages(self) -> list[StageOfRun]:
        """The stages in order."""
        took = self.pretraining.stages
        rows, at = [], 0
        for number, stage in enumerate(self._trained_stages):
            spent = took[number].seconds if number < len(took) else None
            rows.append(StageOfRun(stage=stage, first_token=at, last_token=at + stage.tokens, seconds=spent))
            at += stage.tokens
        return rows

    @cached_property
    def _trained_stages(self) -> list[Stage]:
        """The stages that the model was trained on, with the mixtures that changes set, under their present names."""
        return self.left("pretrain", Pretrained).stages(self.labels.stage_names)

    def logged(self, step: str, kind: Literal["train", "eval"]) -> list[LoggedLine]:
        """Lines of a training step's log of one kind."""
        return self.left(step, TrainedModel).logged(kind)

    @property
    def happened(self) -> list[AnyEvent]:
        """Spikes of pretraining, its changes of mixture, and what else happened besides its steps."""
        return self.left("pretrain", Pretrained).happened

    @property
    def long_contexts(self) -> list[LongContext]:
        """What pretraining made of long texts, before and after the context was extended."""
        return self.left("pretrain", Pretrained).long_contexts

    def texts(self, step: str) -> list[WrittenText]:
        """Texts that the model wrote."""
        return self.left(step, TrainedModel).texts if self.has(step) else []

    @property
    def texts_at_stage_ends(self) -> list[WrittenText]:
        """Of the texts that pretraining wrote on the way, those of the end of each stage."""
        last = {text.stage: text.step for text in self.texts("pretrain")}
        return [text for text in self.texts("pretrain") if text.step == last[text.stage]]

    @cached_property
    def _watched(self) -> Watched | None:
        return read_watched(self.left("pretrain", Pretrained).folder)

    @property
    def watched_packs(self) -> list[WatchedPack]:
        """What pretraining was scored on, without the packs that are locked now."""
        return [] if self._watched is None else [pack for pack in self._watched.packs if pack.name not in self._locked]

    @property
    def reference_curves(self) -> Mapping[str, Sequence[Point]]:
        """Metric → what an earlier run that the recipe names measured."""
        found = self._watched
        return {} if found is None or found.reference is None else found.reference.curves

    @property
    def groups_at_stage_ends(self) -> GroupTable | None:
        """What was watched, by groups of packs and stage ends."""
        return group_table(self.left("pretrain", Pretrained).folder, locked=self._locked)

    # ── after pretraining ──

    @property
    def chat_kinds(self) -> Mapping[str, int]:
        """Kind of conversation → how many."""
        return self.left("synthesize", Conversations).counts.by_kind

    @cached_property
    def results(self) -> list[Figure]:
        return self.left("evaluate", Evaluated).figures

    @cached_property
    def comparisons(self) -> list[Comparison]:
        return self.left("evaluate", Evaluated).differences

    @property
    def final_bits(self) -> str:
        """Mean over sources of the pretrained model's bits per byte."""
        found = [row.value for row in self.results if row.model == "pretrain" and row.metric == BITS]
        return f"{sum(found) / len(found):.3f}" if found else ""


# ── figures in words ─────────────────────────────────────────────────────────────────────────────────────────────────


def seconds_of(record: Record) -> float:
    """The time of a step. For a resumed training all attempts count; wall seconds are those of the last."""
    return max(record.wall_seconds, float(record.counts.get("training_seconds", 0.0)))


def plus_minus(value: float | None) -> str:
    """A measured value, or nothing."""
    return "" if value is None else f"{value:.3g}"


def bits(row: Figure | None) -> str:
    """A score with the half width of its interval, or with the interval if the score is not at its centre."""
    if row is None:
        return ""
    if row.interval is None:
        return f"{row.value:.3f}"
    low, high = row.interval
    if abs(high + low - 2 * row.value) > 0.1 * (high - low):
        return f"{row.value:.3f} [{low:.3f}, {high:.3f}]"
    return f"{row.value:.3f} ± {(high - low) / 2:.3f}"
