"""A model ready for generation: weights laid out for inference, its tokenizer, and its end tokens.

A chat model gets a conversation through the chat template. A base model was not trained to answer: it continues a text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gristmill.model.inference import InferenceModel
from gristmill.model.weights import load_model
from gristmill.tokens.chat import encode_chat
from gristmill.tokens.tokenizer import Tokenizer

MAX_NEW_TOKENS = 128  # the default, or half of the context if that is less
INCOMPLETE = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True, kw_only=True)
class Speaker:
    """One loaded model under the name that requests use."""

    name: str
    model: InferenceModel
    tokenizer: Tokenizer
    num_parameters: int

    @classmethod
    def load(cls, folder: Path, name: str) -> Speaker:
        """Raises ArtifactError if the folder is not a Llama in safetensors with a tokenizer that has our special tokens."""
        model = load_model(folder)
        return cls(
            name=name,
            model=InferenceModel(model),
            tokenizer=Tokenizer.load(folder),
            num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        )

    @property
    def context(self) -> int:
        return self.model.config.max_position_embeddings

    @property
    def ends(self) -> frozenset[int]:
        """The tokens that end an answer; they are not part of its text."""
        return frozenset({self.tokenizer.eos_id, self.tokenizer.im_end_id})

    @property
    def is_chat(self) -> bool:
        """Fine-tuning makes the end of a turn the model's end token; a base model has the end of the text."""
        return self.model.config.ends_at(self.tokenizer.im_end_id)

    @property
    def usual_new_tokens(self) -> int:
        return min(MAX_NEW_TOKENS, self.context // 2)

    def chat_prompt(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """The ids of a conversation, up to the start of the assistant's turn. Raises DataError as `encode_chat` does."""
        return encode_chat(self.tokenizer, messages, add_generation_prompt=True)[0]

    def text_prompt(self, text: str) -> list[int]:
        return [self.tokenizer.eos_id, *self.tokenizer.encode(text)]


class TextOfTokens:
    """Turns tokens into text as soon as it is final: whole characters, and nothing that may be the beginning of a stop string."""

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str] = ()) -> None:
        self._tokenizer, self._stops = tokenizer, [stop for stop in stops if stop]
        self._tokens: list[int] = []  # whose bytes do not end with a complete character yet
        self._held = ""  # decoded, but possibly the beginning of a stop string
        self.is_stopped = False

    def add(self, token: int) -> str:
        """The text that becomes final with this token; none after a stop string."""
        self._tokens.append(token)
        text = self._tokenizer.decode(self._tokens)
        if text.endswith(INCOMPLETE):  # a character may come in several tokens
            return ""
        self._tokens.clear()
        return self._release(text)

    def end(self) -> str:
        """The text that was still held back, after the last token."""
        rest = self._release(self._tokenizer.decode(self._tokens)) if self._tokens else ""
        rest, self._held, self._tokens = rest + self._held, "", []
        return rest

    def _release(self, text: str) -> str:
        if self.is_stopped:
            return ""
        self._held += text
        found = [(at + len(stop), at) for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:  # the first that is complete, however the text is split into tokens; of several, the longest
            text, self._held, self.is_stopped = self._held[: min(found)[1]], "", True
            return text
        kept = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        cut = len(self._held) - kept
        text, self._held = self._held[:cut], self._held[cut:]
        return text


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` begin `stop`."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:size])), 0)
