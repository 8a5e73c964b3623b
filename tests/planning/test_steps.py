"""Times of steps: every step of the table has its work, more work takes longer, and finished steps correct the ratios."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.graph.machine import Machine
from gristmill.pipeline import steps_of
from gristmill.planning.steps import LEAST, MOST, Amounts, Work, correction, evaluated_bytes, works
from gristmill.recipe.load import load_recipe

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))
SPEED = 1e10
sizes = st.floats(1e3, 1e12)


def amounts_of(names: list[str], size: float) -> Amounts:
    return Amounts(
        read_bytes=dict.fromkeys(names, 2 * size),
        text_bytes=dict.fromkeys(names, size),
        documents=dict.fromkeys(names, size / 3000),
        conversations=100.0,
    )


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
@given(size=sizes, factor=st.floats(1, 100))
@settings(max_examples=10, deadline=None)
def test_every_step_has_its_work_and_more_text_never_takes_less_time(path: Path, size: float, factor: float) -> None:
    recipe, machine = load_recipe(path).recipe, Machine(processes=2, threads=1)
    small = works(recipe, amounts_of([*recipe.sources], size), machine)
    assert set(small) == {step.name for step in steps_of(recipe)}
    larger = works(recipe, amounts_of([*recipe.sources], size * factor), Machine(processes=1, threads=1))
    for name, work in small.items():
        assert 0 < work.seconds(SPEED) <= larger[name].seconds(SPEED) * (1 + 1e-9), name
        assert work.seconds(2 * SPEED) <= work.seconds(SPEED)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_evaluation_of_ten_times_the_text_takes_no_longer(path: Path) -> None:
    """What is held out is limited, and so is what the compressor reads."""
    recipe, machine = load_recipe(path).recipe, Machine(processes=2, threads=1)
    of_much, of_more = (works(recipe, amounts_of([*recipe.sources], size), machine) for size in (1e9, 1e10))
    assert of_much["evaluate"] == of_more["evaluate"]


def test_of_long_documents_evaluation_reads_more_than_is_asked_for_as_reading_them_one_by_one_does() -> None:
    recipe = load_recipe(next(path for path in RECIPES if path.stem == "domain")).recipe
    size, real, told = 12_000, 0, 0.0
    for asked in range(1000, 24_001, 1000):
        evaluate = recipe.evaluate.model_copy(update={"validation_bytes": asked})
        told += evaluated_bytes(recipe.model_copy(update={"evaluate": evaluate}), 1e7, 1e7 / size)
        read = 0
        while read < asked:
            read += size
        real += read
    assert told == pytest.approx(real, rel=0.03)


works_done = st.lists(
    st.tuples(
        st.builds(
            Work, ratio=st.just("x"), words=st.just(""), cpu_seconds=st.floats(0.01, 1e4), flops=st.floats(0, 1e14)
        ),
        st.floats(0.01, 1e6),
    ),
    max_size=20,
)


@given(works_done, st.floats(0.2, 5))
@settings(max_examples=100, deadline=None)
def test_a_correction_is_the_share_that_all_records_agree_on_and_lies_between_them(
    done: list[tuple[Work, float]], share: float
) -> None:
    found = correction(done, SPEED)
    assert (found is None) == (not done)
    if found is not None:
        shares = [real / work.seconds(SPEED) for work, real in done]
        assert max(LEAST, min(shares)) <= found * (1 + 1e-9) or found == MOST
        assert found <= min(MOST, max(LEAST, max(shares))) * (1 + 1e-9)
        agreed = [(work, share * work.seconds(SPEED)) for work, _ in done]
        assert correction(agreed, SPEED) == pytest.approx(share)


def test_a_slower_machine_reads_the_same_records_otherwise() -> None:
    work = Work(ratio="sft", words="", cpu_seconds=0.0, flops=1e12)
    assert correction([(work, 200.0)], SPEED) == pytest.approx(2)
    assert correction([(work, 200.0)], SPEED / 2) == pytest.approx(1)
    assert replace(work, cpu_seconds=1.0).seconds(SPEED) == 101
