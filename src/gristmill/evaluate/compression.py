"""The honest yardstick for bits per byte: what xz needs for the same held-out text once it has read training text.

    bits per byte of xz = 8 × (size of xz(training + held out) − size of xz(training)) / bytes of held out

A model that learned no more than repetition does not beat it. The dictionary is as large as the text, so that every earlier
byte can be referred to. Each set of held-out text costs a compression of the training text, too, hence the limit on it: beyond
it documents at even distances are read, and the figure says how much. More text makes a stronger compressor: of 20 MB of
manuals, 1, 4 and 16 MB read beforehand give 1.92, 1.75 and 1.60 bits per byte, in 0.7, 3.6 and 22 s.
"""

from __future__ import annotations

import lzma
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gristmill.errors import DataError
from gristmill.planning.steps import XZ_MOST

PRESET = 9
SEPARATOR = b"\n"
SMALLEST_DICTIONARY = 1 << 16
LARGEST_DICTIONARY = 3 << 29  # 1.5 GiB, the most that liblzma's encoder takes
LEAST_CUT_BYTES = 1 << 16  # of a document that is too long to be read whole, the beginning


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

    def __init__(self, training: Iterable[str], *, max_training_bytes: int = XZ_MOST) -> None:
        """Documents beyond `max_training_bytes` are left out at even distances, so every part of the text is represented; of long ones
        the beginnings are read."""
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
    """All documents, or an even selection of them, long ones in part, that stays within `max_bytes`."""
    total = sum(len(document) for document in documents)
    if total <= max_bytes:
        return documents
    kept: list[bytes] = []
    used = seen = 0
    for document in documents:
        seen += len(document)
        room = seen * max_bytes // total - used
        if min(len(document), LEAST_CUT_BYTES) <= room:
            kept.append(document[:room])
            used += len(kept[-1])
    return kept
