"""STEP pretrain: stages under one warmup-stable-decay schedule, context extension included, watched and resumable.

The stages are data: each is one call of the loop with its own end. What differs between them is what the stream draws and,
for a context extension, the rope base that is set when the stage begins. Rates and the order of data are those of the course
(course.py); what a checkpoint may be resumed for, its prefix says (prefix.py).
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from gristmill.data.packs import packs_by_name
from gristmill.graph.step import StepContext, by_source
from gristmill.model.config import LlamaConfig
from gristmill.model.transformer import Llama
from gristmill.model.weights import init_weights, load_model
from gristmill.planning.budget import check_epochs
from gristmill.planning.cost import count_parameters, pretraining_flops
from gristmill.planning.ranks import check_ranks
from gristmill.planning.speed import SpeedPoint, keep_speed, measured_speed
from gristmill.recipe.schema.training import ModelSection, Pretrain
from gristmill.tokens.batch import Batch
from gristmill.tokens.shards import TokenShard
from gristmill.tokens.stream import Stream
from gristmill.tokens.tokenize import selection_tokens
from gristmill.tokens.tokenizer import Tokenizer
from gristmill.train.cadence import PACKS, STAGE, is_saved_after
from gristmill.train.checkpoints import Checkpoints
from gristmill.train.course import Course, course_of
from gristmill.train.loop import Hook, Method, Progress, TrainingDiverged, Watch, train
from gristmill.train.loss import next_token_loss, reports
from gristmill.train.next_batch import NextBatch
from gristmill.train.outputs import PretrainingCounts, StageTime, TrainingCounts
from gristmill.train.prefix import milestones, number_format, prefixes, stream_seed, weights_seed
from gristmill.train.runtime import Runtime
from gristmill.train.session import Session, open_session, optimizer_options
from gristmill.train.spikes import SpikeWatch
from gristmill.train.watch.watched import reference_of
from gristmill.train.watch.watching import Watcher

VERSION = 2

TOKENS = "tokens of "  # roles, each followed by a source
LOG_EVERY = 10
MIN_SECONDS_FOR_SPEED = 20.0


def run(ctx: StepContext) -> dict[str, Any]:
    """Trains the model of the recipe on its stages; see the module's text."""
    section: Pretrain = ctx.config["pretrain"]
    model: ModelSection = ctx.config["model"]
    tokenizer_dir = ctx.inputs["tokenizer"].files
    tokenizer = Tokenizer.load(tokenizer_dir)
    runtime = Runtime.of(ctx)
    sources = by_source(ctx.inputs, TOKENS)
    shards = {name: TokenShard(tokens.train) for name, tokens in sources.items()}
    caps: Pretrain = ctx.watching.config["pretrain"]
    check_epochs(caps, list(shards), selection_tokens(caps, shards))
    check_ranks(section, ctx.ranks.size)
    course = course_of(section, rope_theta=model.rope_theta)
    stream = Stream(shards, course.stream_stages(), seed=stream_seed(ctx.seed))
    prefix_at = prefixes(
        course,
        model,
        section,
        vocabulary=ctx.inputs["vocabulary"].content,
        texts={name: tokens.content for name, tokens in sources.items()},
        seed=ctx.seed,
        number_format=number_format(runtime.device),
        start=ctx.inputs["start"].content if "start" in ctx.inputs else None,
    )
    session = open_session(
        ctx.out,
        fresh_model=partial(_first_model, ctx, tokenizer),
        optimizer_options=optimizer_options(section.optimizer),
        tokenizer_dir=tokenizer_dir,
        checkpoints=Checkpoints.of(ctx, prefix_at, milestones=milestones(course)),
        runtime=runtime,
        expected_speed=_expected_speed(ctx, tokenizer.vocab_size) if ctx.ranks.size == 1 else None,
    )
    with session:
        session.model.set_rope_theta(session.model.config.rope_theta, model.max_position_embeddings)
        watch = _watcher(ctx, session, tokenizer, course)
        spikes = SpikeWatch(
            session=session,
            course=course,
            stream=stream,
            shards=shards,
            tokenizer=tokenizer,
            policy=watch.section.on_spike,
            run=ctx.run,
            stage_name=watch.stage_name,
        )
        for number, segment in enumerate(course.segments):
            done = session.progress.step
            if done < segment.last_step or (done == segment.last_step and session.progress.hooks_pending):
                _train_segment(ctx, session, stream, course, watch, spikes, number)
        spikes.end()
        found = session.finish()
        if useless := worse_than_guessing(found.final.get("train/loss"), tokenizer.vocab_size):
            ctx.say(useless)
        if ctx.ranks.size == 1:
            _keep_speed(ctx, session)
        return _counts(found, stream, course, session).to_json()


