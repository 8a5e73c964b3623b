"""The prefix of a checkpoint: all that shaped it, whole, and nothing else.

Training resumes from a checkpoint whose prefix is the one that the recipe has at that step. So what lies ahead may change (a
longer trunk, another decay, other stages), and what lies behind may not. Names of stages, the open stage's length, watching,
saving and caps shape nothing. A closed stage's length needs no entry of its own: the next stage's first step and the skips say
it, and where the last one closes at `step` itself, no sequence behind it was drawn yet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from gristmill.graph.state import version_of
from gristmill.recipe.schema.training import ModelSection, Pretrain
from gristmill.store.fingerprint import canonical, derive_seed, differences, fingerprint
from gristmill.train.course import Course, Segment

PREFIX_VERSION = 1
PARTS = (
    "gristmill.model.transformer",
    "gristmill.tokens.stream",
    "gristmill.train.loop",
)  # what pretraining computes with

NumberFormat = Literal["float32", "bfloat16"]
PRETRAIN = "gristmill.train.pretrain"
RULE = "gristmill.train.stability"  # by which steps are skipped, where the recipe asks for it

SHAPE = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "rms_norm_eps",
    "tie_word_embeddings",
)
STEPPING = ("beta1", "beta2", "eps", "weight_decay", "decay_embeddings", "max_grad_norm")


def prefix_at(
    step: int,
    *,
    course: Course,
    model: ModelSection,
    section: Pretrain,
    vocabulary: str,
    texts: Mapping[str, str],
    seed: int,
    number_format: NumberFormat,
    start: str | None = None,
) -> dict[str, Any]:
    """The prefix when `step` steps are done, as plain JSON.

    section: what its course does not say of it is read here. vocabulary: the hash of the tokenizer's content. texts: source name → the
    hash of its training shard's content, of every source drawn so far at least. seed: of the step that trains. start: the hash of the
    released model that training begins with; None: with new weights.
    """
    if not 0 <= step <= course.num_steps:
        raise IndexError(f"step {step} of a course of {course.num_steps}")
    schedule = course.schedule
    prefix: dict[str, Any] = {
        "version": {"prefix": PREFIX_VERSION, **{part: version_of(part) for part in (*PARTS, PRETRAIN)}},
        "step": step,
        "weights": {"seed": weights_seed(seed), "initializer_range": model.initializer_range}
        if start is None
        else {"released": start},
        "model": {name: getattr(model, name) for name in SHAPE},
        "vocabulary": vocabulary,
        "number_format": number_format,
        "optimizer": {"peak_lr": schedule.peak_lr, **{name: getattr(section.optimizer, name) for name in STEPPING}},
        "warmup_tokens": schedule.warmup_tokens,
        "stream_seed": stream_seed(seed),
        "segments": [_segment(segment, texts) for segment in course.segments if segment.first_step < step],
        "peaks": [vars(peak) for peak in course.peaks[1:] if peak.after_step < step],
        "skips": [
            {"after_step": skip.after_step, "sequences": len(skip.samples)}
            for skip in course.skips
            if skip.after_step < step
        ],
    }
    if section.z_loss:
        prefix["z_loss"] = section.z_loss
    if section.on_spike == "skip":
        prefix["on_spike"] = {"skip": version_of(RULE)}
    decay_start = schedule.total_tokens - schedule.decay_tokens
    if course.tokens_done(step) > decay_start:
        prefix["decay"] = {"start_tokens": decay_start, "tokens": schedule.decay_tokens, "shape": schedule.shape}
    return dict(canonical(prefix))


def prefix_id(prefix: Mapping[str, Any]) -> str:
    """32 hex digits that two prefixes share exactly when they are equal."""
    return fingerprint(prefix)


def prefix_differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs, a line each, such as "optimizer.peak_lr: 0.004 → 0.003"; none exactly when the prefixes are equal."""
    return differences(_in_words(old), _in_words(new))


def prefixes(
    course: Course,
    model: ModelSection,
    section: Pretrain,
    *,
    vocabulary: str,
    texts: Mapping[str, str],
    seed: int,
    number_format: NumberFormat,
    start: str | None = None,
) -> Callable[[int], dict[str, Any] | None]:
    """`prefix_at` of one training as a function of the step; None beyond its end."""

    def at(step: int) -> dict[str, Any] | None:
        if step > course.num_steps:
            return None
        return prefix_at(
            step,
            course=course,
            model=model,
            section=section,
            vocabulary=vocabulary,
            texts=texts,
            seed=seed,
            number_format=number_format,
            start=start,
        )

    return at


def milestones(course: Course) -> frozenset[int]:
    """Steps from which others branch off: the last one before the decay, and the end of every stage."""
    ends = {segment.last_step for segment in course.segments}
    constant = course.total_tokens - course.schedule.decay_tokens
    return frozenset(ends | {step for step in (constant // course.segments[0].batch_tokens,) if step > 0})


def weights_seed(seed: int) -> int:
    """The seed of the first weights, of a training step's own seed."""
    return derive_seed(seed, "weights")


def stream_seed(seed: int) -> int:
    """The seed of the order of data, of a training step's own seed."""
    return derive_seed(seed, "stream")


def number_format(device: str) -> NumberFormat:
    """What a training step's products are computed in on a torch device: bfloat16 on CUDA, float32 elsewhere."""
    return "bfloat16" if device.startswith("cuda") else "float32"


def _segment(segment: Segment, texts: Mapping[str, str]) -> dict[str, Any]:
    reshuffled = {} if segment.reshuffle is None else {"reshuffle": segment.reshuffle}
    return {
        **reshuffled,
        "first_step": segment.first_step,
        "batch_tokens": segment.batch_tokens,
        "seq_len": segment.seq_len,
        "rope_theta": segment.rope_theta,
        "draws": [
            {
                "source": draw.source,
                "weight": draw.weight,
                "min_document_tokens": draw.min_document_tokens,
                "text": texts[draw.source],
            }
            for draw in segment.draws
        ],
    }


def _in_words(prefix: Mapping[str, Any]) -> dict[str, Any]:
    """The prefix with its lists by what they are about, so that a difference names the stage, the source or the step."""
    words = {key: value for key, value in prefix.items() if key not in ("segments", "peaks", "skips", "decay")}
    for segment in prefix["segments"]:
        draws = {_selection(draw): draw for draw in segment["draws"]}
        shown = {key: segment[key] for key in ("batch_tokens", "seq_len", "rope_theta")}
        if "reshuffle" in segment:
            shown["reshuffle"] = segment["reshuffle"]
        shown["sources in order"] = list(draws)
        for name, draw in draws.items():
            shown |= {f"weight of {name}": draw["weight"], f"text of {name}": draw["text"]}
        words[f"stage from step {segment['first_step']}"] = shown
    for peak in prefix["peaks"]:
        words[f"optimizer.peak_lr after step {peak['after_step']}"] = peak["peak_lr"]
    for skip in prefix["skips"]:
        words[f"sequences skipped after step {skip['after_step']}"] = skip["sequences"]
    decay = prefix.get("decay")
    words["decay"] = (
        f"{decay['shape']}, {decay['tokens']:,} tokens from token {decay['start_tokens']:,} on"
        if decay
        else "not begun"
    )
    return words


def _selection(draw: Mapping[str, Any]) -> str:
    limit = draw["min_document_tokens"]
    return draw["source"] if limit is None else f"{draw['source']} ≥ {limit:,} tokens"
