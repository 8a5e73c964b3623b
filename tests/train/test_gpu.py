"""What only a GPU can show. `scripts/gpu_check.py` runs these; nothing else does, for they are marked `gpu`.

With GRISTMILL_GPU_TESTS_ON=cpu they run on the processor, as a rehearsal: it shows that the tests themselves work. Those of streams,
of real memory and of NCCL are then skipped or use gloo.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_run as tiny
import torch
import torch._dynamo
from torch import Tensor
from torch._dynamo.utils import counters

from gristmill.graph.ranks import ONE_RANK
from gristmill.model.attention import FLASH, Documents, document_attention
from gristmill.model.compiled import compile_parts
from gristmill.model.config import LlamaConfig
from gristmill.model.transfer import on_device
from gristmill.model.transformer import Llama
from gristmill.model.weights import init_weights
from gristmill.tokens.batch import Batch, positions_within
from gristmill.train.loss import device_arithmetic, next_token_loss
from gristmill.train.micro_batches import _passes
from gristmill.train.optimizer import make_optimizer
from gristmill.train.optimizer_step import StepOutcome, take_step
from gristmill.train.ranks.sharding import put_together
from gristmill.train.ranks.torch_ranks import Meeting, joined

pytestmark = pytest.mark.gpu

ON = os.environ.get("GRISTMILL_GPU_TESTS_ON", "cuda")
IS_REHEARSAL = ON == "cpu"
real_device_only = pytest.mark.skipif(IS_REHEARSAL, reason="a rehearsal on a processor")
LOSS = partial(next_token_loss, source_names=["web", "code"])
CONFIG = LlamaConfig(
    vocab_size=512,
    hidden_size=128,
    intermediate_size=256,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=32,
    max_position_embeddings=512,
)


@pytest.fixture
def device() -> torch.device:
    if not IS_REHEARSAL and not torch.cuda.is_available():
        pytest.skip("no GPU here")
    return torch.device(ON, 0) if ON == "cuda" else torch.device(ON)


@pytest.fixture
def exact() -> Iterator[None]:
    """Kernels that add in one order: FlashAttention's backward pass has another order each time unless it is asked."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def batch(seed: int = 0, *, documents: int = 8, longest: int = 200) -> Batch:
    random = np.random.default_rng(seed)
    lengths = random.integers(2, longest, documents)
    ids = random.integers(0, CONFIG.vocab_size, int(lengths.sum()) + 1)
    return Batch(
        tokens_N=ids[:-1],
        targets_N=ids[1:],
        positions_N=positions_within(lengths),
        document_lengths=lengths,
        loss_mask_N=(random.random(len(ids) - 1) < 0.9).astype(np.float32),
        source_N=np.repeat(np.arange(documents) % 2, lengths).astype(np.int16),
    )


def model_on(device: torch.device, seed: int = 0) -> Llama:
    return init_weights(Llama(CONFIG), seed).to(device)


def step(
    model: Llama,
    optimizer: torch.optim.Optimizer,
    made: Batch,
    *,
    micro_batch_tokens: int = 100_000,
    ranks: Any = ONE_RANK,
) -> StepOutcome:
    return take_step(
        model,
        optimizer,
        made,
        LOSS,
        lr=1e-3,
        micro_batch_tokens=micro_batch_tokens,
        max_grad_norm=1.0,
        ranks=ranks,
        reports=("loss", "loss/web", "loss/code"),
    )


def distance(a: Tensor, b: Tensor) -> float:
    """Relative, of all values together."""
    return float((a.double().cpu() - b.double().cpu()).norm() / b.double().norm())


