"""Groups of benchmarks in an ablation: the mean of packs, and where arms that are good at different things differ."""

from __future__ import annotations

import numpy as np
import pytest

from gristmill.ablate.groups import grouped
from gristmill.ablate.outcome import Measured, Outcome, outcome_of

ARMS = ("control", "sums", "prose")
GROUPS = {"gsm": "maths", "algebra": "maths", "mmlu": "knowledge"}


def answers(
    task: str, rates: tuple[float, ...], *, items: int = 300, seed: int = 0, is_at_chance: bool = False
) -> Measured:
    """Right and wrong answers to the same questions, which differ in how hard they are."""
    rng = np.random.default_rng(seed)
    hard = rng.normal(0, 0.15, items)
    luck = rng.random((len(rates), 5, items))
    scores = (luck < np.array(rates)[:, None, None] + hard).astype(float)
    return Measured(task=task, metric="acc", scores_ASI=scores, sizes_I=np.ones(items), is_at_chance=is_at_chance)


def text(task: str = "novel") -> Measured:
    rng = np.random.default_rng(9)
    sizes = np.full(100, 500.0)
    rates = 2 + rng.normal(0, 0.2, 100) + rng.normal(0, 0.01, (len(ARMS), 5, 100))
    return Measured(task=task, metric="bits_per_byte", scores_ASI=rates * sizes, sizes_I=sizes, is_at_chance=False)


def planted() -> list[Measured]:
    """An arm that helps with maths and harms knowledge, and one the other way round."""
    return [
        text(),
        answers("gsm", (0.4, 0.55, 0.4), seed=1),
        answers("algebra", (0.3, 0.45, 0.3), items=60, seed=2),
        answers("mmlu", (0.5, 0.4, 0.6), items=1000, seed=3),
    ]


def outcome() -> Outcome:
    return outcome_of(ARMS, planted(), endpoint="novel", groups=grouped(planted(), GROUPS))


def test_the_score_of_a_group_is_the_mean_of_its_packs_however_many_items_they_have() -> None:
    measured = planted()
    maths, knowledge = grouped(measured, GROUPS)
    assert (maths.task, knowledge.task) == ("maths", "knowledge")
    of_group = maths.scores_ASI.sum(axis=2) / maths.sizes_I.sum()
    of_packs = [one.scores_ASI.mean(axis=2) for one in measured[1:3]]
    assert of_group == pytest.approx((of_packs[0] + of_packs[1]) / 2)
    assert knowledge.scores_ASI.sum(axis=2) == pytest.approx(measured[3].scores_ASI.mean(axis=2))


def test_arms_that_complement_each_other_are_told_apart_by_group() -> None:
    found = {(row.arm, row.task): row.verdict for row in outcome().groups}
    assert found == {
        ("sums", "maths"): "better",
        ("prose", "maths"): "no evidence either way",
        ("sums", "knowledge"): "worse",
        ("prose", "knowledge"): "better",
    }
    for row in outcome().groups:
        assert row.interval is not None
        assert row.interval[0] < row.difference < row.interval[1]


def test_a_group_is_at_chance_where_all_of_its_packs_are() -> None:
    low, high = answers("gsm", (0.2, 0.2, 0.2), is_at_chance=True), answers("algebra", (0.6, 0.6, 0.6))
    assert [one.is_at_chance for one in grouped([low, high], GROUPS)] == [False]
    assert [one.is_at_chance for one in grouped([low], GROUPS)] == [True]


def test_an_effect_that_one_pack_of_a_group_has_is_less_certain_than_one_that_all_have() -> None:
    """A group stands for more packs than these."""
    all_have = [answers("gsm", (0.4, 0.5, 0.4), seed=1), answers("algebra", (0.4, 0.5, 0.4), seed=2)]
    one_has = [answers("gsm", (0.4, 0.6, 0.4), seed=1), answers("algebra", (0.4, 0.4, 0.4), seed=2)]
    half = []
    for tasks in (all_have, one_has):
        row = outcome_of(ARMS, [text(), *tasks], endpoint="novel", groups=grouped(tasks, GROUPS)).groups[0]
        assert row.item_stderr is not None
        half.append(row.item_stderr)
    assert half[0] < half[1]


def test_without_packs_there_are_no_groups() -> None:
    assert grouped([text()], GROUPS) == []
    assert outcome_of(ARMS, [text()], endpoint="novel").groups == []


def test_the_outcome_reads_back() -> None:
    found = outcome()
    assert Outcome.from_json(found.to_json(), where="here") == found
