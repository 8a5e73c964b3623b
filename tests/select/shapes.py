"""Corpora of the shapes that are known to make searches for duplicates remove good text, with near copies planted in them.

    templates   pages of a few templates with other contents      a bucket of candidates for each template
    books       long texts with many passages in common           signatures of very long texts
    dialogues   shared instructions, other questions              all connected, few alike
    chain       small changes that add up                         neighbours alike, ends not
    call_logs   calls of a few functions in other orders          the same n-grams in every text

Sentences are those of the novel in samples/quickstart. A text is drawn for an `origin`; texts of one origin are near copies of each
other, texts of two are not, whatever they share. The shapes are those of marin-community/marin#6851 and #6854.
"""

from __future__ import annotations

import gzip
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

NOVEL = Path(__file__).parents[2] / "samples/quickstart/novel/pride-and-prejudice.txt.gz"


@dataclass(frozen=True, kw_only=True)
class Shaped:
    """A text and what it was made from."""

    origin: str
    text: str


@cache
def sentences() -> tuple[str, ...]:
    """The sentences of the novel of 8 to 40 words, each once."""
    text = " ".join(gzip.decompress(NOVEL.read_bytes()).decode().split())
    return tuple(dict.fromkeys(s for s in re.split(r"(?<=[.!?]) ", text) if 8 <= len(s.split()) <= 40))


def templates(seed: int, *, frames: int = 3, pages: int = 120) -> list[Shaped]:
    """Pages of about 300 words, two thirds of them the template's; every tenth also with two words changed."""
    rng = np.random.default_rng(seed)
    shaped = []
    for f in range(frames):
        head, foot = _passage(rng, words=110), _passage(rng, words=70)
        for p in range(pages):
            text = f"{head}\n\n{_passage(rng, words=100)}\n\n{foot}"
            shaped.append(Shaped(origin=f"page {f}.{p}", text=text))
            if p % 10 == 0:
                shaped.append(Shaped(origin=f"page {f}.{p}", text=_changed(text, rng, 2)))
    return shaped


def books(seed: int, *, count: int = 6, words: int = 100_000) -> list[Shaped]:
    """Books above the length that is signed, each of half of all sentences, many times; two also as another edition."""
    rng = np.random.default_rng(seed)
    pool = sentences()
    shaped = []
    for b in range(count):
        own = rng.permutation(len(pool))[: len(pool) // 2]
        drawn: list[str] = []
        length = 0
        while length < words:
            drawn.append(pool[own[rng.integers(len(own))]])
            length += len(drawn[-1].split())
        shaped.append(Shaped(origin=f"book {b}", text=" ".join(drawn)))
        if b < 2:
            shaped.append(Shaped(origin=f"book {b}", text=_changed(" ".join(drawn), rng, words // 500)))
    return shaped


def dialogues(seed: int, *, prompts: int = 4, count: int = 100) -> list[Shaped]:
    """Dialogues of about 250 words, 150 of them shared instructions; every tenth also with a word changed."""
    rng = np.random.default_rng(seed)
    shaped = []
    for p in range(prompts):
        system = _passage(rng, words=150)
        for d in range(count):
            text = f"{system}\n\nUser: {_passage(rng, words=30)}\n\nAssistant: {_passage(rng, words=70)}"
            shaped.append(Shaped(origin=f"dialogue {p}.{d}", text=text))
            if d % 10 == 0:
                shaped.append(Shaped(origin=f"dialogue {p}.{d}", text=_changed(text, rng, 1)))
    return shaped


def chain(seed: int, *, count: int = 12) -> list[Shaped]:
    """Texts of 12 passages, each without the first of the one before it and with a new one at its end: neighbours are alike, the
    ends have nothing in common."""
    rng = np.random.default_rng(seed)
    words = " ".join(dict.fromkeys(" ".join(sentences()).split())).split()
    passages = [" ".join(rng.choice(words, 25, replace=False)) for _ in range(12 + count)]
    return [Shaped(origin=f"link {n}", text="\n\n".join(passages[n : n + 12])) for n in range(count + 1)]


def call_logs(seed: int, *, count: int = 150, calls: int = 240) -> list[Shaped]:
    """Logs of calls of four functions in random order, some 1,000 words of 8 different ones; every tenth with a few calls changed."""
    rng = np.random.default_rng(seed)
    made = [f'{{"name": "move", "direction": "{to}"}}' for to in ("north", "east", "south", "west")]
    shaped = []
    for c in range(count):
        log = [made[n] for n in rng.integers(0, len(made), calls)]
        shaped.append(Shaped(origin=f"log {c}", text="\n".join(log)))
        if c % 10 == 0:
            log[int(rng.integers(calls))] = '{"name": "wait", "seconds": 3}'
            shaped.append(Shaped(origin=f"log {c}", text="\n".join(log)))
    return shaped


def _passage(rng: np.random.Generator, *, words: int) -> str:
    """Sentences in random order, cut to so many words."""
    pool, drawn = sentences(), list[str]()
    while len(drawn) < words:
        drawn += pool[rng.integers(len(pool))].split()
    return " ".join(drawn[:words])


def _changed(text: str, rng: np.random.Generator, count: int) -> str:
    """The text with `count` words replaced."""
    parts = re.split(r"(\s+)", text)
    for place in rng.choice(len(parts) // 2, count, replace=False):
        parts[2 * place] = f"changed{rng.integers(10**6)}"
    return "".join(parts)
