"""Laws of the transformer: causality, document boundaries, grouped heads, rotary positions; and its config."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gristmill.errors import ArtifactError, DataError
from gristmill.model.attention import Documents, cached_attention, document_attention
from gristmill.model.config import LlamaConfig
from gristmill.model.norm import RMSNorm
from gristmill.model.rope import rotary_angles, rotate
from gristmill.model.transformer import Llama
from gristmill.model.weights import init_weights

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
MODEL = init_weights(Llama(CONFIG), 1)

token_lists = st.lists(st.integers(0, CONFIG.vocab_size - 1), min_size=1, max_size=40)
documents = st.lists(st.lists(st.integers(0, CONFIG.vocab_size - 1), min_size=1, max_size=12), min_size=1, max_size=6)
few = settings(max_examples=30, deadline=None)


def logits_of(model: Llama, *texts: list[int]) -> Tensor:
    lengths = [len(text) for text in texts]
    positions = torch.cat([torch.arange(length) for length in lengths])
    tokens = torch.tensor([token for text in texts for token in text])
    with torch.no_grad():
        return model.logits(model.hidden(tokens, positions, lengths))


@few
@given(tokens=token_lists, data=st.data())
def test_a_later_token_never_changes_earlier_logits(tokens: list[int], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(tokens) - 1))
    changed = tokens[:cut] + [(token + 1) % CONFIG.vocab_size for token in tokens[cut:]]
    before, after = logits_of(MODEL, tokens), logits_of(MODEL, changed)
    assert torch.equal(before[:cut], after[:cut])
    assert not torch.equal(before[cut], after[cut])


@few
@given(texts=documents)
def test_a_flat_batch_equals_its_documents_one_at_a_time(texts: list[list[int]]) -> None:
    alone = torch.cat([logits_of(MODEL, text) for text in texts])
    torch.testing.assert_close(logits_of(MODEL, *texts), alone, atol=2e-5, rtol=0)


def test_gradients_of_a_flat_batch_equal_those_of_its_documents_added_up() -> None:
    texts = [[1, 2, 3, 4, 5], [6], [7, 8, 9]]

    def gradient(*group: list[int]) -> Tensor:
        tokens = torch.tensor([token for text in group for token in text])
        positions = torch.cat([torch.arange(len(text)) for text in group])
        x_ND = MODEL.hidden(tokens, positions, [len(text) for text in group])
        return torch.autograd.grad(x_ND.square().sum(), MODEL.model.layers[0].self_attn.q_proj.weight)[0]

    torch.testing.assert_close(gradient(*texts), sum(gradient(text) for text in texts), atol=1e-4, rtol=1e-4)


def test_a_document_does_not_see_the_one_before_it() -> None:
    first, second = logits_of(MODEL, [1, 2, 3], [7, 8]), logits_of(MODEL, [4, 5, 6], [7, 8])
    assert torch.equal(first[3:], second[3:])


def test_equal_documents_in_one_call_give_the_bits_of_one_call_each() -> None:
    q, k, v = (torch.randn(12, heads, 8, generator=torch.Generator().manual_seed(heads)) for heads in (4, 2, 2))
    together = document_attention(q, k, v, Documents.of([4, 4, 4], q.device))
    here = [slice(start, start + 4) for start in (0, 4, 8)]
    alone = [document_attention(q[part], k[part], v[part], Documents.of([4], q.device)) for part in here]
    assert torch.equal(together, torch.cat(alone))


def plain_attention(q_NHK: Tensor, k_NHK: Tensor, v_NHK: Tensor) -> Tensor:
    """The textbook formula with a full matrix of scores."""
    scores_HNN = torch.einsum("nhk,mhk->hnm", q_NHK, k_NHK) / q_NHK.shape[-1] ** 0.5
    future = torch.ones(scores_HNN.shape[1:], dtype=torch.bool).triu(1)
    return torch.einsum("hnm,mhk->nhk", scores_HNN.masked_fill(future, -torch.inf).softmax(-1), v_NHK)


@few
@given(length=st.integers(1, 40), heads=st.sampled_from([1, 2, 4]), repeats=st.sampled_from([1, 2, 3]))
def test_grouped_heads_equal_plain_attention_over_repeated_keys(length: int, heads: int, repeats: int) -> None:
    generator = torch.Generator().manual_seed(length)
    q = torch.randn(length, heads * repeats, 8, generator=generator)
    k, v = (torch.randn(length, heads, 8, generator=generator) for _ in range(2))
    expected = plain_attention(q, k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1))
    found = document_attention(q, k, v, Documents.of([length], q.device))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("new", [1, 3, 9])
def test_cached_attention_equals_the_last_rows_of_full_attention(new: int) -> None:
    q, k, v = (torch.randn(9, 2, 8, generator=torch.Generator().manual_seed(seed)) for seed in range(3))
    expected = plain_attention(q, k, v)[-new:]
    torch.testing.assert_close(
        cached_attention(q[-new:], k.transpose(0, 1), v.transpose(0, 1)), expected, atol=1e-5, rtol=1e-5
    )


@few
@given(shift=st.integers(0, 500), theta=st.sampled_from([1e4, 1e5, 1.3e5]))
def test_rotary_scores_depend_on_distance_alone(shift: int, theta: float) -> None:
    q, k = torch.randn(2, 1, 1, 16, generator=torch.Generator().manual_seed(shift))

    def score(query_position: int, key_position: int) -> Tensor:
        turned = [
            rotate(x, *rotary_angles(torch.tensor([position]), head_dim=16, theta=theta))
            for x, position in ((q, query_position), (k, key_position))
        ]
        return (turned[0] * turned[1]).sum()

    torch.testing.assert_close(score(7 + shift, 3 + shift), score(7, 3), atol=2e-3, rtol=0)


def test_gradient_of_rotation_is_that_of_the_plain_formula() -> None:
    x = torch.randn(5, 3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    cos, sin = (angle.double() for angle in rotary_angles(torch.arange(5), head_dim=8, theta=100.0))
    first, second = x[..., :4], x[..., 4:]
    plain = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
    weight = torch.randn(5, 3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ours = rotate(x, cos, sin)
    torch.testing.assert_close(ours, plain)
    gradients = [torch.autograd.grad((y * weight).sum(), x, retain_graph=True)[0] for y in (ours, plain)]
    torch.testing.assert_close(*gradients)


def test_norm_and_its_gradients_equal_the_plain_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    norm = RMSNorm(24, 1e-5)
    with torch.no_grad():
        norm.weight.copy_(torch.rand(24, generator=generator) + 0.5)
    x = torch.randn(7, 24, generator=generator, requires_grad=True)
    plain = x / (x.double().square().mean(-1, keepdim=True) + 1e-5).sqrt().float() * norm.weight
    weight = torch.randn(7, 24, generator=generator)
    torch.testing.assert_close(norm(x), plain)
    inputs = (x, norm.weight)
    ours = torch.autograd.grad((norm(x) * weight).sum(), inputs)
    for found, expected in zip(ours, torch.autograd.grad((plain * weight).sum(), inputs), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_norm_of_half_precision_input_is_rounded_once_after_float32_statistics() -> None:
    x = torch.randn(9, 64, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    plain = x.float() / (x.double().square().mean(-1, keepdim=True) + 1e-5).sqrt().float()
    assert torch.equal(RMSNorm(64, 1e-5).to(torch.bfloat16)(x), plain.to(torch.bfloat16))


def test_set_rope_theta_changes_the_logits_and_the_longest_document_but_no_weight() -> None:
    model = init_weights(Llama(CONFIG), 1)
    before = logits_of(model, [1, 2, 3])
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(DataError, match="65 tokens does not fit the model's context of 64"):
        logits_of(model, [1] * 65)
    model.set_rope_theta(130_000.0, 128)
    assert logits_of(model, [1] * 65).shape == (65, CONFIG.vocab_size)
    assert not torch.equal(before, logits_of(model, [1, 2, 3]))
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_lengths_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(DataError, match="add up to 2, but the batch has 3"):
        MODEL.hidden(torch.tensor([1, 2, 3]), torch.arange(3), [2])


def test_config_survives_a_round_trip_and_reads_old_and_new_keys() -> None:
    config = replace(CONFIG, rope_theta=130_000.0, eos_token_id=[2, 0], pad_token_id=3)
    assert LlamaConfig.from_dict(config.to_dict()) == config
    old = {key: value for key, value in config.to_dict().items() if key != "rope_parameters"}
    new = {key: value for key, value in config.to_dict().items() if key != "rope_theta"}
    assert LlamaConfig.from_dict(old) == LlamaConfig.from_dict(new) == config


def test_absent_optional_keys_take_the_defaults_of_hugging_face() -> None:
    lean = {
        key: value
        for key, value in CONFIG.to_dict().items()
        if key not in ("head_dim", "num_key_value_heads", "tie_word_embeddings", "rms_norm_eps")
    }
    config = LlamaConfig.from_dict(lean)
    assert (config.head_dim, config.num_key_value_heads) == (8, 4)
    assert (config.tie_word_embeddings, config.rms_norm_eps) == (False, 1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_act": "gelu"}, "\"hidden_act\" is 'gelu'"),
        ({"attention_bias": True}, '"attention_bias" is True'),
        ({"rope_interleaved": True}, '"rope_interleaved" is True'),
        ({"model_type": "mistral"}, "'mistral'"),
        ({"rope_scaling": {"type": "linear"}}, '"rope_scaling"'),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "'yarn'"),
        ({"rope_theta": 5.0}, "differ"),
        ({"num_key_value_heads": 3}, "multiple"),
        ({"hidden_size": None}, "lacks hidden_size"),
    ],
)
def test_a_config_that_means_other_arithmetic_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        LlamaConfig.from_dict({**CONFIG.to_dict(), **change})


def test_activations_that_are_computed_twice_give_the_same_gradients_and_keep_a_fraction() -> None:
    texts = [[3, 1, 4, 1, 5, 9, 2, 6], [5, 3, 5, 8, 9, 7, 9], [3, 2, 3, 8]] * 8
    lengths = [len(text) for text in texts]
    tokens = torch.tensor([token for text in texts for token in text])
    positions = torch.cat([torch.arange(length) for length in lengths])
    found = []
    for recompute in (False, True):
        model = init_weights(Llama(replace(CONFIG, num_hidden_layers=6)), 1)
        model.recompute = recompute
        kept = 0

        def keep(tensor: Tensor) -> Tensor:
            nonlocal kept
            kept += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = model.logits(model.hidden(tokens, positions, lengths)).square().sum()
        loss.backward()
        found.append((kept, [parameter.grad for parameter in model.parameters()]))
        with torch.no_grad():
            assert torch.equal(model.hidden(tokens, positions, lengths), model.hidden(tokens, positions, lengths))
    (kept_all, plain), (kept_few, twice) = found
    assert kept_few < kept_all / 3
    assert all(torch.equal(one, other) for one, other in zip(plain, twice, strict=True))
