"""Arms as recipes: they differ in their data and in nothing else, and share the trunk to the letter."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import yaml
from arms_prefix import prefix
from hypothesis import given
from hypothesis import strategies as st

from gristmill.ablate.arms import blend
from gristmill.ablate.design import design_of
from gristmill.errors import RecipeError
from gristmill.recipe.load import LoadedRecipe, load_recipe
from gristmill.recipe.schema.mixture import Draw
from gristmill.train.course import course_of
from gristmill.train.prefix import prefix_differences

Load = Callable[..., LoadedRecipe]
ASKED = {"candidates": {"dictionary": {"glosses": 1}, "both": ["novel", "code"]}, "endpoint": "novel", "seeds": 3}
TRUNK_STEPS = 14


def test_all_arms_have_the_prefix_of_the_trunk_up_to_where_they_leave_it_and_none_after(load: Load) -> None:
    loaded = load(ASKED)
    design = design_of(loaded, None)
    assert (design.after_step, design.tokens, design.run) == (TRUNK_STEPS, 14_336, "tiny.data")
    trunk = prefix(loaded, TRUNK_STEPS)
    assert all(prefix(trial.loaded, TRUNK_STEPS) == trunk for trial in design.trials)
    ends = [str(prefix(trial.loaded, 28)) for trial in design.trials]
    assert len(set(ends)) == len(ends) == 9


def test_arms_of_a_seed_differ_in_their_draws_only_and_seeds_of_an_arm_in_their_order_only(load: Load) -> None:
    design = design_of(load(ASKED), None)
    by_name = {(trial.arm.name, trial.seed): trial.loaded for trial in design.trials}
    of_arms = prefix_differences(prefix(by_name["control", 2], 28), prefix(by_name["dictionary", 2], 28))
    assert of_arms
    assert all(line.startswith(f"stage from step {TRUNK_STEPS}.") for line in of_arms)
    assert not any("reshuffle" in line for line in of_arms)
    of_seeds = prefix_differences(prefix(by_name["both", 1], 28), prefix(by_name["both", 3], 28))
    assert of_seeds == [f"stage from step {TRUNK_STEPS}.reshuffle: 1 → 3"]


def test_the_last_step_of_every_arm_has_rate_zero_and_the_first_the_rate_that_the_trunk_would_have_had(
    load: Load,
) -> None:
    for trial in design_of(load({**ASKED, "tokens": 5120, "after_step": 9}), None).trials:
        course = course_of(trial.loaded.recipe.pretrain, rope_theta=1e4)
        rates = [course.lr_of_step(step) for step in range(course.num_steps)]
        assert rates[8] == pytest.approx(1e-2)
        assert rates[9:] == pytest.approx([0.8e-2, 0.6e-2, 0.4e-2, 0.2e-2, 0])


def test_all_arms_of_a_seed_come_before_the_next_seed(load: Load) -> None:
    order = [(trial.seed, trial.arm.name) for trial in design_of(load(ASKED), None).trials]
    assert order == [(seed, arm) for seed in (1, 2, 3) for arm in ("control", "dictionary", "both")]


def test_shares_make_an_arm_each_of_the_mixture_at_the_trunks_end(load: Load) -> None:
    asked = {**ASKED, "shares": [0.4, 1.0], "candidates": {"dictionary": {"glosses": 1}}}
    arms = {arm.name: arm for arm in design_of(load(asked), None).arms}
    assert [*arms] == ["control", "dictionary-40", "dictionary-100"]
    mixture = {draw.source: draw.weight for draw in arms["dictionary-40"].draws}
    assert mixture == {"glosses": 0.49, "manuals": 0.36, "novel": 0.09, "code": 0.06}
    assert [(draw.source, draw.weight) for draw in arms["dictionary-100"].draws] == [("glosses", 1.0)]


def test_arms_go_on_at_the_length_and_with_the_mixture_that_the_trunk_had_before_they_leave_it(load: Load) -> None:
    """The next stage of the recipe has another length and another mixture; a change at the step itself is no part of the trunk."""
    stages = [
        {"name": "one", "tokens": 14_336, "seq_len": 128, "mixture": MIXTURE},
        {"name": "two", "tokens": 14_336, "seq_len": 256, "mixture": {"code": 1}},
    ]
    changes = [
        {"after_step": step, "set": {"optimizer.peak_lr": rate}, "why": "for the test"}
        for step, rate in ((5, 0.009), (TRUNK_STEPS, 0.008))
    ]
    for trial in design_of(load(ASKED, stages=stages, changes=changes), None).trials:
        pretrain = trial.loaded.recipe.pretrain
        assert [(stage.tokens, stage.seq_len) for stage in pretrain.stages] == [(14_336, 128), (14_336, 128)]
        assert [change.after_step for change in pretrain.changes] == [5]
        if trial.arm.name == "control":
            assert {draw.source: draw.weight for draw in pretrain.stages[1].mixture} == MIXTURE


def test_arms_are_measured_at_the_end_only(load: Load) -> None:
    for trial in design_of(load(ASKED), None).trials:
        recipe = trial.loaded.recipe
        assert (recipe.pretrain.watch.packs, recipe.pretrain.sample_prompts, recipe.evaluate.xz_yardstick) == (
            [],
            [],
            False,
        )
        assert recipe.pretrain.watch.every_tokens > recipe.pretrain.total_tokens


def test_arms_are_not_measured_on_packs_that_are_kept_for_the_end(load: Load) -> None:
    path = load(ASKED).path
    assert path is not None
    written = yaml.safe_load(path.read_text(encoding="utf-8"))
    wanted = written["evaluate"]["packs"]
    written["packs"]["sums"]["locked"] = True
    path.write_text(yaml.safe_dump(written, sort_keys=False), encoding="utf-8")
    for trial in design_of(load_recipe(path), None).trials:
        assert trial.loaded.recipe.evaluate.packs == [name for name in wanted if name != "sums"] != wanted
        assert trial.loaded.recipe.stage_packs == []


MIXTURE = {"manuals": 0.6, "glosses": 0.15, "novel": 0.15, "code": 0.1}  # of the trunk


@pytest.mark.parametrize(
    ("candidates", "shares", "words"),
    [
        ({"same": dict(reversed(MIXTURE.items()))}, [0.6], "same trains on the mixture of control"),
        ({"one": {"novel": 1}, "two": ["novel"]}, [0.5], "two trains on the mixture of one"),
        ({"wide": MIXTURE, "dictionary": {"glosses": 1}}, [1.0], "wide trains on the mixture of control"),
    ],
)
def test_two_arms_on_one_mixture_are_refused(
    load: Load, candidates: dict[str, Any], shares: list[float], words: str
) -> None:
    """Their runs would be equal bit for bit, and count as if they were others: see test_effect.py for what that does to verdicts."""
    with pytest.raises(RecipeError, match=words):
        design_of(load({**ASKED, "candidates": candidates, "shares": shares}), None)


def test_a_recipe_that_has_another_mixture_after_the_trunk_is_told_apart_from_the_control(load: Load) -> None:
    assert design_of(load(ASKED), None).has_other_plan
    plain = [{"name": "all", "tokens": 28_672, "seq_len": 128, "mixture": MIXTURE}]
    assert not design_of(load(ASKED, stages=plain), None).has_other_plan


def test_from_scratch_an_arm_is_one_stage_and_a_seed_is_other_weights_and_another_order(load: Load) -> None:
    design = design_of(load({**ASKED, "kind": "scratch"}), None)
    assert (design.after_step, design.tokens) == (0, 28_672)
    firsts = [prefix(trial.loaded, 1) for trial in design.trials if trial.arm.name == "control"]
    assert len({(one["weights"]["seed"], one["stream_seed"]) for one in firsts}) == 3
    pairs = [prefix(trial.loaded, 1)["weights"] for trial in design.trials if trial.seed == 2]
    assert pairs[0] == pairs[1] == pairs[2]
    for trial in design.trials:
        pretrain = trial.loaded.recipe.pretrain
        assert (len(pretrain.stages), pretrain.warmup_tokens, pretrain.decay_tokens) == (1, 2048, 14_336)


EARLY = {"one": {"code": 0.2, "manuals": 0.8}, "two": {"manuals": 1}}
STAGES = [
    {"name": "one", "tokens": 14_336, "seq_len": 128, "mixture": {"manuals": 1}},
    {"name": "two", "tokens": 14_336, "seq_len": 256, "mixture": {"manuals": 0.8, "code": 0.2}},
]
PLANNED = {"kind": "stages", "plans": {"early": EARLY}, "endpoint": "code", "seeds": 3}


def test_plans_change_the_mixtures_of_stages_and_nothing_else_and_a_seed_is_other_weights_and_another_order(
    load: Load,
) -> None:
    design = design_of(load(PLANNED, stages=STAGES), None)
    assert (design.after_step, design.tokens, [arm.name for arm in design.arms]) == (0, 28_672, ["control", "early"])
    for trial in design.trials:
        pretrain = trial.loaded.recipe.pretrain
        assert [(stage.name, stage.tokens, stage.seq_len) for stage in pretrain.stages] == [
            ("one", 14_336, 128),
            ("two", 14_336, 256),
        ]
        mixtures = {stage.name: {draw.source: draw.weight for draw in stage.mixture} for stage in pretrain.stages}
        assert mixtures == (
            EARLY if trial.arm.name == "early" else {stage["name"]: stage["mixture"] for stage in STAGES}
        )
    control, early = (trial.loaded for trial in design.trials if trial.seed == 2)
    changed = prefix_differences(prefix(control, 28), prefix(early, 28))
    assert changed
    parts = {
        line.removeprefix(f"stage from step {step}.").split(" of ")[0].split(":")[0]
        for line in changed
        for step in (0, 14)
        if f"step {step}." in line
    }
    assert parts == {"sources in order", "text", "weight"}
    assert len({prefix(trial.loaded, 1)["weights"]["seed"] for trial in design.trials}) == 3


def test_plans_keep_the_changes_of_the_recipe_that_are_no_mixtures(load: Load) -> None:
    """A mixture that was changed is the control's own."""
    changes = [
        {"after_step": 5, "set": {"optimizer.peak_lr": 0.009}, "why": "for the test"},
        {"after_step": 14, "set": {"stages.two.mixture": {"novel": 1}}, "why": "for the test"},
    ]
    design = design_of(load(PLANNED, stages=STAGES, changes=changes), None)
    assert design.arms[0].trained_on(design.arms[0]) == "one: manuals 1; two: novel 1"
    for trial in design.trials:
        assert [change.after_step for change in trial.loaded.recipe.pretrain.changes] == [5]


