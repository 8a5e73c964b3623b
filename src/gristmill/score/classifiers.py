"""Quality classifiers behind one interface: fit on labelled texts, score any text, save without pickle.

Both read the first `max_chars` characters of a text and no more, so that a score means the same wherever it is made.
Scores are raw: on the scale of the labels, neither clipped nor rounded; thresholds cut the raw score.

    hashed_ngrams   ridge regression on hashed n-grams (hashed_ngrams.py): exact, deterministic
    fasttext        fastText over words and pairs; the score is the expected label under its class probabilities
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import fasttext
import numpy as np
from numpy.typing import ArrayLike, NDArray

from gristmill.errors import ArtifactError
from gristmill.score.hashed_ngrams import HashedNgrams

VERSION = 1  # of every step that uses it: rises when the meaning of what it computes changes

Float32 = NDArray[np.float32]


class Classifier(Protocol):
    """A trained classifier."""

    @property
    def max_chars(self) -> int:
        """The crop: characters of a text that are read."""

    def score(self, texts: Sequence[str]) -> Float32:
        """Raw scores (N,)."""

    def save(self, path: Path) -> None:
        """Writes one .npz file that `load_classifier` reads."""


@dataclass(frozen=True, kw_only=True)
class FastText:
    """fastText's linear classifier. `model` holds its own binary format; `labels` are those of its classes."""

    model: bytes
    labels: tuple[int, ...]
    max_chars: int

    @classmethod
    def fit(cls, texts: Sequence[str], labels: ArrayLike, *, max_chars: int, seed: int = 0) -> FastText:
        """Trains on one thread, so that the same texts and seed give the same model. Labels are whole numbers."""
        whole = np.asarray(labels, dtype=np.int64)
        if len(texts) != len(whole) or not len(texts):
            raise ValueError(f"need as many labels as texts and at least one, got {len(texts)} and {len(whole)}")
        with tempfile.TemporaryDirectory() as folder:
            data, stored = Path(folder) / "train.txt", Path(folder) / "model.bin"
            lines = [
                f"__label__{label} {one_line(text[:max_chars])}\n" for text, label in zip(texts, whole, strict=True)
            ]
            data.write_text("".join(lines), encoding="utf-8")
            model = fasttext.train_supervised(
                str(data), wordNgrams=2, dim=50, epoch=25, lr=0.5, bucket=50_000, thread=1, seed=seed % 2**31, verbose=0
            )
            model.save_model(str(stored))
            return cls(model=stored.read_bytes(), labels=tuple(sorted(set(whole.tolist()))), max_chars=max_chars)

    @cached_property
    def _loaded(self) -> Any:
        """The model as fastText holds it; it reads only files."""
        with tempfile.TemporaryDirectory() as folder:
            stored = Path(folder) / "model.bin"
            stored.write_bytes(self.model)
            return fasttext.load_model(str(stored))

    def score(self, texts: Sequence[str]) -> Float32:
        """The expected label: the sum over classes of probability × label."""
        if not texts:
            return np.empty(0, dtype=np.float32)
        lines = [one_line(text[: self.max_chars]) for text in texts]
        names, chances = self._loaded.predict(lines, k=len(self.labels))
        expected = [
            sum(float(p) * int(name.removeprefix("__label__")) for name, p in zip(row, ps, strict=True))
            / float(sum(ps))
            if len(row)
            else 0.0
            for row, ps in zip(names, chances, strict=True)
        ]
        return np.array(expected, dtype=np.float32)

    def save(self, path: Path) -> None:
        """One .npz file; no pickle."""
        with path.open("wb") as file:
            np.savez_compressed(
                file,
                kind="fasttext",
                model=np.frombuffer(self.model, dtype=np.uint8),
                labels=np.array(self.labels, dtype=np.int64),
                max_chars=self.max_chars,
            )

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any]) -> FastText:
        """The model in the arrays of a file that `save` wrote."""
        return cls(
            model=arrays["model"].tobytes(),
            labels=tuple(int(label) for label in arrays["labels"]),
            max_chars=int(arrays["max_chars"]),
        )


KINDS: dict[str, type[HashedNgrams] | type[FastText]] = {"hashed_ngrams": HashedNgrams, "fasttext": FastText}


def fit_classifier(kind: str, texts: Sequence[str], labels: ArrayLike, *, max_chars: int, seed: int) -> Classifier:
    """A classifier of this kind ("hashed_ngrams" or "fasttext"), trained on these texts."""
    return KINDS[kind].fit(texts, labels, max_chars=max_chars, seed=seed)


def load_classifier(path: Path) -> Classifier:
    """The classifier in a file that `save` wrote. Raises ArtifactError when the file is missing or is something else."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        return KINDS[str(arrays["kind"])].from_arrays(arrays)
    except (OSError, EOFError, TypeError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ArtifactError(
            f"{path} holds no classifier ({type(error).__name__}: {error}). Remake it: run the recipe again."
        ) from error


def one_line(text: str) -> str:
    """The text as fastText wants it: lower case, one line, and no word of it taken for a label."""
    line = " ".join(text.replace("\0", " ").lower().split()).replace("__label__", "__label_")
    return line.encode("utf-8", "replace").decode("utf-8")
