"""The honest yardstick for bits per byte: what xz needs for the same held-out text once it has read the training text.

    bits per byte of xz = 8 × (size of xz(training + held out) − size of xz(training)) / bytes of held out

A model that learned no more than repetition does not beat it. The dictionary is as large as the text, so that every earlier
byte can be referred to; the encoder then takes about eleven times the text in memory, hence the limit on training text.
"""

from __future__ import annotations

import lzma
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gristmill.errors import DataError

PRESET = 9
SEPARATOR = b"\n"
SMALLEST_DICTIONARY = 1 << 16
LARGEST_DICTIONARY = 3 << 29  # 1.5 GiB, the most that liblzma's encoder takes
MAX_TRAINING_BYTES = 32 << 20


@dataclass(frozen=True, kw_only=True)
class XzScore:
    """`value` is bits per byte of the documents' own text; the line breaks put between them cost but do not count.

    `training_bytes` of `all_training_bytes` primed the compressor: fewer where the limit was reached.
    """

    value: float
    num_documents: int
    num_bytes: int
    training_bytes: int
    all_training_bytes: int


class PrimedXz:
    """xz that has read the training text. Holds that text and its compressed size, so that several sets share one priming."""

    def __init__(self, training: Iterable[str], *, max_training_bytes: int = MAX_TRAINING_BYTES) -> None:
        """Documents beyond `max_training_bytes` are left out at even distances, so every part of the text is represented."""
        documents = [text.encode() for text in training]
        self.all_training_bytes = sum(len(document) for document in documents)
        kept = _spread_within(documents, max_training_bytes)
        self.training_bytes = sum(len(document) for document in kept)
        self._training = _joined(kept)
        self._training_size = xz_size(self._training)

    def score(self, held_out: Iterable[str]) -> XzScore:
        """Bits per byte of the held-out documents. Raises DataError when they hold no text."""
        documents = [text.encode() for text in held_out]
        num_bytes = sum(len(document) for document in documents)
        if num_bytes == 0:
            raise DataError(f"xz has no held-out text to compress ({len(documents)} documents)")
        size = xz_size(self._training + _joined(documents))
        return XzScore(
            value=8 * (size - self._training_size) / num_bytes,
            num_documents=len(documents),
            num_bytes=num_bytes,
            training_bytes=self.training_bytes,
            all_training_bytes=self.all_training_bytes,
        )


def xz_size(data: bytes) -> int:
    """Bytes of `data` as an xz file, at the strongest preset and with a dictionary that holds all of it (1.5 GiB at most)."""
    dictionary = min(max(len(data), SMALLEST_DICTIONARY), LARGEST_DICTIONARY)
    chain = [{"id": lzma.FILTER_LZMA2, "preset": PRESET, "dict_size": dictionary}]
    return len(lzma.compress(data, format=lzma.FORMAT_XZ, check=lzma.CHECK_NONE, filters=chain))


def _joined(documents: Sequence[bytes]) -> bytes:
    return b"".join(document + SEPARATOR for document in documents)


def _spread_within(documents: Sequence[bytes], max_bytes: int) -> Sequence[bytes]:
    """All documents, or an even selection of them that stays within `max_bytes`."""
    total = sum(len(document) for document in documents)
    if total <= max_bytes:
        return documents
    kept: list[bytes] = []
    used = seen = 0
    for document in documents:
        seen += len(document)
        if used + len(document) <= seen * max_bytes // total:
            kept.append(document)
            used += len(document)
    return kept
