"""The choice of threads, on simulated machines whose cores others use now and then."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.train.threads import FIRST_WAIT_SECONDS, IDLE_SECONDS, TRIAL_SHARE, ThreadChoice

STEP_TOKENS = 2048
ONE_THREAD = 5000.0  # tokens per second
Busy = Callable[[float], int]  # cores that others use, by time


def machine_speed(threads: int, cores: int, busy: int) -> float:
    """Tokens per second: threads on cores of their own add up, spinning ones on shared cores starve (docs/log.md)."""
    alone = ONE_THREAD * threads**0.85 * (1.0 if busy < cores else 0.2)  # of its only core, the rest goes to others
    return alone if threads <= max(1, cores - busy) else 0.035 * alone


def busy_after(start: float, cores: int, now: float) -> int:
    return cores if now > start else 0


def simulate(
    choice: ThreadChoice,
    busy: Busy,
    *,
    cores: int,
    seconds: float,
    noise: float = 0.0,
    seed: int = 0,
    sees: bool = True,
) -> list[tuple[float, int, float]]:
    """(time, threads, seconds) of each step. sees: the cores are looked at."""
    random, now, steps = np.random.default_rng(seed), 0.0, list[tuple[float, int, float]]()
    while now < seconds:
        speed = machine_speed(choice.threads, cores, busy(now)) * (1 + noise * random.uniform(-1, 1))
        took = STEP_TOKENS / speed
        steps.append((now, choice.threads, took))
        free = max(1, cores - busy(now))
        share = 1.0 if choice.threads <= free else (free - 0.5) / choice.threads
        if sees and choice.may_rise:
            choice.see_cores(cores - busy(now), took)
        choice.after_step(STEP_TOKENS, took, share * took * choice.threads)
        now += took
    return steps


def changes(steps: list[tuple[float, int, float]]) -> int:
    return sum(before[1] != after[1] for before, after in pairwise(steps))


def tokens_per_second(steps: list[tuple[float, int, float]], after: float) -> float:
    late = [took for now, _, took in steps if now >= after]
    return STEP_TOKENS * len(late) / sum(late)


@pytest.mark.parametrize("cores", [2, 8])
def test_a_training_that_begins_beside_others_begins_with_the_threads_that_find_a_core(cores: int) -> None:
    choice = ThreadChoice(most=cores, first=1)
    steps = simulate(choice, lambda now: busy_after(0.0, cores - 1, now) if now < 60 else 0, cores=cores, seconds=400)
    assert {threads for now, threads, _ in steps if now < FIRST_WAIT_SECONDS} == {1}
    assert choice.threads == cores, "the cores are idle again"


@settings(max_examples=12, deadline=None)
@given(cores=st.integers(1, 16), noise=st.floats(0, 0.25), seed=st.integers(0, 99))
def test_on_idle_cores_nothing_ever_changes_and_every_step_but_the_first_tells_the_speed(
    cores: int, noise: float, seed: int
) -> None:
    choice = ThreadChoice(most=cores)
    steps = simulate(choice, lambda now: 0, cores=cores, seconds=20, noise=noise, seed=seed)
    assert changes(steps) == 0
    assert choice.usual.tokens == STEP_TOKENS * (len(steps) - 1)


@settings(max_examples=10, deadline=None)
@given(
    cores=st.sampled_from([2, 4, 8]),
    load=st.just(-1.0) | st.floats(5, 60),
    noise=st.floats(0, 0.15),
    is_known=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_load_that_stays_is_noticed_within_seconds_and_costs_little_from_then_on(
    cores: int, load: float, noise: float, is_known: bool, seed: int
) -> None:
    """From the start or later, on all cores but one: soon nearly as fast as the best of the numbers that are tried."""
    for busy in range(1, cores):
        choice = ThreadChoice(most=cores, expected=machine_speed(cores, cores, 0) if is_known else None)
        steps = simulate(
            choice, partial(busy_after, load, busy), cores=cores, seconds=load + 400, noise=noise, seed=seed
        )
        slow_step = STEP_TOKENS / machine_speed(cores, cores, busy)
        fewer = next(now for now, threads, _ in steps if threads < cores)
        assert fewer <= max(0.0, load) + 4 * slow_step
        levels = [cores >> k for k in range(cores.bit_length())]
        best = max(machine_speed(threads, cores, busy) for threads in levels)
        assert tokens_per_second(steps, load + 200) >= 0.88 * best
        assert changes(steps) <= 40, "it flaps"


@settings(max_examples=12, deadline=None)
@given(start=st.floats(5, 30), lasts=st.floats(20, 300), busy=st.integers(1, 2), seed=st.integers(0, 99))
def test_a_load_that_ends_gives_all_threads_back_and_they_stay(
    start: float, lasts: float, busy: int, seed: int
) -> None:
    """After twice as long as it lasted, or after the wait that pays for the last trial."""
    choice = ThreadChoice(most=2)
    end = start + lasts
    latest = end + max(2 * lasts, FIRST_WAIT_SECONDS) + STEP_TOKENS / machine_speed(2, 2, busy) / TRIAL_SHARE
    steps = simulate(
        choice,
        lambda now: busy * (start < now < end),
        cores=2,
        seconds=latest + 60,
        noise=0.1,
        seed=seed,
        sees=False,
    )
    if lasts > 2 * STEP_TOKENS / machine_speed(
        2, 2, busy
    ):  # a load within one slow step is over before it can be noticed
        assert any(threads == 1 for now, threads, _ in steps if start < now < end)
    assert {threads for now, threads, _ in steps if now > latest} == {2}


@settings(max_examples=12, deadline=None)
@given(start=st.floats(5, 30), lasts=st.floats(60, 300), cores=st.sampled_from([2, 4, 8]), seed=st.integers(0, 99))
def test_all_threads_are_back_seconds_after_the_cores_are_seen_idle(
    start: float, lasts: float, cores: int, seed: int
) -> None:
    """However many trials failed while the load lasted."""
    choice, end = ThreadChoice(most=cores), start + lasts
    steps = simulate(
        choice, lambda now: (cores - 1) * (start < now < end), cores=cores, seconds=end + 60, noise=0.1, seed=seed
    )
    assert any(threads == 1 for now, threads, _ in steps if start < now < end)
    slow_step = STEP_TOKENS / machine_speed(cores, cores, cores - 1)  # may be under way when the load ends
    latest = end + (IDLE_SECONDS + 2) * cores.bit_length() + slow_step
    assert {threads for now, threads, _ in steps if now > latest} == {cores}


@pytest.mark.parametrize("sees", [True, False])
def test_two_runs_beside_each_other_settle_on_a_thread_each_and_do_not_swing(sees: bool) -> None:
    """Each is the other's load, for as many cores as it has threads."""
    runs, now, numbers = (
        [ThreadChoice(most=2), ThreadChoice(most=2, first=1)],
        [0.0, 0.0],
        list[tuple[float, int, int]](),
    )
    while min(now) < 900:
        mine = 0 if now[0] <= now[1] else 1
        choice, other = runs[mine], runs[1 - mine]
        took = STEP_TOKENS / machine_speed(choice.threads, 2, other.threads if choice.threads > 1 else 1)
        if sees and choice.may_rise:
            choice.see_cores(2 - other.threads, took)
        choice.after_step(STEP_TOKENS, took, took * choice.threads * (1.0 if choice.threads == 1 else 0.6))
        now[mine] += took
        numbers.append((now[mine], runs[0].threads, runs[1].threads))
    late = [(first, second) for at, first, second in numbers if at > 60]
    assert late.count((1, 1)) > 0.95 * len(late)


