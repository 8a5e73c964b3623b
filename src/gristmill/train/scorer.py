"""Scores a model from plain ids, inside the training loop and outside of it: likelihoods, task packs, bits per byte.

Conventions are those of lm-evaluation-harness's Hugging Face adapter, so that numbers agree item by item:
- context and continuation are encoded as one text and cut at the length of the encoded context (a trailing space of the
  context goes to the continuation); no begin token is added;
- an empty context becomes the end-of-text token;
- what does not fit into the model's context is cut off on the left;
- long documents are scored in windows that overlap only in context: every token is scored once.
Logits are float32, sums over tokens float64. Items run in a fixed order, packed into flat batches.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gristmill.data.packs import Item, Pack
from gristmill.errors import DataError
from gristmill.model.transformer import Llama
from gristmill.statistics import ratio_of_sums, wilson_interval
from gristmill.tokens.shards import TokenShard
from gristmill.tokens.tokenizer import Tokenizer

VERSION = 1  # of every step that uses it: rises when the meaning of what it computes changes

LOGIT_ROWS = 1024
CHOICE_METRICS = ("acc", "acc_norm", "acc_bytes")

Pair = tuple[Sequence[int], Sequence[int]]


class Likelihood(NamedTuple):
    """Log-probability of a continuation in nats, and whether greedy decoding would write exactly it."""

    logp: float
    is_greedy: bool


@dataclass(frozen=True, kw_only=True)
class Score:
    """A number with its error. `low` and `high` bound it with 95 % confidence; `chance` is the score of blind guessing."""

    value: float
    stderr: float
    low: float
    high: float
    num_items: int
    chance: float | None = None


@dataclass(frozen=True, kw_only=True)
class ItemScore:
    """One item: log-likelihood of each choice, and for each of CHOICE_METRICS whether the choice it picks is the right one."""

    id: str
    logps: tuple[float, ...]
    right: Mapping[str, bool]


@dataclass(frozen=True, kw_only=True)
class PackScore:
    """`accuracy` is acc of CHOICE_METRICS, `accuracy_per_byte` is acc_bytes."""

    pack: str
    accuracy: Score
    accuracy_per_byte: Score
    items: tuple[ItemScore, ...]


@dataclass(frozen=True, kw_only=True)
class BitsPerByte:
    """Bits per byte of held-out text with standard error and 95 % interval over documents, and the sums it comes from.

    `degrees` are those of the interval (statistics.Ratio). `document_bits` and `document_bytes` are those of each document,
    in order: what a paired comparison of two models takes.
    """

    value: float
    stderr: float
    low: float
    high: float
    degrees: float
    num_documents: int
    num_bytes: int
    num_tokens: int
    nats: float
    document_bits: tuple[float, ...]
    document_bytes: tuple[int, ...]


# ── log-likelihoods ──────────────────────────────────────────────────────────────────────────────────────────────────


def encode_pair(tokenizer: Tokenizer, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """Ids of context and continuation as lm-evaluation-harness cuts them. Raises DataError for an empty continuation."""
    if not continuation:
        raise DataError(f"the continuation of {context[-60:]!r} is empty; there is nothing to score")
    if context == "":
        return [tokenizer.eos_id], tokenizer.encode(continuation)
    stripped = context.rstrip()
    continuation = context[len(stripped) :] + continuation
    whole = tokenizer.encode(stripped + continuation)
    num_context = len(tokenizer.encode(stripped))
    return whole[:num_context], whole[num_context:]


def loglikelihoods(model: Llama, pairs: Sequence[Pair], *, max_tokens: int = 8192) -> list[Likelihood]:
    """The log-likelihood of each continuation after its context, in the order given.

    At most `max_tokens` tokens run at once (a longer pair runs by itself); the cut does not change the results beyond rounding.
    Raises DataError for an empty context or continuation, or a continuation longer than the model's context.
    """
    max_length = model.config.max_position_embeddings
    inputs = [_fit(pair, number, max_length) for number, pair in enumerate(pairs)]
    results: list[Likelihood] = []
    with torch.no_grad():
        for group in _grouped(inputs, max_tokens):
            results += _score_group(model, group)
    return results


def _fit(pair: Pair, number: int, max_length: int) -> tuple[list[int], int]:
    """Context and continuation as one list, cut on the left to `max_length` inputs; and the continuation's length."""
    context, continuation = pair
    if not context or not continuation:
        what = "context" if not context else "continuation"
        raise DataError(f"pair {number} has an empty {what}; an empty context must be given as the end-of-text id")
    if len(continuation) > max_length:
        raise DataError(
            f"the continuation of pair {number} has {len(continuation)} tokens, the model's context is {max_length}"
        )
    return [*context, *continuation][-(max_length + 1) :], len(continuation)


