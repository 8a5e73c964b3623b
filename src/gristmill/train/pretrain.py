"""STEP pretrain: stages under one warmup-stable-decay schedule, context extension included, watched and resumable.

The stages are data: each is one call of the loop with its own end. What differs between them is what the stream draws and,
for a context extension, the rope base that is set when the stage begins. The learning rate spans all stages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from gristmill.data.packs import Pack, packs_by_name
from gristmill.errors import RecipeError
from gristmill.graph.step import StepContext, by_source
from gristmill.model.generate import generate
from gristmill.model.transformer import Llama, LlamaConfig
from gristmill.model.weights import init_weights
from gristmill.planning.cost import pretraining_flops
from gristmill.planning.speed import SpeedPoint, keep_speed
from gristmill.recipe.schema.training import ModelSection, Pretrain, Stage
from gristmill.store.fingerprint import derive_seed
from gristmill.tokens.shards import TokenShard
from gristmill.tokens.stages import Draw, StreamStage
from gristmill.tokens.stream import Stream
from gristmill.tokens.tokenizer import Tokenizer
from gristmill.train.loop import Hook, Method, Progress, Watch, train
from gristmill.train.loss import next_token_loss
from gristmill.train.runtime import Runtime
from gristmill.train.schedule import wsd
from gristmill.train.scorer import BitsPerByte, Score, bits_per_byte, score_pack
from gristmill.train.session import Session, open_session, optimizer_options

VERSION = 1

TOKENS = "tokens of "  # roles, each followed by a source
LOG_EVERY = 10
SAMPLE_TOKENS = 64
SAMPLE_TEMPERATURE = 0.8
SAMPLE_TOP_P = 0.95
MIN_SECONDS_FOR_SPEED = 20.0


@dataclass(frozen=True, kw_only=True)
class Span:
    """A stage with the steps it covers: `first` < step number <= `last`."""

    stage: Stage
    first: int
    last: int


def run(ctx: StepContext) -> dict[str, Any]:
    """Trains the model of the recipe on its stages; see the module's text."""
    section: Pretrain = ctx.config["pretrain"]
    tokenizer_dir = ctx.inputs["tokenizer"].files
    tokenizer = Tokenizer.load(tokenizer_dir)
    shards = {name: TokenShard(tokens.train) for name, tokens in by_source(ctx.inputs, TOKENS).items()}
    stream = make_stream(section, shards, seed=ctx.seed)
    session = open_session(
        ctx.out,
        fresh_model=lambda: init_weights(
            Llama(model_config(ctx.config["model"], tokenizer)), seed=derive_seed(ctx.seed, "weights")
        ),
        optimizer_options=optimizer_options(section.optimizer),
        tokenizer_dir=tokenizer_dir,
        fingerprint=ctx.identity,
        runtime=Runtime.on(ctx.machine, say=ctx.say, should_stop=ctx.should_stop),
    )
    watch = Watcher(
        session=session,
        tokenizer=tokenizer,
        section=ctx.watching.config["pretrain"],
        validation={
            name: TokenShard(tokens.validation)
            for name, tokens in by_source(ctx.watching.inputs, "validation of ").items()
        },
        packs=_packs(ctx),
        seed=ctx.seed,
    )
    spans = stage_spans(ctx.watching.config["pretrain"])
    for span in spans:
        if session.progress.step < span.last or (session.progress.step == span.last and session.progress.hooks_pending):
            _run_stage(ctx, session, stream, watch, span)
    found = session.finish()
    _keep_speed(ctx, session, found)
    return {**found, **_draws(stream), "stages": session.notes["stages"]}


