"""An arm that is applied: as much of it as an intervention can say, the rest in words, and all of it as a recipe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gristmill.ablate.design import Design, design_of
from gristmill.ablate.judged import as_judged, otherwise_than_judged, stages_to_come, where_in_force
from gristmill.errors import RecipeError
from gristmill.recipe.load import LoadedRecipe
from gristmill.recipe.schema.changes import Change
from gristmill.recipe.schema.training import Pretrain

Load = Callable[..., LoadedRecipe]
MIXTURE = {"manuals": 0.5, "novel": 0.5}
ASKED: dict[str, Any] = {"candidates": {"dictionary": {"glosses": 1}}, "endpoint": "novel", "seeds": 2}


def stage(name: str, steps: int, seq_len: int = 128) -> dict[str, Any]:
    return {"name": name, "tokens": steps * 1024, "seq_len": seq_len, "mixture": MIXTURE}


def planned(load: Load, *stages: dict[str, Any], decay: int, **ablation: Any) -> tuple[Pretrain, Design]:
    loaded = load(ASKED | ablation, stages=[*stages], decay_tokens=decay * 1024, changes=[])
    return loaded.recipe.pretrain, design_of(loaded, None)


def test_a_run_that_decays_as_the_arms_did_does_nothing_otherwise(load: Load) -> None:
    pretrain, design = planned(load, stage("stable", 14), stage("decay", 8), decay=8)
    stages = stages_to_come(pretrain, design)
    assert [one.name for one in stages] == ["decay"]
    assert otherwise_than_judged(pretrain, design, stages) == []


def test_every_stage_of_an_arm_s_length_within_its_tokens_gets_its_mixture(load: Load) -> None:
    stages = stage("stable", 14), stage("early", 4), stage("late", 4), stage("long", 6, 256)
    pretrain, design = planned(load, *stages, decay=14)
    found = stages_to_come(pretrain, design)
    assert [one.name for one in found] == ["early", "late"]
    assert otherwise_than_judged(pretrain, design, found) == [
        "it had its mixture for 14 steps, the run has it for the 8 of early, late"
    ]


def test_another_decay_and_later_changes_are_told(load: Load) -> None:
    pretrain, design = planned(load, stage("stable", 10), stage("more", 12), decay=8, after_step=10, tokens=4096)
    change = {"after_step": 15, "set": {"optimizer.peak_lr": 0.001}, "why": "the loss stopped falling"}
    changed = Pretrain.model_validate({**pretrain.model_dump(exclude_unset=True), "changes": [change]})
    assert otherwise_than_judged(changed, design, stages_to_come(pretrain, design)) == [
        "its rate falls to zero from step 10 to step 14, that of the run from step 14 to step 22",
        "it had its mixture for 4 steps, the run has it for the 12 of more",
        "it had no change after that, the run has one after step 15",
    ]


def test_where_no_stage_begins_at_the_trunk_s_end_there_is_none_to_change(load: Load) -> None:
    pretrain, design = planned(load, stage("stable", 22), decay=8)
    with pytest.raises(RecipeError, match="no stage begins after step 14, where the arms left the trunk"):
        stages_to_come(pretrain, design)


def test_a_fork_is_the_arm_but_for_the_order_of_its_seed(load: Load) -> None:
    pretrain, design = planned(load, stage("stable", 10), stage("more", 12), decay=8, after_step=8, tokens=4096)
    forked = Pretrain.model_validate(pretrain.model_dump(exclude_unset=True) | as_judged(design, design.arms[1]))
    [arm] = [trial.loaded.recipe.pretrain for trial in design.trials if trial.seed == 1 and trial.arm.candidate]
    assert [one.model_copy(update={"reshuffle": None}) for one in arm.stages] == forked.stages
    assert (arm.stages[-1].reshuffle, forked.stages[-1].tokens) == (1, 4096)
    assert (forked.decay_tokens, forked.warmup_tokens) == (arm.decay_tokens, arm.warmup_tokens) == (4096, 2048)


def test_a_change_at_the_very_step_where_the_arms_left_is_told_unless_it_gives_the_mixture(load: Load) -> None:
    pretrain, design = planned(load, stage("stable", 14), stage("decay", 8), decay=8)
    rate = {"after_step": 14, "set": {"optimizer.peak_lr": 0.001}, "why": "the loss stopped falling"}
    applied = {"after_step": 14, "set": {"stages.decay.mixture": {"glosses": 1}}, "why": "an ablation said so"}
    for changes, told in (
        ([applied], []),
        ([rate], ["it had no change after that, the run has one after step 14"]),
        (
            [applied, rate, {**rate, "after_step": 15}],
            ["it had no change after that, the run has one after step 14, 15"],
        ),
    ):
        changed = Pretrain.model_validate({**pretrain.model_dump(exclude_unset=True), "changes": changes})
        assert otherwise_than_judged(changed, design, stages_to_come(changed, design)) == told


def test_a_change_that_a_later_one_took_back_is_not_in_force(load: Load) -> None:
    changes = [
        {"after_step": 14, "set": {"stages.decay.mixture": {name: 1}}, "why": f"the mixture of number {number}"}
        for number, name in enumerate(("glosses", "code", "glosses"))
    ]
    rate = {"after_step": 14, "set": {"optimizer.peak_lr": 0.001}, "why": "the loss stopped falling"}
    first = Change.model_validate(changes[0])
    for written, is_in_force in (
        ([], False),
        (changes[:1], True),
        ([*changes[:1], rate], True),
        (changes[:2], False),
        (changes, True),
        ([{**changes[0], "after_step": 13}], False),
    ):
        stages = [stage("stable", 14), stage("decay", 8)]
        loaded = load(ASKED, stages=stages, decay_tokens=8 * 1024, changes=written)
        assert (where_in_force(loaded, first) is not None) is is_in_force, written
