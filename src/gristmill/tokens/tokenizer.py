"""The tokenizer: a byte-level BPE that loses nothing, and the wrapper through which everything else uses it.

Shape: every digit apart, then the GPT-2 pattern, no normalizer, no prefix space. Source: SmolLM2 (arXiv 2502.02737) section
4.1. Where we differ: all 256 byte symbols are in the vocabulary from the start (the released tokenizer drops rare Unicode
input), and padding has its own token, so that masking pads can never mask the end-of-text token.

The files it writes load in `transformers` (PreTrainedTokenizerFast, with the chat template) and hold nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers

from gristmill.errors import ArtifactError, DataError, RecipeError

VERSION = 1  # of every step that uses it: rises when the meaning of what it computes changes

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<repo_name>",
    "<reponame>",
    "<file_sep>",
    "<filename>",
    "<gh_stars>",
    "<issue_start>",
    "<issue_comment>",
    "<issue_closed>",
    "<jupyter_start>",
    "<jupyter_text>",
    "<jupyter_code>",
    "<jupyter_output>",
    "<jupyter_script>",
    "<empty_output>",
    "<|pad|>",
)
"""Ids 0 to 17, in this order: the 17 of SmolLM2, then our own padding token."""

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\\n' -}}"
    "{%- if message['role'] == 'assistant' -%}"
    "{%- generation -%}{{- message['content'] | trim + '<|im_end|>' -}}{%- endgeneration -%}"
    "{%- else -%}"
    "{{- message['content'] | trim + '<|im_end|>' -}}"
    "{%- endif -%}"
    "{{- '\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
"""ChatML as a jinja template, with generation markers; chat.py renders the same ids without jinja.

No default system message. Contents are trimmed: a content that began with a line break would otherwise fuse with the line
break of its header, and the prompt would no longer be a prefix of the conversation.
"""


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> tokenizers.Tokenizer:
    """A byte-level BPE with exactly `vocab_size` entries: 18 special tokens, 256 bytes, the rest merges.

    Deterministic: the same texts in any order give the same file. Merges seen only once are not made.
    Raises RecipeError when `vocab_size` is below 274 or the texts support fewer merges than it asks for.
    """
    smallest = len(SPECIAL_TOKENS) + 256
    if vocab_size < smallest:
        raise RecipeError(
            f"vocab_size is {vocab_size}, but {len(SPECIAL_TOKENS)} special tokens and 256 bytes need {smallest}. "
            f"Use {smallest} or more; 49152 is SmolLM2's."
        )
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    found = tokenizer.get_vocab_size()
    if found != vocab_size:
        raise RecipeError(
            f"vocab_size is {vocab_size}, but the sample of text supports only {found} entries "
            f"({found - smallest} merges of pieces seen at least twice). Use vocab_size {found} or less, "
            "or train on more text."
        )
    return tokenizer


class Tokenizer:
    """Text to ids and back. Plain text never yields a special id: "<|im_end|>" in a text is eight ordinary characters or so.

    Special tokens enter by id only (eos_id at document ends, the chat markers in chat.py).
    """

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        self._tokenizer = tokenizers.Tokenizer.from_str(tokenizer.to_str())
        # Not stored in tokenizer.json, so it must be set after every load.
        self._tokenizer.encode_special_tokens = True
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.vocab_size: int = self._tokenizer.get_vocab_size(with_added_tokens=True)
        self.eos_id = self._special_id("<|endoftext|>")
        self.im_start_id = self._special_id("<|im_start|>")
        self.im_end_id = self._special_id("<|im_end|>")
        self.special_ids = frozenset(self._tokenizer.get_added_tokens_decoder())
        self.pad_id = self._pad_id()
        self.token_bytes = _bytes_per_token(self._tokenizer, self.vocab_size, self.special_ids)

    @classmethod
    def load(cls, folder: str | Path) -> Tokenizer:
        """Reads `folder`/tokenizer.json. Raises ArtifactError when it is missing, unreadable or lacks our special tokens."""
        path = Path(folder) / "tokenizer.json"
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise ArtifactError(
                f"{path} does not exist. Run the tokenizer step, or name a folder that holds one."
            ) from error
        try:
            tokenizer = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # the library raises bare Exception for a file that it cannot read
            raise ArtifactError(
                f"{path} is not a tokenizer file: {error}. Make it again with the tokenizer step."
            ) from error
        return cls(tokenizer)

    def save(self, folder: str | Path) -> None:
        """Writes tokenizer.json, tokenizer_config.json and chat_template.jinja, as `transformers` reads them."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tokenizer.json").write_text(self._tokenizer.to_str(pretty=True) + "\n", encoding="utf-8")
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<|endoftext|>",
            "eos_token": "<|endoftext|>",
            "pad_token": self._tokenizer.id_to_token(self.pad_id),
            "add_prefix_space": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": 1_000_000_000,
        }
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")

    def to_json(self) -> str:
        """What tokenizer.json says."""
        return str(self._tokenizer.to_str())

    def encode(self, text: str) -> list[int]:
        """The ids of a plain text; no begin or end token is added. Raises DataError for a text that is not valid Unicode."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` for many texts, on the threads that RAYON_NUM_THREADS allows."""
        try:
            encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        except (UnicodeEncodeError, TypeError) as error:
            for number, text in enumerate(texts):
                _check_unicode(text, number)
            raise DataError(f"the tokenizer refused a batch of {len(texts)} texts: {error}") from error
        return [encoding.ids for encoding in encodings]

    def decode(self, ids: Sequence[int] | NDArray[np.integer]) -> str:
        """The text of the ids, special tokens included. Bytes that are no valid UTF-8 become U+FFFD."""
        return str(self._tokenizer.decode([int(i) for i in ids], skip_special_tokens=False))

    def num_bytes(self, ids: Sequence[int] | NDArray[np.integer]) -> int:
        """How many UTF-8 bytes of text the ids decode to; special tokens count as none."""
        return int(self.token_bytes[np.asarray(ids, dtype=np.int64)].sum(dtype=np.int64))

    def _pad_id(self) -> int:
        """Our own token; in a tokenizer made elsewhere that lacks it, the last special token that marks no text or turn."""
        found = self._tokenizer.token_to_id("<|pad|>")
        if found is not None:
            return int(found)
        return max(self.special_ids - {self.eos_id, self.im_start_id, self.im_end_id}, default=self.eos_id)

    def _special_id(self, token: str) -> int:
        found = self._tokenizer.token_to_id(token)
        if found is None:
            raise ArtifactError(
                f"the tokenizer has no token {token!r}; gristmill needs it. Train one with the tokenizer step."
            )
        return int(found)


def _bytes_per_token(
    tokenizer: tokenizers.Tokenizer, vocab_size: int, special_ids: frozenset[int]
) -> NDArray[np.int32]:
    """(vocab_size,) int32. In a byte-level vocabulary each character of an entry is one byte."""
    table = np.zeros(vocab_size, dtype=np.int32)
    for token, token_id in tokenizer.get_vocab(with_added_tokens=True).items():
        if token_id not in special_ids:
            table[token_id] = len(token)
    table.flags.writeable = False
    return table


def _check_unicode(text: object, number: int) -> None:
    if not isinstance(text, str):
        raise DataError(f"text {number} of the batch is {type(text).__name__}, expected str.")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"text {number} of the batch holds {text[error.start]!r} at character {error.start}, half of a surrogate pair: "
            "it is not valid Unicode. Remove it or replace it by U+FFFD."
        ) from error
