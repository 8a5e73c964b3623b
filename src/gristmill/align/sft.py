"""STEP sft: passes over the conversations of synthesize, loss on the assistant's tokens alone."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from gristmill.align.epochs import train_epochs
from gristmill.errors import DataError
from gristmill.graph.step import StepContext
from gristmill.model.generate import generate
from gristmill.model.transformer import Llama
from gristmill.model.weights import load_model
from gristmill.recipe.schema.post_training import Finetune
from gristmill.store.jsonl import read_jsonl
from gristmill.synthesize.outputs import Conversations
from gristmill.tokens.batch import concatenate
from gristmill.tokens.chat import chat_batch, encode_chat, encode_conversation, within_length
from gristmill.tokens.tokenizer import Tokenizer
from gristmill.train.loss import next_token_loss
from gristmill.train.session import Session, choose_device, open_session, optimizer_options

VERSION = 1
SAMPLE_TOKENS = 64


def run(ctx: StepContext) -> dict[str, Any]:
    """Fine-tunes the pretrained model on conversations."""
    section: Finetune = ctx.config["sft"]
    tokenizer_dir = ctx.inputs["tokenizer"].files
    tokenizer = Tokenizer.load(tokenizer_dir)
    conversations: Conversations = ctx.inputs["conversations"]
    rows = read_jsonl(conversations.conversations)
    encoded = [encode_conversation(tokenizer, row["messages"], conversation_id=row["id"]) for row in rows]
    kinds = sorted({row["kind"] for row in rows})
    kind_of = {row["id"]: kinds.index(row["kind"]) for row in rows}
    chats, too_long = within_length(encoded, seq_len=section.seq_len, too_long="drop")
    if too_long:
        ctx.say(f"{len(too_long)} conversations are longer than sft.seq_len {section.seq_len} and are left out")
    if not chats:
        raise DataError(
            f"none of {len(rows)} conversations fits sft.seq_len {section.seq_len}. Raise it, or shorten them."
        )
    session = open_session(
        ctx.out,
        fresh_model=lambda: chat_model(load_model(ctx.inputs["policy"].model), tokenizer),
        optimizer_options=optimizer_options(section.optimizer),
        tokenizer_dir=tokenizer_dir,
        fingerprint=ctx.identity,
        micro_batch_tokens=ctx.machine.micro_batch_tokens,
        threads=ctx.machine.threads,
        device=choose_device(ctx.machine.device),
        say=ctx.say,
    )
    train_epochs(
        session,
        stage="sft",
        num_items=len(chats),
        batch_size=section.batch_conversations,
        epochs=section.epochs,
        seed=ctx.seed,
        make_batch=lambda numbers: concatenate(
            [chat_batch([chats[number]], source=kind_of[chats[number].id]) for number in numbers]
        ),
        loss_fn=partial(next_token_loss, source_names=kinds),
        peak_lr=section.optimizer.peak_lr,
        warmup_frac=section.warmup_frac,
        max_grad_norm=section.optimizer.max_grad_norm,
        micro_batch_tokens=ctx.machine.micro_batch_tokens,
        should_stop=ctx.should_stop,
    )
    write_answers(session, tokenizer, ctx.watching.config["sft"].sample_prompts)
    return {**session.finish(), "conversations": len(chats), "too_long": len(too_long), "epochs": section.epochs}


def chat_model(model: Llama, tokenizer: Tokenizer) -> Llama:
    """The model, told that a turn ends its text."""
    model.config = replace(model.config, eos_token_id=tokenizer.im_end_id)
    return model


def write_answers(session: Session, tokenizer: Tokenizer, prompts: list[str]) -> None:
    """The likeliest answer to each prompt, into the diary. Those of an earlier, killed end are replaced."""
    progress = session.progress
    asked = [
        encode_chat(tokenizer, [{"role": "user", "content": text}], add_generation_prompt=True)[0] for text in prompts
    ]
    room = session.model.config.max_position_embeddings - max(map(len, asked), default=0)
    answers = generate(
        session.model,
        asked,
        max_new_tokens=max(1, min(SAMPLE_TOKENS, room)),
        stop_ids=[tokenizer.im_end_id, tokenizer.eos_id],
    )
    for prompt, new_ids in zip(prompts, answers, strict=True):
        kept = [token for token in new_ids if token not in (tokenizer.im_end_id, tokenizer.eos_id)]
        sample = {"stage": "sft", "prompt": prompt, "text": tokenizer.decode(kept)}
        session.monitor.sample(progress.step, progress.tokens, sample)
