"""The exported folder is the trained model, in stock transformers too, and a folder that is not is refused."""

from __future__ import annotations

import importlib.util
import json
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from gristmill.errors import ArtifactError
from gristmill.export.huggingface import GREEDY_TOKENS, PROMPTS, check_parity, export_model
from gristmill.model.transformer import Llama, LlamaConfig
from gristmill.model.weights import init_weights, save_model
from gristmill.tokens.tokenizer import Tokenizer, train_tokenizer


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of 2 layers that has seen nothing, as training leaves it."""
    folder = tmp_path_factory.mktemp("source")
    tokenizer = Tokenizer(train_tokenizer(["The cat sat on the mat.", "What is 2 + 3? It is 5."] * 4, 290))
    tokenizer.save(folder)
    config = LlamaConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=256,
        rope_theta=100_000.0,
        initializer_range=0.3,
        bos_token_id=tokenizer.eos_id,
        eos_token_id=tokenizer.eos_id,
        pad_token_id=tokenizer.pad_id,
    )
    save_model(folder, init_weights(Llama(config), 5), folder)
    return folder


def without_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine where the optional package is not installed."""
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "transformers" else real(name, *more)
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("is_chat", [True, False])
def test_transformers_reads_the_folder_with_the_same_logits_and_64_greedy_tokens(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, is_chat: bool
) -> None:
    pytest.importorskip("transformers")

    def refuse(*arguments: object) -> None:
        raise AssertionError(f"a socket was used: {arguments}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    trained = export_model(source, tmp_path, dtype=dtype, is_chat=is_chat)
    found = check_parity(trained, tmp_path, is_chat=is_chat)
    theirs = found["transformers"]
    assert theirs["checked"]
    assert theirs["max_logit_difference"] < 1e-4
    assert theirs["greedy_tokens_equal"] == [GREEDY_TOKENS] * (len(PROMPTS) + is_chat)
    assert (found["max_logit_change_by_rounding"] == 0) == (dtype == "float32")
    assert found["stored_dtype"] == dtype
    json.dumps(found, allow_nan=False)


def test_folder_holds_what_stock_software_looks_for_and_no_pickle(source: Path, tmp_path: Path) -> None:
    export_model(source, tmp_path, dtype="bfloat16", is_chat=True)
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
    }
    assert {tensor.dtype for tensor in load_file(tmp_path / "model.safetensors").values()} == {torch.bfloat16}
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")


@pytest.mark.parametrize(("is_chat", "end", "stops"), [(True, 2, [2, 0]), (False, 0, 0)])
def test_chat_model_ends_its_turn_and_base_model_its_text(
    source: Path, tmp_path: Path, is_chat: bool, end: int, stops: Any
) -> None:
    export_model(source, tmp_path, dtype="float32", is_chat=is_chat)
    assert json.loads((tmp_path / "config.json").read_text())["eos_token_id"] == end
    assert json.loads((tmp_path / "generation_config.json").read_text())["eos_token_id"] == stops
    assert json.loads((source / "config.json").read_text())["eos_token_id"] == 0


def test_exported_tokenizer_gives_transformers_the_same_ids_and_chat(source: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    export_model(source, tmp_path, dtype="float32", is_chat=True)
    theirs = transformers.AutoTokenizer.from_pretrained(str(tmp_path), local_files_only=True)
    ours = Tokenizer.load(tmp_path)
    for text in PROMPTS:
        assert theirs(text)["input_ids"] == ours.encode(text)
    assert (
        theirs.apply_chat_template([{"role": "user", "content": "2 + 3?"}], add_generation_prompt=True, tokenize=False)
        == "<|im_start|>user\n2 + 3?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_weights_that_changed_after_writing_are_refused(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_transformers(monkeypatch)
    trained = export_model(source, tmp_path, dtype="float32", is_chat=False)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["model.norm.weight"][3] *= 1.001
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ArtifactError, match=r"logits differ by .* run the export again"):
        check_parity(trained, tmp_path, is_chat=False)


def test_config_that_changed_after_writing_is_refused(source: Path, tmp_path: Path) -> None:
    trained = export_model(source, tmp_path, dtype="float32", is_chat=False)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.5}))
    with pytest.raises(ArtifactError, match="read back, its logits differ"):
        check_parity(trained, tmp_path, is_chat=False)


def test_transformers_that_computes_something_else_is_an_error(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transformers = pytest.importorskip("transformers")
    trained = export_model(source, tmp_path, dtype="float32", is_chat=False)
    other = transformers.AutoModelForCausalLM.from_pretrained(str(tmp_path), local_files_only=True)
    other.model.norm.weight.data[3] *= 1.01
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", lambda *names, **options: other)
    with pytest.raises(ArtifactError, match="computes something else"):
        check_parity(trained, tmp_path, is_chat=False)


def test_without_transformers_it_says_so_with_the_command(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_transformers(monkeypatch)
    trained = export_model(source, tmp_path, dtype="float32", is_chat=False)
    assert check_parity(trained, tmp_path, is_chat=False)["transformers"] == {
        "checked": False,
        "why": "not checked: transformers is not installed",
        "command": 'pip install "transformers>=5.23,<6", then make the export step again',
    }
