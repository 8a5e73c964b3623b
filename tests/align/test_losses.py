"""DPO: ln 2 at equality, blind to constants, the gradient of the formula; pair batches; log-probabilities by the book."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import gristmill.align.losses as losses
from gristmill.align.losses import PairBatch, PreferencePair, ShapeError, dpo_loss, preference_loss, response_logps
from gristmill.align.reference import reference_logps
from gristmill.model.config import LlamaConfig
from gristmill.model.transformer import Llama
from gristmill.model.weights import init_weights
from gristmill.tokens.chat import EncodedChat, chat_batch
from gristmill.train.optimizer_step import take_step

VOCAB = 50


@pytest.fixture(scope="module")
def model() -> Llama:
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=64,
        initializer_range=0.2,
    )
    return init_weights(Llama(config), seed=1)


def chat(seed: int, num_prompt: int = 4, num_answer: int = 3) -> EncodedChat:
    random = np.random.default_rng(seed)
    ids = random.integers(0, VOCAB, size=num_prompt + num_answer)
    mask = np.array([0] * num_prompt + [1] * num_answer, dtype=np.float32)
    return EncodedChat(id=str(seed), ids=ids, mask=mask)


def pair(seed: int, *, model: Llama | None = None) -> PreferencePair:
    chosen, rejected = chat(2 * seed, num_answer=2 + seed % 3), chat(2 * seed + 1)
    reference = [0.0, 0.0]
    if model is not None:
        with torch.no_grad():
            reference = response_logps(model, chat_batch([chosen, rejected])).tolist()
    return PreferencePair(
        id=str(seed),
        chosen=chosen,
        rejected=rejected,
        reference_chosen_logp=reference[0],
        reference_rejected_logp=reference[1],
    )


logps = st.lists(st.floats(-200, 0, width=32), min_size=1, max_size=5)


@given(logps, logps, st.floats(0.01, 2.0))
def test_loss_is_ln_2_where_policy_and_reference_agree(chosen: list[float], rejected: list[float], beta: float) -> None:
    size = min(len(chosen), len(rejected))
    a, b = torch.tensor(chosen[:size]), torch.tensor(rejected[:size])
    loss, chosen_reward, rejected_reward = dpo_loss(a, b, a, b, beta=beta)
    assert loss.tolist() == pytest.approx([math.log(2)] * size, abs=1e-7)
    assert chosen_reward.tolist() == rejected_reward.tolist() == [0.0] * size


@given(st.lists(st.integers(-100, 0), min_size=4, max_size=4), st.integers(-64, 64), st.floats(0.05, 1.0))
def test_shifting_policy_and_reference_by_a_constant_changes_nothing(
    values: list[int], shift: int, beta: float
) -> None:
    tensors = [torch.tensor([float(value)]) for value in values]
    shifted = [tensor + shift for tensor in tensors]
    for before, after in zip(dpo_loss(*tensors, beta=beta), dpo_loss(*shifted, beta=beta)):
        assert torch.equal(before, after)


def test_loss_by_hand_and_its_gradient() -> None:
    policy = torch.tensor([-1.0], requires_grad=True)
    loss, chosen_reward, rejected_reward = dpo_loss(
        policy, torch.tensor([-3.0]), torch.tensor([-2.0]), torch.tensor([-2.5]), beta=0.5
    )
    margin = 0.5 * ((-1.0 + 2.0) - (-3.0 + 2.5))
    assert float(loss.detach()) == pytest.approx(math.log1p(math.exp(-margin)), rel=1e-6)
    assert (float(chosen_reward), float(rejected_reward)) == (0.5, -0.25)
    assert not chosen_reward.requires_grad
    loss.sum().backward()
    assert policy.grad is not None
    assert float(policy.grad) == pytest.approx(-0.5 / (1 + math.exp(margin)), rel=1e-6)


def test_different_shapes_are_refused() -> None:
    one, two = torch.zeros(1), torch.zeros(2)
    with pytest.raises(ShapeError, match="must be one"):
        dpo_loss(one, one, two, one, beta=0.1)


def test_log_probabilities_are_those_of_the_plain_formula(model: Llama, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "LOGIT_ROWS", 2)
    chats = [chat(seed, num_answer=1 + seed) for seed in range(4)]
    found = response_logps(model, chat_batch(chats)).tolist()
    for example, logp in zip(chats, found):
        ids = torch.from_numpy(example.ids)
        logits = model.logits(model.hidden(ids[:-1], torch.arange(len(ids) - 1), [len(ids) - 1]))
        each = torch.log_softmax(logits, -1)[torch.arange(len(ids) - 1), ids[1:]]
        assert logp == pytest.approx(float((each * torch.from_numpy(example.mask[1:])).sum().detach()), rel=1e-5)


def test_pieces_of_logits_do_not_change_the_gradient(model: Llama, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = PairBatch(pairs=[pair(seed) for seed in range(3)])
    gradients = []
    for rows in (1000, 2):
        monkeypatch.setattr(losses, "LOGIT_ROWS", rows)
        model.zero_grad()
        preference_loss(model, batch, beta=0.3).loss_sum.backward()
        gradients.append(
            torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])
        )
    assert gradients[0].abs().max() > 1e-3
    assert torch.allclose(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)


def test_fresh_policy_has_loss_ln_2_a_pair_and_no_margin(model: Llama) -> None:
    output = preference_loss(model, PairBatch(pairs=[pair(seed, model=model) for seed in range(4)]), beta=0.5)
    assert float(output.loss_sum.detach()) == pytest.approx(4 * math.log(2), abs=1e-5)
    assert float(output.sums["margin"][0]) == pytest.approx(0, abs=1e-5)
    assert all(count == 4 for _, count in output.sums.values())


def test_reference_is_asked_in_the_arithmetic_of_training(model: Llama, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("gristmill.train.micro_batches", "gristmill.align.reference"):
        monkeypatch.setattr(f"{module}.device_arithmetic", lambda device: torch.autocast("cpu", dtype=torch.bfloat16))
    policy = copy.deepcopy(model)
    answers = pair(3)
    [(chosen_logp, rejected_logp)] = reference_logps(model, [(answers.chosen, answers.rejected)])
    asked = replace(answers, reference_chosen_logp=chosen_logp, reference_rejected_logp=rejected_logp)
    outcome = take_step(
        policy,
        torch.optim.SGD(policy.parameters(), lr=0.0),
        PairBatch(pairs=[asked]),
        partial(preference_loss, beta=0.5),
        lr=0.0,
        micro_batch_tokens=100,
        max_grad_norm=1.0,
    )
    assert outcome.loss == pytest.approx(math.log(2), abs=1e-7)
    assert outcome.sums["reward_chosen"][0] == outcome.sums["margin"][0] == outcome.sums["accuracy"][0] == 0.0


def test_what_is_reported_follows_from_the_log_probabilities(model: Llama) -> None:
    pairs = [
        replace(pair(seed), reference_chosen_logp=-2.0 - seed, reference_rejected_logp=-7.0 + seed) for seed in range(4)
    ]
    rewards = []
    for one in pairs:
        chosen, rejected = response_logps(model, chat_batch([one.chosen, one.rejected])).tolist()
        rewards.append((0.3 * (chosen - one.reference_chosen_logp), 0.3 * (rejected - one.reference_rejected_logp)))
    good, bad = zip(*rewards, strict=True)
    assert min(good) < max(bad)
    found = preference_loss(model, PairBatch(pairs=pairs), beta=0.3)
    margins = [a - b for a, b in rewards]
    expected = {
        "accuracy": sum(margin > 0 for margin in margins),
        "margin": sum(margins),
        "reward_chosen": sum(good),
        "reward_rejected": sum(bad),
    }
    assert 0 < expected["accuracy"] < 4
    assert {name: float(total) for name, (total, _) in found.sums.items()} == pytest.approx(expected, rel=1e-4)
    assert float(found.loss_sum.detach()) == pytest.approx(sum(math.log1p(math.exp(-m)) for m in margins), rel=1e-4)


def test_a_micro_batch_of_pairs_takes_as_many_as_fit_and_a_long_one_alone() -> None:
    """Pairs of 11, 12, 13, 11, 12 tokens."""
    batch = PairBatch(pairs=[pair(seed) for seed in range(5)])
    assert [one.num_tokens for one in batch.pairs] == [11, 12, 13, 11, 12]
    assert (
        batch.num_tokens == chat_batch([chat for one in batch.pairs for chat in (one.chosen, one.rejected)]).num_tokens
    )
    for max_tokens, expected in (
        (36, [["0", "1", "2"], ["3", "4"]]),
        (35, [["0", "1"], ["2", "3"], ["4"]]),
        (23, [["0", "1"], ["2"], ["3", "4"]]),
        (1, [["0"], ["1"], ["2"], ["3"], ["4"]]),
    ):
        assert [[one.id for one in piece.pairs] for piece in batch.micro_batches(max_tokens)] == expected


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 60))
def test_micro_batches_keep_pairs_whole_and_in_order(num_pairs: int, max_tokens: int) -> None:
    batch = PairBatch(pairs=[pair(seed) for seed in range(num_pairs)])
    pieces = batch.micro_batches(max_tokens)
    assert [p.id for piece in pieces for p in piece.pairs] == [p.id for p in batch.pairs]
    assert sum(piece.num_tokens for piece in pieces) == batch.num_tokens
    assert sum(piece.num_units for piece in pieces) == batch.num_units == num_pairs
    assert all(piece.num_tokens <= max_tokens or piece.num_units == 1 for piece in pieces)


def test_accumulation_over_pairs_equals_one_batch(model: Llama) -> None:
    outcomes = []
    for micro_batch_tokens in (1000, 15):
        copy = Llama(model.config)
        copy.load_state_dict(model.state_dict())
        outcomes.append(
            take_step(
                copy,
                torch.optim.SGD(copy.parameters()),
                PairBatch(pairs=[pair(seed) for seed in range(5)]),
                partial(preference_loss, beta=0.5),
                lr=0.1,
                micro_batch_tokens=micro_batch_tokens,
                max_grad_norm=1.0,
            )
        )
    assert outcomes[1].loss == pytest.approx(outcomes[0].loss, rel=1e-6)
    assert outcomes[1].grad_norm == pytest.approx(outcomes[0].grad_norm, rel=1e-5)


def test_training_on_pairs_raises_the_margin(model: Llama) -> None:
    policy = Llama(model.config)
    policy.load_state_dict(model.state_dict())
    batch = PairBatch(pairs=[pair(seed, model=model) for seed in range(4)])
    optimizer = torch.optim.AdamW(policy.parameters())
    for _ in range(10):
        take_step(
            policy,
            optimizer,
            batch,
            partial(preference_loss, beta=0.5),
            lr=3e-3,
            micro_batch_tokens=1000,
            max_grad_norm=1.0,
        )
    after = preference_loss(policy, batch, beta=0.5)
    assert after.sums["accuracy"][0] == 4
    assert float(after.loss_sum.detach()) < 2 * math.log(2)
