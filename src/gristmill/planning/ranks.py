"""Which numbers of ranks can train a recipe, as each takes as many sequences of a step as the others; and how much faster they are."""

from __future__ import annotations

import math

from gristmill.errors import RecipeError
from gristmill.graph.machine import Machine, usable_cpus
from gristmill.planning.speed import of_threads, trains_on_gpu
from gristmill.recipe.schema.training import Pretrain

TRAINED = ("pretrain", "sft", "dpo")  # steps that all ranks do together
# Of what so many processes would do if they exchanged nothing. On two idle cores two ranks of one thread took .95 times the steps of one
# process of two threads at 2,048 tokens a step, 1.15 times at 8,192, and that process 1.63 times those of one thread: .77 to .94
# (benchmarks/ranks.py; docs/log.md).
EFFICIENCY = 0.85


def speedup_of_ranks(machine: Machine) -> float:
    """How many times as fast its ranks train as the one process whose speed a plan knows: an estimate for idle cores, and for GPUs, whose
    exchange was not measured, what they reach at best."""
    if machine.ranks == 1 or trains_on_gpu(machine):
        return float(machine.ranks)
    threads = machine.threads_of_a_rank
    assert threads != "auto", "only one process follows the load"
    on_a_machine = machine.ranks if machine.place is None else machine.place.local_size
    working = min(on_a_machine, max(1.0, usable_cpus() / threads)) * machine.ranks / on_a_machine
    return max(1.0, EFFICIENCY * working * of_threads(1.0, threads) / of_threads(1.0, machine.most_threads))


def rank_note(machine: Machine) -> str:
    """What the hours and the memory of a plan for ranks rest on."""
    faster = speedup_of_ranks(machine)
    basis = (
        "at best, for what GPUs lose by their exchange was not measured"
        if trains_on_gpu(machine)
        else "an estimate by two ranks on two idle cores; beside other work ranks gain more"
    )
    return (
        f"hours of training are those of {machine.ranks} ranks, {faster:.2f} times as fast as one process ({basis}); memory is that of one "
        "process that trains by itself"
    )


def check_ranks(section: Pretrain, ranks: int) -> None:
    """Raises RecipeError, with the nearest numbers that are possible, for ranks that cannot share every stage's steps evenly."""
    counts = {stage.seq_len: section.global_batch_tokens // stage.seq_len for stage in section.stages}
    uneven = next((seq_len for seq_len, count in counts.items() if count % ranks), None)
    if uneven is None:
        return
    shared = math.gcd(*counts.values())
    possible = [number for number in range(1, shared + 1) if shared % number == 0]
    below, above = ([number for number in possible if (number > ranks) == is_above] for is_above in (False, True))
    raise RecipeError(
        f"--ranks is {ranks}, but a step has {counts[uneven]} sequences of {uneven} tokens, which so many ranks cannot share evenly.\n"
        f"  Use {' or '.join(map(str, (*below[-1:], *above[:1])))} ranks, or change pretrain.global_batch_tokens "
        f"({section.global_batch_tokens})."
    )
