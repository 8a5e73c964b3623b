"""AdamW against its formula, the norm against float64, clipping."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from gristmill.model.config import LlamaConfig
from gristmill.model.transformer import Llama
from gristmill.model.weights import init_weights
from gristmill.train.optimizer import clip_, grad_norm, grad_square_sum, make_optimizer, set_lr

CONFIG = LlamaConfig(
    vocab_size=61,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=8,
    max_position_embeddings=64,
)


def random_gradients(model: nn.Module, seed: int, scale: float = 1.0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator) * scale


def plain_adamw(value: Tensor, gradients: list[Tensor], rates: list[float], decay: float) -> Tensor:
    """Loshchilov & Hutter's algorithm 2, line by line, in float64."""
    value, mean, square = value.double(), torch.zeros(()).double(), torch.zeros(()).double()
    for step, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), 1):
        mean = 0.9 * mean + 0.1 * gradient.double()
        square = 0.95 * square + 0.05 * gradient.double() ** 2
        value = value - rate * decay * value
        value = value - rate * (mean / (1 - 0.9**step)) / ((square / (1 - 0.95**step)).sqrt() + 1e-8)
    return value


@pytest.mark.parametrize("decay_embeddings", [True, False])
def test_steps_follow_the_formula_of_adamw_at_changing_rates(decay_embeddings: bool) -> None:
    model, rates = init_weights(Llama(CONFIG), 0), [1e-2, 3e-2, 5e-3]
    start = {name: value.detach().clone() for name, value in model.named_parameters()}
    optimizer = make_optimizer(model, lr=1.0, weight_decay=0.1, decay_embeddings=decay_embeddings)
    history: dict[str, list[Tensor]] = {name: [] for name in start}
    for step, rate in enumerate(rates):
        random_gradients(model, step)
        for name, value in model.named_parameters():
            history[name].append(value.grad.clone())
        set_lr(optimizer, rate)
        optimizer.step()
    for name, value in model.named_parameters():
        decay = 0.0 if name.endswith("embed_tokens.weight") and not decay_embeddings else 0.1
        expected = plain_adamw(start[name], history[name], rates, decay).float()
        torch.testing.assert_close(value.detach(), expected, atol=1e-6, rtol=1e-5, msg=name)


def test_fused_steps_equal_torchs_plain_adamw() -> None:
    ours, peer = init_weights(Llama(CONFIG), 0), init_weights(Llama(CONFIG), 0)
    optimizers = [
        make_optimizer(ours, lr=1e-2),
        torch.optim.AdamW(peer.parameters(), lr=1e-2, betas=(0.9, 0.95), weight_decay=0.01, foreach=False),
    ]
    assert optimizers[0].defaults["fused"] is True
    for step in range(5):
        for model, optimizer in zip((ours, peer), optimizers, strict=True):
            random_gradients(model, step)
            optimizer.step()
    for found, expected in zip(ours.parameters(), peer.parameters(), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_every_parameter_is_in_the_optimizer_once_and_frozen_ones_are_not() -> None:
    model = init_weights(Llama(CONFIG), 0)
    model.model.norm.weight.requires_grad_(False)
    for decay_embeddings, groups in ((True, 1), (False, 2)):
        optimizer = make_optimizer(model, lr=1e-3, decay_embeddings=decay_embeddings)
        names = [name for group in optimizer.param_groups for name in group["param_names"]]
        assert len(optimizer.param_groups) == groups
        assert sorted(names) == sorted(name for name, _ in model.named_parameters() if name != "model.norm.weight")


def test_norm_is_exact_where_float32_addition_is_not() -> None:
    layer = nn.Linear(1000, 2000, bias=False)
    layer.weight.grad = torch.rand(2000, 1000, generator=torch.Generator().manual_seed(0))
    exact = layer.weight.grad.double().square().sum().sqrt().item()
    assert grad_norm(layer.parameters()) == pytest.approx(exact, rel=1e-12)
    assert grad_square_sum(layer.parameters()) == pytest.approx(exact**2, rel=1e-12)


def test_norm_without_gradients_is_zero() -> None:
    assert grad_norm(nn.Linear(2, 2).parameters()) == 0.0


def test_clipping_scales_to_the_limit_and_returns_the_norm_before() -> None:
    model = init_weights(Llama(CONFIG), 0)
    random_gradients(model, 0)
    before = [parameter.grad.clone() for parameter in model.parameters()]
    norm = grad_norm(model.parameters())
    clipped = clip_(model.parameters(), 1.0)
    assert (clipped.norm, clipped.is_finite, clipped.was_clipped) == (norm, True, True)
    assert grad_norm(model.parameters()) == pytest.approx(1.0, rel=1e-6)
    for parameter, old in zip(model.parameters(), before, strict=True):
        torch.testing.assert_close(parameter.grad, old / norm)


@pytest.mark.parametrize("fraction", [0.99, 0.5, 0.1])
def test_any_norm_above_the_limit_becomes_the_limit(fraction: float) -> None:
    model = init_weights(Llama(CONFIG), 0)
    random_gradients(model, 0)
    norm = grad_norm(model.parameters())
    clip_(model.parameters(), fraction * norm)
    assert grad_norm(model.parameters()) == pytest.approx(fraction * norm, rel=1e-6)


def test_a_norm_at_the_limit_is_not_clipped() -> None:
    model = init_weights(Llama(CONFIG), 0)
    random_gradients(model, 0)
    assert not clip_(model.parameters(), grad_norm(model.parameters())).was_clipped


def test_a_small_norm_leaves_the_gradients_bit_for_bit() -> None:
    model = init_weights(Llama(CONFIG), 0)
    random_gradients(model, 0, scale=1e-4)
    before = [parameter.grad.clone() for parameter in model.parameters()]
    clipped = clip_(model.parameters(), 1.0)
    assert (clipped.is_finite, clipped.was_clipped) == (True, False)
    assert all(torch.equal(parameter.grad, old) for parameter, old in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_a_norm_that_is_not_finite_is_flagged_and_changes_nothing(bad: float) -> None:
    layer = nn.Linear(3, 1, bias=False)
    layer.weight.grad = torch.tensor([[5.0, bad, 7.0]])
    clipped = clip_(layer.parameters(), 1.0)
    assert (clipped.is_finite, clipped.was_clipped) == (False, False)
    assert layer.weight.grad[0, 0] == 5.0
    assert layer.weight.grad[0, 2] == 7.0
