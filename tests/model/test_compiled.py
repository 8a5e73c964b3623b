"""Compiled feed-forward layers and norms: the same loss and gradient, and nothing is compiled again when documents change."""

from __future__ import annotations

from collections.abc import Iterator
from shutil import which

import pytest
import torch
import torch._dynamo
from torch import Tensor
from torch._dynamo.utils import counters

from gristmill.model.compiled import compile_parts
from gristmill.model.config import LlamaConfig
from gristmill.model.transformer import Llama
from gristmill.model.weights import init_weights
from gristmill.train.loss import chunked_cross_entropy

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
