"""What training will take: parameters, floating-point operations, hours, memory, disk.

Parameters and operations are arithmetic. Hours are operations over a speed, which `doctor` (or the first pretraining) measured
with real training steps and left in `<runs_dir>/.profile.json`; without that file a short matmul is multiplied by the share of
it that training reaches. Memory and disk are estimates from tensor shapes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from gristmill.recipe.schema.recipe import Recipe
from gristmill.recipe.schema.training import ModelSection, Pretrain

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


def pretraining_flops(model: ModelSection, vocab_size: int, pretrain: Pretrain) -> Flops:
    """Operations of all stages of pretraining. Post-training is not in it."""
    return Flops(
        six_nd=6.0 * count_parameters(model, vocab_size) * pretrain.total_tokens,
        with_attention=sum(
            stage.tokens * flops_per_token(model, vocab_size, stage.seq_len) for stage in pretrain.stages
        ),
    )


def steps_of(pretrain: Pretrain) -> list[int]:
    """Optimizer steps of each stage."""
    return [stage.tokens // pretrain.global_batch_tokens for stage in pretrain.stages]


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


def training_memory(recipe: Recipe, micro_batch_tokens: int) -> Memory:
    """Peak bytes of a training step: fp32 weights, gradients and both AdamW moments, one micro-batch, a chunk of logits with
    its gradient and the gradient of the head.

    Activations are counted in float32; on a GPU a part of them is bfloat16, so there it is an upper bound. A document longer
    than the micro-batch stands alone, so the longest sequence counts if it is longer.
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
            tokens * model.num_hidden_layers * _saved_per_token(model) * FP32_BYTES * ACTIVATION_OVERHEAD
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