def _train_segment(
    ctx: StepContext,
    session: Session,
    stream: Stream,
    course: Course,
    watch: Watcher,
    spikes: SpikeWatch,
    number: int,
) -> None:
    """One stage, or what is left of it."""
    segment, name = course.segments[number], watch.stage_name(number)
    progress = session.progress
    if progress.step < segment.last_step:
        session.model.set_rope_theta(segment.rope_theta, session.model.config.max_position_embeddings)
    times = session.notes.setdefault("stages", [])
    if len(times) == number:
        times.append({"first_step": segment.first_step, "started_seconds": progress.seconds})
    if progress.step == segment.first_step:
        spikes.begin_stage(number)
        tokens = (segment.last_step - segment.first_step) * segment.batch_tokens
        ctx.say(
            f"stage {name}: steps {segment.first_step + 1:,} to {segment.last_step:,}, {tokens:,} tokens of {segment.seq_len}"
        )

    def save(progress: Progress) -> None:
        times[number]["seconds"] = progress.seconds - times[number]["started_seconds"]
        spikes.note()
        session.save(progress)

    def batch_of_step(step: int) -> Batch:
        sample = course.sample_of_step(step)
        return stream.batch_at(sample, segment.batch_tokens, rank=ctx.ranks.rank, world_size=ctx.ranks.size)

    section: Pretrain = ctx.config["pretrain"]
    batches = NextBatch(batch_of_step, end=segment.last_step)
    method = Method(
        batch_at=lambda progress: (batches(progress.step), course.sample_of_step(progress.step + 1)),
        loss_fn=partial(next_token_loss, source_names=stream.source_names, z_loss=section.z_loss),
        reports=reports(stream.source_names),
        lr_at=lambda progress: course.lr_of_step(progress.step),
        max_grad_norm=section.optimizer.max_grad_norm,
        accepts=partial(spikes.accepts, save),
    )
    watched = Watch(
        log_every=LOG_EVERY,
        log=session.log,
        save=Hook(at=lambda step: is_saved_after(step, course, watch.section), run=save),
        hooks=watch.hooks(),
        stepped=partial(session.stepped, total=course.num_steps, part=f"stage {name}"),
        cut_smaller=session.cut_smaller,
    )
    try:
        with batches:
            train(session, method, watched, end_step=segment.last_step, runtime=session.runtime)
    except TrainingDiverged as diverged:
        raise TrainingDiverged(f"{diverged}\n{advice(watch.section, course, session)}") from diverged
    times[number]["seconds"] = progress.seconds - times[number]["started_seconds"]


def advice(section: Pretrain, course: Course, session: Session) -> str:
    """What to do after training diverged: the entry to add, and where it resumes; without a checkpoint or an update, what else."""
    saved = [ref.step for ref in session.checkpoints.kept()]
    if session.progress.skipped_steps == list(range(session.progress.step + 1)):
        return (
            "  Not one update was made yet, so no rate is at fault: the weights that training starts from give no finite loss.\n"
            "  Look at pretrain.init_from, if the recipe has one; lower model.initializer_range; see with `gristmill doctor` whether this\n"
            "  machine computes right. Then run the same command again; it starts from the beginning."
        )
    if not saved:
        return (
            "  There is no checkpoint to resume from. Lower pretrain.optimizer.peak_lr or raise pretrain.warmup_tokens; "
            "training then starts from the beginning."
        )
    begun = [change.after_step for change in section.changes if change.after_step <= session.progress.step]
    after_step = max([saved[0], *begun])
    peaks = [peak.peak_lr for peak in course.peaks if peak.after_step <= after_step]
    peak = min(peaks[-2:]) / 2  # a change that raised the rate is suspect itself
    what = "Append this entry to pretrain.changes" if section.changes else "Add this under pretrain"
    return (
        f"  {what} and run the same command; it resumes from the checkpoint at step {saved[0]:,}:\n"
        + ("" if section.changes else "    changes:\n")
        + f"      - {{after_step: {after_step}, set: {{optimizer.peak_lr: {peak:.3g}}}, "
        f'why: "diverged at step {session.progress.step}"}}'
    )


