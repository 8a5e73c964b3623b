"""What every training step leaves: pretraining, fine-tuning, preference optimisation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gristmill.graph.outputs import File, Outputs
from gristmill.recipe.schema.training import ModelSection, Stage
from gristmill.store.durable import read_json
from gristmill.store.jsonl import read_log
from gristmill.tokens.stages import Use
from gristmill.train.events import AnyEvent, read_events
from gristmill.train.watch.long_context import LongContext
from gristmill.written import Written

MODEL_STEPS = ("pretrain", "sft", "dpo")  # in the order in which they are made
CHAT_STEPS = MODEL_STEPS[1:]

BITS = "bits_per_byte"  # the metric of held-out text
WATCHING_SECONDS = "throughput/watching_seconds"  # what the measurements of a line took
TRAIN, EVAL = "train/", "eval/"  # what the metrics of a log begin with


def train_metric(quantity: str, source: str = "") -> str:
    """The name of an average over training steps: "train/loss", "train/web/loss"."""
    return f"{TRAIN}{source}/{quantity}" if source else f"{TRAIN}{quantity}"


def eval_metric(quantity: str, of: str) -> str:
    """The name of what was measured of a source or a pack: "eval/web/bits_per_byte"."""
    return f"{EVAL}{of}/{quantity}"


def interval_of(metric: str) -> tuple[str, str]:
    """The names of the two ends of a metric's interval."""
    return f"{metric}_low", f"{metric}_high"


def last_measured(lines: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """What a log measured last, by metric; nothing before the first evaluation. Not every evaluation measures all of it."""
    last: dict[str, float] = {}
    for line in lines:
        if line["kind"] == "eval":
            last |= {key: line[key] for key in line if key.startswith(EVAL)}
    return last


@dataclass(frozen=True, kw_only=True)
class Start(Written):
    """Where and from what a stretch of a training was computed. prefix: what shaped the checkpoint of another run."""

    from_step: int
    environment: Mapping[str, str | int]
    checkpoint: str | None
    prefix: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class TrainingCounts(Written):
    """What every training step counts. final: the last values of its log. checkpoints: those that it keeps in the store."""

    steps: int
    tokens: int
    parameters: int
    training_seconds: float
    tokens_per_second: float | None
    final: Mapping[str, float | None]
    environment: Mapping[str, str | int]
    lineage: tuple[Start, ...]
    mixed_environments: bool
    checkpoints: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class StageTime(Written):
    """When a stage began, and how long it took."""

    first_step: int
    started_seconds: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class PretrainingCounts(TrainingCounts):
    """draws: what was drawn of each selection at each length."""

    tokens_by_source: Mapping[str, int]
    draws: tuple[Use, ...]
    stages: tuple[StageTime, ...]


@dataclass(frozen=True, kw_only=True)
class LoggedLine:
    """A line of metrics.jsonl: averages of the steps up to `step` ("train"), or what was measured there ("eval")."""

    step: int
    tokens: int
    kind: Literal["train", "eval"]
    values: Mapping[str, float | None]


@dataclass(frozen=True, kw_only=True)
class WrittenText(Written):
    """A line of samples.jsonl: what the model wrote after `prompt`. origin: the run that wrote the line, if another."""

    origin: str | None = None
    step: int
    tokens: int
    kind: Literal["sample"]
    stage: str
    prompt: str
    text: str


class ModelFolder(Outputs):
    """A Hugging Face model folder with its tokenizer."""

    model = File("model", covers=("model/*",))


@dataclass(frozen=True, kw_only=True)
class ReleasedOrigin(Written):
    """What a released model is called, by its folder, and its licence as the folder states it; None where it states none."""

    name: str
    licence: str | None


class ReleasedModel(ModelFolder):
    """A released model that was taken over."""

    origin_file = File("origin.json")

    @property
    def origin(self) -> ReleasedOrigin:
        """Where it came from."""
        return ReleasedOrigin.from_json(read_json(self.origin_file), where=self.origin_file)


class TrainedModel(ModelFolder):
    """What training leaves: the model, the log of metrics, and texts that the model wrote on the way."""

    metrics = File("metrics.jsonl", notes=True)
    samples = File("samples.jsonl", notes=True)
    events = File("events.jsonl", notes=True)  # where there were any
    reference = File("reference.json", notes=True)  # of preference optimisation

    def logged(self, kind: Literal["train", "eval"]) -> list[LoggedLine]:
        """The lines of the log of one kind."""
        lines = (dict(line) for line in read_log(self.metrics) if line["kind"] == kind)
        return [
            LoggedLine(
                step=line.pop("step"),
                tokens=line.pop("tokens"),
                kind=line.pop("kind"),
                values={key: value for key, value in line.items() if key != "origin"},
            )
            for line in lines
        ]

    @property
    def texts(self) -> list[WrittenText]:
        """What the model wrote, in order."""
        return [WrittenText.from_json(line, where=self.samples) for line in read_log(self.samples)]

    @property
    def happened(self) -> list[AnyEvent]:
        """Spikes, changes of mixture and what else happened, in order."""
        return read_events(self.events)


class Pretrained(TrainedModel):
    """The model that all others begin with."""

    positions = File("positions.jsonl", notes=True)  # where the context was extended
    watching = File("watching.json", notes=True)  # what was measured on the way

    @property
    def long_contexts(self) -> list[LongContext]:
        """What it made of long texts before and after each stage that extended the context."""
        return [LongContext.from_json(line, where=self.positions) for line in read_log(self.positions)]

    @property
    def counts(self) -> PretrainingCounts:
        """Steps, tokens, seconds, and what was drawn."""
        return PretrainingCounts.from_json(self.record.counts, where=self.record_path)

    @property
    def shape(self) -> ModelSection:
        """The shape of the model."""
        return self.record.section(ModelSection, "model")

    def stages(self, names: Sequence[str]) -> list[Stage]:
        """What it was trained on, with the mixtures that changes set. names: what the stages are called now; no record says."""
        numbers = range(len(self.record.at("pretrain", "stages")))
        return [
            self.record.section(Stage, "pretrain", "stages", number, name=name)
            for number, name in zip(numbers, names, strict=True)
        ]
