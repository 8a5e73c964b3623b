"""How much a word tells: little when it stands on every page.

word_shares.tsv has the share of English pages that hold a word, for each word that more than UNLISTED_SHARE of them do; all
others count as if that share of pages held them. Made by scripts/word_shares.py; words are those of `words`.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gristmill.select.words import UInt64, Words, split_words

VERSION = 1  # of every step that uses it: rises when the meaning of what it computes changes

TABLE = Path(__file__).with_name("word_shares.tsv")
UNLISTED_SHARE = 0.02  # of pages
OF_A_NUMBER, OF_A_CHARACTER = 0.5, 1.0


def information(words: Words) -> NDArray[np.float32]:
    """Natural logarithm of how many pages there are to one with the word, from 0 to ln 50, for each word of the texts. Of a number
    or a letter no more than OF_A_NUMBER, since they stand in any order in lists, and of a character of a script without blanks no
    more than OF_A_CHARACTER."""
    hashes, values = _listed()
    places = np.minimum(np.searchsorted(hashes, words.hashes_W), len(hashes) - 1)
    listed = hashes[places] == words.hashes_W
    found = np.where(listed, values[places], np.float32(-np.log(UNLISTED_SHARE)))
    digits = np.isin(np.frombuffer(words.buffer, dtype=np.uint8), np.frombuffer(b"0123456789", dtype=np.uint8))
    until = np.concatenate(([0], np.cumsum(digits)))
    lengths = words.ends_W - words.starts_W
    lead = np.frombuffer(words.buffer, dtype=np.uint8)[words.starts_W]
    number = (until[words.ends_W] - until[words.starts_W] == lengths) | (lengths == 1)
    character = (lengths == 3) & (lead >= 0xE0)
    most = np.select([number, character], [OF_A_NUMBER, OF_A_CHARACTER], np.inf)
    weight: NDArray[np.float32] = np.minimum(found, most).astype(np.float32)
    return weight.astype(np.float32)


@cache
def _listed() -> tuple[UInt64, NDArray[np.float32]]:
    rows = [line.split("\t") for line in TABLE.read_text(encoding="utf-8").splitlines()]
    hashes = split_words([word for word, _ in rows]).hashes_W
    values = -np.log(np.array([share for _, share in rows], dtype=np.float32))
    order = np.argsort(hashes)
    return hashes[order], values[order]
