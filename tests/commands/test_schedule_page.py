"""The schedule on a page: the picture is the rate of the course, and stages say what they draw."""

from __future__ import annotations

import re
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from gristmill.commands.schedule_page import BLOCKS, ROWS, picture, print_schedule
from gristmill.forecast import make_forecast
from gristmill.graph.machine import Machine
from gristmill.recipe.load import load_recipe
from gristmill.recipe.schema.recipe import Recipe
from gristmill.train.course import Course, course_of

RECIPES = Path(__file__).parents[2] / "recipes"


def course(small: dict[str, Any], **changes: Any) -> Course:
    return course_of(Recipe.model_validate(small | {"pretrain": small["pretrain"] | changes}).pretrain, rope_theta=1e4)


@pytest.fixture
def hundred_steps(small: dict[str, Any]) -> dict[str, Any]:
    """70 steps, then 30; warm-up over 20, decay over 50."""
    first, second = small["pretrain"]["stages"]
    batch = small["pretrain"]["global_batch_tokens"]
    small["pretrain"] |= {
        "stages": [first | {"tokens": 70 * batch}, second | {"tokens": 30 * batch}],
        "warmup_tokens": 20 * batch,
        "decay_tokens": 50 * batch,
        "checkpoint_every_tokens": batch,
        "changes": [],
    }
    small["pretrain"]["optimizer"] = small["pretrain"]["optimizer"] | {"peak_lr": 0.004}
    return small


def test_the_picture_is_warm_up_plateau_and_decay_over_the_stages(hundred_steps: dict[str, Any]) -> None:
    shown = course(hundred_steps)
    assert picture(shown, ["stable", "decay"], columns=20) == [
        "   0.004 ┤   ▆██████▇▄▂",
        "         ┤ ▂███████████▇▅▃",
        "         ┤▄████████████████▆▃▁",
        "       0 └┬─────────────┬─────",
        "          stable        decay",
    ]
    assert picture(shown, ["stable", "extension"], columns=20)[-1] == "          stable     extension"
    assert picture(shown, ["a name without room", "extension"], columns=20)[-1].strip() == "extension"


@given(columns=st.integers(1, 200))
@settings(max_examples=25, deadline=None)
def test_every_bar_is_the_rate_of_the_step_in_its_middle(columns: int) -> None:
    large = load_recipe(RECIPES / "smollm2-1.7b.yaml").recipe
    shown = course_of(large.pretrain, rope_theta=1e4)
    rows = picture(shown, [stage.name for stage in large.pretrain.stages], columns=columns)[:ROWS]
    bars = [row[10:].ljust(columns) for row in rows]
    for column in range(columns):
        height = sum(BLOCKS.index(row[column]) for row in bars)
        tokens = (int((column + 0.5) * 5_240_000 / columns) + 1) * 2_097_152
        share = min(1.0, tokens / 4_194_304_000, (5_240_000 * 2_097_152 - tokens) / 1_098_907_648_000)
        assert height == round(share * ROWS * 8)


def test_a_lower_peak_in_the_middle_of_a_run_is_drawn(hundred_steps: dict[str, Any]) -> None:
    batch = hundred_steps["pretrain"]["global_batch_tokens"]
    change = {"after_step": 40, "why": "it diverged twice", "set": {"optimizer.peak_lr": 0.002}}
    lowered = course(hundred_steps, changes=[change], decay_tokens=10 * batch)
    rows = picture(lowered, ["one", "two"], columns=20)[:ROWS]
    heights = [sum(BLOCKS.index(row[10:].ljust(20)[column]) for row in rows) for column in (6, 12)]
    assert heights == [ROWS * 8, ROWS * 4]


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_no_line_of_a_shipped_schedule_cuts_a_source_and_the_picture_fits(
    recipe: Path, width: int, tmp_path: Path
) -> None:
    made = make_forecast(load_recipe(recipe), Machine(processes=1, threads=1, runs_dir=tmp_path))
    out = StringIO()
    print_schedule(made, Console(file=out, width=width, soft_wrap=True))
    lines = out.getvalue().splitlines()
    assert all(len(line) <= width for line in lines if "┤" in line or line.startswith("    "))
    for stage in made.recipe.pretrain.stages:
        assert f"  {stage.name}: steps " in out.getvalue()
        for draw in stage.mixture:
            assert draw.source in out.getvalue()


def test_shares_of_a_stage_add_up_to_one_and_epochs_are_those_of_the_budget(tmp_path: Path) -> None:
    made = make_forecast(load_recipe(RECIPES / "smollm2-1.7b.yaml"), Machine(processes=1, threads=1, runs_dir=tmp_path))
    out = StringIO()
    print_schedule(made, Console(file=out, width=200))
    stages = out.getvalue().split("RoPE base")[1:]
    assert [sum(map(float, re.findall(r"([\d.]+)%", stage))) for stage in stages] == pytest.approx([100] * 5, abs=0.2)
    assert "openwebmath 5% (8.33)" in stages[1]  # the published 8.3 passes by the end of the second stage
    assert "dolma-books ≥ 8,192 tokens 20% (≥ 2.83)" in stages[4]
