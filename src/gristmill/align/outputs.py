"""What the steps of alignment leave: preference pairs, fine-tuned and preference-tuned models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gristmill.graph.outputs import File, Outputs
from gristmill.store.durable import read_json
from gristmill.train.outputs import TrainedModel, TrainingCounts
from gristmill.units import counted
from gristmill.written import Written


@dataclass(frozen=True, kw_only=True)
class FinetuningCounts(TrainingCounts):
    """too_long: conversations that were left out because they are longer than sft.seq_len."""

    conversations: int
    too_long: int
    epochs: int


@dataclass(frozen=True, kw_only=True)
class PreferenceCounts(TrainingCounts):
    """too_long: pairs that were left out because they are longer than dpo.seq_len."""

    pairs: int
    too_long: int
    epochs: int
    beta: float


@dataclass(frozen=True, kw_only=True)
class PairReport(Written):
    """What became of prompts and sampled answers; every prompt has exactly one of the four fates. samples: by verdict."""

    prompts: int
    prompts_with_pairs: int
    prompts_all_right: int
    prompts_all_wrong: int
    prompts_other: int
    pairs: int
    samples: Mapping[str, int]

    @property
    def words(self) -> str:
        """Pairs and prompts, and why the other prompts gave none."""
        return (
            f"{counted(self.pairs, 'pair')} from {counted(self.prompts, 'prompt')}: {self.prompts_with_pairs:,} gave pairs, "
            f"{self.why_none}"
        )

    @property
    def why_none(self) -> str:
        """The prompts that gave no pair, by reason."""
        return (
            f"{self.prompts_all_right:,} were answered right every time, {self.prompts_all_wrong:,} wrong every time, and "
            f"{self.prompts_other:,} never both right and wrong, with answers that are neither (unfinished, empty, or with a "
            "special token)"
        )

    @property
    def answers(self) -> str:
        """ "12 right, 40 wrong, …": all answers by verdict."""
        return ", ".join(f"{number:,} {verdict.replace('_', ' ')}" for verdict, number in self.samples.items())


class Finetuned(TrainedModel):
    """The model after conversations."""

    @property
    def counts(self) -> FinetuningCounts:
        """What fine-tuning counted."""
        return FinetuningCounts.from_json(self.record.counts, where=self.record_path)


class PreferenceTuned(TrainedModel):
    """The model after preference pairs."""

    @property
    def counts(self) -> PreferenceCounts:
        """What preference optimisation counted."""
        return PreferenceCounts.from_json(self.record.counts, where=self.record_path)


class PreferencePairs(Outputs):
    """Preference pairs in the form that trainers read, all answers that were drawn, and how many there were of each kind."""

    pairs = File("pairs.jsonl")
    answers = File("samples.jsonl", notes=True)
    report = File("report.json", notes=True)

    @property
    def counts(self) -> PairReport:
        """How many prompts gave pairs."""
        return PairReport.from_json(read_json(self.report), where=self.report)
