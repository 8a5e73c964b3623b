"""lm-evaluation-harness's view of a live gristmill model: three questions, answered by our own scorer and generator.

The class does not import the engine; `harness.load_engine` registers it as a subclass of the engine's `LM` when it is loaded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from gristmill.errors import RecipeError
from gristmill.model.generate import generate
from gristmill.model.inference import InferenceModel
from gristmill.model.transformer import Llama
from gristmill.tokens.chat import encode_chat
from gristmill.tokens.tokenizer import Tokenizer
from gristmill.train.scorer import encode_pair, loglikelihoods, rolling_windows

MAX_NEW_TOKENS = 64


class Request(Protocol):
    """What the engine hands an adapter: `args` is (context, continuation), (text,) or (context, generation settings)."""

    @property
    def args(self) -> tuple[Any, ...]: ...


@dataclass(frozen=True)
class AskedText:
    """A request of our own making, for when the engine is not there."""

    args: tuple[Any, ...]


class GristmillLM:
    """lm-eval's `LM` interface over a live model. It is registered as a subclass of `lm_eval.api.model.LM` when that is loaded."""

    rank = 0
    world_size = 1

    def __init__(self, model: Llama, tokenizer: Tokenizer, *, max_new_tokens: int = MAX_NEW_TOKENS) -> None:
        self.model, self.tokenizer, self.max_new_tokens = model, tokenizer, max_new_tokens
        self._chat_ids: dict[str, list[int]] = {}
        self._ids_holding: dict[str, frozenset[int]] = {}

    @property
    def tokenizer_name(self) -> str:
        return "gristmill"

    def set_cache_hook(self, cache_hook: object) -> None:
        """Part of the interface; answers are not cached."""

    def loglikelihood(self, requests: Sequence[Request], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """(log-probability in nats, greedy decoding would write it) of each continuation after its context."""
        pairs = [encode_pair(self.tokenizer, *request.args[:2]) for request in requests]
        return [(found.logp, found.is_greedy) for found in loglikelihoods(self.model, pairs)]

    def loglikelihood_rolling(self, requests: Sequence[Request], disable_tqdm: bool = False) -> list[float]:
        """Log-probability of each whole text in nats, after the end-of-text token, in windows of the model's context."""
        window = self.model.config.max_position_embeddings
        totals: list[float] = []
        for request in requests:
            pairs = rolling_windows(self.tokenizer.encode(request.args[0]), self.tokenizer.eos_id, window)
            totals.append(math.fsum(found.logp for found in loglikelihoods(self.model, pairs)))
        return totals

    def generate_until(self, requests: Sequence[Request], disable_tqdm: bool = False) -> list[str]:
        """Greedy text after each context, cut before the first of its `until` strings and before any end token.

        Raises RecipeError for a request to sample: scores are greedy here.
        """
        ready = InferenceModel(self.model)
        return [self._write(ready, *request.args[:2]) for request in requests]

    def apply_chat_template(self, chat_history: Sequence[Mapping[str, str]], add_generation_prompt: bool = True) -> str:
        """The rendered prompt; its ids are kept, because a string cannot tell a typed marker from a real one."""
        ids, _ = encode_chat(self.tokenizer, chat_history, add_generation_prompt=add_generation_prompt)
        text = self.tokenizer.decode(ids)
        self._chat_ids[text] = ids
        return text

    def chat_template(self, chat_template: bool | str = False) -> str:
        """Part of the interface: the name under which requests with the template are logged."""
        return "chatml"

    def _write(self, ready: InferenceModel, context: str, settings: Mapping[str, Any]) -> str:
        if settings.get("do_sample") or settings.get("temperature"):
            raise RecipeError(
                f"generation settings {dict(settings)!r} ask for sampling; evaluation is greedy. Remove them."
            )
        max_new_tokens = int(settings.get("max_gen_toks", self.max_new_tokens))
        until = settings.get("until") or []
        until = [until] if isinstance(until, str) else list(until)
        room = self.model.config.max_position_embeddings - max_new_tokens
        ids = self._chat_ids.get(context) or self.tokenizer.encode(context) or [self.tokenizer.eos_id]
        if room < 1:
            raise RecipeError(
                f"{max_new_tokens} new tokens do not fit the model's context of {room + max_new_tokens}; ask for fewer."
            )
        ends = {self.tokenizer.eos_id, self.tokenizer.im_end_id}
        stop_ids = ends.union(*(self._tokens_holding(text) for text in until))
        (new,) = generate(ready, [ids[-room:]], max_new_tokens=max_new_tokens, stop_ids=stop_ids)
        if new and new[-1] in ends:
            new = new[:-1]
        text = self.tokenizer.decode(new)
        return text[: min((at for stop in until if (at := text.find(stop)) >= 0), default=len(text))]

    def _tokens_holding(self, text: str) -> frozenset[int]:
        """Ids whose own text contains `text`: once one is written, nothing after it can count."""
        if text not in self._ids_holding:
            vocabulary = range(self.tokenizer.vocab_size)
            self._ids_holding[text] = frozenset(id for id in vocabulary if text in self.tokenizer.decode([id]))
        return self._ids_holding[text]
