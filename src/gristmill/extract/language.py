"""Language identification by fastText's lid.176, small form, which comes with the package (see models/NOTICE)."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import fasttext

MODEL_PATH = Path(__file__).parent / "models" / "lid.176.ftz"
MIN_LETTERS = 20
MAX_CHARACTERS = 100_000


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
