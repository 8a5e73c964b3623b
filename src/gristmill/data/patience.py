"""How long to try: an attempt that fails is repeated, later each time, while something keeps coming.

429 and 5xx, a cut, silence and an unknown host may pass; a full disk, a certificate that is not trusted and a wrong answer do not.
"""

from __future__ import annotations

import email.utils
import errno
import http.client
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from gristmill.errors import DataError, Interrupted, ResourceError
from gristmill.store.durable import OUT_OF_SPACE
from gristmill.units import in_bytes

AGAIN = (408, 425, 429, 500, 502, 503, 504)
OF_THE_DISK = (*OUT_OF_SPACE, errno.EIO, errno.EFBIG)
POLL_SECONDS = 0.2
LONGEST_ASKED = 3600.0  # seconds; a server that asks for more is asked again after an hour

Made = TypeVar("Made")


class UnreachableError(ResourceError):
    """The network, or a server, does not answer as it should; what was fetched stays (exit code 75)."""


class Cut(Exception):
    """This attempt ended before it was done; the text says how. wait_seconds: as the server asked."""

    def __init__(self, text: str, wait_seconds: float | None = None) -> None:
        super().__init__(text)
        self.wait_seconds = wait_seconds


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long to try. attempts: in a row without a new byte. The wait doubles from first to most seconds."""

    attempts: int = 8
    first_seconds: float = 1.0
    most_seconds: float = 120.0
    timeout_seconds: float = 60.0


@dataclass(frozen=True, kw_only=True)
class Trying:
    """Patience, and who may end it."""

    patience: Patience
    should_stop: Callable[[], bool]
    say: Callable[[str], None]

    def until_done(
        self, attempt: Callable[[], Made], *, url: str, name: str, have: Callable[[], int] = lambda: 0
    ) -> Made:
        """What an attempt returns at last. have: bytes that are there; more of them after a failure begin the count of attempts anew.

        Raises UnreachableError after `attempts` failures in a row, DataError for a certificate that is not trusted, Interrupted once
        asked to stop while it waits, and what is wrong with the disk as it is.
        """
        failures = 0
        while True:
            before = have()
            try:
                return attempt()
            except (Cut, OSError, http.client.HTTPException) as error:
                if isinstance(error, OSError) and (error.filename or error.errno in OF_THE_DISK):
                    raise
                if isinstance(error, ssl.SSLCertVerificationError):
                    raise DataError(f"{url}: its certificate is not trusted: {error.verify_message}.") from error
                if self.should_stop():
                    raise Interrupted(f"stopped; what was fetched of {name} is kept.") from error
                failures = 1 if have() > before else failures + 1
                if failures >= self.patience.attempts:
                    raise UnreachableError(
                        f"{url}: {_words(error)}, {failures} times in a row; {in_bytes(have())} of it are here.\n"
                        "  What was fetched stays: run the same command again later to resume."
                    ) from error
                asked = error.wait_seconds if isinstance(error, Cut) else None
                wait = min(self.patience.most_seconds, self.patience.first_seconds * 2 ** (failures - 1))
                wait = wait if asked is None else min(max(asked, 0.0), LONGEST_ASKED)
                if failures > 1 or wait > 10:
                    self.say(f"{name}: {_words(error)}; next try in {wait:.0f} s")
                self._wait(wait, name)

    def _wait(self, seconds: float, name: str) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self.should_stop():
                raise Interrupted(f"stopped while waiting for {name}; what was fetched is kept.")
            time.sleep(min(left, POLL_SECONDS))


def offline_words(steps: Sequence[str]) -> str:
    """What is said where something would have to be fetched and nothing may be asked."""
    names = ", ".join(steps)
    return f"--offline, and not yet fetched: {names}.\n  Run once without --offline; what is fetched then is used from there on."


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait, by a number or a date (RFC 9110, 10.2.3)."""
    value = headers.get("retry-after")
    if value is None or value.strip().isdecimal():
        return None if value is None else float(value)
    try:
        return email.utils.parsedate_to_datetime(value).timestamp() - time.time()
    except ValueError:
        return None


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
