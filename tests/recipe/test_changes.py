"""Changes in the middle of a pretraining: what they may set, of what, and when."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from gristmill.errors import RecipeError
from gristmill.recipe.interventions import FOLDER, recipe_as_it_became, with_interventions, with_those_to_come
from gristmill.recipe.load import load_recipe
from gristmill.recipe.schema.recipe import Recipe

WHY = "the loss rose and stayed up"  # the small recipe has stages of 800 and 200 steps


def with_changes(small: dict[str, Any], *changes: tuple[int, dict[str, Any]]) -> dict[str, Any]:
    small["pretrain"]["changes"] = [{"after_step": step, "set": values, "why": WHY} for step, values in changes]
    return small


def message(data: dict[str, Any]) -> str:
    with pytest.raises(ValidationError) as caught:
        Recipe.model_validate(data)
    return str(caught.value)


def test_a_change_sets_peak_mixture_and_skip(small: dict[str, Any]) -> None:
    mixture = {"web": 0.5, "books": 0.5}
    data = with_changes(
        small, (100, {"optimizer.peak_lr": 2e-4, "skip_steps": 3}), (100, {"stages.decay.mixture": mixture})
    )
    first, second = Recipe.model_validate(data).pretrain.changes
    assert (first.peak_lr, first.skip_steps, first.mixtures) == (2e-4, 3, {})
    assert (second.peak_lr, second.skip_steps) == (None, 0)
    assert [(draw.source, draw.weight) for draw in second.mixtures["decay"]] == [("web", 0.5), ("books", 0.5)]


def test_a_change_is_what_writing_the_mixture_into_the_stage_is(small: dict[str, Any]) -> None:
    mixture = [{"source": "books", "weight": 1.0, "min_document_tokens": 512}]
    changed = Recipe.model_validate(
        with_changes(small, (100, {"stages.decay.mixture": {"web": 1.0}, "skip_steps": 1}), (200, {"stages.decay.mixture": mixture}))
    ).pretrain.as_changed()  # fmt: skip
    small["pretrain"]["stages"][1]["mixture"] = mixture
    with_changes(small, (100, {"skip_steps": 1}))
    assert changed == Recipe.model_validate(small).pretrain
    assert changed.as_changed() is changed


def test_the_reason_and_an_empty_list_are_no_part_of_an_identity(small: dict[str, Any]) -> None:
    before = Recipe.model_validate(small).pretrain.literals()
    assert Recipe.model_validate(with_changes(small)).pretrain.literals() == before
    with_changes(small, (100, {"skip_steps": 1}))
    one = Recipe.model_validate(small).pretrain.literals()
    small["pretrain"]["changes"][0]["why"] = "another reason for it"
    assert Recipe.model_validate(small).pretrain.literals() == one != before


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"optimizer.peak_rl": 1e-3}, "sets 'optimizer.peak_rl', which cannot change in the middle of a run; did you mean "
                                      "'optimizer.peak_lr'? Allowed are optimizer.peak_lr (a number above 0, at most 0.1), stages.<name>"),
        ({"optimizer.beta1": 0.8}, "'optimizer.beta1', which cannot change"),
        ({"seed": 3}, "'seed', which cannot change in the middle of a run; allowed are"),
        ({"stages.decay.tokens": 1024}, "'stages.decay.tokens', which cannot change in the middle of a run; allowed are"),
        ({"stages.decay.mixtur": {"web": 1.0}}, "did you mean 'stages.decay.mixture'? Allowed"),
        ({"optimizer.peak_lr": 0}, "a change sets optimizer.peak_lr to 0; allowed are"),
        ({"optimizer.peak_lr": "fast"}, "a change sets optimizer.peak_lr to 'fast'"),
        ({"optimizer.peak_lr": True}, "a change sets optimizer.peak_lr to True"),
        ({"skip_steps": 0}, "a change sets skip_steps to 0"),
        ({"skip_steps": 1.5}, "a change sets skip_steps to 1.5"),
        ({"stages.decay.mixture": {"web": 0.5}}, "the weights of a change's stages.decay.mixture sum to 0.5, not 1"),
        ({"stages.decay.mixture": {"web": "all"}}, "a change's stages.decay.mixture[0][weight] is 'all'; expected a number"),
        ({"stages.decay.mixture": 3}, "a change's stages.decay.mixture is 3; expected a list"),
        ({"stages.decay.mixture": {"nowhere": 1.0}}, "pretrain.changes[after step 100].set[stages.decay.mixture] names the "
                                                     "source 'nowhere'"),
        ({"stages.deca.mixture": {"web": 1.0}}, "there is no stage 'deca'; did you mean 'decay'? stages that begin at or after "
                                                "step 100: decay (step 800)"),
        ({"stages.stable.mixture": {"web": 1.0}}, "stage 'stable' begins at step 0, before after_step 100; only a stage to come "
                                                  "can have another mixture: decay (step 800). Split the stage at step 100"),
        ({}, "at least 1 item"),
    ],
)  # fmt: skip
def test_what_a_change_cannot_be_is_refused_with_what_it_can(
    small: dict[str, Any], values: dict[str, Any], words: str
) -> None:
    assert words in message(with_changes(small, (100, values)))


def test_a_mixture_changes_until_its_stage_begins(small: dict[str, Any]) -> None:
    values = {"stages.decay.mixture": {"web": 1.0}}
    Recipe.model_validate(with_changes(small, (800, values)))
    assert "begins at step 800, before after_step 801" in message(with_changes(small, (801, values)))


def test_changes_come_in_order_before_the_end_and_not_at_the_beginning(small: dict[str, Any]) -> None:
    skip = {"skip_steps": 1}
    assert "after_step 100 comes after 200; put them in ascending order" in message(
        with_changes(small, (200, skip), (100, skip))
    )
    Recipe.model_validate(with_changes(small, (999, skip)))
    assert "after_step 1,000 is not below the 1,000 steps of all stages" in message(with_changes(small, (1000, skip)))
    assert "after_step" in message(with_changes(small, (0, skip)))


@pytest.mark.parametrize("why", [None, "because"])
def test_a_change_has_a_reason(small: dict[str, Any], why: str | None) -> None:
    with_changes(small, (100, {"skip_steps": 1}))
    small["pretrain"]["changes"][0].pop("why") if why is None else small["pretrain"]["changes"][0].update(why=why)
    assert "why" in message(small)


def test_a_refusal_names_the_line_of_the_recipe(small: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(with_changes(small, (100, {"skip_step": 1}))), encoding="utf-8")
    line = 1 + path.read_text(encoding="utf-8").splitlines().index("    set:")
    with pytest.raises(RecipeError, match=rf"small\.yaml:{line}: .*did you mean 'skip_steps'\?"):
        load_recipe(path)


# ── interventions ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def interventions(tmp_path: Path) -> Path:
    folder = tmp_path / "run" / FOLDER
    folder.mkdir(parents=True)
    return folder


def intervene(folder: Path, name: str, peak: float) -> None:
    change = {"after_step": 100, "set": {"optimizer.peak_lr": peak}, "why": WHY}
    (folder / name).write_text(yaml.safe_dump(change), encoding="utf-8")


def test_interventions_follow_each_other_by_number(small_file: Path, interventions: Path) -> None:
    for name, peak in (("10.yaml", 1e-4), ("9.yaml", 2e-4), ("008.yaml", 3e-4), (".10.yaml.swp", 4e-4)):
        intervene(interventions, name, peak)
    became = with_interventions(load_recipe(small_file), interventions.parent)
    assert [change.peak_lr for change in became.recipe.pretrain.changes] == [3e-4, 2e-4, 1e-4]
    assert [Path(became.origins["pretrain", "changes", number]).name for number in range(3)] == [
        "008.yaml", "9.yaml", "10.yaml",
    ]  # fmt: skip


def test_data_that_is_passed_over_comes_where_its_step_belongs_and_other_changes_come_last(
    small_file: Path, interventions: Path
) -> None:
    recipe = yaml.safe_load(small_file.read_text(encoding="utf-8"))
    small_file.write_text(
        yaml.safe_dump(with_changes(recipe, (50, {"skip_steps": 1}), (200, {"optimizer.peak_lr": 1e-4}))),
        encoding="utf-8",
    )
    skip = {"after_step": 100, "set": {"skip_steps": 3}, "why": WHY}
    (interventions / "1.yaml").write_text(yaml.safe_dump(skip), encoding="utf-8")
    became = with_interventions(load_recipe(small_file), interventions.parent)
    assert [change.after_step for change in became.recipe.pretrain.changes] == [50, 100, 200]
    said = [became.origin_near(("pretrain", "changes", number, "after_step")) for number in range(3)]
    assert [Path(one.partition(":")[0]).name for one in said] == [small_file.name, "1.yaml", small_file.name]
    intervene(interventions, "2.yaml", 2e-4)
    with pytest.raises(RecipeError, match="after_step 100 comes after 200; put them in ascending order"):
        with_interventions(load_recipe(small_file), interventions.parent)


@pytest.mark.parametrize("name", ["lower.yaml", "2b.yaml", "2.yml", "-1.yaml", "².yaml", "notes.txt"])
def test_a_file_without_a_number_is_no_intervention(small_file: Path, interventions: Path, name: str) -> None:
    intervene(interventions, name, 1e-4)
    with pytest.raises(RecipeError, match=r"is not named as an intervention\.\n.*such as 001\.yaml"):
        with_interventions(load_recipe(small_file), interventions.parent)


def test_two_interventions_of_one_number_are_refused(small_file: Path, interventions: Path) -> None:
    for name in ("2.yaml", "002.yaml"):
        intervene(interventions, name, 1e-4)
    with pytest.raises(RecipeError, match=r"002\.yaml and 2\.yaml have the same number"):
        with_interventions(load_recipe(small_file), interventions.parent)


def test_a_change_that_is_decided_twice_and_carried_out_once_is_still_to_come(
    small_file: Path, interventions: Path
) -> None:
    intervene(interventions, "001.yaml", 1e-4)
    became = recipe_as_it_became(with_interventions(load_recipe(small_file), interventions.parent))
    path = small_file.with_name("became.yaml")
    path.write_text(became, encoding="utf-8")
    assert with_those_to_come(became, load_recipe(path), interventions.parent) == became
    intervene(interventions, "002.yaml", 1e-4)
    shown = with_those_to_come(became, load_recipe(path), interventions.parent)
    assert "002.yaml is not carried out yet" in shown
    assert "001.yaml is not" not in shown
    assert [change["set"] for change in yaml.safe_load(shown)["pretrain"]["changes"]] == [
        {"optimizer.peak_lr": 1e-4}
    ] * 2
