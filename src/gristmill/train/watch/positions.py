"""How well a model uses a long context: its loss by position on long documents, and needles that it finds again. Asked where a stage
of pretraining extends the context: before that stage and after it.

    positions    held-out documents longer than the old context, each read from its beginning; nats and tokens between fixed edges
    needles      "The number of the red box is 7." somewhere in held-out text, asked for at its end; the likeliest of the ten digits is the
                 answer, and each digit is right once in a cell, so that who always says the same is right once in ten: chance

Edges are a quarter and a half of the old context, and from there on each twice the one before up to the new one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from gristmill.model.transformer import Llama
from gristmill.store.fingerprint import derive_seed
from gristmill.tokens.shards import TokenShard
from gristmill.tokens.tokenizer import Tokenizer
from gristmill.train.scorer import token_logps
from gristmill.train.watch.long_context import DIGITS, Needles, ReadDocument

MOST_DOCUMENTS = 32  # of all sources together
DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
NEEDLE = " The number of the {colour} {thing} is {digit}."
COLOURS = ("red", "blue", "green", "white", "black")
THINGS = ("box", "door", "house", "book", "table", "card", "stone")


def edges_of(old: int, new: int) -> tuple[int, ...]:
    """Edges of the positions that are told apart: the old length is one of them."""
    edges = [0, *dict.fromkeys(part for part in (old // 4, old // 2, old) if part)]
    while edges[-1] < new:
        edges.append(min(2 * edges[-1], new))
    return tuple(edges)


def read_long(
    model: Llama, tokenizer: Tokenizer, shards: Mapping[str, TokenShard], *, old: int, new: int
) -> tuple[ReadDocument, ...]:
    """The loss by position on documents of more than `old` tokens, the first `new` tokens of each; from each source equally many, as far as
    there are."""
    edges = edges_of(old, new)
    found = []
    for source, tokens in _long_documents(shards, more_than=old):
        ids = [tokenizer.eos_id, *tokens[:new].tolist()]
        nats_T = -_logps(model, ids)
        parts = [nats_T[begin:end] for begin, end in pairwise(edges)]
        found.append(
            ReadDocument(
                source=source,
                nats=tuple(float(part.sum()) for part in parts),
                tokens=tuple(len(part) for part in parts),
            )
        )
    return tuple(found)


def find_needles(
    model: Llama, tokenizer: Tokenizer, shards: Mapping[str, TokenShard], *, old: int, new: int, seed: int
) -> tuple[Needles, ...]:
    """The map of needles at the old length and each twice the one before, up to the new one; none where a digit is no token of its own in
    a needle, or there is no text to hide them in."""
    digits = [tokenizer.encode(str(digit)) for digit in range(DIGITS)]
    texts = [tokens for _, tokens in _long_documents(shards, more_than=0)]
    if not all(_is_a_token_of_its_own(tokenizer, digit, ids) for digit, ids in enumerate(digits)) or not texts:
        return ()
    hay_T, answers_A = np.concatenate(texts), torch.tensor([ids[0] for ids in digits], device=model.device)
    found = []
    room = len(tokenizer.encode(NEEDLE.format(colour=COLOURS[0], thing=THINGS[0], digit=0)))
    for length in [edge for edge in edges_of(old, new) if edge >= max(old, 4 * room)]:
        for depth in DEPTHS:
            rng = np.random.default_rng(derive_seed(seed, "needles", length, round(depth * 100)))
            right = 0
            for digit in rng.permutation(DIGITS).tolist():
                ids = _hidden_needle(tokenizer, hay_T, rng, digit=digit, length=length, depth=depth)
                right += int(_last_logits(model, ids)[answers_A].argmax()) == digit
            found.append(Needles(length=length, depth=depth, right=right, asked=DIGITS))
    return tuple(found)


def _is_a_token_of_its_own(tokenizer: Tokenizer, digit: int, ids: Sequence[int]) -> bool:
    """Whether the digit, which is `ids` by itself, is the same token after the blank of a needle; to some tokenizers " 7" is another."""
    needle = tokenizer.encode(NEEDLE.format(colour=COLOURS[0], thing=THINGS[0], digit=digit))
    return len(ids) == 1 and ids[0] in needle


def _hidden_needle(
    tokenizer: Tokenizer,
    hay_T: NDArray[np.int64],
    rng: np.random.Generator,
    *,
    digit: int,
    length: int,
    depth: float,
) -> list[int]:
    """`length` tokens that end where the digit is asked for, whose sentence stands at that depth of the text before."""
    colour, thing = (str(rng.choice(words)) for words in (COLOURS, THINGS))
    needle = tokenizer.encode(NEEDLE.format(colour=colour, thing=thing, digit=digit))
    [asked] = tokenizer.encode(str(digit))
    question = needle[: len(needle) - needle[::-1].index(asked) - 1]
    room = max(0, length - 1 - len(needle) - len(question))
    begin = int(rng.integers(len(hay_T)))
    hay = np.resize(np.roll(hay_T, -begin), room).tolist()
    place = round(depth * room)
    return [tokenizer.eos_id, *hay[:place], *needle, *hay[place:], *question]


def _long_documents(shards: Mapping[str, TokenShard], *, more_than: int) -> list[tuple[str, NDArray[np.int64]]]:
    """Documents of more tokens than that, without their ends; sources by turns."""
    waiting = {
        source: iter(np.flatnonzero(shard.document_lengths() - 1 > more_than).tolist())
        for source, shard in shards.items()
        if shard.num_documents
    }
    found: list[tuple[str, NDArray[np.int64]]] = []
    while waiting and len(found) < MOST_DOCUMENTS:
        for source in [*waiting]:
            number = next(waiting[source], None)
            if number is None:
                del waiting[source]
            elif len(found) < MOST_DOCUMENTS:
                found.append((source, np.asarray(shards[source].document(number)[:-1], dtype=np.int64)))
    return found


def _logps(model: Llama, ids: Sequence[int]) -> NDArray[np.float64]:
    """The log-probability of each token but the first, after those before it."""
    with torch.no_grad():
        targets_T = torch.tensor(ids[1:], dtype=torch.int64, device=model.device)
        return token_logps(model, _hidden(model, ids[:-1]), targets_T)[0]


def _last_logits(model: Llama, ids: Sequence[int]) -> torch.Tensor:
    with torch.no_grad():
        return model.logits(_hidden(model, ids)[-1:])[0].float()


def _hidden(model: Llama, ids: Sequence[int]) -> torch.Tensor:
    tokens_T = torch.tensor(ids, dtype=torch.int64, device=model.device)
    return model.hidden(tokens_T, torch.arange(len(ids), device=model.device), [len(ids)])
