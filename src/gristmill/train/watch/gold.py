"""Bits per byte of right answers: what a pack whose answers are written, not chosen, says of a model that cannot write them yet.

It falls long before the first answer is right, and its noise is far smaller than that of an accuracy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from gristmill.data.packs import Item, Pack
from gristmill.errors import DataError
from gristmill.model.transformer import Llama
from gristmill.tokens.tokenizer import Tokenizer
from gristmill.train.scorer import BitsPerByte, bits_of, encode_pair, loglikelihoods, part_of


def gold_bits_per_byte(
    model: Llama, tokenizer: Tokenizer, pack: Pack, *, max_items: int | None = None
) -> BitsPerByte | None:
    """Bits that the model needs for the right answer of each item after its prompt, by bytes of the answer; over the pack's items, or over
    `max_items` of them, as `part_of` takes them. Items without an answer, and answers longer than the model's context, are left out; None where
    nothing is left. The error takes items as drawn at random.
    """
    room = model.config.max_position_embeddings
    asked = [continuation_of(item) for item in part_of(with_gold(pack), max_items)]
    pairs = [(encode_pair(tokenizer, prompt, answer), answer) for prompt, answer in asked]
    fitting = [(pair, len(answer.encode())) for pair, answer in pairs if len(pair[1]) <= room]
    if not fitting:
        return None
    found = loglikelihoods(model, [pair for pair, _ in fitting])
    return bits_of(
        [-one.logp for one in found],
        [size for _, size in fitting],
        num_tokens=sum(len(continuation) for (_, continuation), _ in fitting),
    )


def with_gold(pack: Pack) -> list[Item]:
    """The items that have a right answer."""
    return [item for item in pack.items if item.gold]


def check_gold(pack: Pack, name: str) -> None:
    """Raises DataError for a pack of which no item has a right answer."""
    if not with_gold(pack):
        raise DataError(f"the pack {name!r} has no answers, so nothing of it can be measured while a model trains")


def continuation_of(item: Item) -> tuple[str, str]:
    """Prompt and right answer, with the space between them, a blank if there is none, as part of the answer: a token begins with it."""
    prompt = item.prompt.rstrip()
    between = item.prompt[len(prompt) :]
    if not between and not item.gold[0].isspace():
        between = " "
    return prompt, between + item.gold


def guessing_level(items: Sequence[Item], chance: float) -> float:
    """The score of who guesses, or always names the place that is right most often: above it an answer has to do with the question."""
    places = Counter(item.answer for item in items)
    return max(chance, max(places.values(), default=0) / max(1, len(items)))
