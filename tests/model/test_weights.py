"""Initialisation statistics, and checkpoints held against stock transformers."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

from gristmill.errors import ArtifactError
from gristmill.model.config import LlamaConfig
from gristmill.model.generate import generate
from gristmill.model.transformer import Llama
from gristmill.model.weights import init_weights, load_model, save_model

CONFIG = LlamaConfig(
    vocab_size=211,
    hidden_size=48,
    intermediate_size=96,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=12,
    max_position_embeddings=96,
    rope_theta=50_000.0,
    initializer_range=0.1,
    bos_token_id=0,
    eos_token_id=0,
    pad_token_id=3,
)


def forward(model: Llama, tokens: torch.Tensor) -> torch.Tensor:
    return model.logits(model.hidden(tokens, torch.arange(len(tokens)), [len(tokens)]))


def test_initial_statistics_are_those_of_the_recipe() -> None:
    config = replace(CONFIG, hidden_size=256, intermediate_size=512, head_dim=64, initializer_range=0.04)
    for name, value in init_weights(Llama(config), 5).named_parameters():
        if value.dim() == 1:
            assert torch.equal(value, torch.ones_like(value)), name
            continue
        into_residual = name.endswith(("o_proj.weight", "down_proj.weight"))
        std = 0.04 / math.sqrt(2 * config.num_hidden_layers) if into_residual else 0.04
        error = std / math.sqrt(2 * value.numel())  # of an estimated standard deviation
        assert abs(value.std().item() - std) < 5 * error, name
        assert abs(value.mean().item()) < 5 * std / math.sqrt(value.numel()), name


def test_loss_of_a_new_model_is_near_the_logarithm_of_its_vocabulary() -> None:
    model = init_weights(Llama(replace(CONFIG, initializer_range=0.02)), 0)
    tokens = torch.randint(0, CONFIG.vocab_size, (96,), generator=torch.Generator().manual_seed(0))
    loss = functional.cross_entropy(forward(model, tokens[:-1]), tokens[1:])
    assert abs(loss.item() - math.log(CONFIG.vocab_size)) < 0.1


def test_initial_weights_depend_on_seed_and_name_and_not_on_depth() -> None:
    shallow = init_weights(Llama(replace(CONFIG, num_hidden_layers=1)), 7).state_dict()
    deep = init_weights(Llama(CONFIG), 7).state_dict()
    other = init_weights(Llama(CONFIG), 8).state_dict()
    name = "model.layers.0.self_attn.q_proj.weight"
    assert torch.equal(shallow[name], deep[name])
    assert not torch.equal(deep[name], other[name])
    assert not torch.equal(deep[name], deep["model.layers.1.self_attn.q_proj.weight"])


@pytest.mark.parametrize("tied", [True, False])
def test_stock_transformers_loads_what_we_save_with_the_same_logits_and_text(tmp_path: Path, tied: bool) -> None:
    transformers = pytest.importorskip("transformers")
    model = init_weights(Llama(replace(CONFIG, tie_word_embeddings=tied)), 2)
    save_model(tmp_path, model, None)
    peer = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert type(peer).__name__ == "LlamaForCausalLM"
    tokens = torch.randint(0, CONFIG.vocab_size, (40,), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(forward(model, tokens), peer(tokens[None]).logits[0], atol=1e-5, rtol=0)
    prompt = tokens[:6]
    ours = generate(model, [prompt.tolist()], max_new_tokens=64, stop_ids=())[0]
    theirs = peer.generate(prompt[None], attention_mask=torch.ones(1, 6), max_new_tokens=64, do_sample=False)
    assert ours == theirs[0, 6:].tolist()
    assert len(ours) == 64


@pytest.mark.parametrize("tied", [True, False])
def test_loss_and_gradients_equal_those_of_transformers(tmp_path: Path, tied: bool) -> None:
    transformers = pytest.importorskip("transformers")
    model = init_weights(Llama(replace(CONFIG, tie_word_embeddings=tied)), 2)
    save_model(tmp_path, model, None)
    peer = transformers.LlamaForCausalLM.from_pretrained(tmp_path)
    tokens = torch.randint(0, CONFIG.vocab_size, (65,), generator=torch.Generator().manual_seed(1))
    ours = functional.cross_entropy(forward(model, tokens[:-1]), tokens[1:])
    theirs = functional.cross_entropy(peer(tokens[None, :-1]).logits[0], tokens[1:])
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
    ours.backward(), theirs.backward()
    peer_gradients = {name: value.grad for name, value in peer.named_parameters()}
    assert set(peer_gradients) == {name for name, _ in model.named_parameters()}
    for name, value in model.named_parameters():
        torch.testing.assert_close(value.grad, peer_gradients[name], atol=1e-6, rtol=1e-4, msg=name)


def test_what_transformers_saves_loads_here(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    save_model(tmp_path / "ours", init_weights(Llama(CONFIG), 2), None)
    peer = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "ours")
    peer.save_pretrained(tmp_path / "theirs", max_shard_size="100KB")
    assert (tmp_path / "theirs" / "model.safetensors.index.json").exists()
    found, expected = load_model(tmp_path / "theirs"), load_model(tmp_path / "ours")
    assert found.config == expected.config
    assert all(torch.equal(value, expected.state_dict()[name]) for name, value in found.state_dict().items())


def test_a_saved_model_loads_bit_for_bit_and_stores_a_tied_embedding_once(tmp_path: Path) -> None:
    model = init_weights(Llama(CONFIG), 2)
    save_model(tmp_path, model, None)
    assert set(load_file(tmp_path / "model.safetensors")) == {name for name, _ in model.named_parameters()}
    again = load_model(tmp_path)
    assert again.config == CONFIG
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in again.parameters())


def test_loaded_weights_begin_where_new_ones_do_so_that_products_have_the_same_last_bits(tmp_path: Path) -> None:
    """A mapped file of safetensors aligns to 8 bytes, torch to 64; a training that resumes must compute as one that never stopped."""
    model = Llama(LlamaConfig(vocab_size=357, hidden_size=30, intermediate_size=62, num_hidden_layers=2, num_attention_heads=3,
                              num_key_value_heads=1, head_dim=10, max_position_embeddings=64))  # fmt: skip
    save_model(tmp_path, init_weights(model, 0), None)
    assert {parameter.data_ptr() % 64 for parameter in load_model(tmp_path).parameters()} == {0}


def test_all_problems_of_a_checkpoint_are_listed_by_name(tmp_path: Path) -> None:
    save_model(tmp_path, init_weights(Llama(CONFIG), 2), None)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["model.norm.weight"]
    tensors["model.extra.weight"] = torch.zeros(2)
    tensors["model.embed_tokens.weight"] = torch.zeros(210, 48)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ArtifactError) as caught:
        load_model(tmp_path)
    text = str(caught.value)
    assert "missing: model.norm.weight" in text
    assert "unexpected: model.extra.weight" in text
    assert "shape of model.embed_tokens.weight: (210, 48), the config asks for (211, 48)" in text


def test_a_stored_copy_of_a_tied_head_is_dropped_and_another_head_refused(tmp_path: Path) -> None:
    save_model(tmp_path, init_weights(Llama(CONFIG), 2), None)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file(
        {**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"].clone()}, tmp_path / "model.safetensors"
    )
    assert "lm_head.weight" not in load_model(tmp_path).state_dict()
    save_file({**tensors, "lm_head.weight": torch.zeros(211, 48)}, tmp_path / "model.safetensors")
    with pytest.raises(ArtifactError, match=r"ties the embeddings, but lm_head\.weight"):
        load_model(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x80\x04}q\x00.", b"\xff" * 64])
def test_a_damaged_or_pickled_weight_file_is_refused(tmp_path: Path, content: bytes) -> None:
    save_model(tmp_path, init_weights(Llama(CONFIG), 2), None)
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ArtifactError, match="not a whole safetensors file"):
        load_model(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(ArtifactError, match="holds its weights as safetensors"):
        load_model(tmp_path)


def test_tokenizer_files_go_with_the_model(tmp_path: Path) -> None:
    source, target = tmp_path / "tokenizer", tmp_path / "model"
    source.mkdir()
    with pytest.raises(ArtifactError, match=r"tokenizer\.json does not exist"):
        save_model(target, init_weights(Llama(CONFIG), 2), source)
    (source / "tokenizer.json").write_text("{}")
    (source / "chat_template.jinja").write_text("x")
    save_model(target, init_weights(Llama(CONFIG), 2), source)
    written = sorted(path.name for path in target.iterdir())
    assert written == [
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    generation = json.loads((target / "generation_config.json").read_text())
    assert generation == {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 3}
