"""Rules about a document's URL, by lists that the recipe names: decided before any text is looked for.

The rules are those of the URL filter that made FineWeb (datatrove 0.10), in its order, with a reason each. Three things differ: upper
and lower case are one, in lists and URLs; a listed domain takes all hosts below it along, where datatrove takes them along only where
it is a registered domain (example.com, example.co.uk), for which it needs a list of public suffixes; and an address or a name without
a dot can be listed as a host.

Lists are read by each process that curates. Of domains, hosts and URLs only 64-bit hashes are held, 8 bytes an entry.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import xxhash

from gristmill.data.lists import Lists

SOFT_WORDS = 2  # so many in one URL drop the document
URL_REASONS = (
    "blocked_domain",
    "blocked_host",
    "blocked_url",
    "hard_word_in_url",
    "soft_words_in_url",
    "substring_of_url",
)
WITHOUT_URL = "without_url"  # the count of documents that no list can tell

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://|//", re.IGNORECASE)
_NO_WORD = re.compile(r"[^a-zA-Z0-9]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Blocked:
    """Why a URL drops its document: the reason, the entry of a list, and for soft words how many against how many are allowed."""

    reason: str
    entry: str
    value: float | None = None
    limit: float | None = None


class Entries:
    """A set of texts of which only hashes are held; two of a million texts are mistaken for one with a probability of 3e-8."""

    def __init__(self, entries: Iterator[str]) -> None:
        self._hashes = np.unique(np.fromiter(map(_hash, entries), dtype=np.uint64))

    def __contains__(self, entry: str) -> bool:
        place = int(np.searchsorted(self._hashes, value := np.uint64(_hash(entry))))
        return place < len(self._hashes) and bool(self._hashes[place] == value)


class UrlFilter:
    """The rules with their lists. entries: from the kind of a list to what is on it."""

    def __init__(self, entries: Callable[[str], Iterator[str]]) -> None:
        self._domains = Entries(entry.casefold().strip(".") for entry in entries("domains"))
        self._hosts = Entries(entry.casefold().strip(".") for entry in entries("hosts"))
        self._urls = Entries(entry.casefold() for entry in entries("urls"))
        self._hard, self._soft, self._substrings = (
            frozenset(filter(None, map(letters_and_digits, entries(kind))))
            for kind in ("hard_words", "soft_words", "substrings")
        )

    def blocks(self, url: str) -> Blocked | None:
        """The first rule that the URL breaks."""
        url = url.strip()
        host = host_of(url)
        if (domain := next((name for name in _and_above(host) if name in self._domains), None)) is not None:
            return Blocked(reason="blocked_domain", entry=domain)
        if host in self._hosts:
            return Blocked(reason="blocked_host", entry=host)
        if url.casefold() in self._urls:
            return Blocked(reason="blocked_url", entry=url)
        words = {word.lower() for word in _NO_WORD.split(url)}
        if hard := self._hard & words:
            return Blocked(reason="hard_word_in_url", entry=min(hard))
        if len(soft := sorted(self._soft & words)) >= SOFT_WORDS:
            return Blocked(reason="soft_words_in_url", entry=" ".join(soft), value=len(soft), limit=SOFT_WORDS - 1)
        flat = letters_and_digits(url)
        if parts := [part for part in self._substrings if part in flat]:
            return Blocked(reason="substring_of_url", entry=min(parts))
        return None


@cache
def load_url_filter(lists: Lists) -> UrlFilter:
    """Reads the lists, once in a process."""
    return UrlFilter(lists.entries)


def host_of(url: str) -> str:
    """The host that a URL names, in lower case, without user, port and the dot at its end."""
    scheme = _SCHEME.match(url)
    place = re.split(r"[/?#]", url[scheme.end() :] if scheme else url, maxsplit=1)[0].rpartition("@")[2]
    if place.startswith("["):  # IPv6
        return place.partition("]")[0].strip("[").casefold()
    return place.partition(":")[0].strip(".").casefold()


def letters_and_digits(text: str) -> str:
    """The ASCII letters and digits of a text, in lower case."""
    return _NO_WORD.sub("", text).lower()


def _and_above(host: str) -> Iterator[str]:
    """A host and the domains that it lies in."""
    while host:
        yield host
        host = host.partition(".")[2]


def _hash(entry: str) -> int:
    return xxhash.xxh3_64_intdigest(entry.encode("utf-8", "surrogatepass"))