@pytest.mark.parametrize("sees", [True, False])
@pytest.mark.parametrize("period", [10.0, 20.0, 45.0, 90.0])
def test_a_load_that_comes_and_goes_makes_no_more_changes_than_it_has_itself(period: float, sees: bool) -> None:
    choice = ThreadChoice(most=2)
    steps = simulate(choice, lambda now: int(now % (2 * period) > period), cores=2, seconds=1800, sees=sees)
    assert changes(steps) <= 2 * 1800 / period
    fixed = STEP_TOKENS / machine_speed(1, 2, 1)
    assert sum(took for *_, took in steps) / len(steps) <= 1.1 * fixed, "slower than one thread all the time"


def test_a_machine_slow_for_other_reasons_is_tried_once_and_then_taken_as_it_is() -> None:
    """A profile that is too good, or a stage of longer sequences: fewer threads are no faster."""
    choice = ThreadChoice(most=2, expected=3 * machine_speed(2, 2, 0))
    steps = simulate(choice, lambda now: 0, cores=2, seconds=600)
    assert changes(steps) == 2
    assert choice.usual.tokens > 0.9 * STEP_TOKENS * len(steps), "such steps tell how fast it is"


def test_slow_steps_are_no_measure_of_the_machine() -> None:
    choice = ThreadChoice(most=2)
    simulate(choice, lambda now: int(now > 30), cores=2, seconds=300)
    assert choice.usual.tokens_per_second == pytest.approx(machine_speed(2, 2, 0), rel=0.05)


def test_a_number_that_was_asked_for_stays() -> None:
    choice = ThreadChoice(most=2, may_change=False)
    steps = simulate(choice, lambda now: int(now > 30), cores=2, seconds=600)
    assert changes(steps) == 0
    assert choice.usual.tokens_per_second == pytest.approx(machine_speed(2, 2, 0), rel=0.05)