def _grouped(inputs: Sequence[tuple[list[int], int]], max_tokens: int) -> Iterator[list[tuple[list[int], int]]]:
    group: list[tuple[list[int], int]] = []
    num_tokens = 0
    for ids, num_scored in inputs:
        if group and num_tokens + len(ids) - 1 > max_tokens:
            yield group
            group, num_tokens = [], 0
        group.append((ids, num_scored))
        num_tokens += len(ids) - 1
    if group:
        yield group


def _score_group(model: Llama, group: Sequence[tuple[list[int], int]]) -> list[Likelihood]:
    """One flat forward pass; logits only where a continuation token is predicted."""
    lengths = [len(ids) - 1 for ids, _ in group]
    ends = np.cumsum(lengths)
    rows = np.concatenate([np.arange(end - num_scored, end) for end, (_, num_scored) in zip(ends, group)])
    targets = np.concatenate([ids[-num_scored:] for ids, num_scored in group])
    device = next(model.parameters()).device
    tokens_N = torch.tensor([token for ids, _ in group for token in ids[:-1]], dtype=torch.int64, device=device)
    positions_N = torch.cat([torch.arange(length, dtype=torch.int64, device=device) for length in lengths])
    x_ND = model.hidden(tokens_N, positions_N, lengths)
    logps, greedy = token_logps(model, x_ND[torch.from_numpy(rows).to(device)], torch.from_numpy(targets).to(device))
    results: list[Likelihood] = []
    start = 0
    for _, num_scored in group:
        part = slice(start, start + num_scored)
        results.append(Likelihood(float(logps[part].sum()), bool(greedy[part].all())))
        start += num_scored
    return results


