"""Compiled feed-forward layers and norms: the same loss and gradient, and nothing is compiled again when documents change."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from shutil import which

import numpy as np
import pytest
import torch
import torch._dynamo
from torch import Tensor
from torch._dynamo.utils import counters

from gristmill.graph.ranks import ONE_RANK
from gristmill.model.compiled import compile_parts
from gristmill.model.config import LlamaConfig
from gristmill.model.transformer import Llama
from gristmill.model.weights import init_weights
from gristmill.tokens.batch import Batch, positions_within
from gristmill.train.loss import chunked_cross_entropy, next_token_loss
from gristmill.train.optimizer_step import take_step
from gristmill.train.ranks.sharding import put_together
from gristmill.train.ranks.torch_ranks import Meeting, joined

CONFIG = LlamaConfig(
    vocab_size=276,
    hidden_size=48,
    intermediate_size=64,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=12,
    max_position_embeddings=64,
    initializer_range=0.1,
)
DOCUMENTS = ([5, 6], [7, 3, 9], [20], [4, 4, 4, 4], [30, 2], [1, 1, 1])


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def loss_and_gradient(model: Llama, lengths: list[int]) -> tuple[float, Tensor]:
    generator = torch.Generator().manual_seed(sum(lengths))
    tokens, targets = (torch.randint(0, 276, (sum(lengths),), generator=generator) for _ in range(2))
    positions = torch.cat([torch.arange(length) for length in lengths])
    model.zero_grad()
    x_ND = model(tokens, positions, lengths)
    loss, _ = chunked_cross_entropy(x_ND, model.output_weight_VD, targets, torch.ones(sum(lengths)))
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = [parameter.grad for parameter in model.parameters()]
    return float(loss.detach()), torch.cat([grad.flatten() for grad in gradients if grad is not None])


def random_batch() -> Batch:
    lengths = np.array([7, 5, 9])
    ids = np.random.default_rng(0).integers(0, 276, 22)
    return Batch(
        tokens_N=ids[:-1],
        targets_N=ids[1:],
        positions_N=positions_within(lengths),
        document_lengths=lengths,
        loss_mask_N=np.ones(21, dtype=np.float32),
        source_N=np.zeros(21, dtype=np.int16),
    )


def check(backend: str) -> None:
    plain, fast = init_weights(Llama(CONFIG), 0), init_weights(Llama(CONFIG), 0)
    compile_parts(fast, backend=backend)
    assert fast.state_dict().keys() == plain.state_dict().keys()
    graphs = []
    for lengths in DOCUMENTS:
        loss, gradient = loss_and_gradient(plain, lengths)
        found, found_gradient = loss_and_gradient(fast, lengths)
        assert found == pytest.approx(loss, rel=1e-6)
        assert float((found_gradient - gradient).norm() / gradient.norm()) < 1e-5
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs == [2] * len(DOCUMENTS)  # one feed-forward layer, one norm, for all layers and all lengths


def test_traced_parts_are_the_same_and_are_traced_once_whatever_the_documents() -> None:
    check("aot_eager")


def test_parts_of_a_model_that_is_spread_over_ranks_can_be_compiled() -> None:
    """One rank over gloo, which spreads and gathers as several do."""
    plain, fast = init_weights(Llama(CONFIG), 0), init_weights(Llama(CONFIG), 0)
    with joined(Meeting.opened(), rank=0, size=1, local_rank=0, device="cpu", replicas=1) as ranks:
        ranks.shard(fast)
        compile_parts(fast, backend="aot_eager")
        outcomes = [
            take_step(
                model,
                torch.optim.SGD(model.parameters()),
                random_batch(),
                partial(next_token_loss, source_names=["text"]),
                lr=0.1,
                micro_batch_tokens=12,
                max_grad_norm=1.0,
                ranks=of,
                reports=("loss", "loss/text"),
            )
            for model, of in ((plain, ONE_RANK), (fast, ranks))
        ]
        weights = put_together(fast.state_dict(), keep=True)
    assert outcomes[1].loss == pytest.approx(outcomes[0].loss, rel=1e-6)
    assert outcomes[1].grad_norm == pytest.approx(outcomes[0].grad_norm, rel=1e-5)
    for name, weight in plain.state_dict().items():
        torch.testing.assert_close(weights[name], weight, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(which("g++") is None, reason="needs a C++ compiler")
def test_compiled_parts_are_the_same_and_are_compiled_once_whatever_the_documents() -> None:
    check("inductor")


@pytest.mark.slow
def test_a_compiled_layer_would_be_compiled_for_each_list_of_lengths() -> None:
    """Why attention is left out; and that the count of graphs sees it."""
    model = init_weights(Llama(CONFIG), 0)
    for layer in model.model.layers:
        layer.compile(dynamic=True, backend="aot_eager")
    graphs = []
    for lengths in DOCUMENTS[:3]:
        loss_and_gradient(model, lengths)
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[0] < graphs[1] < graphs[2]
