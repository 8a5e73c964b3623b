"""What training will take: parameters, floating-point operations, hours, memory, disk.

Parameters and operations are arithmetic. Hours are operations over a speed, which `doctor` (or the first pretraining) measured
with real training steps and left in `<runs_dir>/.profile.json`; without that file a short matmul is multiplied by the share of
it that training reaches. Memory and disk are estimates from tensor shapes.
"""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from gristmill.errors import ArtifactError
from gristmill.recipe.artifact import read_json, write_json
from gristmill.recipe.schema import ModelSection, Pretrain, Recipe

PROFILE = ".profile.json"
PROFILE_VERSION = 1
FP32_BYTES = 4
CHUNK_LOGITS = 2**21  # logits that the chunked loss holds at once, but never fewer rows than the next line says
MIN_CHUNK_TOKENS = 128
FRAMEWORK_BYTES = 240_000_000  # a process that has imported torch
ACTIVATION_OVERHEAD = (
    1.4  # measured peak over what the backward pass keeps, 1.2 to 2.1 on CPU: gradients in flight, repeated keys
)


# ── parameters and operations ────────────────────────────────────────────────────────────────────────────────────────


def count_parameters(model: ModelSection, vocab_size: int) -> int:
    """Trainable numbers of the model; tied embeddings count once."""
    embeddings = vocab_size * model.hidden_size * (1 if model.tie_word_embeddings else 2)
    norms = (2 * model.num_hidden_layers + 1) * model.hidden_size
    return embeddings + norms + model.num_hidden_layers * _matrices_of_a_layer(model)


def _matrices_of_a_layer(model: ModelSection) -> int:
    kv_size = model.hidden_size // model.num_attention_heads * model.num_key_value_heads
    attention = 2 * model.hidden_size * (model.hidden_size + kv_size)
    return attention + 3 * model.hidden_size * model.intermediate_size


def flops_per_token(model: ModelSection, vocab_size: int, seq_len: int) -> float:
    """Training operations for one token, forward and backward, attention included.

    6 for every weight of a matrix that the token passes (the output head too, norms not), and 6 · layers · hidden_size ·
    seq_len for causal attention over full windows. Documents shorter than a window attend less, so this is an upper bound.
    """
    matrices = model.num_hidden_layers * _matrices_of_a_layer(model) + vocab_size * model.hidden_size
    return 6.0 * matrices + 6.0 * model.num_hidden_layers * model.hidden_size * seq_len


@dataclass(frozen=True, kw_only=True)
class Flops:
    """Operations of pretraining: the customary 6 · parameters · tokens, and with attention counted."""

    six_nd: float
    with_attention: float


def pretraining_flops(recipe: Recipe) -> Flops:
    """Operations of all stages of pretraining. Post-training is not in it."""
    model, vocab_size = recipe.model, recipe.tokenizer.vocab_size
    return Flops(
        six_nd=6.0 * count_parameters(model, vocab_size) * recipe.pretrain.total_tokens,
        with_attention=sum(
            stage.tokens * flops_per_token(model, vocab_size, stage.seq_len) for stage in recipe.pretrain.stages
        ),
    )


