"""STEP pairs: preference pairs from the SFT model's own answers to prompts that a rule can judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import zip_longest
from pathlib import Path
from typing import Any

from gristmill.align.pairs import Outcome, Pair, Prompt, Sample, count, draw_answers, match_pairs, require_pairs
from gristmill.data.packs import held_out_ids, packs_of
from gristmill.errors import DataError, Interrupted
from gristmill.graph.progress import Position
from gristmill.graph.step import StepContext
from gristmill.model.weights import load_model
from gristmill.recipe.schema.post_training import Pairs as PairsSection
from gristmill.store.durable import write_json
from gristmill.store.fingerprint import derive_seed
from gristmill.store.jsonl import append_jsonl, read_jsonl, read_sound, write_jsonl
from gristmill.synthesize.templates import is_held_out_sum
from gristmill.tokens.tokenizer import Tokenizer
from gristmill.train.runtime import ThreadsByLoad, choose_device
from gristmill.units import counted

VERSION = 1
SAMPLES = "samples.jsonl"


def run(ctx: StepContext) -> dict[str, Any]:
    """Samples, judges, matches; writes pairs.jsonl, samples.jsonl and report.json."""
    section: PairsSection = ctx.config["pairs"]
    threads = ThreadsByLoad(ctx.machine)
    tokenizer = Tokenizer.load(ctx.inputs["tokenizer"].files)
    model = load_model(ctx.inputs["policy"].model, device=choose_device(ctx.machine.device)).eval()
    prompts = choose_prompts(ctx, section.kinds, section.num_prompts)
    outcomes: list[Outcome] = []
    pairs = 0
    answered = answered_before(ctx.out / SAMPLES, section.samples_per_prompt)
    for number, prompt in enumerate(prompts, start=1):
        drawn = answered.get(prompt.id)
        if drawn is None:
            if ctx.should_stop():
                raise Interrupted(
                    f"stopped after {number - 1} of {len(prompts)} prompts; the same command resumes there"
                )
            threads.next_piece()
            drawn = draw_answers(
                model,
                tokenizer,
                prompt,
                seed=ctx.seed,
                num_samples=section.samples_per_prompt,
                temperature=section.temperature,
                max_new_tokens=section.max_new_tokens,
            )
            append_jsonl(ctx.out / SAMPLES, [asdict(sample) for sample in drawn])
        outcomes.append((drawn, match_pairs(prompt, drawn, max_pairs=section.max_pairs_per_prompt)))
        pairs += len(outcomes[-1][1])
        figures = (counted(pairs, "pair"),)
        ctx.progress(Position(done=number, total=len(prompts), unit="prompt", figures=figures))
    counts = count(outcomes)
    ctx.say(f"{counts.words}; answers: {counts.answers}")
    write_json(ctx.out / "report.json", counts.to_json())
    require_pairs(counts)
    write_jsonl(ctx.out / "pairs.jsonl", (pair_row(pair) for _, found in outcomes for pair in found))
    return counts.to_json()


def answered_before(path: Path, num_samples: int) -> dict[str, list[Sample]]:
    """The answers that an earlier, killed attempt left whole, by prompt; anything after them is cut off the file."""
    rows = read_sound(path)
    del rows[len(rows) // num_samples * num_samples :]
    write_jsonl(path, rows)
    answered: dict[str, list[Sample]] = {}
    for sample in (Sample(**row) for row in rows):
        answered.setdefault(sample.prompt_id, []).append(sample)
    return answered


def choose_prompts(ctx: StepContext, kinds: Sequence[str], number: int) -> list[Prompt]:
    """`number` of synthesize's prompts, from its groups in turn, in a keyed order within each.

    Prompts that are always right or always wrong give no pair; taking from all groups makes sure that some are in between.
    Held-out sums are left out here too, whatever the file says.
    """
    path: Path = ctx.inputs["prompts"].prompts
    held_out = held_out_ids(packs_of(ctx.files))
    groups: dict[str, list[Prompt]] = {}
    for row in read_jsonl(path):
        if row["kind"] in kinds and not is_held_out_sum(row["a"], row["b"], held_out):
            groups.setdefault(row["group"], []).append(prompt_of(row))
    if not groups:
        raise DataError(
            f"{path} has no prompt of the kinds {kinds}; ask for sums in chat.sums_up_to or chat.two_digit_sums."
        )
    ordered = [
        sorted(group, key=lambda prompt: derive_seed(ctx.seed, "prompt", prompt.id)) for group in groups.values()
    ]
    in_turn = [prompt for row in zip_longest(*ordered) for prompt in row if prompt is not None]
    if len(in_turn) < number:
        ctx.say(f"pairs.num_prompts is {number}, there are {len(in_turn)}; all of them are used")
    return in_turn[:number]


def prompt_of(row: Mapping[str, Any]) -> Prompt:
    """A line of prompts.jsonl."""
    return Prompt(id=row["id"], kind=row["kind"], messages=tuple(row["messages"]), a=row["a"], b=row["b"])


def pair_row(pair: Pair) -> dict[str, Any]:
    """A line of pairs.jsonl, in the form that preference trainers read."""
    return {
        "id": pair.id,
        "prompt": list(pair.prompt.messages),
        "chosen": [{"role": "assistant", "content": pair.chosen.text}],
        "rejected": [{"role": "assistant", "content": pair.rejected.text}],
        "kind": pair.prompt.kind,
        "chosen_tokens": pair.chosen.num_tokens,
        "rejected_tokens": pair.rejected.num_tokens,
    }
