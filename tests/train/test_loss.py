"""The chunked loss held against the plain one, in value, gradients, sums by source and memory shape."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from gristmill.model.config import LlamaConfig
from gristmill.model.transformer import Llama
from gristmill.model.weights import init_weights
from gristmill.tokens.batch import Batch, positions_within
from gristmill.train.loss import chunked_cross_entropy, device_arithmetic, next_token_loss

CONFIG = LlamaConfig(
    vocab_size=61,
    hidden_size=32,
    intermediate_size=56,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=64,
    initializer_range=0.2,
)
LENGTHS = np.array([5, 1, 9, 3])


def random_inputs(tokens: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(tokens, 12, generator=generator, requires_grad=True)
    weight = torch.randn(37, 12, generator=generator, requires_grad=True)
    return x, weight, torch.randint(0, 37, (tokens,), generator=generator), torch.randn(tokens, generator=generator)


def make_batch(sources: int = 1) -> Batch:
    rng, total = np.random.default_rng(0), int(LENGTHS.sum())
    return Batch(
        tokens_N=rng.integers(0, 61, total),
        targets_N=rng.integers(0, 61, total),
        positions_N=positions_within(LENGTHS),
        document_lengths=LENGTHS,
        loss_mask_N=rng.integers(0, 2, total).astype(np.float32),
        source_N=rng.integers(0, sources, total).astype(np.int16),
    )


@settings(max_examples=40, deadline=None)
@given(tokens=st.integers(1, 50), chunk=st.integers(1, 60), scale=st.floats(-3, 3))
def test_loss_and_gradients_equal_cross_entropy_for_any_chunk_and_weights(
    tokens: int, chunk: int, scale: float
) -> None:
    x, weight, targets, mask = random_inputs(tokens)
    loss, nll = chunked_cross_entropy(x, weight, targets, mask, chunk)
    plain_nll = functional.cross_entropy(x @ weight.T, targets, reduction="none")
    plain = (plain_nll * mask).sum()
    torch.testing.assert_close(loss, plain, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(nll, plain_nll, atol=1e-5, rtol=1e-5)
    assert not nll.requires_grad
    found = torch.autograd.grad(loss * scale, (x, weight))
    expected = torch.autograd.grad(plain * scale, (x, weight))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@settings(max_examples=30, deadline=None)
@given(tokens=st.integers(1, 50), chunk=st.integers(1, 60), z_loss=st.floats(1e-6, 1.0))
def test_z_loss_and_its_gradients_equal_the_squared_logarithm_of_the_sum_for_any_chunk(
    tokens: int, chunk: int, z_loss: float
) -> None:
    x, weight, targets, mask = random_inputs(tokens)
    loss, nll = chunked_cross_entropy(x, weight, targets, mask, chunk, z_loss=z_loss)
    logits = x @ weight.T
    plain_nll = functional.cross_entropy(logits, targets, reduction="none")
    plain = ((plain_nll + z_loss * torch.logsumexp(logits, 1).square()) * mask).sum()
    torch.testing.assert_close(loss, plain, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(nll, plain_nll, atol=1e-5, rtol=1e-5)
    found = torch.autograd.grad(loss, (x, weight))
    for ours, theirs in zip(found, torch.autograd.grad(plain, (x, weight)), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(
            chunked_cross_entropy(x, weight, targets, mask, chunk, z_loss=z_loss)[0], loss.detach()
        )


def test_what_is_reported_as_loss_has_no_z_loss_in_it_and_what_is_minimised_has() -> None:
    model, batch = init_weights(Llama(CONFIG), 0), make_batch(sources=2)
    with torch.no_grad():
        plain, weighted = (next_token_loss(model, batch, ("a", "b"), z_loss=z_loss) for z_loss in (0.0, 0.1))
    assert weighted.sums == plain.sums
    assert float(weighted.loss_sum) > float(plain.loss_sum) + 1


def test_loss_without_gradient_is_the_same() -> None:
    x, weight, targets, mask = random_inputs(20)
    loss, nll = chunked_cross_entropy(x, weight, targets, mask, 7)
    with torch.no_grad():
        quiet_loss, quiet_nll = chunked_cross_entropy(x, weight, targets, mask, 7)
    assert not quiet_loss.requires_grad
    assert torch.equal(nll, quiet_nll)
    assert torch.equal(loss.detach(), quiet_loss)


def test_a_frozen_head_gets_no_gradient_and_the_hidden_state_still_does() -> None:
    x, weight, targets, mask = random_inputs(20)
    expected = torch.autograd.grad(chunked_cross_entropy(x, weight, targets, mask)[0], x)[0]
    frozen = weight.detach()
    assert torch.equal(torch.autograd.grad(chunked_cross_entropy(x, frozen, targets, mask)[0], x)[0], expected)


def test_a_second_backward_is_refused_not_wrong() -> None:
    x, weight, targets, mask = random_inputs(5)
    loss, _ = chunked_cross_entropy(x, weight, targets, mask)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="differentiated twice"):
        loss.backward()


def test_huge_logits_give_finite_loss_and_gradients() -> None:
    x, weight, targets, mask = random_inputs(6)
    big = (x.detach() * 1e4).requires_grad_()
    loss, nll = chunked_cross_entropy(big, weight, targets, mask)
    loss.backward()
    assert torch.isfinite(nll).all()
    assert torch.isfinite(big.grad).all()


def test_half_precision_gradients_lose_nothing_over_many_chunks() -> None:
    x, weight, targets, mask = (tensor.detach() for tensor in random_inputs(4000))
    x, weight = x.bfloat16().requires_grad_(), weight.bfloat16().requires_grad_()
    loss, nll = chunked_cross_entropy(x, weight, targets, mask.abs(), 4)
    found = torch.autograd.grad(loss, weight)[0]
    exact = weight.detach().float().requires_grad_()
    plain = functional.cross_entropy(x.detach().float() @ exact.T, targets, reduction="none")
    expected = torch.autograd.grad((plain * mask.abs()).sum(), exact)[0]
    assert nll.dtype == torch.float32
    assert found.dtype == torch.bfloat16
    assert ((found.float() - expected).norm() / expected.norm()).item() < 0.01


def test_no_logits_wider_than_a_chunk_exist_with_or_without_gradient() -> None:
    x, weight, targets, mask = random_inputs(50)
    rows: list[int] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            result = function(*args, **(kwargs or {}))
            if function is torch.ops.aten.mm.default and result.shape[1] == 37:
                rows.append(result.shape[0])
            return result

    with Watch():
        chunked_cross_entropy(x, weight, targets, mask, 8)[0].backward()
    with Watch(), torch.no_grad():
        chunked_cross_entropy(x, weight, targets, mask, 8)
    assert rows == [8, 8, 8, 8, 8, 8, 2] * 2


def test_batch_loss_equals_plain_cross_entropy_of_each_document_alone() -> None:
    model, batch = init_weights(Llama(CONFIG), 0), make_batch()
    output = next_token_loss(model, batch, ["text"])
    start, plain = 0, torch.zeros(())
    for length in LENGTHS.tolist():
        here = slice(start, start + length)
        tokens, targets, mask = (
            torch.from_numpy(array[here]) for array in (batch.tokens_N, batch.targets_N, batch.loss_mask_N)
        )
        logits = model.logits(model.hidden(tokens, torch.arange(length), [length]))
        plain = plain + (functional.cross_entropy(logits, targets, reduction="none") * mask).sum()
        start += length
    torch.testing.assert_close(output.loss_sum, plain, atol=1e-4, rtol=1e-6)
    names = [name for name, _ in model.named_parameters()]
    found = torch.autograd.grad(output.loss_sum, list(model.parameters()))
    expected = torch.autograd.grad(plain, list(model.parameters()))
    for name, ours, theirs in zip(names, found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4, msg=name)


@pytest.mark.parametrize("counting", [0, 5])
def test_the_head_is_spent_on_targets_that_count_alone(counting: int) -> None:
    model, rows = init_weights(Llama(CONFIG), 0), []
    mask = np.zeros(int(LENGTHS.sum()), dtype=np.float32)
    mask[3 : 3 + counting] = 1
    batch = replace(make_batch(), loss_mask_N=mask)

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            result = function(*args, **(kwargs or {}))
            if function is torch.ops.aten.mm.default and result.shape[1] == CONFIG.vocab_size:
                rows.append(result.shape[0])
            return result

    with Watch():
        output = next_token_loss(model, batch, ["text"])
        output.loss_sum.backward()  # type: ignore[no-untyped-call]
    assert sum(rows) == output.sums["loss"][1] == counting
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters() if parameter.grad is not None)


def test_sums_of_sources_add_up_to_the_whole() -> None:
    model, batch = init_weights(Llama(CONFIG), 0), make_batch(sources=3)
    output = next_token_loss(model, batch, ["web", "code", "maths"])
    nats, count = output.sums["loss"]
    parts = [output.sums[f"loss/{name}"] for name in ("web", "code", "maths")]
    assert count == batch.num_units == sum(part[1] for part in parts)
    assert float(nats) == pytest.approx(sum(float(part[0]) for part in parts), rel=1e-12)
    assert float(nats) == pytest.approx(output.loss_sum.item(), rel=1e-5)


def test_each_source_has_the_loss_of_its_own_targets() -> None:
    model, batch, names = init_weights(Llama(CONFIG), 0), make_batch(sources=3), ["web", "code", "maths"]
    found = next_token_loss(model, batch, names).sums
    for number, name in enumerate(names):
        own = batch.loss_mask_N * (batch.source_N == number)
        nats, count = next_token_loss(model, replace(batch, loss_mask_N=own), names).sums["loss"]
        assert found[f"loss/{name}"][1] == count > 0
        assert float(found[f"loss/{name}"][0]) == pytest.approx(float(nats), rel=1e-5)


def test_a_source_without_targets_is_left_out() -> None:
    batch = replace(make_batch(), source_N=np.ones(int(LENGTHS.sum()), dtype=np.int16))
    sums = next_token_loss(init_weights(Llama(CONFIG), 0), batch, ["web", "code"]).sums
    assert set(sums) == {"loss", "loss/code"}
    assert sums["loss"] == sums["loss/code"]


def test_micro_batches_add_up_to_the_batch() -> None:
    model, batch = init_weights(Llama(CONFIG), 0), make_batch()
    whole = next_token_loss(model, batch, ["text"]).loss_sum
    whole_gradient = torch.autograd.grad(whole, model.model.embed_tokens.weight)[0]
    parts = [next_token_loss(model, part, ["text"]).loss_sum for part in batch.micro_batches(9)]
    assert len(parts) > 1
    torch.testing.assert_close(sum(parts), whole, atol=1e-4, rtol=1e-6)
    gradient = torch.autograd.grad(sum(parts), model.model.embed_tokens.weight)[0]
    torch.testing.assert_close(gradient, whole_gradient, atol=1e-4, rtol=1e-4)


def test_training_computes_in_float32_on_a_processor() -> None:
    with device_arithmetic(torch.device("cpu")):
        assert not torch.is_autocast_enabled("cpu")


def test_training_computes_in_the_number_format_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gristmill.train.loss.number_format", lambda device: "bfloat16")
    with device_arithmetic(torch.device("cpu")):
        assert (torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")) == (True, torch.bfloat16)