def _run_stage(ctx: StepContext, session: Session, stream: Stream, watch: Watcher, span: Span) -> None:
    """One stage, or what is left of it."""
    section: Pretrain = ctx.config["pretrain"]
    watching: Pretrain = ctx.watching.config["pretrain"]
    stage = span.stage
    begins = session.progress.step < span.last
    if begins and stage.rope_theta is not None:
        session.model.set_rope_theta(stage.rope_theta, session.model.config.max_position_embeddings)
    started = session.notes.setdefault("stages", {}).setdefault(
        stage.name, {"started_seconds": session.progress.seconds}
    )
    if session.progress.step == span.first:
        ctx.say(
            f"stage {stage.name}: steps {span.first + 1:,} to {span.last:,}, {stage.tokens:,} tokens of {stage.seq_len}"
        )
    milestones = _milestones(watching)
    every = max(1, watching.checkpoint_every_tokens // section.global_batch_tokens)
    schedule = wsd(
        peak_lr=section.optimizer.peak_lr,
        total_tokens=section.total_tokens,
        warmup_tokens=section.warmup_tokens,
        decay_tokens=section.decay_tokens,
        shape=section.decay_shape,
    )

    def save(progress: Progress) -> None:
        started["seconds"] = progress.seconds - started["started_seconds"]
        session.save(progress, stage=stage.name, milestone=milestones.get(progress.step))

    sequences = section.global_batch_tokens // stage.seq_len
    method = Method(
        batch_at=lambda progress: (
            stream.batch_at(progress.sample, section.global_batch_tokens),
            progress.sample + sequences,
        ),
        loss_fn=partial(next_token_loss, source_names=stream.source_names),
        lr_at=lambda progress: schedule.lr_at(progress.tokens + section.global_batch_tokens),
        max_grad_norm=section.optimizer.max_grad_norm,
    )
    watched = Watch(
        log_every=LOG_EVERY,
        log=session.log,
        save=Hook(at=lambda step: step % every == 0 or step in milestones, run=save),
        hooks=watch.hooks(),
    )
    train(session, method, watched, end_step=span.last, runtime=session.runtime)
    started["seconds"] = session.progress.seconds - started["started_seconds"]
    started["tokens"] = stage.tokens


# ── what the recipe means ────────────────────────────────────────────────────────────────────────────────────────────


def stage_spans(section: Pretrain) -> list[Span]:
    """The stages with their steps."""
    spans: list[Span] = []
    first = 0
    for stage in section.stages:
        last = first + stage.tokens // section.global_batch_tokens
        spans.append(Span(stage=stage, first=first, last=last))
        first = last
    return spans


def _milestones(section: Pretrain) -> dict[int, str]:
    """Checkpoints that stay: the last one before the decay (branches anneal from it) and the end of every stage."""
    before_decay = (section.total_tokens - section.decay_tokens) // section.global_batch_tokens
    found = {before_decay: "before-decay"} if before_decay > 0 else {}
    return found | {span.last: f"end-of-{span.stage.name}" for span in stage_spans(section)}


def make_stream(section: Pretrain, shards: Mapping[str, TokenShard], *, seed: int) -> Stream:
    """The order of the training data that the stages ask for."""
    stages = [
        StreamStage(
            name=f"stage {number}",
            num_samples=stage.tokens // stage.seq_len,
            seq_len=stage.seq_len,
            draws=tuple(
                Draw(source=draw.source, weight=draw.weight, min_document_tokens=draw.min_document_tokens)
                for draw in stage.mixture
            ),
        )
        for number, stage in enumerate(section.stages, start=1)
    ]
    return Stream(shards, stages, seed=derive_seed(seed, "stream"))


def model_config(section: ModelSection, tokenizer: Tokenizer) -> LlamaConfig:
    """The recipe's shape with the tokenizer's vocabulary and special ids."""
    return LlamaConfig(
        **section.model_dump(),
        head_dim=section.hidden_size // section.num_attention_heads,
        vocab_size=tokenizer.vocab_size,
        bos_token_id=tokenizer.eos_id,
        eos_token_id=tokenizer.eos_id,
        pad_token_id=tokenizer.pad_id,
    )


def _keep_speed(ctx: StepContext, session: Session, found: Mapping[str, Any]) -> None:
    """Leaves the speed of these steps in the profile that `plan` reads, if they ran long enough to tell."""
    if found["tokens_per_second"] is None or session.progress.seconds < MIN_SECONDS_FOR_SPEED:
        return
    section: Pretrain = ctx.config["pretrain"]
    vocab_size = session.model.config.vocab_size
    flops = pretraining_flops(ctx.config["model"], vocab_size, section).with_attention / section.total_tokens
    point = SpeedPoint(
        parameters=found["parameters"],
        seq_len=section.stages[0].seq_len,
        micro_batch_tokens=min(ctx.machine.micro_batch_tokens, section.global_batch_tokens),
        tokens_per_second=found["tokens_per_second"],
        flops_per_second=found["tokens_per_second"] * flops,
        measured_by="pretrain",
    )
    keep_speed(point, ctx.machine, device=session.model.device.type, hardware=session.environment["hardware"])


def _packs(ctx: StepContext) -> dict[str, Pack]:
    packs = packs_by_name(ctx.watching.files, ctx.watching.config["pretrain"].watch.packs)
    for name, pack in packs.items():
        if pack.kind != "multiple_choice":
            raise RecipeError(
                f"pretrain.watch.packs names {name!r}, whose kind is {pack.kind!r}; only multiple_choice packs are scored "
                "inside the loop. Move it to evaluate.packs."
            )
    return packs


def _draws(stream: Stream) -> dict[str, Any]:
    """What was drawn, in closed form from the order itself."""
    uses = stream.uses_before(stream.num_samples)
    return {
        "tokens_by_source": {
            name: stream.tokens_drawn_before(name, stream.num_samples) for name in stream.source_names
        },
        "draws": [
            {
                "source": use.source,
                "min_document_tokens": use.min_document_tokens,
                "tokens_drawn": use.tokens_drawn,
                "unique_tokens": use.unique_tokens,
            }
            for use in uses
        ],
    }


# ── watching ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _with_interval(key: str, found: Score | BitsPerByte) -> dict[str, float]:
    return {key: found.value, f"{key}_low": found.low, f"{key}_high": found.high}


@dataclass(frozen=True, kw_only=True)
class Watcher:
    """What is measured on the way, and written into the diary. It reads the model and changes nothing."""

    session: Session
    tokenizer: Tokenizer
    section: Pretrain
    validation: Mapping[str, TokenShard]
    packs: Mapping[str, Pack]
    seed: int

    def hooks(self) -> list[Hook]:
        """Measure every so often and at stage ends; write samples at stage ends."""
        ends = {span.last for span in stage_spans(self.section)}
        every = max(1, self.section.watch.every_tokens // self.section.global_batch_tokens)
        return [
            Hook(at=lambda step: step % every == 0 or step in ends, run=self.measure),
            Hook(at=lambda step: step in ends, run=self.write_samples),
        ]

    def measure(self, progress: Progress) -> None:
        """Bits per byte of every source that has validation text, accuracy on every pack."""
        model, watch = self.session.model, self.section.watch
        values: dict[str, float] = {}
        for name, shard in self.validation.items():
            if shard.num_documents:
                bits = bits_per_byte(
                    model, self.tokenizer, shard, max_bytes=watch.validation_bytes, window=self._seq_len(progress)
                )
                values |= _with_interval(f"eval/{name}/bits_per_byte", bits)
        for name, pack in self.packs.items():
            score = score_pack(model, self.tokenizer, pack, max_items=watch.max_items)
            for key, found in (("accuracy", score.accuracy), ("accuracy_per_byte", score.accuracy_per_byte)):
                values |= _with_interval(f"eval/{name}/{key}", found)
        self.session.monitor.evaluation(progress.step, progress.tokens, values)

    def write_samples(self, progress: Progress) -> None:
        """Continues each of the recipe's prompts; the same prompt draws the same random numbers at every step."""
        prompts = self.section.sample_prompts
        ids = [[self.tokenizer.eos_id, *self.tokenizer.encode(prompt)] for prompt in prompts]
        room = self.session.model.config.max_position_embeddings - max(map(len, ids), default=0)
        texts = generate(
            self.session.model,
            ids,
            max_new_tokens=max(1, min(SAMPLE_TOKENS, room)),
            stop_ids=[self.tokenizer.eos_id],
            temperature=SAMPLE_TEMPERATURE,
            top_p=SAMPLE_TOP_P,
            seeds=[derive_seed(self.seed, "sample", prompt) for prompt in prompts],
        )
        for prompt, new_ids in zip(prompts, texts, strict=True):
            kept = [token for token in new_ids if token != self.tokenizer.eos_id]
            sample = {"stage": self._span(progress).stage.name, "prompt": prompt, "text": self.tokenizer.decode(kept)}
            self.session.monitor.sample(progress.step, progress.tokens, sample)

    def _seq_len(self, progress: Progress) -> int:
        """Positions beyond the stage's own length are untrained, so measuring stays within it."""
        return self._span(progress).stage.seq_len

    def _span(self, progress: Progress) -> Span:
        return next(span for span in stage_spans(self.section) if progress.step <= span.last)
