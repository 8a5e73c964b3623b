"""The page of a run in the middle: where pretraining is, what looks wrong, what comes next, and the curves as far as they go.

The sections are those of the report, as far as the run made what they show; while it is at work the page loads itself again.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from functools import cached_property

from markupsafe import Markup

from gristmill.extract.not_read import NotRead
from gristmill.graph.outputs import Outputs
from gristmill.planning.budget import epoch_verdict
from gristmill.recipe.schema.recipe import Recipe
from gristmill.report.blocks import Section, beside, paragraph, table
from gristmill.report.facts import Caps, ChangeMade, Facts, Labels, StageOfRun
from gristmill.report.page import CURATION, Sections, render_made
from gristmill.report.result_sections import evaluation
from gristmill.report.training_sections import VERDICTS, post_training, pretraining
from gristmill.train.outputs import EVAL, train_metric
from gristmill.train.standing.under_way import UnderWay
from gristmill.units import scale, seconds

REFRESH_SECONDS = 30


class FactsSoFar(Facts):
    """Facts of a run whose pretraining is under way, or done. `inputs` has its pretraining too, finished or not."""

    def __init__(
        self,
        labels: Labels,
        caps: Caps,
        inputs: Mapping[str, Outputs],
        *,
        recipe: Recipe,
        training: UnderWay,
        changes: Sequence[ChangeMade],
        not_read: Sequence[NotRead],
    ) -> None:
        super().__init__(labels, caps, inputs, locked=recipe.locked_packs, changes=changes, not_read=not_read)
        self.recipe, self.training = recipe, training

    @cached_property
    def stages(self) -> list[StageOfRun]:
        """The stages as the recipe has them, without what they took."""
        rows, at = [], 0
        for stage in self.recipe.pretrain.as_changed().stages:
            rows.append(StageOfRun(stage=stage, first_token=at, last_token=at + stage.tokens, seconds=None))
            at += stage.tokens
        return rows

    @property
    def tiles(self) -> list[tuple[str, str]]:
        """Step, tokens, loss, speed and time left."""
        training = self.training
        losses = [line.values.get(train_metric("loss")) for line in self.logged("pretrain", "train")]
        left = training.num_steps - training.step
        time_left = None if training.step_seconds is None or not left else training.step_seconds * left
        return [
            (f"{training.step:,}", f"steps of {training.num_steps:,}"),
            (scale(training.tokens), f"tokens of {scale(training.total_tokens)}"),
            *([(f"{losses[-1]:.3f}", "training loss, nats per token")] if losses and losses[-1] is not None else []),
            *([(seconds(time_left), "of training left at the present speed")] if time_left is not None else []),
        ]


def render_so_far(facts: FactsSoFar, *, state: str, at: datetime.datetime, with_curation: bool, refreshes: bool) -> str:
    """The page. state: what the run is doing, or how it ended. with_curation: with the sections on data, which read what every shard left.
    refreshes: loads itself again every half minute."""
    made: list[Sections] = [(_state_of_training, _budget, pretraining, post_training)]
    made += [(evaluation,)] if facts.has("evaluate") else []
    made += [CURATION] if with_curation else []
    return render_made(
        facts,
        tuple(section for sections in made for section in sections),
        verdict="",
        sentence=f"{state[:1].upper()}{state[1:]}. As of {at:%Y-%m-%d %H:%M:%S} UTC.",
        tiles=facts.tiles,
        refresh_seconds=REFRESH_SECONDS if refreshes else None,
    )


def _state_of_training(facts: Facts) -> Section:
    """What looks wrong, where measurements go, what comes next."""
    assert isinstance(facts, FactsSoFar)
    training = facts.training
    wrong = [paragraph(f"Looks wrong: {finding.what}.") for finding in training.wrong]
    measured = table(
        "Measured. The change is that along a line through the newest values; what is not beyond its noise may be chance.",
        ("what", "last", "change", "±", "direction"),
        [
            (
                one.metric.removeprefix(EVAL).replace("/", " ").replace("_", " "),
                f"{one.last:.3f}",
                "" if one.change is None else f"{one.change:+.3f}",
                "" if one.noise is None else f"{one.noise:.3f}",
                one.direction,
            )
            for one in training.measured
        ],
        numbers=(1, 2, 3),
    )
    coming = table(
        "Next",
        ("step", "after about", "what"),
        [
            (
                f"{one.step:,}",
                "" if training.step_seconds is None else seconds((one.step - training.step) * training.step_seconds),
                one.what,
            )
            for one in training.ahead
        ],
        numbers=(0, 1),
    )
    tables: list[Markup] = [*([measured] if training.measured else []), *([coming] if training.ahead else [])]
    blocks = [*(wrong or [paragraph("Nothing looks wrong.")]), *([beside(*tables)] if tables else [])]
    return Section(title="Under way", intro="", blocks=blocks)


def _budget(facts: Facts) -> Section:
    """Tokens read and still to read."""
    assert isinstance(facts, FactsSoFar)
    allowed = facts.recipe.pretrain.allow_epochs
    rows = []
    for row in facts.training.budget:
        verdict = epoch_verdict(
            row.final_epochs,
            warn_epochs=row.warn_epochs,
            max_epochs=row.max_epochs,
            is_allowed=row.selection.source in allowed,
        )
        rows.append(
            (
                str(row.selection),
                row.unique_tokens,
                row.read_tokens,
                row.left_tokens,
                f"{row.epochs:.2f}",
                f"{row.final_epochs:.2f}",
                VERDICTS.get(verdict, verdict),
            )
        )
    read = table(
        "Tokens and passes, so far and at the end",
        ("selection", "unique tokens", "read", "still to read", "epochs", "at the end", "verdict"),
        rows,
        numbers=(1, 2, 3, 4, 5),
    )
    stages = table(
        "Stages",
        ("stage", "tokens", "sequence length", "mixture"),
        [(row.stage.name, row.stage.tokens, row.stage.seq_len, row.mixture) for row in facts.stages],
        numbers=(1, 2),
    )
    return Section(title="Token budget", intro="", blocks=[read, stages])
