"""A long text is cut into a partition of it, between words, at the same places wherever it begins."""

from __future__ import annotations

import itertools
import random
import re
import time
from collections.abc import Iterator

from hypothesis import example, given, settings
from hypothesis import strategies as st

from gristmill.data.passages import cut_passages

PARTS = [
    "word",
    "the",
    "e.g.",
    "3.14",
    "ß",
    "日本語",
    "。",
    ".",
    " ",
    "  ",
    "\n",
    "\n\n",
    "\r\n",
    " \t\n \n",
    "    ",
    "\u2003",
    "# A",
    "x" * 30,
]


@settings(max_examples=300, deadline=None)
@given(text=st.lists(st.sampled_from(PARTS), max_size=120).map("".join), max_chars=st.integers(8, 60))
@example(text=" " * 100, max_chars=8)
@example(text="word\n        word", max_chars=8)
@example(text="\n" * 50 + "a" + "\n" * 50 + "b", max_chars=8)
def test_passages_are_a_partition_of_the_text_between_words(text: str, max_chars: int) -> None:
    passages = cut_passages(text, max_chars)
    assert "".join(passages) == text
    if len(passages) == 1:
        return
    for passage, following in itertools.pairwise(passages):
        assert passage.strip()
        assert following.strip()
        assert not re.search(r"\w\Z", passage) or not re.match(r"\w", following), "cut inside a word"
        assert passage[-1].isspace() or passage[-1] in "。！？"
        assert following[0].strip() or passage[-1] == "\n", (
            "an indented line keeps its indent, and no passage begins with a blank line"
        )
        assert following.split("\n")[0].strip()
    for passage in passages:
        assert cut_passages(passage, max_chars) == [passage]
        held = passage.strip()
        if len(held) > max_chars:
            assert not any(char.isspace() for char in held[max_chars:]), "a place to cut was passed over"


def prose(seed: int, *, paragraphs: int) -> Iterator[str]:
    chance = random.Random(seed)
    for _ in range(paragraphs):
        yield " ".join(
            "".join(chance.choices("abcdefghij", k=chance.randint(2, 9))) for _ in range(chance.randint(20, 90))
        )


def test_paragraphs_stay_whole_and_passages_are_about_as_long_as_asked_for() -> None:
    paragraphs = [*prose(1, paragraphs=600)]
    passages = cut_passages("\n\n".join(paragraphs), 20_000)
    assert [part for passage in passages for part in passage.strip().split("\n\n")] == paragraphs
    assert all(5_000 <= len(passage) <= 20_001 for passage in passages)
    assert 11_000 <= sum(map(len, passages)) / len(passages) <= 18_000


def test_the_same_text_is_cut_at_the_same_places_wherever_it_begins_and_however_its_lines_are_set() -> None:
    text = [*prose(2, paragraphs=600)]
    book = cut_passages("\n\n".join(text), 8_000)
    begins = {passage[:60] for passage in book}
    shares = []
    for first in range(5, 105, 10):
        late = cut_passages("\n\n".join(text[first:]), 8_000)
        lines = cut_passages("\n".join(text[first:]), 8_000)
        shares += [sum(p[:60] in begins for p in some[1:]) / (len(some) - 1) for some in (late, lines)]
    assert min(shares) > 0.55
    assert sum(shares) / len(shares) > 0.8


def test_no_text_takes_more_than_linear_time() -> None:
    for text in (
        "\n" * 2_000_000,
        "a" + " " * 2_000_000 + "b" * 2_000_000,
        "a.\n \n" * 40_000,
        "a\n" * 50_000,
        "x" * 1_000_000,
        "字。" * 50_000,
    ):
        before = time.process_time()
        assert "".join(cut_passages(text, 1000)) == text
        assert time.process_time() - before < 5