def test_a_plan_that_leaves_a_stage_out_has_the_recipes_mixture_there(load: Load) -> None:
    arms = design_of(load({**PLANNED, "plans": {"late": {"two": {"code": 1}}}}, stages=STAGES), None).arms
    assert arms[0].trained_on(arms[0]) == "one: manuals 1; two: manuals 0.8, code 0.2"
    assert arms[1].trained_on(arms[0]) == "two: code 1"
    assert {draw.source for draw in arms[1].mixtures["one"]} == {"manuals"}


def test_plans_that_are_no_others_and_stages_that_are_none_are_refused(load: Load) -> None:
    with pytest.raises(RecipeError, match="same trains on the mixture of control"):
        design_of(load({**PLANNED, "plans": {"same": {"one": {"manuals": 1}}}}, stages=STAGES), None)
    with pytest.raises(RecipeError, match=r"pretrain has no stage 'tow'; did you mean 'two'"):
        design_of(load({**PLANNED, "plans": {"late": {"tow": {"code": 1}}}}, stages=STAGES), None)
    with pytest.raises(RecipeError, match=r"the weights of plan 'late.two' sum to 0.5"):
        load({**PLANNED, "plans": {"late": {"two": {"code": 0.5}}}}, stages=STAGES)


weights = st.lists(st.integers(1, 10**6), min_size=1, max_size=6).map(
    lambda parts: [Fraction(part, sum(parts)) for part in parts]
)