# ── the parts ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("heads", [(4, 4), (8, 2)])
@pytest.mark.parametrize("size", [32, 64, 128])
def test_attention_over_all_documents_is_that_of_each_alone(
    device: torch.device, heads: tuple[int, int], size: int
) -> None:
    """Against float64 on the processor, document by document; forward and gradients, in bfloat16."""
    lengths = [1, 17, 64, 129, 300]
    generator = torch.Generator().manual_seed(0)
    tensors = [
        torch.randn(sum(lengths), count, size, generator=generator, dtype=torch.bfloat16)
        for count in (heads[0], heads[1], heads[1])
    ]
    weight = torch.randn(tensors[0].shape, generator=generator, dtype=torch.bfloat16)
    ours = [x.to(device, copy=True).requires_grad_() for x in tensors]
    documents = Documents.of(lengths, device)
    assert IS_REHEARSAL or documents.offsets is not None or torch.cuda.get_device_capability(device) < FLASH
    out = document_attention(*ours, documents)  # type: ignore[call-arg]
    (out * weight.to(device)).sum().backward()  # type: ignore[no-untyped-call]
    theirs = [x.double().requires_grad_() for x in tensors]
    parts = []
    for part in zip(*(torch.split(x, lengths) for x in theirs), strict=True):
        q, k, v = (x.transpose(0, 1)[None] for x in part)
        one = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        parts.append(one[0].transpose(0, 1))
    expected = torch.cat(parts)
    (expected * weight).sum().backward()  # type: ignore[no-untyped-call]
    assert distance(out.detach(), expected.detach()) < 0.01
    for found, wanted in zip(ours, theirs, strict=True):
        assert found.grad is not None
        assert wanted.grad is not None
        assert distance(found.grad, wanted.grad) < 0.02


def test_a_document_does_not_see_its_neighbours(device: torch.device) -> None:
    """Bit for bit: the same document between others."""
    model = model_on(device)
    made, other = batch(1), batch(2)
    first = int(made.document_lengths[0])
    whole = torch.from_numpy(made.tokens_N).to(device)
    changed = whole.clone()
    changed[first:] = torch.from_numpy(np.resize(other.tokens_N, len(whole) - first)).to(device)
    positions = torch.from_numpy(made.positions_N).to(device)
    with torch.no_grad(), device_arithmetic(device):
        a, b = (model(tokens, positions, made.document_lengths.tolist())[:first] for tokens in (whole, changed))
    assert torch.equal(a, b)


@real_device_only
def test_copies_are_whole_while_the_device_is_at_work(device: torch.device) -> None:
    """Each batch is copied while long work on the one before is under way, and its memory is given back at once."""
    busy = torch.randn(4096, 4096, device=device)
    sums = []
    for number in range(300):
        [tensor] = on_device([np.full(1_000_003, number, dtype=np.int64)], device)
        busy = (busy @ busy).clamp_(-1, 1)
        sums.append((tensor - number).abs().sum())
        del tensor
    assert not torch.stack(sums).any()


@real_device_only
def test_no_micro_batch_waits_for_the_device(device: torch.device) -> None:
    model, made = model_on(device), batch()
    pieces = made.micro_batches(400)
    assert len(pieces) > 1
    _passes(model, pieces, LOSS, units=1.0, counts=True, ranks=ONE_RANK, cut_to=400)  # libraries begin
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = _passes(model, pieces, LOSS, units=1.0, counts=True, ranks=ONE_RANK, cut_to=400)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert found is not None


# ── training ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_training_follows_float32_on_the_processor(device: torch.device) -> None:
    """The first loss within 5e-4, the gradient norm within .05, thirty steps within .02."""
    outcomes = []
    for place in (torch.device("cpu"), device):
        model = model_on(place)
        optimizer = make_optimizer(model, lr=1e-3)
        outcomes.append([step(model, optimizer, batch(number % 3)) for number in range(30)])
    ours, theirs = outcomes[1], outcomes[0]
    assert ours[0].loss == pytest.approx(theirs[0].loss, rel=5e-4)
    assert ours[0].grad_norm == pytest.approx(theirs[0].grad_norm, rel=0.05)
    assert [one.loss for one in ours] == pytest.approx([one.loss for one in theirs], rel=0.02)
    assert ours[-1].loss < ours[0].loss - 0.1
    assert {name: count for name, (_, count) in ours[0].sums.items()} == {
        name: count for name, (_, count) in theirs[0].sums.items()
    }


def test_the_cut_into_micro_batches_changes_nothing_but_rounding(device: torch.device) -> None:
    found = []
    for tokens in (100_000, 300, 1):
        model = model_on(device)
        found.append(step(model, make_optimizer(model, lr=1e-3), batch(), micro_batch_tokens=tokens))
    assert [one.loss for one in found] == pytest.approx([found[0].loss] * 3, rel=1e-4)
    assert [one.grad_norm for one in found] == pytest.approx([found[0].grad_norm] * 3, rel=1e-2)


