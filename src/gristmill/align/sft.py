"""STEP sft: passes over the conversations of synthesize, loss on the assistant's tokens only."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import partial
from typing import Any

from gristmill.align.epochs import Passes, train_epochs
from gristmill.align.outputs import FinetuningCounts
from gristmill.errors import DataError
from gristmill.graph.ranks import is_first
from gristmill.graph.step import StepContext
from gristmill.model.generate import check_fit, generate
from gristmill.model.transformer import Llama
from gristmill.model.weights import load_model
from gristmill.recipe.schema.post_training import Finetune
from gristmill.store.durable import file_sha256
from gristmill.synthesize.outputs import Conversations
from gristmill.tokens.chat import encode_chat
from gristmill.tokens.chat_shards import encode_once
from gristmill.tokens.tokenizer import Tokenizer
from gristmill.train.checkpoints import Checkpoints
from gristmill.train.loss import next_token_loss, reports
from gristmill.train.ranks.sharding import gathered
from gristmill.train.runtime import Runtime
from gristmill.train.session import Session, open_session, optimizer_options
from gristmill.units import counted

VERSION = 3
CHATS = "chats"
SAMPLE_TOKENS = 64


def run(ctx: StepContext) -> dict[str, Any]:
    """Fine-tunes the pretrained model on conversations."""
    section: Finetune = ctx.config["sft"]
    tokenizer_dir = ctx.inputs["tokenizer"].files
    tokenizer = Tokenizer.load(tokenizer_dir)
    conversations: Conversations = ctx.inputs["conversations"]
    runtime = Runtime.of(ctx)
    chats = ctx.ranks.first_before_others(
        lambda: encode_once(
            conversations.conversations,
            ctx.out / CHATS,
            tokenizer=tokenizer,
            tokenizer_sha256=file_sha256(tokenizer_dir / "tokenizer.json"),
            seq_len=section.seq_len,
            should_stop=ctx.should_stop,
        )
    )
    if chats.too_long:
        ctx.say(f"left out: {counted(chats.too_long, 'conversation')} longer than sft.seq_len {section.seq_len}")
    if not chats.num_conversations:
        raise DataError(
            f"none of {chats.too_long} conversations fits sft.seq_len {section.seq_len}. Raise it, or shorten them."
        )
    session = open_session(
        ctx.out,
        fresh_model=lambda: chat_model(load_model(ctx.inputs["policy"].model), tokenizer),
        optimizer_options=optimizer_options(section.optimizer),
        tokenizer_dir=tokenizer_dir,
        checkpoints=Checkpoints.of(ctx, lambda step: {"identity": ctx.identity}),
        runtime=runtime,
    )
    with session:
        sample_prompts = ctx.watching.config["sft"].sample_prompts
        check_fit(session.model, _questions(tokenizer, sample_prompts), 1)  # now, not after the training
        train_epochs(
            session,
            Passes(
                num_items=chats.num_conversations,
                batch_size=section.batch_conversations,
                epochs=section.epochs,
                seed=ctx.seed,
            ),
            make_batch=chats.batch,
            loss_fn=partial(next_token_loss, source_names=chats.kinds),
            reports=reports(chats.kinds),
            optimizer=section.optimizer,
            warmup_frac=section.warmup_frac,
        )
        with gathered(session.model):
            if is_first(ctx.ranks):
                write_answers(session, tokenizer, sample_prompts)
        found = session.finish()
        if is_first(ctx.ranks):
            shutil.rmtree(chats.folder)  # it repeats what the inputs say
        counts = FinetuningCounts(
            **vars(found), conversations=chats.num_conversations, too_long=chats.too_long, epochs=section.epochs
        )
        return counts.to_json()


def chat_model(model: Llama, tokenizer: Tokenizer) -> Llama:
    """The model, told that a turn ends its text."""
    model.config = replace(model.config, eos_token_id=tokenizer.im_end_id)
    return model


def write_answers(session: Session, tokenizer: Tokenizer, prompts: list[str]) -> None:
    """The likeliest answer to each prompt, into the metrics log. Those of an earlier, killed end are replaced."""
    progress, asked = session.progress, _questions(tokenizer, prompts)
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


def _questions(tokenizer: Tokenizer, prompts: list[str]) -> list[list[int]]:
    return [
        encode_chat(tokenizer, [{"role": "user", "content": text}], add_generation_prompt=True)[0] for text in prompts
    ]
