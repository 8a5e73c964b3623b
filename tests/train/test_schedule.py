"""Laws of the learning rate: continuous, above zero at the first step, zero at the last, and SmolLM2's published numbers."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.errors import RecipeError
from gristmill.train.schedule import Schedule, cosine, wsd

SMOLLM2_135M = wsd(
    peak_lr=3e-3,
    warmup_tokens=2_000 * 1_048_576,
    total_tokens=2_000_000 * 1_048_576,
    decay_tokens=400_000 * 1_048_576,
)


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    warmup, constant, decay = (draw(st.integers(1, 5_000)) for _ in range(3))
    return Schedule(
        peak_lr=draw(st.floats(1e-5, 1e-1)),
        warmup_tokens=warmup,
        total_tokens=warmup + constant + decay,
        decay_tokens=decay,
        shape=draw(st.sampled_from(["linear", "one_minus_sqrt", "cosine"])),
    )


@settings(deadline=None)
@given(schedule=schedules())
def test_rate_is_continuous_at_the_joints_and_zero_at_both_ends(schedule: Schedule) -> None:
    decay_start = schedule.total_tokens - schedule.decay_tokens
    assert schedule.lr_at(0) == 0.0
    assert schedule.lr_at(schedule.warmup_tokens) == schedule.peak_lr
    assert schedule.lr_at(decay_start) == schedule.peak_lr
    assert schedule.lr_at(schedule.total_tokens) == pytest.approx(0.0, abs=1e-18)
    just_before = schedule.lr_at(schedule.warmup_tokens - 1)
    assert schedule.peak_lr - just_before <= schedule.peak_lr / schedule.warmup_tokens * (1 + 1e-9)
    if schedule.shape != "one_minus_sqrt":  # a square root falls with infinite slope at its start
        assert schedule.peak_lr - schedule.lr_at(decay_start + 1) <= schedule.peak_lr * 1.6 / schedule.decay_tokens


def test_a_longer_square_root_decay_starts_ever_more_gently() -> None:
    drops = []
    for decay in (100, 10_000, 1_000_000):
        schedule = wsd(peak_lr=1.0, warmup_tokens=1, total_tokens=2_000_000, decay_tokens=decay, shape="one_minus_sqrt")
        drops.append(1.0 - schedule.lr_at(2_000_000 - decay + 1))
    assert drops == pytest.approx([0.1, 0.01, 0.001])


@settings(deadline=None)
@given(schedule=schedules(), steps=st.integers(1, 400))
def test_steps_rise_then_never_rise_again_and_end_at_exactly_zero(schedule: Schedule, steps: int) -> None:
    tokens_per_step = -(-schedule.total_tokens // steps)
    rates = [schedule.lr_of_step(step, tokens_per_step) for step in range(-(-schedule.total_tokens // tokens_per_step))]
    if len(rates) > 1:
        assert rates[0] > 0
    assert rates[-1] == pytest.approx(0.0, abs=1e-18)
    assert all(0 <= rate <= schedule.peak_lr for rate in rates)
    top = rates.index(max(rates))
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)


def test_steps_of_smollm2_135m_follow_its_formula() -> None:
    def formula(step: int) -> float:  # counted from 1
        if step < 2_000:
            return 3e-3 * step / 2_000
        return 3e-3 if step <= 1_600_000 else 3e-3 * (2_000_000 - step) / 400_000

    for step in (1, 2, 1_999, 2_000, 2_001, 1_600_000, 1_600_001, 1_800_000, 1_999_999, 2_000_000):
        assert SMOLLM2_135M.lr_of_step(step - 1, 1_048_576) == pytest.approx(formula(step), rel=1e-12), step


def test_an_extension_inside_the_decay_starts_where_the_stage_before_ended() -> None:
    """75B of the last 1T tokens are the extension: the joint lies on the line, above zero, and the end is zero."""
    schedule = wsd(peak_lr=5e-4, warmup_tokens=4 * 10**9, total_tokens=11 * 10**12, decay_tokens=10**12)
    joint, step = 11 * 10**12 - 75 * 10**9, 2 * 10**6
    before, first = schedule.lr_at(joint), schedule.lr_at(joint + step)
    assert before == pytest.approx(5e-4 * 0.075)
    assert 0 < before - first < 5e-4 * 3e-6
    assert schedule.lr_at(schedule.total_tokens) == 0.0


def test_cosine_is_half_way_down_in_the_middle() -> None:
    schedule = cosine(peak_lr=2.0, warmup_tokens=100, total_tokens=1_100)
    assert [schedule.lr_at(tokens) for tokens in (50, 100, 600, 1_100)] == pytest.approx([1.0, 2.0, 1.0, 0.0])


def test_a_cosine_may_be_all_warm_up_and_no_longer_than_that() -> None:
    schedule = cosine(peak_lr=2.0, warmup_tokens=100, total_tokens=100)
    assert [schedule.lr_at(tokens) for tokens in (0, 50, 100)] == [0.0, 1.0, 2.0]
    with pytest.raises(RecipeError, match="longer than the whole run"):
        cosine(peak_lr=2.0, warmup_tokens=101, total_tokens=100)


def test_a_schedule_without_warmup_or_decay_is_constant() -> None:
    schedule = wsd(peak_lr=1e-3, warmup_tokens=0, total_tokens=100, decay_tokens=0)
    assert {schedule.lr_at(tokens) for tokens in (0, 50, 100, 120)} == {1e-3}


def test_past_the_budget_the_rate_stays_at_zero() -> None:
    assert SMOLLM2_135M.lr_at(SMOLLM2_135M.total_tokens + 10) == 0.0


def test_there_is_no_rate_before_the_first_token() -> None:
    with pytest.raises(ValueError, match="tokens is -1"):
        SMOLLM2_135M.lr_at(-1)


@pytest.mark.parametrize(
    ("warmup", "decay", "total", "peak", "message"),
    [
        (60, 50, 100, 1.0, "longer than the whole run"),
        (1, 1, 100, 0.0, "not a schedule"),
        (-1, 1, 100, 1.0, "not a"),
        (1, -1, 100, 1.0, "not a"),
        (0, 0, 0, 1.0, "not a"),
    ],
)
def test_impossible_schedules_are_refused(warmup: int, decay: int, total: int, peak: float, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        wsd(peak_lr=peak, warmup_tokens=warmup, total_tokens=total, decay_tokens=decay)