def steps_of(pretrain: Pretrain) -> list[int]:
    """Optimizer steps of each stage."""
    return [stage.tokens // pretrain.global_batch_tokens for stage in pretrain.stages]


# ── speed ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class SpeedPoint:
    """Real training steps of one shape. flops_per_second: by `flops_per_token`, so that shapes can be compared."""

    parameters: int
    seq_len: int
    micro_batch_tokens: int
    tokens_per_second: float
    flops_per_second: float
    measured_by: Literal["doctor", "pretrain"]


@dataclass(frozen=True, kw_only=True)
class Profile:
    """How fast one machine trains. `device` is "cpu" or "cuda"; `hardware` names the processor or the GPU."""

    hardware: str
    device: str
    threads: int
    matmul_flops: float
    points: tuple[SpeedPoint, ...]


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Training operations per second, and in words how that is known."""

    flops_per_second: float
    how_known: str
    is_measured: bool


def read_profile(runs_dir: Path) -> Profile | None:
    """The profile of this runs folder, or None. Raises ArtifactError for a damaged one."""
    path = runs_dir / PROFILE
    if not path.is_file():
        return None
    data = read_json(path)
    try:
        if data.pop("version") != PROFILE_VERSION:
            return None
        return Profile(**{**data, "points": tuple(SpeedPoint(**point) for point in data["points"])})
    except (AttributeError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"{path} is not a speed profile: {error}. Run `gristmill doctor` to make it anew."
        ) from error


def write_profile(runs_dir: Path, profile: Profile) -> Path:
    """Write the profile beside the runs; returns its path."""
    runs_dir.mkdir(parents=True, exist_ok=True)
    write_json(runs_dir / PROFILE, {"version": PROFILE_VERSION, **asdict(profile)})
    return runs_dir / PROFILE


def add_speed_point(profile: Profile, point: SpeedPoint) -> Profile:
    """The profile with the point in it; an older point of the same shape goes."""
    others = tuple(old for old in profile.points if (old.parameters, old.seq_len) != (point.parameters, point.seq_len))
    return replace(profile, points=(*others, point))


def training_speed(parameters: int, points: Sequence[SpeedPoint]) -> Speed:
    """Operations per second for a model of that size: between two measured sizes on a log scale, else the nearest one."""
    ordered = sorted(points, key=lambda point: point.parameters)
    speed = float(
        np.interp(
            math.log(parameters),
            [math.log(point.parameters) for point in ordered],
            [point.flops_per_second for point in ordered],
        )
    )
    sizes = ", ".join(f"{point.parameters / 1e6:.3g}M" for point in ordered)
    return Speed(
        flops_per_second=speed, how_known=f"measured with real training steps ({sizes} parameters)", is_measured=True
    )


# Share of a plain fp32 matmul that training steps of this many parameters reach. Measured with commands/measure_steps.py on one
# core with AVX-512, by processor time: .54, .71 and .75; rounded down, because several threads lose a part.
SHARE_OF_MATMUL = ((1.6e6, 0.5), (12.5e6, 0.65), (52e6, 0.7))


def guessed_speed(parameters: int, matmul_flops: float) -> Speed:
    """Operations per second without a profile: a share of the matmul speed that grows with the model."""
    share = float(
        np.interp(
            math.log10(parameters),
            [math.log10(size) for size, _ in SHARE_OF_MATMUL],
            [share for _, share in SHARE_OF_MATMUL],
        )
    )
    words = f"estimated: {share:.0%} of a matmul that ran at {matmul_flops / 1e9:.0f} GFLOP/s; `gristmill doctor` measures it"
    return Speed(flops_per_second=share * matmul_flops, how_known=words, is_measured=False)


def measure_matmul(seconds: float = 0.2, size: int = 1024) -> float:
    """FLOP/s of fp32 matrix products in numpy, the best of as many as fit into the time."""
    left = np.ones((size, size), np.float32)
    right, product = np.ones_like(left), np.empty_like(left)
    np.matmul(left, right, out=product)
    best, end = math.inf, time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        np.matmul(left, right, out=product)
        best = min(best, time.perf_counter() - start)
    return 2.0 * size**3 / best


# ── memory and disk ──────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes at the peak of a training step on one device."""

    weights: int
    gradients: int
    moments: int
    activations: int
    logits: int
    framework: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(asdict(self).values())


def training_memory(recipe: Recipe, micro_batch_tokens: int, *, compute_bytes: int = FP32_BYTES) -> Memory:
    """Peak bytes of a training step: fp32 weights, gradients and both AdamW moments, one micro-batch, a chunk of logits with
    its gradient and the gradient of the head.

    compute_bytes: of one activation, 4 on CPU, 2 under bf16. A document longer than the micro-batch stands alone, so the
    longest sequence counts if it is longer.
    """
    model = recipe.model
    parameters = count_parameters(model, recipe.tokenizer.vocab_size)
    longest = max(stage.seq_len for stage in recipe.pretrain.stages)
    tokens = min(max(micro_batch_tokens, longest), recipe.pretrain.global_batch_tokens)
    chunk = min(max(MIN_CHUNK_TOKENS, CHUNK_LOGITS // recipe.tokenizer.vocab_size), tokens)
    return Memory(
        weights=parameters * FP32_BYTES,
        gradients=parameters * FP32_BYTES,
        moments=2 * parameters * FP32_BYTES,
        activations=round(
            tokens * model.num_hidden_layers * _saved_per_token(model) * compute_bytes * ACTIVATION_OVERHEAD
        ),
        logits=(2 * chunk + model.hidden_size) * recipe.tokenizer.vocab_size * FP32_BYTES,
        framework=FRAMEWORK_BYTES,
    )


def _saved_per_token(model: ModelSection) -> int:
    """Numbers that one layer keeps of one token for the backward pass."""
    kv_size = model.hidden_size // model.num_attention_heads * model.num_key_value_heads
    in_attention = (
        5 * model.hidden_size + 4 * kv_size
    )  # input, normed, q before and after rotation, mixed; k, v likewise
    in_mlp = 2 * model.hidden_size + 4 * model.intermediate_size  # input, normed; gate, its SiLU, up, product
    return in_attention + in_mlp


@dataclass(frozen=True, kw_only=True)
class Disk:
    """Bytes that a run leaves behind."""

    documents: int
    shards: int
    checkpoints: int
    num_checkpoints: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.documents + self.shards + self.checkpoints


def run_disk(recipe: Recipe, text_bytes: float, unique_tokens: int) -> Disk:
    """Disk that a run needs: documents after extract and again after select (Parquet keeps 3 bytes of text in one), token
    shards, and weights with both moments for each checkpoint: the newest two, one being written, the start of the decay, and
    the end of each stage."""
    parameters = count_parameters(recipe.model, recipe.tokenizer.vocab_size)
    num_checkpoints = 4 + len(recipe.pretrain.stages)
    return Disk(
        documents=round(2 * text_bytes / 3),
        shards=unique_tokens * (2 if recipe.tokenizer.vocab_size <= 2**16 else 4),
        checkpoints=num_checkpoints * parameters * 3 * FP32_BYTES,
        num_checkpoints=num_checkpoints,
    )


def in_units(value: float, unit: str) -> str:
    """1234567 "B" → "1.23 MB"; with decimal prefixes."""
    prefixes: list[tuple[float, str]] = [(1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")]
    for size, prefix in prefixes:
        if value >= 0.9995 * size:  # what rounds to 1,000 of one prefix is 1 of the next
            return f"{value / size:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"


def hardware_name() -> str:
    """The processor's name, by which a profile is known to be of this machine."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = (line.partition(":")[2].strip() for line in file if line.startswith("model name"))
            return next(names, platform.machine())
    except OSError:
        return platform.processor() or platform.machine()
