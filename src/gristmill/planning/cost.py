"""What training will take: parameters, floating-point operations, hours, memory, disk.

Parameters and operations are arithmetic. Hours are operations over a speed, which `doctor` (or the first pretraining) measured
with real training steps and left in `<runs_dir>/.profile.json`; without that file a short matmul is multiplied by the share of
it that training reaches. Memory and disk are estimates from tensor shapes.

What the loss, the checkpoints and the shards need to know as well (rows of a chunk, checkpoints kept, bytes of a token) is decided here and imported there.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from gristmill.recipe.schema.recipe import Recipe
from gristmill.recipe.schema.training import ModelSection, Pretrain

FP32_BYTES = 4
KEEP_CHECKPOINTS = 2  # the newest; milestones stay beside them
CHUNK_LOGITS = 2**21  # 8 MiB of float32: measured best on CPU at 4,096 words
MIN_CHUNK_TOKENS = 256  # with 128 the head takes 5 to 12 % longer at 16,384 and 49,152 words, with 512 2 to 4 % less; memory doubles each time
FRAMEWORK_BYTES = 374_000_000  # measured: torch's CPU build and our imports, with a model of 35,000 parameters
# Measured: libraries and heap that the steps before pretraining leave in the process, torch not counted.
CURATION_BYTES = 200_000_000
HEAP_BLOCK_BYTES = 2**25  # glibc gives freed blocks of this size back to the system; smaller ones stay in its heap


# ── parameters and operations ────────────────────────────────────────────────────────────────────────────────────────


def count_parameters(model: ModelSection, vocab_size: int) -> int:
    """Trainable numbers of the model; tied embeddings count once."""
    embeddings = vocab_size * model.hidden_size * (1 if model.tie_word_embeddings else 2)
    norms = (2 * model.num_hidden_layers + 1) * model.hidden_size
    return embeddings + norms + model.num_hidden_layers * matrices_of_a_layer(model)


def matrices_of_a_layer(model: ModelSection) -> int:
    """Weights of the seven matrices of one layer."""
    kv_size = model.hidden_size // model.num_attention_heads * model.num_key_value_heads
    attention = 2 * model.hidden_size * (model.hidden_size + kv_size)
    return attention + 3 * model.hidden_size * model.intermediate_size


def flops_per_token(model: ModelSection, vocab_size: int, seq_len: int) -> float:
    """Training operations for one token, forward and backward, attention included.

    6 for every weight of a matrix that the token passes (the output head too, norms not), and 6 · layers · hidden_size ·
    seq_len for causal attention over full windows. Documents shorter than a window attend less, so this is an upper bound.
    """
    matrices = model.num_hidden_layers * matrices_of_a_layer(model) + vocab_size * model.hidden_size
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
    """Bytes at the peak of a training step on one device.

    activations: what is kept for the backward pass, and the gradients of activations that are under way. logits: of the chunks
    that the loss holds. holes: freed blocks between kept ones, which the heap cannot give out again. curation: what the steps
    before left in the process, where a run made them.
    """

    weights: int
    gradients: int
    moments: int
    activations: int
    logits: int
    holes: int
    framework: int
    curation: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return sum(asdict(self).values())


def training_memory(recipe: Recipe, micro_batch_tokens: int) -> Memory:
    """Peak bytes of a training step of the recipe, in micro-batches of that size, in a run that curates first.

    A document longer than the micro-batch is one of its own, so the longest sequence counts if it is longer.
    """
    tokens = tokens_at_once(recipe, micro_batch_tokens)
    step = step_memory(
        recipe.model,
        recipe.tokenizer.vocab_size,
        tokens=tokens,
        accumulates=tokens < recipe.pretrain.global_batch_tokens,
    )
    return replace(step, curation=CURATION_BYTES)


def tokens_at_once(recipe: Recipe, micro_batch_tokens: int) -> int:
    """Tokens of the largest micro-batch: never more than a step has."""
    longest = max(stage.seq_len for stage in recipe.pretrain.stages)
    return min(max(micro_batch_tokens, longest), recipe.pretrain.global_batch_tokens)


def step_memory(model: ModelSection, vocab_size: int, *, tokens: int, accumulates: bool) -> Memory:
    """Peak bytes of a training step: float32 weights, both AdamW moments, gradients, and one micro-batch of `tokens`.

    accumulates: a step takes several micro-batches, so all gradients are in memory while the next one is computed. Three moments can be
    the peak: in the loss, when the backward pass begins, and when it ends with all gradients made.
    For the CPU with glibc. On a GPU the framework's part is the host's, half of the activations are bfloat16, and torch's own
    allocator leaves smaller holes.
    """
    parameters = count_parameters(model, vocab_size)
    head = vocab_size * model.hidden_size
    states = 2 * model.hidden_size * tokens  # the hidden state and its gradient
    kept = tokens * kept_per_token(model) + states
    chunk = loss_chunk_tokens(vocab_size)
    standing = parameters if accumulates else 0
    in_loss = Memory(
        weights=parameters * FP32_BYTES,
        moments=2 * parameters * FP32_BYTES,
        gradients=(standing + head) * FP32_BYTES,
        activations=kept * FP32_BYTES,
        logits=min(2 * chunk, tokens) * vocab_size * FP32_BYTES,  # the next is made before the last is let go
        holes=_holes(model, tokens, accumulates=accumulates),
        framework=FRAMEWORK_BYTES,
    )
    under_way = 2 * tokens * (model.hidden_size + model.intermediate_size)  # over what their own backward has let go
    backward_begins = replace(in_loss, logits=0, activations=(kept + under_way) * FP32_BYTES)
    backward_ends = replace(
        in_loss,
        logits=0,
        gradients=(parameters + (head if model.tie_word_embeddings else 0)) * FP32_BYTES,
        activations=states * FP32_BYTES,
    )
    return max(in_loss, backward_begins, backward_ends, key=lambda memory: memory.total)


def loss_chunk_tokens(vocab_size: int) -> int:
    """Tokens whose logits the chunked loss holds at once."""
    return max(MIN_CHUNK_TOKENS, CHUNK_LOGITS // vocab_size)


def kept_per_token(model: ModelSection) -> int:
    """Numbers of 4 bytes that the forward pass keeps of one token for the backward pass, documents being of several lengths.

    Exactly what autograd saves of the code in `src/gristmill/model/`. A norm keeps its unit vector, the scale of it, and the
    product with the weight where a matrix reads it.
    """
    hidden, heads = model.hidden_size, model.num_attention_heads
    kv_size = hidden // heads * model.num_key_value_heads
    norm = 2 * hidden + 1
    in_attention = norm + hidden + 2 * kv_size + heads + 2 * hidden  # q; k, v; log-sums; mixed, by document and joined
    in_mlp = norm + 4 * model.intermediate_size  # gate, its SiLU, up, product
    at_the_ends = 2 + hidden // heads + hidden + 1  # the token's id, its angles; unit vector and scale of the last norm
    return model.num_hidden_layers * (in_attention + in_mlp) + at_the_ends


def kept_bytes_in_bfloat16(model: ModelSection) -> int:
    """Bytes that the forward pass keeps of one token for the backward pass, where products are bfloat16 (torch's autocast).

    What `kept_per_token` counts, of which norms and log-sums stay float32, and the rest takes 2 bytes; but autocast rounds the input of
    each matrix apart, so that of queries, keys and values is kept three times and that of gate and up twice.
    """
    hidden, heads = model.hidden_size, model.num_attention_heads
    kv_size = hidden // heads * model.num_key_value_heads
    in_float32 = 2 * (hidden + 1) + heads
    in_half = (3 + 2) * hidden + hidden + 2 * kv_size + 2 * hidden + 4 * model.intermediate_size
    at_the_ends = 2 + hidden // heads + hidden + 1
    return model.num_hidden_layers * (4 * in_float32 + 2 * in_half) + 4 * at_the_ends


def _holes(model: ModelSection, tokens: int, *, accumulates: bool) -> int:
    """Bytes of freed blocks that cannot be given out again, as glibc's heap has them.

    torch asks for aligned blocks, and glibc then looks for a little more than the size: a freed block does not fit the next one
    of its own size, only smaller ones. So what the forward pass of a layer frees between blocks that it keeps is lost: the
    squares of both norms, queries and keys before rotation, the outputs of attention and MLP, one residual sum (the other is
    used by smaller blocks). Where gradients are added up, those of the MLP's three matrices lie where its activations were,
    and break three of the next micro-batch's four wide blocks. Held against measurements in docs/log.md.
    """
    kv_size = model.hidden_size // model.num_attention_heads * model.num_key_value_heads
    blocks = [(6, model.hidden_size), (1, kv_size), (3 if accumulates else 0, model.intermediate_size)]
    lost = sum(count * width for count, width in blocks if tokens * width * FP32_BYTES < HEAP_BLOCK_BYTES)
    return tokens * model.num_hidden_layers * lost * FP32_BYTES


@dataclass(frozen=True, kw_only=True)
class Disk:
    """Bytes that a run leaves behind. fetched: of sources that lie elsewhere, as far as their sizes are known. search,
    repeated: what the searches for duplicates and for repeated text take on top while they run, one after the other."""

    fetched: int
    documents: int
    signatures: int
    shards: int
    checkpoints: int
    num_checkpoints: int
    search: int
    repeated: int

    @property
    def total(self) -> int:
        """All that stays."""
        return self.fetched + self.documents + self.signatures + self.shards + self.checkpoints


def run_disk(
    recipe: Recipe,
    text_bytes: float,
    unique_tokens: int,
    *,
    fetched: int = 0,
    signatures: int = 0,
    search: int = 0,
    repeated: int = 0,
) -> Disk:
    """Disk that a run needs: documents after extract and again after select (Parquet keeps 3 bytes of text in one), token
    shards, and weights with both moments for each checkpoint: the newest two, one being written, the start of the decay, and
    the end of each stage."""
    parameters = count_parameters(recipe.model, recipe.tokenizer.vocab_size)
    num_checkpoints = KEEP_CHECKPOINTS + 2 + len(recipe.pretrain.stages)
    return Disk(
        fetched=fetched,
        documents=round(2 * text_bytes / 3),
        signatures=signatures,
        shards=unique_tokens * token_bytes(recipe.tokenizer.vocab_size),
        checkpoints=num_checkpoints * parameters * 3 * FP32_BYTES,
        num_checkpoints=num_checkpoints,
        search=search,
        repeated=repeated,
    )


def token_bytes(vocab_size: int) -> int:
    """Bytes of one token id in a shard."""
    return 2 if vocab_size <= 2**16 else 4
