"""One whole step against plain autograd: one pass over the whole batch, clipping by hand, plain gradient descent.

Plain descent, because AdamW divides a wrong scale of the gradient away again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import tiny_run as tiny
import torch
from torch import Tensor, nn
from torch.nn import functional

from gristmill.tokens.batch import Batch
from gristmill.train.loss import next_token_loss
from gristmill.train.optimizer_step import StepOutcome, take_step

LR = 0.3
LOSS = partial(next_token_loss, source_names=("web", "code"))


def reference_step(batch: Batch, max_grad_norm: float) -> tuple[float, float, list[Tensor]]:
    """(mean loss, gradient norm before clipping, weights after), with nothing of ours but the model's logits."""
    model = tiny.tiny_model()
    x_ND = model.hidden(
        torch.from_numpy(batch.tokens_N), torch.from_numpy(batch.positions_N), batch.document_lengths.tolist()
    )
    nll_N = functional.cross_entropy(model.logits(x_ND), torch.from_numpy(batch.targets_N), reduction="none")
    mask_N = torch.from_numpy(batch.loss_mask_N)
    loss = (nll_N * mask_N).sum() / mask_N.sum()
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(loss, parameters)
    norm = math.sqrt(sum(float(gradient.double().square().sum()) for gradient in gradients))
    scale = min(1.0, max_grad_norm / norm)
    after = [(old - LR * scale * gradient).detach() for old, gradient in zip(parameters, gradients, strict=True)]
    return float(loss.detach()), norm, after


def our_step(
    batch: Batch, *, micro_batch_tokens: int, max_grad_norm: float, before: Callable[[nn.Module], None] = lambda m: None
) -> tuple[StepOutcome, list[Tensor]]:
    model = tiny.tiny_model()
    before(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=123.0)  # a rate that is never used
    outcome = take_step(
        model, optimizer, batch, LOSS, lr=LR, micro_batch_tokens=micro_batch_tokens, max_grad_norm=max_grad_norm
    )
    assert all(parameter.grad is None for parameter in model.parameters())  # they are as large as the model
    return outcome, [parameter.detach() for parameter in model.parameters()]


@pytest.mark.parametrize("micro_batch_tokens", [1000, 24, 1])
@pytest.mark.parametrize("max_grad_norm", [1e9, 0.05])
@pytest.mark.parametrize("number", [0, 5])
def test_loss_norm_and_update_are_those_of_plain_autograd(
    number: int, max_grad_norm: float, micro_batch_tokens: int
) -> None:
    batch = tiny.batch_at(number)
    assert 0 < batch.num_units < batch.num_tokens
    assert len(batch.micro_batches(1)) == tiny.DOCUMENTS
    loss, norm, expected = reference_step(batch, max_grad_norm)
    assert 0.05 < norm < 1e9
    outcome, found = our_step(batch, micro_batch_tokens=micro_batch_tokens, max_grad_norm=max_grad_norm)
    assert outcome.applied
    assert outcome.loss == pytest.approx(loss, rel=1e-5)
    assert outcome.grad_norm == pytest.approx(norm, rel=1e-5)
    begin = list(tiny.tiny_model().parameters())
    for old, ours, theirs in zip(begin, found, expected, strict=True):
        torch.testing.assert_close(ours - old, theirs - old, rtol=1e-3, atol=1e-6)


def test_gradients_of_before_do_not_enter() -> None:
    def spoil(model: nn.Module) -> None:
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)

    batch = tiny.batch_at(0)
    clean, expected = our_step(batch, micro_batch_tokens=24, max_grad_norm=1e9)
    outcome, found = our_step(batch, micro_batch_tokens=24, max_grad_norm=1e9, before=spoil)
    assert outcome == clean
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))
