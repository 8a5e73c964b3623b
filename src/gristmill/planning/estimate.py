"""Unique tokens before anything was read: from the bytes of a source's files, by two measured ratios.

    tokens ≈ bytes on disk × (text bytes per byte on disk, by format) / (text bytes per token, by vocabulary size)

This is good to a factor of two, and curation may remove more; `plan` marks it "estimated". Once extract has counted the text,
only the second ratio is left, good to a tenth or two; `unique_tokens` in the recipe, or the count of tokenize, replaces both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from gristmill.recipe.schema.formats import READERS, packing_by_name

BYTES_PER_TOKEN_ERROR = 0.25  # relative: seven kinds of text, 512 to 8,192 entries: 0.82 to 1.15 of the rule; manuals in three languages to 1.29


def text_bytes_of(files: Sequence[Path], format: str) -> float:
    """Bytes of plain text that files of a reader's format hold, estimated from their sizes. A folder counts its files."""
    return sum(_text_bytes(file, format) for file in files)


def bytes_per_token(vocab_size: int) -> float:
    """Bytes of text that one token of a byte-level BPE stands for.

    The slope is measured on held-out Python source (2.1 at 1,024 entries, 2.9 at 4,096, 3.6 at 16,384); the height on the
    quickstart, whose tokenizer of 4,096 entries was trained on the same sources: 3.0 for code and glosses, 3.5 for manuals.
    """
    return max(1.0, 2.4 + 0.37 * math.log2(vocab_size / 1024))


def _text_bytes(path: Path, format: str) -> float:
    if path.is_dir():
        return sum(_text_bytes(child, format) for child in path.rglob("*") if child.is_file())
    is_compressed = packing_by_name(path.name) is not None or path.suffix == ".tgz"
    return (
        path.stat().st_size * READERS[format].text_per_byte * (READERS[format].packed_ratio if is_compressed else 1.0)
    )
