"""How many threads training uses on cores that other processes may use, too.

Threads that spin while they wait lose most of their speed as soon as another process takes one of their cores; fewer threads keep
theirs (figures in docs/log.md). So after steps that are far slower than usual, half as many threads are tried, and the faster number
is kept. More are tried again later, and soon where other processes were seen to leave the cores idle. After a failed trial the next one
waits longer, so that trials take a small share of the time.

Nothing here knows torch, a clock or the cores: time is the sum of the seconds of the steps, and who looks at the cores tells.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

SLOW = 0.6  # of the usual speed, in two consecutive steps: worth a trial
VERY_SLOW = 0.25  # of the usual speed: one such step is enough
STARVED_CORES = 0.5  # missing to the threads on average over a step: counts as slow while the usual speed is not known
BETTER = 1.1  # times as fast: worth a change
TRIAL_STEPS = 2
FIRST_WAIT_SECONDS = 30.0
MAX_WAIT_SECONDS = 600.0
TRIAL_SHARE = 0.05  # of the time that trials of more threads may cost
IDLE_SECONDS = (
    3.0  # that the cores are seen idle before more threads are tried; longer after each such trial that did not last
)
SPARED_CORES = 0.25  # that others may use of cores that count as idle


@dataclass(kw_only=True)
class Speed:
    """Tokens and seconds of some steps."""

    tokens: int = 0
    seconds: float = 0.0

    def add(self, tokens: int, seconds: float) -> None:
        """One more step."""
        self.tokens += tokens
        self.seconds += seconds

    @property
    def tokens_per_second(self) -> float:
        """0 before the first step."""
        return self.tokens / self.seconds if self.seconds > 0 else 0.0


@dataclass(kw_only=True)
class _Trial:
    threads: int
    home_speed: float
    steps: int
    speed: Speed
    is_by_idle_cores: bool = False


class ThreadChoice:
    """The number of threads for the next step, chosen by the speed of earlier steps.

    most: the upper limit. first: for the first steps, if others already use the cores. expected: tokens per second of `most`
    threads on idle cores, if known. may_change: False for a fixed number; steps are then only classified as slow or not. usual:
    the steps with `most` threads that nothing slowed down, from which the machine's speed is taken.
    """

    def __init__(
        self, *, most: int, first: int | None = None, expected: float | None = None, may_change: bool = True
    ) -> None:
        self.most, self.threads = most, most if first is None else first
        self.expected = expected
        self.usual = Speed()
        self._may_change = may_change
        self._references: dict[int, float] = {} if expected is None else {most: expected}
        self._recent: list[float] = []
        self._slow_steps = 0
        self._trial: _Trial | None = None
        self._is_first = True
        self._now = self._no_fewer_before = self._raised_at = 0.0
        self._no_more_before = FIRST_WAIT_SECONDS if self.threads < most else 0.0
        self._wait_for_fewer = self._wait_for_more = FIRST_WAIT_SECONDS
        self._idle_seconds, self._idle_needed = 0.0, IDLE_SECONDS

    @property
    def settled(self) -> int:
        """The number that was found to be the fastest; during a trial, the one before it."""
        return self.threads if self._trial is None else self._trial.threads

    @property
    def may_rise(self) -> bool:
        """Whether it matters what others leave of the cores."""
        return self._may_change and self.threads < self.most

    def see_cores(self, idle_cores: float, seconds: float) -> None:
        """Takes how many cores others left idle, on average over the last so many seconds."""
        wanted = min(self.most, 2 * self.threads)
        self._idle_seconds = self._idle_seconds + seconds if idle_cores >= wanted - SPARED_CORES else 0.0

    def after_step(self, tokens: int, seconds: float, cpu_seconds: float) -> None:
        """Takes the cost of a step with `threads` threads; afterwards `threads` is the number for the next step.

        cpu_seconds: processor time of all threads together.
        """
        self._now += seconds
        if self._is_first:  # its time includes everything that is set up once
            self._is_first = False
        elif self._trial is not None:
            self._try(self._trial, tokens, seconds)
        else:
            self._watch(tokens, seconds, is_starved=cpu_seconds < (self.threads - STARVED_CORES) * seconds)

    def _watch(self, tokens: int, seconds: float, *, is_starved: bool) -> None:
        speed = tokens / seconds
        self._recent = [*self._recent[-2:], speed]
        reference = self._references.get(self.threads)
        is_slow = is_starved if reference is None else speed < SLOW * reference
        self._slow_steps = self._slow_steps + 1 if is_slow else 0
        if not is_slow:
            if len(self._recent) == 3:
                self._references[self.threads] = max(reference or 0.0, median(self._recent))
            if self.threads == self.most:
                self.usual.add(tokens, seconds)
        is_certain = self._slow_steps > 1 or (reference is not None and speed < VERY_SLOW * reference)
        if not self._may_change:
            return
        if is_slow and is_certain and self.threads > 1 and self._now >= self._no_fewer_before:
            self._begin_trial(self.threads // 2, max(self._recent[-self._slow_steps :]))
        elif self.threads < self.most and (self._is_idle or self._now >= self._no_more_before):
            self._begin_trial(min(self.most, 2 * self.threads), median(self._recent))

    @property
    def _is_idle(self) -> bool:
        return self._idle_seconds >= self._idle_needed

    def _begin_trial(self, threads: int, home_speed: float, *, home: int | None = None) -> None:
        home = home or self.threads
        is_by_idle_cores = threads > home and self._is_idle
        self._trial = _Trial(
            threads=home, home_speed=home_speed, steps=0, speed=Speed(), is_by_idle_cores=is_by_idle_cores
        )
        self.threads, self._idle_seconds = threads, 0.0

    def _try(self, trial: _Trial, tokens: int, seconds: float) -> None:
        trial.steps += 1
        trial.speed.add(tokens, seconds)
        found = trial.speed.tokens_per_second
        is_better = found >= BETTER * trial.home_speed
        if is_better and trial.steps < TRIAL_STEPS:
            return
        self._trial, self._recent, self._slow_steps = None, [], 0
        if is_better:
            self._settle(trial, found)
        elif 1 < self.threads < trial.threads:
            self._begin_trial(self.threads // 2, trial.home_speed, home=trial.threads)
        else:
            self._return(trial, lost_seconds=max(0.0, trial.speed.seconds - trial.speed.tokens / trial.home_speed))

    def _settle(self, trial: _Trial, found: float) -> None:
        """The other number is faster."""
        if self.threads > trial.threads:
            self._raised_at = self._now
            self._no_more_before = self._now + FIRST_WAIT_SECONDS if self.threads < self.most else self._now
            return
        was_short = self._raised_at and self._now - self._raised_at < self._wait_for_more
        self._wait_for_more = min(2 * self._wait_for_more, MAX_WAIT_SECONDS) if was_short else FIRST_WAIT_SECONDS
        self._idle_needed = min(2 * self._idle_needed, MAX_WAIT_SECONDS) if was_short else IDLE_SECONDS
        self._no_more_before = self._now + self._wait_for_more
        share = self._references.get(trial.threads, 0.0) * self.threads / trial.threads
        self._references[self.threads] = max(found, share)  # far below its share: still fewer are worth a trial

    def _return(self, trial: _Trial, *, lost_seconds: float) -> None:
        """The earlier number is at least as fast."""
        if self.threads > trial.threads:
            if trial.is_by_idle_cores:
                self._idle_needed = min(2 * self._idle_needed, MAX_WAIT_SECONDS)
            self._wait_for_more = max(min(2 * self._wait_for_more, MAX_WAIT_SECONDS), lost_seconds / TRIAL_SHARE)
            self._no_more_before = self._now + self._wait_for_more
        else:  # the threads are not the reason: this is how fast the machine is at present
            self._references[trial.threads] = trial.home_speed
            self._wait_for_fewer = min(2 * self._wait_for_fewer, MAX_WAIT_SECONDS)
            self._no_fewer_before = self._now + self._wait_for_fewer
        self.threads = trial.threads