def test_compiled_parts_train_alike_and_are_compiled_once(device: torch.device) -> None:
    torch._dynamo.reset()
    counters.clear()
    outcomes = []
    graphs = []
    for is_compiled in (False, True):
        model = model_on(device)
        if is_compiled:
            compile_parts(model, backend="aot_eager" if IS_REHEARSAL else "inductor")
        optimizer = make_optimizer(model, lr=1e-3)
        for number in range(6):
            outcomes.append(step(model, optimizer, batch(number, documents=3 + number)))
            graphs.append(counters["stats"]["unique_graphs"])
    losses = [one.loss for one in outcomes]
    assert losses[6:] == pytest.approx(losses[:6], rel=2e-3)
    assert graphs[6] > 0
    assert len(set(graphs[6:])) == 1


def test_recomputed_activations_give_the_same_step(device: torch.device) -> None:
    found = []
    for recompute in (False, True):
        model = model_on(device)
        model.recompute = recompute
        found.append(step(model, make_optimizer(model, lr=1e-3), batch()))
    assert found[1].loss == found[0].loss
    assert found[1].grad_norm == pytest.approx(found[0].grad_norm, rel=1e-3)


@pytest.mark.usefixtures("exact")
def test_a_resumed_training_is_the_unbroken_one_bit_for_bit(device: torch.device, tmp_path: Path) -> None:
    def train(session: Any, end: int) -> Any:
        tiny.train_run(session, end_step=end, hooks=[tiny.measuring_hook(session)])
        return session

    unbroken = train(tiny.open_run(tmp_path / "unbroken", device=device.type), tiny.END)
    train(tiny.open_run(tmp_path / "stopped", device=device.type), tiny.SAVE_EVERY)
    said: list[str] = []
    resumed = tiny.open_run(tmp_path / "stopped", said.append, device=device.type)
    assert resumed.progress.step == tiny.SAVE_EVERY
    assert resumed.model.device.type == device.type
    train(resumed, tiny.END)
    tiny.assert_identical(tiny.state_of(resumed), tiny.state_of(unbroken))


@real_device_only
def test_a_device_without_memory_takes_the_step_in_smaller_micro_batches(device: torch.device) -> None:
    """The limit is set a little above what half of the batch needs."""
    made = batch(documents=400, longest=400)

    def peak_of(tokens: int) -> tuple[int, StepOutcome]:
        model = model_on(device)
        optimizer = make_optimizer(model, lr=1e-3)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        outcome = step(model, optimizer, made, micro_batch_tokens=tokens)
        return torch.cuda.max_memory_reserved(device), outcome

    half_peak, _ = peak_of(made.num_tokens // 2)
    whole_peak, plain = peak_of(made.num_tokens)
    assert whole_peak > 1.3 * half_peak
    limit = (half_peak + whole_peak) / 2
    torch.cuda.set_per_process_memory_fraction(limit / torch.cuda.mem_get_info(device)[1], device)
    try:
        _, found = peak_of(made.num_tokens)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
        torch.cuda.empty_cache()
    assert found.micro_batch_tokens < made.num_tokens
    assert found.applied
    assert found.loss == pytest.approx(plain.loss, rel=1e-4)
    assert found.grad_norm == pytest.approx(plain.grad_norm, rel=1e-2)


def test_one_rank_of_a_group_takes_the_step_of_a_process_by_itself(device: torch.device) -> None:
    """By NCCL and FSDP2, on one GPU."""
    plain = model_on(device)
    optimizer = make_optimizer(plain, lr=1e-3)
    expected = [step(plain, optimizer, batch(number), micro_batch_tokens=400) for number in range(3)]
    meeting = Meeting.opened()
    with joined(meeting, rank=0, size=1, local_rank=0, device=device.type, replicas=1) as ranks:
        model = model_on(device)
        ranks.shard(model)
        optimizer = make_optimizer(model, lr=1e-3)
        found = [step(model, optimizer, batch(number), micro_batch_tokens=400, ranks=ranks) for number in range(3)]
        weights = put_together(model.state_dict(), keep=True)
        seconds = ranks.own_seconds()
    assert [one.loss for one in found] == pytest.approx([one.loss for one in expected], rel=1e-4)
    assert [one.grad_norm for one in found] == pytest.approx([one.grad_norm for one in expected], rel=1e-2)
    for name, weight in plain.state_dict().items():
        torch.testing.assert_close(weights[name].cpu(), weight.cpu(), rtol=2e-2, atol=2e-3)
    assert len(seconds) == 1
