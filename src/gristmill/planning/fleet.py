"""Training on devices that are not here: what one device holds, how the batch is cut, how long it takes, what that costs.

    batch ─→ sequences per device ─→ micro-batch × accumulation ─→ memory of one device, in four layouts ─→ the first that fits
    operations / (devices × peak × share of it) ─→ seconds ─→ device-hours ─→ money

The layouts, in the order of their speed: every device holds all states (replicas) or a part of them (full shard: weights, gradients
and moments are cut over all devices, and a layer is gathered when it is computed); activations are kept, or recomputed in the
backward pass from the inputs of the layers (activation checkpointing).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from gristmill.planning.cost import (
    FP32_BYTES,
    count_parameters,
    flops_per_token,
    kept_bytes_in_bfloat16,
    loss_chunk_tokens,
    matrices_of_a_layer,
)
from gristmill.planning.devices import DEVICES, Fleet, mfu_in_words
from gristmill.planning.steps import CHAT_TOKENS, Work
from gristmill.recipe.schema.recipe import Recipe
from gristmill.recipe.schema.training import ModelSection
from gristmill.units import counted, in_units

BF16_BYTES = 2
USABLE = (
    0.9  # of a device's memory; the rest is context, communication and what the allocator cannot use: an assumption
)
RECOMPUTED = 4 / 3  # operations of a step that makes its activations twice, over one that keeps them
TRAINING = ("pretrain", "sft", "pairs", "dpo")  # steps that run on the devices


@dataclass(frozen=True, kw_only=True)
class DeviceMemory:
    """Bytes of one device at the peak of a training step: float32 weights, gradients and AdamW moments; bfloat16 copies of the
    matrices, and of sharded ones the layers that are gathered; activations and logits of one micro-batch."""

    weights: int
    gradients: int
    moments: int
    copies: int
    activations: int
    logits: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(asdict(self).values())


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One way to place a training on the devices. num_shards: devices that share one copy of the states; 1 for replicas.

    accumulation: micro-batches of one step on a device.
    """

    num_shards: int
    recomputes: bool
    micro_batch_tokens: int
    accumulation: int
    memory: DeviceMemory
    fits: bool


@dataclass(frozen=True, kw_only=True)
class FleetPlan:
    """What training takes on a fleet. layouts: the fastest first. uneven: stages whose batch does not divide over the devices, in
    words. advice: what would fit, where nothing does. seconds: by step."""

    fleet: Fleet
    mfu: float
    mfu_words: str
    layouts: tuple[Layout, ...]
    uneven: tuple[str, ...]
    advice: str
    seconds: Mapping[str, float]

    @property
    def chosen(self) -> Layout | None:
        """The fastest layout that fits."""
        return next((layout for layout in self.layouts if layout.fits), None)

    def device_hours(self, seconds: float) -> float:
        """Of all devices together, in so many seconds."""
        return seconds / 3600 * self.fleet.count

    def price(self, seconds: float) -> float | None:
        """Of the device-hours, at the price that was given."""
        return None if self.fleet.price is None else self.device_hours(seconds) * self.fleet.price

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        total = sum(self.seconds.values())
        chosen = self.chosen
        return {
            "count": self.fleet.count,
            "device": asdict(self.fleet.device),
            "mfu": self.mfu,
            "mfu_source": self.mfu_words,
            "layouts": [{**asdict(layout), "total_bytes": layout.memory.total} for layout in self.layouts],
            "chosen": None if chosen is None else self.layouts.index(chosen),
            "uneven": list(self.uneven),
            "advice": self.advice,
            "steps_seconds": dict(self.seconds),
            "device_hours": self.device_hours(total),
            "price": self.price(total),
        }


def plan_fleet(recipe: Recipe, works: Mapping[str, Work], fleet: Fleet) -> FleetPlan:
    """The plan of a recipe's training on a fleet. works: of its steps, by name."""
    mfu, words = mfu_in_words(fleet, count_parameters(recipe.model, recipe.tokenizer.vocab_size))
    layouts = tuple(_layouts(recipe, fleet))
    chosen = next((layout for layout in layouts if layout.fits), layouts[-1])
    rate = fleet.count * fleet.device.peak_flops * mfu / (RECOMPUTED if chosen.recomputes else 1.0)
    seconds = {name: work.flops / rate for name, work in works.items() if name in TRAINING}
    seconds["pretrain"] = pretraining_seconds(recipe, fleet, rate)
    if recipe.pairs is not None:
        seconds["pairs"] = _sampling_seconds(recipe, fleet)
    return FleetPlan(
        fleet=fleet,
        mfu=mfu,
        mfu_words=words,
        layouts=layouts,
        uneven=tuple(_uneven(recipe, fleet.count)),
        advice="" if any(layout.fits for layout in layouts) else _advice(recipe, fleet),
        seconds=seconds,
    )


def pretraining_seconds(recipe: Recipe, fleet: Fleet, rate: float) -> float:
    """All stages at `rate` operations per second; where a batch does not divide over the devices, some wait for the others."""
    pretrain = recipe.pretrain
    total = 0.0
    for stage in pretrain.stages:
        sequences = pretrain.global_batch_tokens // stage.seq_len
        waiting = math.ceil(sequences / fleet.count) * fleet.count / sequences
        flops = stage.tokens * flops_per_token(recipe.model, recipe.tokenizer.vocab_size, stage.seq_len)
        total += flops * waiting / rate
    return total


