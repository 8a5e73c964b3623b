"""Estimates of a sample hold what is counted of all: on made populations of units, with and without copies."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest

from gristmill.draft.distinct import met_in_several
from gristmill.draft.interval import Stratum, Tally, UnitTally, unique_tokens

UNITS, DOCUMENTS_PER_UNIT, SHARE = 80, 12, 0.3
TRIALS = 60


def population(copies: list[int], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(text, tokens) of each document: texts occur so many times, in turn, in any unit; sizes as files have them."""
    total = UNITS * DOCUMENTS_PER_UNIT
    text = rng.permutation(np.repeat(np.arange(total), np.resize(copies, total))[:total])
    tokens = np.round(rng.lognormal(5.5, 0.9, size=total))[text]
    return text, tokens


def tally_of(text: np.ndarray, tokens: np.ndarray, units: np.ndarray) -> Tally:
    """What init would have met in these units."""
    seen_in: dict[int, set[int]] = defaultdict(set)
    first: dict[int, int] = {}
    rows = []
    for unit in units:
        left, lost = [], []
        for document in range(unit * DOCUMENTS_PER_UNIT, (unit + 1) * DOCUMENTS_PER_UNIT):
            name = int(text[document])
            if first.setdefault(name, int(unit)) == unit:
                if name not in seen_in:
                    left.append(tokens[document])
            else:
                lost.append(tokens[document])
            seen_in[name].add(int(unit))
        size = tokens[unit * DOCUMENTS_PER_UNIT : (unit + 1) * DOCUMENTS_PER_UNIT].sum() * 4
        rows.append(UnitTally(read_bytes=size, left_documents=len(left), left_tokens=sum(left),
                              lost_documents=len(lost)))  # fmt: skip
    met = [len(found) for found in seen_in.values()]
    share = len(units) / UNITS
    stratum = Stratum(units=tuple(rows), share=share, num_bytes=float(tokens.sum() * 4))
    return Tally(strata=(stratum,), met_in_several=met_in_several(met), is_whole=share == 1)


@pytest.mark.parametrize(
    "copies",
    [[1], [2], [4], [*[1] * 8, 2], [*[1] * 7, 2, 3, 10]],
    ids=["none", "pairs", "fours", "few pairs", "some of several"],
)
def test_the_interval_holds_the_count_nearly_as_often_as_it_says(copies: list[int]) -> None:
    rng = np.random.default_rng(sum(copies))
    held, ratios = 0, []
    for trial in range(TRIALS):
        text, tokens = population(copies, rng)
        truth = sum({int(name): size for name, size in zip(text, tokens)}.values())
        units = rng.choice(UNITS, size=int(SHARE * UNITS), replace=False)
        found = unique_tokens({"text": tally_of(text, tokens, units)}, seed=trial)["text"]
        held += found.low <= truth <= found.high
        ratios.append(found.value / truth)
    assert held >= 0.87 * TRIALS
    assert np.median(ratios) == pytest.approx(1, abs=0.12)


def test_what_was_read_whole_is_counted_and_has_no_interval() -> None:
    rng = np.random.default_rng(0)
    text, tokens = population([2], rng)
    found = unique_tokens({"text": tally_of(text, tokens, np.arange(UNITS))}, seed=1)["text"]
    assert found.is_counted
    assert found.value == pytest.approx(sum({int(name): size for name, size in zip(text, tokens)}.values()))


def test_a_source_that_was_read_whole_has_no_copies_left_to_find_beside_one_that_was_not() -> None:
    rng = np.random.default_rng(4)
    part, few = (tally_of(*population([1], rng), np.arange(3)) for _ in range(2))
    (stratum,) = few.strata
    whole = replace(few, is_whole=True, strata=(replace(stratum, share=1.0, num_bytes=few.total("read_bytes")),))
    found = unique_tokens({"whole": whole, "part": part}, seed=1)["whole"]
    assert found.value == pytest.approx(whole.total("left_tokens"))
    assert found.low > 0.95 * found.value  # the tokenizer's error is left
    met = replace(whole, strata=(replace(whole.strata[0], units=(
        replace(stratum.units[0], lost_documents=3), *stratum.units[1:])),))  # fmt: skip
    again = unique_tokens({"whole": met, "part": part}, seed=1)["whole"]
    assert again.value < 0.5 * found.value  # some was met in what was read in part: more may lie in the rest


def test_more_that_is_read_makes_a_narrower_interval() -> None:
    rng = np.random.default_rng(3)
    text, tokens = population([1], rng)
    widths = []
    for count in (6, 20, 60):
        found = unique_tokens({"text": tally_of(text, tokens, np.arange(count))}, seed=1)["text"]
        widths.append(found.high - found.low)
    assert widths[0] > widths[1] > widths[2] > 0
