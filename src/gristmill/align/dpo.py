"""STEP dpo: direct preference optimisation on the pairs. The reference is the SFT model, asked once before training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch

from gristmill.align.epochs import train_epochs
from gristmill.align.losses import PairBatch, PreferencePair, pair_logps, preference_loss
from gristmill.errors import DataError
from gristmill.graph.step import StepContext
from gristmill.model.transformer import Llama
from gristmill.model.weights import load_model
from gristmill.recipe.schema.post_training import Dpo
from gristmill.store.jsonl import read_jsonl
from gristmill.tokens.chat import EncodedChat, encode_conversation
from gristmill.tokens.tokenizer import Tokenizer
from gristmill.train.loss import device_arithmetic
from gristmill.train.session import choose_device, open_session, optimizer_options

VERSION = 1

ChatPair = tuple[str, EncodedChat, EncodedChat]


def run(ctx: StepContext) -> dict[str, Any]:
    """Trains the SFT model to prefer the chosen answers."""
    section: Dpo = ctx.config["dpo"]
    device = choose_device(ctx.machine.device)
    tokenizer_dir = ctx.inputs["tokenizer"].files
    tokenizer = Tokenizer.load(tokenizer_dir)
    sft_model = ctx.inputs["policy"].model
    rows = read_jsonl(ctx.inputs["pairs"].pairs)
    encoded = [encode_pair_row(tokenizer, row) for row in rows]
    fitting = [pair for pair in encoded if max(pair[1].num_tokens, pair[2].num_tokens) <= section.seq_len]
    if not fitting:
        raise DataError(f"none of {len(rows)} pairs fits dpo.seq_len {section.seq_len}. Raise it.")
    if len(fitting) < len(encoded):
        ctx.say(f"{len(encoded) - len(fitting)} pairs are longer than dpo.seq_len {section.seq_len} and are left out")
    session = open_session(
        ctx.out,
        fresh_model=lambda: load_model(sft_model),
        optimizer_options=optimizer_options(section.optimizer),
        tokenizer_dir=tokenizer_dir,
        fingerprint=ctx.identity,
        micro_batch_tokens=ctx.machine.micro_batch_tokens,
        threads=ctx.machine.threads,
        device=device,
        say=ctx.say,
    )
    pairs = with_reference(load_model(sft_model, device=device), fitting)
    train_epochs(
        session,
        stage="dpo",
        num_items=len(pairs),
        batch_size=section.batch_pairs,
        epochs=section.epochs,
        seed=ctx.seed,
        make_batch=lambda numbers: PairBatch(pairs=[pairs[number] for number in numbers]),
        loss_fn=partial(preference_loss, beta=section.beta),
        peak_lr=section.optimizer.peak_lr,
        warmup_frac=section.warmup_frac,
        max_grad_norm=section.optimizer.max_grad_norm,
        micro_batch_tokens=ctx.machine.micro_batch_tokens,
        should_stop=ctx.should_stop,
    )
    return {
        **session.finish(),
        "pairs": len(pairs),
        "too_long": len(encoded) - len(fitting),
        "epochs": section.epochs,
        "beta": section.beta,
    }


def encode_pair_row(tokenizer: Tokenizer, row: Mapping[str, Any]) -> ChatPair:
    """Both conversations of a line of pairs.jsonl; only the answers count, not earlier assistant turns of the prompt."""
    chosen, rejected = (
        _answer_alone(tokenizer, row["prompt"], row[side], f"{row['id']}/{side}") for side in ("chosen", "rejected")
    )
    return row["id"], chosen, rejected


def _answer_alone(
    tokenizer: Tokenizer, prompt: Sequence[Mapping[str, Any]], answer: Sequence[Mapping[str, Any]], name: str
) -> EncodedChat:
    whole = encode_conversation(tokenizer, [*prompt, *answer], conversation_id=name)
    mask = whole.mask.copy()
    if any(message["role"] == "assistant" for message in prompt):
        num_prompt = len(encode_conversation(tokenizer, prompt, conversation_id=name).ids)
        mask[:num_prompt] = 0
    return EncodedChat(id=whole.id, ids=whole.ids, mask=mask)


@torch.no_grad()
def with_reference(reference: Llama, pairs: Sequence[ChatPair]) -> list[PreferencePair]:
    """The pairs with the reference model's log-probabilities, each pair on its own so that no neighbour changes a bit.

    Asked in the arithmetic of training: a float32 reference of a bfloat16 policy would be a margin before the first step.
    """
    found: list[PreferencePair] = []
    for name, chosen, rejected in pairs:
        with device_arithmetic(reference.device):
            chosen_logp, rejected_logp = pair_logps(reference, [(chosen, rejected)])
        found.append(
            PreferencePair(
                id=name,
                chosen=chosen,
                rejected=rejected,
                reference_chosen_logp=float(chosen_logp[0]),
                reference_rejected_logp=float(rejected_logp[0]),
            )
        )
    return found
