"""Verdicts: given on the endpoint, by the noise, and withheld where there is too little to go by."""

from __future__ import annotations

import numpy as np
import pytest

from gristmill.ablate.outcome import Measured, Outcome, in_words, measured_of, outcome_of, verdict_needs
from gristmill.statistics import holm

ARMS = ("control", "good", "same", "bad")


def bits(task: str, shifts: tuple[float, ...], *, seeds: int = 5, items: int = 200, seed: int = 1) -> Measured:
    """Bits of documents in runs whose arms are `shifts` bits per byte worse than the control."""
    rng = np.random.default_rng(seed)
    sizes = np.ceil(rng.lognormal(6, 0.5, size=items))
    rates = 2 + rng.normal(0, 0.2, items) + rng.normal(0, 0.01, (len(shifts), seeds, 1))
    rates = rates + rng.normal(0, 0.03, (len(shifts), seeds, items)) + np.array(shifts)[:, None, None]
    return Measured(task=task, metric="bits_per_byte", scores_ASI=rates * sizes, sizes_I=sizes, is_at_chance=False)


def answers(task: str, rates: tuple[float, ...], *, is_at_chance: bool = False) -> Measured:
    rng = np.random.default_rng(2)
    scores = (rng.random((len(rates), 5, 400)) < np.array(rates)[:, None, None]).astype(float)
    return Measured(task=task, metric="accuracy", scores_ASI=scores, sizes_I=np.ones(400), is_at_chance=is_at_chance)


def test_an_arm_that_helps_is_better_one_that_harms_worse_and_the_same_data_neither() -> None:
    found = outcome_of(ARMS, [bits("novel", (0, -0.1, 0, 0.1))], endpoint="novel")
    assert [row.verdict for row in found.endpoint] == ["better", "no evidence either way", "worse"]
    assert found.best is found.endpoint[0]
    assert found.noise is not None
    assert 0.005 < found.noise.sd < 0.02
    better, same, _ = map(in_words, found.endpoint)
    assert better.startswith("good against control on novel: better, by 0.09")
    assert "no evidence either way; a difference of 0.0" in same
    assert [(row.arm, row.other) for row in found.between] == [("same", "good"), ("bad", "good"), ("bad", "same")]


def test_of_accuracy_more_is_better_and_below_chance_nothing_is() -> None:
    measured = [
        bits("novel", (0, 0, 0, 0)),
        answers("quiz", (0.4, 0.7, 0.4, 0.1)),
        answers("lots", (0.4, 0.7, 0.4, 0.1), is_at_chance=True),
    ]
    found = outcome_of(ARMS, measured, endpoint="novel")
    by_task = {(row.task, row.arm): row.verdict for row in found.others}
    assert (by_task["quiz", "good"], by_task["quiz", "bad"]) == ("better", "worse")
    assert {row.verdict for row in found.others if row.task == "lots"} == {"at or below chance, no verdict"}
    assert found.best is None


def test_too_few_seeds_or_documents_give_no_verdict_and_say_what_one_takes() -> None:
    few_seeds = outcome_of(ARMS, [bits("novel", (0, -0.5, 0, 0), seeds=4)], endpoint="novel")
    assert {row.verdict for row in few_seeds.endpoint} == {"cannot tell"}
    assert few_seeds.endpoint[0].needs == "a verdict needs 5 seeds or more (there are 4)"
    few_items = outcome_of(ARMS, [bits("novel", (0, -0.5, 0, 0), items=20)], endpoint="novel").endpoint[0]
    assert few_items.needs is not None
    assert few_items.needs.startswith("a verdict needs items worth 30 of equal size or more (found: 20 items, worth 1")


def test_holm_counts_the_arms_on_the_endpoint_and_every_row_beside_it() -> None:
    measured = [bits("novel", (0, -0.02, 0.01, 0)), bits("letters", (0, 0.01, 0, 0), seed=5)]
    found = outcome_of(ARMS, measured, endpoint="novel")
    for rows in (found.endpoint, found.others, found.between):
        assert [row.p_adjusted for row in rows] == holm([row.p_value for row in rows])
    alone = outcome_of(
        ARMS[:2], [Measured(**{**vars(measured[0]), "scores_ASI": measured[0].scores_ASI[:2]})], endpoint="novel"
    )
    assert alone.endpoint[0].p_adjusted == alone.endpoint[0].p_value


def test_the_second_look_trebles_every_p() -> None:
    measured = [bits("novel", (0, -0.02, 0.01, 0))]
    once, twice = (outcome_of(ARMS, measured, endpoint="novel", looks=looks) for looks in (1, 2))
    for one, two in zip(once.endpoint, twice.endpoint, strict=True):
        assert two.p_value == min(1, 3 * one.p_value)
        assert two.p_adjusted >= one.p_adjusted


def test_an_outcome_is_written_and_read_back_equal() -> None:
    found = outcome_of(ARMS, [bits("novel", (0, -0.1, 0, 0)), answers("quiz", (0.4, 0.7, 0.4, 0.1))], endpoint="novel")
    assert Outcome.from_json(found.to_json(), where="here").to_json() == found.to_json()


def test_documents_of_one_text_are_one_item_of_those_that_were_measured() -> None:
    runs = [[{"t": {"amounts": [1.0, 2.0, 4.0], "sizes": [3, 4, 5]}}] for _ in range(2)]
    draw_D = np.array([7, 2, 7, 2])  # the last document was beyond the bytes that are measured
    found = measured_of("t", runs, metric="bits_per_byte", is_at_chance=False, draw_D=draw_D)  # type: ignore[arg-type]
    assert (found.scores_ASI[1, 0].tolist(), found.sizes_I.tolist()) == ([2.0, 5.0], [4.0, 8.0])


def test_runs_on_other_items_are_not_compared() -> None:
    runs = [[{"t": {"amounts": [1.0, 2.0], "sizes": [3, 4]}}], [{"t": {"amounts": [1.0, 2.0], "sizes": [3, 5]}}]]
    with pytest.raises(ValueError, match="different items of t"):
        measured_of("t", runs, metric="bits_per_byte", is_at_chance=False)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("seeds", "items", "worth", "words"),
    [
        (
            2,
            5,
            2.7,
            "a verdict needs 5 seeds or more (there are 2) and items worth 30 of equal size or more (found: 5 items, worth 2.7)",
        ),
        (5, 40, 12.0, "a verdict needs items worth 30 of equal size or more (found: 40 items, worth 12.0)"),
        (5, 40, 30.0, None),
    ],
)
def test_what_a_verdict_needs_is_told_and_nothing_where_it_is_there(
    seeds: int, items: int, worth: float, words: str | None
) -> None:
    assert verdict_needs(seeds, items, worth) == words