def token_logps(model: Llama, x_MD: Tensor, targets_M: Tensor) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Log-probability of each target after the hidden state in its place, in nats, and whether it is the likeliest token."""
    logps: list[Tensor] = []
    greedy: list[Tensor] = []
    for x_CD, targets_C in zip(torch.split(x_MD, LOGIT_ROWS), torch.split(targets_M, LOGIT_ROWS)):
        logits_CV = model.logits(x_CD).float()
        chosen_C = logits_CV.gather(1, targets_C[:, None])[:, 0]
        top_C, likeliest_C = logits_CV.max(dim=1)
        total_C = logits_CV.sub_(top_C[:, None]).exp_().sum(1)
        logps.append((chosen_C - top_C).double() - total_C.double().log())
        greedy.append(likeliest_C == targets_C)
    return torch.cat(logps).cpu().numpy(), torch.cat(greedy).cpu().numpy()


# ── task packs ───────────────────────────────────────────────────────────────────────────────────────────────────────


def score_pack(model: Llama, tokenizer: Tokenizer, pack: Pack, *, max_items: int | None = None) -> PackScore:
    """Multiple choice by likelihood over the pack's items (or over `max_items` of them, always the same: see `part_of`).

    Raises DataError for a pack that is not multiple choice.
    """
    if pack.kind != "multiple_choice":
        raise DataError(f"pack {pack.name!r} has kind {pack.kind!r}; likelihood scoring needs multiple_choice")
    items = part_of(pack.items, max_items)
    pairs = [encode_pair(tokenizer, item.prompt, choice) for item in items for choice in item.choices]
    found = iter(loglikelihoods(model, pairs))
    scores = []
    for item in items:
        logps = tuple(next(found).logp for _ in item.choices)
        scores.append(ItemScore(id=item.id, logps=logps, right=judge_choices(item, logps)))
    return PackScore(
        pack=pack.name,
        accuracy=_accuracy([score.right["acc"] for score in scores], pack.chance),
        accuracy_per_byte=_accuracy([score.right["acc_bytes"] for score in scores], pack.chance),
        items=tuple(scores),
    )


def part_of(items: Sequence[Item], max_items: int | None) -> list[Item]:
    """`max_items` items, in order; all of them when there are fewer.

    They are those whose ids have the lowest hashes: the same in every run, whatever the order of the pack repeats, and a larger part
    holds every smaller one.
    """
    if max_items is None or len(items) <= max_items:
        return list(items)
    hashes = [hashlib.sha256(item.id.encode("utf-8", "surrogatepass")).digest() for item in items]
    return [items[place] for place in sorted(sorted(range(len(items)), key=hashes.__getitem__)[:max_items])]


def judge_choices(item: Item, logps: Sequence[float]) -> dict[str, bool]:
    """For each of CHOICE_METRICS, whether the right choice has the highest log-likelihood: of the whole choice, per character,
    per UTF-8 byte. Of equals, the first is picked. The only place where choices are judged.

    Names and rules are those of lm-evaluation-harness.
    """
    lengths = {
        "acc": [1 for _ in item.choices],
        "acc_norm": [len(choice) for choice in item.choices],
        "acc_bytes": [len(choice.encode()) for choice in item.choices],
    }
    logps_C = np.asarray(logps, dtype=np.float64)
    return {metric: int(np.argmax(logps_C / lengths[metric])) == item.answer for metric in CHOICE_METRICS}


def _accuracy(correct: Sequence[bool], chance: float | None) -> Score:
    n = len(correct)
    value = sum(correct) / n
    low, high = wilson_interval(sum(correct), n)
    stderr = math.sqrt(value * (1 - value) / (n - 1)) if n > 1 else math.nan
    return Score(value=value, stderr=stderr, low=low, high=high, num_items=n, chance=chance)


# ── bits per byte ────────────────────────────────────────────────────────────────────────────────────────────────────


def bits_per_byte(
    model: Llama,
    tokenizer: Tokenizer,
    shard: TokenShard,
    *,
    max_bytes: int | None = None,
    cuts_last: bool = False,
    window: int | None = None,
) -> BitsPerByte:
    """How many bits the model needs for a byte of the shard's documents: comparable between tokenizers.

    Documents from the front until `max_bytes` bytes of text are reached: whole ones, or with `cuts_last` the last one cut at the token that
    reaches them. Each document is scored by itself, begins after the end-of-text token, and is scored without the one that closes it. `window` (default: the model's context) is
    the longest input. The error treats documents as drawn at random and the value as a ratio of two sums. Where its interval would
    reach below 0, which no value can, the documents are too few or too unequal for one, and it is the whole line.
    """
    documents: list[list[int]] = []
    total = 0
    for number in range(shard.num_documents):
        if max_bytes is not None and total >= max_bytes:
            break
        tokens_T = shard.document(number)[:-1]
        if max_bytes is not None and cuts_last:
            ends_T = np.cumsum(tokenizer.token_bytes[tokens_T], dtype=np.int64)
            tokens_T = tokens_T[: int(np.searchsorted(ends_T, max_bytes - total)) + 1]
        if len(tokens_T):
            documents.append(tokens_T.tolist())
            total += tokenizer.num_bytes(tokens_T)
    if not total:
        raise DataError(f"the validation shard has no text to score ({shard.num_documents} documents)")
    return bits_of_documents(model, tokenizer, documents, window=window)


def bits_of_documents(
    model: Llama, tokenizer: Tokenizer, documents: Sequence[Sequence[int]], *, window: int | None = None
) -> BitsPerByte:
    """The same of documents given as ids, without end-of-text tokens, each with one token at least."""
    window = window or model.config.max_position_embeddings
    windows = [rolling_windows(tokens, tokenizer.eos_id, window) for tokens in documents]
    scored = iter(loglikelihoods(model, [pair for pairs in windows for pair in pairs]))
    nats = [-sum(next(scored).logp for _ in pairs) for pairs in windows]
    sizes = [tokenizer.num_bytes(tokens) for tokens in documents]
    return bits_of(nats, sizes, num_tokens=sum(map(len, documents)))


def bits_of(nats: Sequence[float], sizes: Sequence[int], *, num_tokens: int) -> BitsPerByte:
    """Bits per byte of texts by the nats that each takes and its bytes."""
    nats_N = np.asarray(nats)
    bits_N = nats_N / math.log(2)
    found = ratio_of_sums(bits_N, sizes)
    low, high = (found.low, found.high) if found.low > 0 else (-math.inf, math.inf)
    return BitsPerByte(
        value=found.value,
        stderr=found.stderr,
        low=low,
        high=high,
        degrees=found.degrees,
        num_documents=len(sizes),
        num_bytes=sum(sizes),
        num_tokens=num_tokens,
        nats=float(nats_N.sum()),
        document_bits=tuple(bits_N.tolist()),
        document_bytes=tuple(sizes),
    )


def rolling_windows(tokens: Sequence[int], prefix_id: int, window: int) -> list[tuple[list[int], list[int]]]:
    """(context, continuation) pairs that score each token once; the last window takes all the context that fits."""
    padded = [prefix_id, *tokens]
    pairs: list[tuple[list[int], list[int]]] = []
    for start in range(0, len(tokens), window):
        end = min(start + window, len(tokens))
        first = max(0, end - window)
        pairs.append((padded[first : start + 1], padded[start + 1 : end + 1]))
    return pairs