def worse_than_guessing(loss: float | None, vocab_size: int) -> str | None:
    """What to say of a last training loss that is above that of a uniform guess; None for one that is not."""
    guessing = math.log(vocab_size)
    if loss is None or loss <= guessing:
        return None
    return (
        f"The last training loss is {loss:.4g}; guessing evenly among {vocab_size:,} tokens has {guessing:.4g}. The model learned "
        "nothing: lower pretrain.optimizer.peak_lr and run again."
    )


# ── what the recipe means ────────────────────────────────────────────────────────────────────────────────────────────


def _first_model(ctx: StepContext, tokenizer: Tokenizer) -> Llama:
    """The released model that the recipe names, or one of the recipe's shape with new weights."""
    if "start" in ctx.inputs:
        return load_model(ctx.inputs["start"].model)
    return init_weights(Llama(model_config(ctx.config["model"], tokenizer)), seed=weights_seed(ctx.seed))


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


def _flops_per_token(ctx: StepContext, vocab_size: int) -> float:
    section: Pretrain = ctx.config["pretrain"]
    return pretraining_flops(ctx.config["model"], vocab_size, section).with_attention / section.total_tokens


def _expected_speed(ctx: StepContext, vocab_size: int) -> float | None:
    """Tokens per second by the profile of this machine; None without one."""
    speed = measured_speed(count_parameters(ctx.config["model"], vocab_size), ctx.machine)
    return None if speed is None else speed.flops_per_second / _flops_per_token(ctx, vocab_size)


def _keep_speed(ctx: StepContext, session: Session) -> None:
    """Writes the speed of the steps that nothing slowed down into the profile that `plan` reads, if they took long enough."""
    usual = session.threads.usual
    if usual.seconds < MIN_SECONDS_FOR_SPEED:
        return
    section: Pretrain = ctx.config["pretrain"]
    vocab_size = session.model.config.vocab_size
    point = SpeedPoint(
        parameters=count_parameters(ctx.config["model"], vocab_size),
        seq_len=section.stages[0].seq_len,
        micro_batch_tokens=min(session.runtime.micro_batch_tokens, section.global_batch_tokens),
        tokens_per_second=usual.tokens_per_second,
        flops_per_second=usual.tokens_per_second * _flops_per_token(ctx, vocab_size),
        measured_by="pretrain",
    )
    keep_speed(point, ctx.machine, device=session.model.device.type, hardware=session.environment["hardware"])


def _watcher(ctx: StepContext, session: Session, tokenizer: Tokenizer, course: Course) -> Watcher:
    """What is measured on the way."""
    section: Pretrain = ctx.watching.config["pretrain"]
    shards = by_source(ctx.watching.inputs, "validation of ")
    reference = ctx.watching.files.get("reference")
    return Watcher(
        session=session,
        tokenizer=tokenizer,
        section=section,
        course=course,
        validation={name: TokenShard(tokens.validation) for name, tokens in shards.items()},
        packs={
            PACKS: packs_by_name(ctx.watching.files, section.watch.packs),
            STAGE: packs_by_name(ctx.watching.files, ctx.watching.config["stage_packs"]),
        },
        seed=ctx.seed,
        reference_of=lambda packs, texts: (
            None if reference is None else reference_of(next(iter(reference.paths)).parent, packs, texts)
        ),
    )


def _counts(found: TrainingCounts, stream: Stream, course: Course, session: Session) -> PretrainingCounts:
    """With what was drawn and trained on, in closed form from the order itself."""
    uses = stream.uses_before(stream.num_samples, skipped=course.skipped_before(course.num_steps))
    return PretrainingCounts(
        **vars(found),
        tokens_by_source={
            name: sum(use.tokens_drawn for use in uses if use.source == name) for name in stream.source_names
        },
        draws=tuple(uses),
        stages=tuple(StageTime(**took) for took in session.notes["stages"]),
    )
