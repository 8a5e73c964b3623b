"""Training in bfloat16 over float32 weights, as on a GPU, shown on a processor: near float32, and the weights stay as they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from gristmill.model.config import LlamaConfig
from gristmill.model.transformer import Llama
from gristmill.model.weights import init_weights
from gristmill.tokens.batch import Batch, positions_within
from gristmill.train.loss import next_token_loss

CONFIG = LlamaConfig(
    vocab_size=512,
    hidden_size=128,
    intermediate_size=256,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=32,
    max_position_embeddings=128,
    initializer_range=0.1,  # far from the even guess of new weights, which any arithmetic gives
)


def batch() -> Batch:
    random = np.random.default_rng(0)
    lengths = np.array([70, 128, 31, 27])
    ids = random.integers(0, 512, int(lengths.sum()) + 1)
    return Batch(
        tokens_N=ids[:-1],
        targets_N=ids[1:],
        positions_N=positions_within(lengths),
        document_lengths=lengths,
        loss_mask_N=np.ones(int(lengths.sum()), dtype=np.float32),
        source_N=np.zeros(int(lengths.sum()), dtype=np.int16),
    )


def loss_and_gradient(*, half: bool) -> tuple[float, Tensor]:
    model = init_weights(Llama(CONFIG), 0)
    made = batch()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
        output = next_token_loss(model, made, ["text"])
    (output.loss_sum / made.num_units).backward()  # type: ignore[no-untyped-call]
    gradients = [parameter.grad for parameter in model.parameters()]
    assert all(gradient is not None and gradient.dtype == torch.float32 for gradient in gradients)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    total, count = output.sums["loss"]
    assert total.dtype == torch.float64
    return float(total) / count, torch.cat([gradient.flatten() for gradient in gradients if gradient is not None])


def test_loss_and_gradient_in_bfloat16_are_those_of_float32_within_its_rounding() -> None:
    loss, gradient = loss_and_gradient(half=False)
    found, found_gradient = loss_and_gradient(half=True)
    assert found == pytest.approx(loss, rel=5e-4)
    distance = float((found_gradient - gradient).norm() / gradient.norm())
    assert 1e-4 < distance < 0.05  # and it is not float32 that was compared with itself