def device_memory(
    model: ModelSection, vocab_size: int, *, tokens: int, num_shards: int, recomputes: bool
) -> DeviceMemory:
    """The peak of a step with micro-batches of `tokens` on one of `num_shards` devices that share one copy of the states.

    All parts are counted as if their peaks fell together, so it is an upper bound: gradients are there while activations are.
    Rounding each matrix for its product (torch's autocast) keeps a bfloat16 copy of all matrices until the step ends, sharded or not.
    """
    parameters, layer = count_parameters(model, vocab_size), matrices_of_a_layer(model)
    head, layers, hidden = vocab_size * model.hidden_size, model.num_hidden_layers, model.hidden_size
    own = math.ceil(parameters / num_shards)
    gathered = 0 if num_shards == 1 else 3 * layer + head  # this layer, the next, the gradient of one; the head
    kept = kept_bytes_in_bfloat16(model)
    if recomputes:
        kept = layers * hidden * FP32_BYTES + math.ceil(kept / layers)
    states = 2 * hidden * FP32_BYTES  # the last hidden state and its gradient
    under_way = 2 * (hidden * FP32_BYTES + model.intermediate_size * BF16_BYTES)
    rows = min(2 * loss_chunk_tokens(vocab_size), tokens)
    return DeviceMemory(
        weights=own * FP32_BYTES,
        gradients=(own + head) * FP32_BYTES,  # the loss makes that of the head apart, then it is added
        moments=2 * own * FP32_BYTES,
        copies=(layers * layer + head) * BF16_BYTES + gathered * FP32_BYTES,
        activations=tokens * (kept + states + under_way),
        logits=rows * vocab_size * (FP32_BYTES + 2 * BF16_BYTES),
    )


def _layouts(recipe: Recipe, fleet: Fleet) -> Iterator[Layout]:
    """Replicas and full shard, activations kept and recomputed, each with the largest micro-batch that fits or the one asked for."""
    longest = max(stage.seq_len for stage in recipe.pretrain.stages)
    sequences = max(1, math.ceil(recipe.pretrain.global_batch_tokens // longest / fleet.count))
    sizes = [number for number in range(sequences, 0, -1) if sequences % number == 0]
    if fleet.micro_batch_tokens is not None:
        sizes = [min(sequences, max(1, fleet.micro_batch_tokens // longest))]
    for recomputes in (False, True):
        for num_shards in dict.fromkeys((1, fleet.count)):
            for number in sizes:
                memory = device_memory(
                    recipe.model,
                    recipe.tokenizer.vocab_size,
                    tokens=number * longest,
                    num_shards=num_shards,
                    recomputes=recomputes,
                )
                if fits := memory.total <= USABLE * fleet.device.memory_bytes:
                    break
            yield Layout(
                num_shards=num_shards,
                recomputes=recomputes,
                micro_batch_tokens=number * longest,
                accumulation=math.ceil(sequences / number),
                memory=memory,
                fits=fits,
            )


def _uneven(recipe: Recipe, count: int) -> Iterator[str]:
    """Stages whose batch is no multiple of the devices in whole sequences, with what would be."""
    batch = recipe.pretrain.global_batch_tokens
    whole = {stage.seq_len: batch // stage.seq_len for stage in recipe.pretrain.stages}
    common = math.gcd(*whole.values())
    for seq_len, sequences in whole.items():
        if sequences % count:
            stages = ", ".join(stage.name for stage in recipe.pretrain.stages if stage.seq_len == seq_len)
            waste = 1 - sequences / (math.ceil(sequences / count) * count)
            yield (
                f"{stages}: a batch is {counted(sequences, 'sequence')} of {seq_len:,} tokens, which do not divide over {count:,} "
                f"devices: {waste:.0%} of their time is waiting"
            )
    if any(sequences % count for sequences in whole.values()):
        fewer = max(number for number in range(1, min(count, common) + 1) if common % number == 0)
        more = next((number for number in range(count + 1, common + 1) if common % number == 0), None)
        step = count * max(whole)
        better = math.ceil(batch / step) * step
        yield (
            f"{fewer:,}{'' if more is None else f' or {more:,}'} devices divide the batches of all stages; "
            f"so does global_batch_tokens {better:,} over {count:,}"
        )


def _advice(recipe: Recipe, fleet: Fleet) -> str:
    """What would hold the training: more devices of the kind, or another kind."""
    least = min(layout.memory.total for layout in _layouts(recipe, fleet))
    counts = [fleet.count * 2**power for power in range(1, 11)]
    more = next((count for count in counts if _fits(recipe, Fleet(count=count, device=fleet.device))), None)
    smallest = sorted(DEVICES, key=lambda device: device.memory_bytes)
    kinds = [device.name for device in smallest if _fits(recipe, Fleet(count=fleet.count, device=device))][:3]
    ways = [] if more is None else [f"{more:,} × {fleet.device.name}, sharded"]
    ways += [f"{fleet.count:,} × {' or '.join(kinds)}"] if kinds else []
    return (
        f"nothing fits: one sequence takes at least {in_units(least, 'B')} of a device's {in_units(fleet.device.memory_bytes, 'B')}, "
        f"of which {USABLE:.0%} are usable; "
        + ("it would fit on " + ", or on ".join(ways) if ways else "a smaller model or shorter sequences would fit")
    )


def _fits(recipe: Recipe, fleet: Fleet) -> bool:
    return any(layout.fits for layout in _layouts(recipe, fleet))


def _sampling_seconds(recipe: Recipe, fleet: Fleet) -> float:
    """Of the answers of `pairs`: for each token of a prompt's answers, one device reads all weights."""
    assert recipe.pairs is not None
    steps = recipe.pairs.num_prompts * min(recipe.pairs.max_new_tokens, CHAT_TOKENS)
    read = count_parameters(recipe.model, recipe.tokenizer.vocab_size) * FP32_BYTES
    return steps * read / fleet.device.bandwidth
