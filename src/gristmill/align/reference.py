"""What the frozen reference model thinks of each pair: asked once, kept in a file that says what was asked of whom.

The file is absent or complete, holds the hash of its numbers, and is used only for the same weights, tokenizer, pairs, length
and arithmetic, by any run of the store: a changed `beta` or rate asks the same question. So a resumed run trains on the very numbers that it began with, on whatever machine they were computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from gristmill.align.losses import pair_logps
from gristmill.errors import ArtifactError
from gristmill.model.transformer import Llama
from gristmill.store.durable import file_sha256, read_json, write_json
from gristmill.store.fingerprint import fingerprint
from gristmill.tokens.chat import EncodedChat
from gristmill.train.loss import device_arithmetic
from gristmill.train.prefix import NumberFormat, number_format

Logps = list[tuple[float, float]]  # one (chosen, rejected) a pair: nats, summed over the answer


@dataclass(frozen=True, kw_only=True)
class Question:
    """What decides the reference's log-probabilities. `model_sha256` has one hash a file."""

    model_sha256: dict[str, str]
    tokenizer_sha256: str
    pairs_sha256: str
    seq_len: int
    number_format: NumberFormat

    @classmethod
    def of(cls, *, model: Path, tokenizer: Path, pairs: Path, seq_len: int, device: str) -> Question:
        """From the folders of model and tokenizer, and the file of pairs."""
        files = [model / "config.json", *sorted(model.glob("*.safetensors"))]
        return cls(
            model_sha256={file.name: file_sha256(file) for file in files},
            tokenizer_sha256=file_sha256(tokenizer / "tokenizer.json"),
            pairs_sha256=file_sha256(pairs),
            seq_len=seq_len,
            number_format=number_format(device),
        )


def asked_once(path: Path, question: Question, ask: Callable[[], Logps], *, others: Iterable[Path] = ()) -> Logps:
    """The answer to this question that `path` holds; else that of one of `others`, or `ask()`, which is then kept there."""
    kept = _kept(path, question)
    if kept is not None:
        return kept
    found = (answer for other in others if (answer := _kept(other, question)) is not None)
    answer = next(found, None)
    if answer is None:
        answer = ask()
    rows = [list(pair) for pair in answer]
    write_json(path, {"question": asdict(question), "logps": rows, "logps_fingerprint": fingerprint(rows)})
    return answer


def _kept(path: Path, question: Question) -> Logps | None:
    try:
        found: dict[str, Any] = read_json(path)
        if found["question"] != asdict(question) or found["logps_fingerprint"] != fingerprint(found["logps"]):
            return None
        return [(chosen, rejected) for chosen, rejected in found["logps"]]
    except (ArtifactError, KeyError, TypeError, ValueError):
        return None


@torch.no_grad()
def reference_logps(reference: Llama, pairs: Sequence[tuple[EncodedChat, EncodedChat]]) -> Logps:
    """Log-probabilities of (chosen, rejected), each pair on its own so that no neighbour changes a bit.

    Asked in the arithmetic of training: a float32 reference of a bfloat16 policy would be a margin before the first step.
    """
    found: Logps = []
    for pair in pairs:
        with device_arithmetic(reference.device):
            chosen, rejected = pair_logps(reference, [pair])
        found.append((float(chosen[0]), float(rejected[0])))
    return found
