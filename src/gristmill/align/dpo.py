"""STEP dpo: direct preference optimisation on the pairs. The reference is the SFT model, asked once before training;
its answers are kept in reference.json, where every dpo of the store finds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from gristmill.align.epochs import Passes, train_epochs
from gristmill.align.losses import REPORTS, PairBatch, PreferencePair, preference_loss
from gristmill.align.outputs import PreferenceCounts
from gristmill.align.reference import Logps, Question, asked_once, reference_logps
from gristmill.errors import DataError
from gristmill.graph.step import StepContext
from gristmill.model.weights import load_model
from gristmill.recipe.schema.post_training import Dpo
from gristmill.store.jsonl import read_jsonl
from gristmill.tokens.chat import EncodedChat, encode_conversations
from gristmill.tokens.tokenizer import Tokenizer
from gristmill.train.checkpoints import Checkpoints
from gristmill.train.runtime import Runtime
from gristmill.train.session import open_session, optimizer_options
from gristmill.units import counted

VERSION = 2
REFERENCE = "reference.json"

ChatPair = tuple[str, EncodedChat, EncodedChat]


def run(ctx: StepContext) -> dict[str, Any]:
    """Trains the SFT model to prefer the chosen answers."""
    section: Dpo = ctx.config["dpo"]
    tokenizer_dir = ctx.inputs["tokenizer"].files
    tokenizer = Tokenizer.load(tokenizer_dir)
    sft_model = ctx.inputs["policy"].model
    rows = read_jsonl(ctx.inputs["pairs"].pairs)
    encoded = [encode_pair_row(tokenizer, row) for row in rows]
    fitting = [pair for pair in encoded if fits(pair, section.seq_len)]
    if not fitting:
        raise DataError(f"none of {len(rows)} pairs fits dpo.seq_len {section.seq_len}. Raise it.")
    if len(fitting) < len(encoded):
        ctx.say(f"left out: {counted(len(encoded) - len(fitting), 'pair')} longer than dpo.seq_len {section.seq_len}")
    runtime = Runtime.of(ctx)
    session = open_session(
        ctx.out,
        fresh_model=lambda: load_model(sft_model),
        optimizer_options=optimizer_options(section.optimizer),
        tokenizer_dir=tokenizer_dir,
        checkpoints=Checkpoints.of(ctx, lambda step: {"identity": ctx.identity}),
        runtime=runtime,
    )
    with session:
        question = Question.of(
            model=sft_model,
            tokenizer=tokenizer_dir,
            pairs=ctx.inputs["pairs"].pairs,
            seq_len=section.seq_len,
            device=runtime.device,
        )
        logps = ctx.ranks.first_before_others(
            lambda: asked_once(
                ctx.out / REFERENCE,
                question,
                lambda: reference_logps(
                    load_model(sft_model, device=runtime.device),
                    [(chosen, rejected) for _, chosen, rejected in fitting],
                ),
                others=ctx.run.store.files(ctx.name, REFERENCE),
            )
        )
        pairs = with_reference(fitting, logps)
        train_epochs(
            session,
            Passes(num_items=len(pairs), batch_size=section.batch_pairs, epochs=section.epochs, seed=ctx.seed),
            make_batch=lambda numbers: PairBatch(pairs=[pairs[number] for number in numbers]),
            loss_fn=partial(preference_loss, beta=section.beta),
            reports=REPORTS,
            optimizer=section.optimizer,
            warmup_frac=section.warmup_frac,
        )
        counts = PreferenceCounts(
            **vars(session.finish()),
            pairs=len(pairs),
            too_long=len(encoded) - len(fitting),
            epochs=section.epochs,
            beta=section.beta,
        )
        return counts.to_json()


def encode_pair_row(tokenizer: Tokenizer, row: Mapping[str, Any]) -> ChatPair:
    """Both conversations of a line of pairs.jsonl; only the answers count, not earlier assistant turns of the prompt."""
    chosen, rejected = (
        _answer_alone(tokenizer, row["prompt"], row[side], f"{row['id']}/{side}") for side in ("chosen", "rejected")
    )
    return row["id"], chosen, rejected


def _answer_alone(
    tokenizer: Tokenizer, prompt: Sequence[Mapping[str, Any]], answer: Sequence[Mapping[str, Any]], name: str
) -> EncodedChat:
    [whole] = encode_conversations(tokenizer, [(name, [*prompt, *answer])])
    mask = whole.mask.copy()
    if any(message["role"] == "assistant" for message in prompt):
        [earlier] = encode_conversations(tokenizer, [(name, prompt)])
        mask[: len(earlier.ids)] = 0
    return EncodedChat(id=whole.id, ids=whole.ids, mask=mask)


def fits(pair: ChatPair, seq_len: int) -> bool:
    """True when both conversations have at most `seq_len` tokens."""
    _, chosen, rejected = pair
    return max(chosen.num_tokens, rejected.num_tokens) <= seq_len


def with_reference(pairs: Sequence[ChatPair], logps: Logps) -> list[PreferencePair]:
    """The pairs with the reference's log-probabilities, in the same order."""
    return [
        PreferencePair(
            id=name,
            chosen=chosen,
            rejected=rejected,
            reference_chosen_logp=chosen_logp,
            reference_rejected_logp=rejected_logp,
        )
        for (name, chosen, rejected), (chosen_logp, rejected_logp) in zip(pairs, logps, strict=True)
    ]
