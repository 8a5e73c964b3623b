"""Language identification by fastText's lid.176, small form, which comes with the package (see models/NOTICE)."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fasttext
import pyarrow.compute as pc

from gristmill.data.by_size import SampleBySize
from gristmill.data.document import read_batches
from gristmill.units import counted

MODEL_PATH = Path(__file__).parent / "models" / "lid.176.ftz"
MIN_LETTERS = 20
MAX_CHARACTERS = 100_000
SAMPLE_DOCUMENTS = 1_000  # that the languages of a source are told by: a share is good to 3 %
SAMPLE_CHARS = 1_000  # of each; 0.1 ms
UNTOLD = "?"  # the language of a text that is too short to tell, or hardly one
LEAST_SURE = 0.25  # probability: formulas and timings of programs had .1 to .2 of some language
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


@dataclass(frozen=True, kw_only=True)
class Languages:
    """Language → share of the bytes of text, the largest first. documents: that were looked at."""

    shares: Mapping[str, float] = field(default_factory=dict)
    documents: int = 0
    of_documents: int = 0

    @classmethod
    def of(cls, told: Iterable[tuple[str, float]], *, of_documents: int) -> Languages:
        """From (language, bytes that it stands for) of each document that was looked at."""
        found, documents = defaultdict[str, float](float), 0
        for language, num_bytes in told:
            found[language] += num_bytes
            documents += 1
        total = sum(found.values()) or 1.0
        largest = sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))
        shares = {language: num_bytes / total for language, num_bytes in largest}
        return cls(shares=shares, documents=documents, of_documents=of_documents)

    @property
    def told(self) -> dict[str, float]:
        """Shares of what told its language, of those that have LEAST_SHARE."""
        total = max(1e-9, sum(share for language, share in self.shares.items() if language != UNTOLD))
        return {
            language: share / total
            for language, share in self.shares.items()
            if language != UNTOLD and share >= LEAST_SHARE * total
        }

    def choice(self) -> str:
        """In words, what a person can choose where there are several; nothing where there is one."""
        if len(self.told) < 2:
            return ""
        listed = ", ".join(f"{language} {share:.0%}" for language, share in self.told.items())
        read = "all" if self.documents == self.of_documents else f"{self.documents:,} of"
        first, share = next(iter(self.told.items()))
        return (
            f"in several languages, by bytes: {listed} ({read} {counted(self.of_documents, 'document')}); all are kept, though a small "
            f"model learns one best: `language: {{keep: [{first}]}}` of the source drops the other {1 - share:.0%}"
        )


def languages_in(shards: Sequence[Path], *, weights: Sequence[float] | None = None) -> Languages:
    """The languages of documents in shards, by a sample over all of them. weights: how much text a byte of each shard stands for."""
    sample: SampleBySize[tuple[str | None, str]] = SampleBySize(SAMPLE_DOCUMENTS)
    of_documents = 0
    for path, weight in zip(shards, [1.0] * len(shards) if weights is None else weights, strict=True):
        for batch in read_batches(path, columns=["id", "text", "language"]):
            sizes = pc.binary_length(batch.column("text")).to_pylist()
            of_documents += len(sizes)
            for row, (key, size) in enumerate(zip(batch.column("id").to_pylist(), sizes)):
                if sample.wants(key, weight * size):
                    known = batch.column("language")[row].as_py()
                    text = "" if known else middle_of(batch.column("text")[row].as_py())
                    sample.add(key, weight * size, (known, text))
    told = ((known or language_of(text), weight) for weight, _, (known, text) in sample.weighted())
    return Languages.of(told, of_documents=of_documents)


def language_of(text: str) -> str:
    """The language of the middle of a text, for books begin with titles and pages with menus; UNTOLD where it is too short to tell, or
    no language is likely."""
    language, score = detect_language(middle_of(text))
    return language if language is not None and score >= LEAST_SURE else UNTOLD


def middle_of(text: str) -> str:
    """The SAMPLE_CHARS in the middle of a text, or all of it."""
    first = max(0, (len(text) - SAMPLE_CHARS) // 2)
    return text[first : first + SAMPLE_CHARS]


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
