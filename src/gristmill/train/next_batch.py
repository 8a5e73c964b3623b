"""The next batch is made while the step before it computes, so that reading and checking its blocks takes no time of a step.

What to make next is known, because a batch is a function of its first sequence. Where the next step turns out to be another, its batch is
made when it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


class NextBatch(Generic[T]):
    """`make(n)` for each n that is asked for; n + 1 is made meanwhile, as long as it is below `end`, while it is used as a context manager.

    What making it raises is raised when it is asked for, and so not at all if it never is.
    """

    def __init__(self, make: Callable[[int], T], *, end: int) -> None:
        self._make, self._end = make, end
        self._thread: ThreadPoolExecutor | None = None
        self._next: tuple[int, Future[T]] | None = None

    def __enter__(self) -> NextBatch[T]:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="next-batch")
        return self

    def __exit__(self, *error: object) -> None:
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
        self._thread = self._next = None

    def __call__(self, number: int) -> T:
        """The batch of this number; starts on the one after it."""
        made, self._next = self._next, None
        if made is not None and made[0] != number:
            made[1].exception()  # one at a time: they share what is kept between batches
        found = made[1].result() if made is not None and made[0] == number else self._make(number)
        if self._thread is not None and number + 1 < self._end:
            self._next = number + 1, self._thread.submit(self._make, number + 1)
        return found
