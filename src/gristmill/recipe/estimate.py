"""Unique tokens before anything was read: from the bytes of a source's files, by two measured ratios.

    tokens ≈ bytes on disk × (text bytes per byte on disk, by format) / (text bytes per token, by vocabulary size)

Curation removes documents, so this is an upper estimate of what training will find. It is good to a factor of about 1.5, and
`plan` marks it "estimated"; `unique_tokens` in the recipe, or the count that tokenize makes, takes its place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

# Measured: gzip keeps 3.4 of English documentation and 4.3 of Python source in one byte, Parquet with zstd 3.1.
# HTML is markup for the most part: a tenth of a page is main text, and a gzipped page is a fifth of its size.
TEXT_PER_BYTE = {"text": 1.0, "code": 1.0, "jsonl": 0.95, "parquet": 3.0, "html": 0.1, "warc": 0.1}
GZIP_RATIO = {"text": 3.4, "code": 4.3, "jsonl": 3.4, "parquet": 1.0, "html": 5.0, "warc": 5.0}


def text_bytes_of(files: Sequence[Path], format: str) -> float:
    """Bytes of plain text that files of a reader's format hold, estimated from their sizes. A folder counts its files."""
    return sum(_text_bytes(file, format) for file in files)


def bytes_per_token(vocab_size: int) -> float:
    """Bytes of text that one token of a byte-level BPE stands for.

    A line through measurements on held-out Python source (2.1 at 1,024 entries, 2.9 at 4,096, 3.6 at 16,384), which meets the
    4.2 or so of English text at 49,152.
    """
    return max(1.0, 2.1 + 0.37 * math.log2(vocab_size / 1024))


def estimate_tokens(files: Sequence[Path], format: str, vocab_size: int) -> int:
    """Tokens in the files, before curation. See the module's text for how far to trust it."""
    return round(text_bytes_of(files, format) / bytes_per_token(vocab_size))


def _text_bytes(path: Path, format: str) -> float:
    if path.is_dir():
        return sum(_text_bytes(child, format) for child in path.rglob("*") if child.is_file())
    is_compressed = path.suffix in (".gz", ".tgz")
    return path.stat().st_size * TEXT_PER_BYTE[format] * (GZIP_RATIO[format] if is_compressed else 1.0)
