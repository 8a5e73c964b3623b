"""The ledger against sequences counted one by one, at every step of edited recipes, with what was passed over."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from course_recipes import T, base, change, recipes
from hypothesis import given, settings
from hypothesis import strategies as st
from ledgers import ledger_of, write_shards

from gristmill.planning.budget import Selection
from gristmill.tokens.shards import TokenShard
from gristmill.train.standing.ledger import Ledger


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TokenShard]:
    return write_shards(tmp_path_factory.mktemp("shards"))


def counted(ledger: Ledger, step: int) -> Counter[tuple[int, str]]:
    """(stage, source) → tokens in the batches of the first steps, sequence by sequence."""
    found = Counter[tuple[int, str]]()
    for done in range(step):
        segment, first = ledger.course.segment_at(done), ledger.course.sample_of_step(done)
        for origin in ledger.stream.origins(first, first + segment.sequences_per_step):
            found[ledger.course.segments.index(segment), origin.source] += segment.seq_len
    return found


@settings(max_examples=40, deadline=None)
@given(recipes(), st.data())
def test_what_was_read_in_each_stage_is_what_the_batches_hold(
    shards: dict[str, TokenShard], data: dict[str, Any], draw: st.DataObject
) -> None:
    ledger = ledger_of(data, shards)
    step = draw.draw(st.integers(0, ledger.course.num_steps))
    rows, reference = ledger.rows(step), counted(ledger, step)
    found = Counter[tuple[int, str]]()
    for row in rows:
        found.update({(stage, row.selection.source): tokens for stage, tokens in enumerate(row.read)})
    assert +found == reference
    whole = Counter[tuple[int, str]]()
    for row in rows:
        whole.update({(stage, row.selection.source): tokens for stage, tokens in enumerate(row.planned)})
        assert row.left_tokens == sum(row.planned) - sum(row.read) >= 0
    assert +whole == counted(ledger, ledger.course.num_steps)


def test_epochs_rise_with_the_steps_and_end_where_the_documents_were_read_so_often(
    shards: dict[str, TokenShard],
) -> None:
    ledger = ledger_of(base(), shards)
    rows = [{row.selection: row for row in ledger.rows(step)} for step in range(ledger.course.num_steps + 1)]
    for selection in rows[0]:
        course = [of_step[selection].epochs for of_step in rows]
        assert course[0] == 0.0
        assert course == sorted(course)
        assert course[-1] == rows[0][selection].final_epochs
        for limit in (0.0, 0.3, course[-1] / 2):
            assert ledger.step_beyond(selection, limit) == next(
                (step for step, epochs in enumerate(course) if epochs > limit), None
            )
        assert ledger.step_beyond(selection, course[-1]) is None
    web, windows = rows[-1][Selection("web")], (shards["web"].num_tokens - 1) // 4
    in_eights = (shards["web"].num_tokens - 1) // 8
    assert web.epochs == pytest.approx((web.read[0] + web.read[1]) / (4 * windows) + web.read[2] / (8 * in_eights))


def test_data_that_was_passed_over_was_not_read(shards: dict[str, TokenShard]) -> None:
    skipping = base() | {"changes": [change(3, {"skip_steps": 2}), change(6, {"skip_steps": 1})]}
    for step in (3, 4, 6, 7, 15):
        rows = ledger_of(skipping, shards).rows(step)
        assert sum(row.read_tokens for row in rows) == step * T


def test_a_cap_that_the_recipe_allows_for_a_source_is_its_own(shards: dict[str, TokenShard]) -> None:
    data = base() | {"max_epochs": 2.0, "warn_epochs": 1.0}
    allowed = {
        "book": {"max": 7.0, "reason": "a small source"},
        "code": {"max": 1.5, "reason": "less than all may have"},
    }
    data |= {"allow_epochs": allowed}
    caps = {row.selection.source: row.max_epochs for row in ledger_of(data, shards).rows(0)}
    assert caps == {"web": 2.0, "code": 2.0, "book": 7.0}
