"""Inputs for comparing an exported model with the trained one: prompts, our own greedy answers, texts to split."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gristmill.model.generate import generate
from gristmill.model.transformer import Llama
from gristmill.tokens.chat import encode_chat
from gristmill.tokens.tokenizer import Tokenizer

GREEDY_TOKENS = 64
PROMPTS = (
    "",
    "The meaning of the word is",
    "def add(a, b):\n    return",
    "2 + 2 = 4, 3 + 5 =",
    "Zoë said: “naïve — 数学 ≠ 🙂”",
)
QUESTION = "What is 2 + 3?"
TOKENS_PER_TEXT = 24


def prompts_of(tokenizer: Tokenizer, context: int, *, is_chat: bool) -> list[list[int]]:
    """The fixed prompts as ids, each cut to half the context so that there is room to write on."""
    found = [[tokenizer.eos_id, *tokenizer.encode(text)] for text in PROMPTS]
    if is_chat:
        found.append(encode_chat(tokenizer, [{"role": "user", "content": QUESTION}], add_generation_prompt=True)[0])
    return [ids[: max(1, context // 2)] for ids in found]


def greedy_text(model: Llama, prompt: Sequence[int]) -> list[int]:
    """Up to 64 tokens, as many as the context has room for; it does not stop at an end token."""
    room = min(GREEDY_TOKENS, model.config.max_position_embeddings - len(prompt))
    return generate(model, [prompt], max_new_tokens=room, stop_ids=())[0]


@torch.inference_mode()
def logits_of(model: Llama, prompts: Sequence[Sequence[int]]) -> list[Tensor]:
    """Per prompt, the logits after each of its tokens, (L, V)."""
    return [model.logits(model.hidden(torch.tensor(list(ids)), torch.arange(len(ids)), [len(ids)])) for ids in prompts]


def texts_to_split(tokenizer: Tokenizer, count: int) -> list[str]:
    """The same `count` texts for the same tokenizer: the prompts, names of special tokens, and random rows of its vocabulary."""
    ids = np.arange(tokenizer.vocab_size)
    plain = ids[~np.isin(ids, list(tokenizer.special_ids))]
    rows = np.random.default_rng(0).choice(plain, (count, TOKENS_PER_TEXT))
    names = [f"a {tokenizer.decode([number])} b" for number in sorted(tokenizer.special_ids)]
    return [*PROMPTS, *names, *map(tokenizer.decode, rows)][:count]