def draws(shares: list[Fraction], first: int) -> list[Draw]:
    """Shares in millionths that sum to one, largest remainders first."""
    floors = [int(share * 10**6) for share in shares]
    floors[0] += 10**6 - sum(floors)
    return [Draw(source=f"s{first + n}", weight=part / 10**6) for n, part in enumerate(floors) if part]


@given(one=weights, other=weights, first=st.integers(0, 6), share=st.integers(1, 10**6))
def test_a_blend_sums_to_one_exactly_and_is_within_a_millionth_of_its_parts(
    one: list[Fraction], other: list[Fraction], first: int, share: int
) -> None:
    candidate, base = draws(one, 0), draws(other, first)
    found = blend(candidate, base, share / 10**6)
    assert sum(round(draw.weight * 10**6) for draw in found) == 10**6
    for draw in found:
        parts = [
            Fraction(part, 10**6) * Fraction(round(this.weight * 10**6), 10**6)
            for mixture, part in ((candidate, share), (base, 10**6 - share))
            for this in mixture
            if this.source == draw.source
        ]
        assert abs(Fraction(round(draw.weight * 10**6), 10**6) - sum(parts)) <= Fraction(1, 10**6)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"after_step": 20}, "after_step 20 lies in the decay, which begins after step 14"),
        ({"after_step": 1}, "after_step 1 lies in the warm-up of 2 steps"),
        ({"tokens": 1500}, "tokens 1,500 is not a whole number of steps of 1,024; use 2,048"),
        ({"kind": "scratch", "after_step": 3}, "an ablation of kind scratch has no after_step; remove it"),
        ({"kind": "stages"}, "an ablation of kind stages compares plans; name at least one"),
        ({"plans": {"early": {"one": {"code": 1}}}}, "an ablation of kind anneal has no plans"),
        ({"candidates": {}}, "an ablation of kind anneal compares candidates; name at least one"),
        ({"endpoint": "novle"}, "ablations.data.endpoint names the source 'novle'; did you mean 'novel'"),
        ({"candidates": {"a": ["glosses", "novvel"]}}, "ablations.data.candidates.a names the source 'novvel'"),
        ({"candidates": {"a": {"glosses": 0.7}}}, "the weights of candidate 'a' sum to 0.7, not 1"),
        ({"candidates": {"control": {"glosses": 1}}}, "'control' is the arm on the mixture as it is"),
        ({"shares": [0.5, 0.5]}, "a share is listed twice"),
        ({"seeds": 1}, "at least 2"),
    ],
)
def test_what_does_not_fit_is_told_with_what_to_do(load: Load, asked: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError) as error:
        design_of(load({**ASKED, **asked}), None)
    assert words in " ".join(str(error.value).split())


def test_a_name_that_is_none_is_answered_with_those_that_are(load: Load) -> None:
    loaded = load(ASKED)
    with pytest.raises(RecipeError, match=r"no ablation 'dat'; did you mean 'data'"):
        design_of(loaded, "dat")
    bare = loaded.recipe.model_copy(update={"ablations": {}})
    with pytest.raises(RecipeError, match="has no section ablations"):
        design_of(LoadedRecipe(recipe=bare, path=loaded.path, origins={}), None)
