"""Language identification by fastText's lid.176, small form, which comes with the package (see models/NOTICE)."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import fasttext

from gristmill.data.document import read_batches

MODEL_PATH = Path(__file__).parent / "models" / "lid.176.ftz"
MIN_LETTERS = 20
MAX_CHARACTERS = 100_000
SAMPLE_DOCUMENTS = 400
SAMPLE_CHARS = 2_000
LEAST_SHARE = 0.05  # of a language that makes a source one of several


def detect_language(text: str, *, model_path: Path = MODEL_PATH) -> tuple[str | None, float]:
    """The most likely language, as its ISO 639 code, and its probability in 0-1.

    Line ends count as blanks (the model would stop at the first) and only the first MAX_CHARACTERS are read.
    Texts of fewer than MIN_LETTERS letters are too short to tell: (None, 0.0).
    """
    if is_too_short(text):
        return None, 0.0
    line = " ".join(text[:MAX_CHARACTERS].split())
    labels, scores = load_model(model_path).predict(line, k=1)
    if not labels:
        return None, 0.0
    return labels[0].removeprefix("__label__"), min(1.0, float(scores[0]))


def languages_in(shards: Sequence[Path]) -> dict[str, float]:
    """Language → share of bytes, of the first documents of each shard of documents; those too short to tell count as "?"."""
    each = -(-SAMPLE_DOCUMENTS // max(1, len(shards)))
    found: Counter[str] = Counter()
    for path in shards:
        batch: Any = next(read_batches(path, columns=["text", "language"], batch_rows=each), None)
        for row in batch.to_pylist() if batch is not None else ():
            size = len(row["text"].encode())
            found[row["language"] or detect_language(row["text"][:SAMPLE_CHARS])[0] or "?"] += size
    total = max(1, found.total())
    return {language: size / total for language, size in found.most_common()}


def in_several_languages(shares: Mapping[str, float]) -> str:
    """In words, where several languages have LEAST_SHARE of what told its language, with what keeps one; else nothing."""
    told = sorted(((share, language) for language, share in shares.items() if language != "?"), reverse=True)
    total = max(1e-9, sum(share for share, _ in told))
    largest = {language: share / total for share, language in told if share >= LEAST_SHARE * total}
    if len(largest) < 2:
        return ""
    listed = ", ".join(f"{language} {share:.0%}" for language, share in largest.items())
    return f"in several languages: {listed}; `language: {{keep: [{next(iter(largest))}]}}` of a source keeps one"


def is_too_short(text: str) -> bool:
    """True for a text with fewer than MIN_LETTERS letters."""
    letters = 0
    for character in text:
        letters += character.isalpha()
        if letters >= MIN_LETTERS:
            return False
    return True


@functools.cache
def load_model(path: Path) -> Any:
    """The fastText model of a file, loaded once per process."""
    return fasttext.load_model(str(path))
