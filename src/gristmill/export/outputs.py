"""What export leaves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from gristmill.graph.outputs import File, Outputs
from gristmill.store.durable import read_json
from gristmill.written import Written


@dataclass(frozen=True, kw_only=True)
class NotChecked(Written):
    """Why the other program did not check the model, and the command that makes it possible."""

    checked: Literal[False]
    why: str
    command: str


@dataclass(frozen=True, kw_only=True)
class CheckedWith(Written):
    """transformers on the exported folder. tolerance: what the difference of logits had to stay below.

    greedy_tokens_tied: others, but with nearly the same logit.
    """

    checked: Literal[True]
    version: str
    max_logit_difference: float
    largest_logit: float
    tolerance: float
    greedy_tokens_compared: tuple[int, ...]
    greedy_tokens_equal: tuple[int, ...]
    greedy_tokens_tied: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class LlamaCpp(Written):
    """llama.cpp on a GGUF file: texts with the same ids, and our greedy tokens against its most likely ones. Differences are nats.

    greedy_tokens_tied: different, but by a margin that the measured difference explains. max_margin: the largest difference of our
    log-probabilities between our token and a different one of llama.cpp. limit: for max_logp_difference; None if it is only measured.
    """

    checked: Literal[True]
    version: str
    texts_split_equally: int
    greedy_tokens_compared: int
    greedy_tokens_equal: int
    greedy_tokens_tied: int
    max_logp_difference: float
    max_margin: float
    limit: float | None


@dataclass(frozen=True, kw_only=True)
class GgufFile(Written):
    """A GGUF file. stored_otherwise: the matrices that are in a larger form, because this one does not fit their shape."""

    file: str
    form: str
    num_bytes: int
    stored_otherwise: tuple[str, ...]
    llama_cpp: Annotated[LlamaCpp | NotChecked, Field(discriminator="checked")]


@dataclass(frozen=True, kw_only=True)
class Speed(Written):
    """llama.cpp on one thread: speed of generation, and the memory used by loading and generating."""

    tokens_per_second: float
    memory_bytes: int


@dataclass(frozen=True, kw_only=True)
class Parity(Written):
    """The exported folder against the model as trained, on fixed prompts."""

    prompts: tuple[str, ...]
    logit_positions: int
    stored_dtype: str
    max_logit_change_by_rounding: float
    max_logit_difference_read_back: float
    transformers: Annotated[CheckedWith | NotChecked, Field(discriminator="checked")]
    gguf: tuple[GgufFile, ...] = ()


class Exported(Outputs):
    """The released model folder, and the proof that it computes what was trained."""

    model = File("model", covers=("model/*",))
    gguf = File("gguf", covers=("gguf/*",))
    parity = File("parity.json")

    @property
    def proof(self) -> Parity:
        """What parity.json says."""
        return Parity.from_json(read_json(self.parity), where=self.parity)

    @property
    def speeds(self) -> dict[str, Speed]:
        """GGUF form → speed of llama.cpp, where it was measured."""
        found = self.record.counts.get("llama_cpp", {})
        return {form: Speed.from_json(speed, where=self.record_path) for form, speed in found.items()}
