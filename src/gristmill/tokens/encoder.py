"""Many texts to ids: by splintr where it is installed and gives what `tokenizers` gives, else by that. The ids are the same either way.

splintr reads the same file and is many times as fast. It is young, so nothing rests on it unseen: when it is loaded it must give the
reference's ids for awkward texts, and of every batch one text is encoded by both. Where they differ, Disagreement is raised, and
whoever encodes begins again with the reference.
"""

from __future__ import annotations

import importlib
import json
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gristmill.tokens.tokenizer import Tokenizer

MAX_CACHED = 2_000_000  # pieces that splintr remembers
AWKWARD_TEXTS = 2_000
SHOWN_CHARACTERS = 60
AWKWARD = (
    "'", "'s", "'LL", "don't", " ", "  ", "\t", "\n", "\n\n", "\r\n", "\x0b", "\0", "\x85", "\xa0", "\u2028", "\u3000", "\ufeff", "\u200d",
    "1", "23", "٣", "²", "Ⅷ", "½", "a", "Ab", "the ", " of", "ä", "e\u0301", "ß", "İ", "ﬁ", "中文", "ไทย", "한", "👩\u200d💻", "\ud7ff", "\ue000", "\U0010ffff",
    "_", "-", "...", "—", "\\(", "<|im_end|>", "<|endoftext|>", "<|", "x" * 300, "=" * 80, "\u0300" * 5,
)  # fmt: skip


class Disagreement(Exception):
    """splintr does otherwise than the reference; the text says how."""


class Encoder:
    """Encodes batches of texts. fast: splintr's tokenizer, or None."""

    def __init__(self, tokenizer: Tokenizer, fast: Any | None = None) -> None:
        self._tokenizer, self._fast = tokenizer, fast
        self._batches = 0

    @property
    def is_fast(self) -> bool:
        """Whether texts go through splintr."""
        return self._fast is not None

    @classmethod
    def fastest(cls, tokenizer: Tokenizer, say: Callable[[str], None] = lambda line: None) -> Encoder:
        """With splintr where it is installed, reads the tokenizer and agrees on awkward texts; where it does not, that is said."""
        noise = random.Random(0)
        texts = ["".join(noise.choices(AWKWARD, k=noise.randint(1, 12))) for _ in range(AWKWARD_TEXTS)]
        try:
            encoder = cls(tokenizer, _load(tokenizer))
            if not encoder.is_fast or encoder._agrees([*AWKWARD, *texts]):
                return encoder
            why = "gives other ids for awkward texts"
        except Exception as error:  # the library has no kinds of its own
            why = f"cannot be used with this tokenizer ({error})"
        say(f"splintr is installed, but {why}; tokenizers encodes, which is slower")
        return cls(tokenizer)

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.integer]]:
        """The ids of each text, without begin or end token.

        Raises DataError for a text that is not valid Unicode, Disagreement where splintr gives other ids than the reference, or refuses
        what the reference takes.
        """
        if self._fast is None:
            return [np.asarray(ids, dtype=np.int64) for ids in self._tokenizer.encode_batch(texts)]
        try:
            found = self._flat(texts)
        except Exception as error:  # the library has no kinds of its own; the reference says what is wrong with a text
            self._tokenizer.encode_batch(texts)
            raise Disagreement(f"{type(error).__name__}: {error}") from error
        place = self._batches % len(texts) if texts else 0
        self._batches += 1
        if texts and found[place].tolist() != self._tokenizer.encode(texts[place]):
            raise Disagreement(f"other ids for {texts[place][:SHOWN_CHARACTERS]!r}")
        return found

    def _agrees(self, texts: Sequence[str]) -> bool:
        return [ids.tolist() for ids in self._flat(texts)] == self._tokenizer.encode_batch(texts)

    def _flat(self, texts: Sequence[str]) -> list[NDArray[np.integer]]:
        """By splintr."""
        assert self._fast is not None
        ids, offsets = self._fast.encode_batch_flat(list(texts))
        if self._fast.cache_len > MAX_CACHED:
            self._fast.clear_cache()
        ids_N, ends_D1 = np.frombuffer(ids, dtype="<u4"), np.frombuffer(offsets, dtype="<u8").astype(np.int64)
        return np.split(ids_N, ends_D1[1:-1]) if texts else []


def _load(tokenizer: Tokenizer) -> Any | None:
    """splintr's tokenizer without special tokens, since plain text never yields one; None where it is not installed."""
    try:
        splintr = importlib.import_module("splintr")
    except ImportError:
        return None
    file = json.loads(tokenizer.to_json())
    plain = [token for token in file["added_tokens"] if not token["special"]]
    return splintr.from_json_bytes(json.dumps({**file, "added_tokens": plain}).encode())
