"""How far a run is, from what its steps report."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.graph.progress import PACE_SECONDS, Moment, Pace, Position, Tracker

numbers = st.integers(0, 10**12)
positions = st.builds(
    Position,
    done=numbers,
    total=st.none() | numbers,
    unit=st.sampled_from(["step", "byte", "document"]),
    part=st.text(max_size=9),
    counts=st.dictionaries(st.sampled_from(["documents", "tokens"]), numbers),
    figures=st.lists(st.text(max_size=9), max_size=3).map(tuple),
    work=st.none() | st.tuples(st.floats(0, 1e9), st.floats(0, 1e9)),
)
seconds = st.floats(0, 1e9)
moments = st.builds(
    Moment,
    step=st.text(max_size=9),
    spent_seconds=seconds,
    position=st.none() | positions,
    rates=st.dictionaries(st.text(max_size=9), st.floats(0, 1e12), max_size=2),
    left_seconds=st.none() | seconds,
    later_seconds=seconds,
)


@given(rate=st.floats(0.01, 1000), gaps=st.lists(st.floats(0.01, 200), min_size=1, max_size=40), start=seconds)
def test_steady_work_is_told_its_end_however_seldom_it_reports(rate: float, gaps: list[float], start: float) -> None:
    pace, now = Pace(), start
    pace.add(now, {"step": 0})
    for gap in gaps:
        now += gap
        pace.add(now, {"step": round(1e6 * rate * (now - start))})
    later = pace.left_seconds(now + 1.0, "step", round(1e6 * rate * (now - start + 100)))
    assert later == pytest.approx(99, rel=1e-3, abs=1e-3)


@given(quick=st.floats(1, 100), slow=st.floats(1, 100))
def test_the_pace_is_that_of_the_last_minute(quick: float, slow: float) -> None:
    pace, done = Pace(), 0.0
    for second in range(300):
        pace.add(float(second), {"step": round(1e6 * done)})
        done += quick if second < 200 else slow
    assert pace.rate("step") == pytest.approx(1e6 * slow, rel=1e-3)
    assert 2 * PACE_SECONDS < 100


def test_a_pace_is_unknown_before_the_second_report_and_the_end_of_work_that_stands_still() -> None:
    pace = Pace()
    assert pace.rate("step") is None
    pace.add(1.0, {"step": 5})
    assert pace.left_seconds(2.0, "step", 9) is None
    pace.add(2.0, {"step": 5})
    assert (pace.rate("step"), pace.left_seconds(2.0, "step", 9)) == (0.0, None)


def test_what_takes_longer_than_it_said_ends_at_no_known_time() -> None:
    pace = Pace()
    pace.add(1.0, {"step": 5})
    pace.add(2.0, {"step": 6})
    assert pace.left_seconds(4.5, "step", 9) == pytest.approx(0.5)
    assert pace.left_seconds(5.5, "step", 9) is None
    assert pace.left_seconds(9.0, "step", 6) == 0  # done: what is saved at the end takes no negative time
    late = Moment(step="evaluate", spent_seconds=50.0, left_seconds=20.0).after(30.0)
    assert str(late) == "evaluate: 80 s so far"


@settings(deadline=None)
@given(moments)
def test_a_moment_survives_json_and_can_always_be_told(moment: Moment) -> None:
    assert Moment.from_json(moment.to_json(), where="here") == moment
    assert moment.step in str(moment)
    assert moment.share is None or 0 <= moment.share <= 1


def test_a_training_in_a_line() -> None:
    tracker = Tracker("pretrain", expected_seconds=9.0, later_seconds=600.0, now=0.0)
    for now, done in ((0.0, 440), (10.0, 445), (20.0, 450)):
        tracker.add(Position(done=done, total=930, unit="step", part="stage decay", figures=("loss 3.21",)), now)
    assert str(tracker.moment(20.0)) == (
        "pretrain: stage decay, step 450 of 930 (48%), loss 3.21, 16.0 min left, run: about 26.0 min left"
    )
    assert "15.5 min left" in str(tracker.moment(20.0).after(30.0))


def test_what_is_counted_has_the_time_of_its_pace_and_never_that_of_the_forecast() -> None:
    tracker = Tracker("extract/web", expected_seconds=9.0, later_seconds=5.0, now=0.0)
    tracker.add(Position.doing("starting"), 0.0)
    assert str(tracker.moment(1.0)) == "extract/web: starting, 8 s left, run: about 13 s left"
    tracker.add(Position(done=0, total=3_000_000, unit="byte", counts={"documents": 0}), 1.0)
    tracker.add(Position(done=0, total=3_000_000, unit="byte", counts={"documents": 30}), 2.0)
    assert str(tracker.moment(2.0)) == "extract/web: 0 B of 3 MB (0%), 30 documents/s, 2 s so far"
    tracker.add(Position(done=1_000_000, total=3_000_000, unit="byte"), 3.0)
    assert tracker.moment(3.0).left_seconds == pytest.approx(4)
    assert tracker.moment(7.5).left_seconds is None, "the pace was too fast; so was the forecast"


@given(done=st.integers(1, 900), wait=st.floats(0, 5))
def test_what_is_said_between_two_parts_changes_neither_share_nor_time_left(done: int, wait: float) -> None:
    tracker = Tracker("pretrain", expected_seconds=9000.0, later_seconds=0.0, now=0.0)
    for now in (0, 1):
        tracker.add(Position(done=now * done, total=930, unit="step", part="stage stable"), float(now))
    before = tracker.moment(1.0 + wait)
    tracker.add(Position.doing("computing step 451"), 1.0)
    after = tracker.moment(1.0 + wait)
    assert (after.share, after.left_seconds) == (before.share, before.left_seconds)
    assert after.where == f"computing step 451, step {done} of 930"


def test_units_that_take_longer_than_others_are_told_by_their_work() -> None:
    tracker = Tracker("evaluate", expected_seconds=9.0, later_seconds=0.0, now=0.0)
    for now, done, work in ((0.0, 0, 0.0), (2.0, 1, 1.0), (4.0, 2, 2.0)):
        tracker.add(Position(done=done, total=3, unit="piece", work=(work, 10.0)), now)
    assert str(tracker.moment(4.0)) == "evaluate: piece 2 of 3 (67%), 16 s left"
    assert tracker.moment(10.0).left_seconds == pytest.approx(10)


def test_a_curation_in_a_line() -> None:
    tracker = Tracker("extract/web", expected_seconds=9.0, later_seconds=0.0, now=0.0)
    assert str(tracker.moment(3.0)) == "extract/web: 6 s left"
    assert str(tracker.moment(10.0)) == "extract/web: 10 s so far"
    for now, done, seen in ((0.0, 0, 0), (5.0, 10_000_000, 1500)):
        tracker.add(Position(done=done, total=27_000_000, unit="byte", counts={"documents": seen}), now)
    assert str(tracker.moment(5.0)) == "extract/web: 10 MB of 27 MB (37%), 300 documents/s, 8 s left"
