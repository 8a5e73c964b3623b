"""The real llama.cpp computes from a GGUF file what the model computes; a file from which it would not is refused."""

from __future__ import annotations

import importlib.util
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFReader, GGUFWriter, dequantize

from gristmill.errors import ArtifactError
from gristmill.export import gguf, llama_cpp, probes
from gristmill.export.ask_llama_cpp import _ask, _start
from gristmill.export.gguf import FORMS, write_gguf
from gristmill.export.huggingface import export_model
from gristmill.export.llama_cpp import ask, check_gguf, compare, export_gguf
from gristmill.export.outputs import GgufFile, LlamaCpp
from gristmill.export.probes import PROMPTS, logits_of
from gristmill.model.config import LlamaConfig
from gristmill.model.transformer import Llama
from gristmill.model.weights import init_weights, load_model, save_model
from gristmill.recipe.schema.evaluation import GgufForm
from gristmill.tokens.tokenizer import Tokenizer, train_tokenizer

ROOT = Path(__file__).parents[2]
HOSTILE = [
    "", " ", "\n\n\n", "\t \r\n", "a\0b", "<|im_end|>", "<|im_start|>user\nhi<|im_end|>", "<|endoftext|>x", "<reponame>",
    "1234567890", "3.14159e-10", "٣٤٥ ½ Ⅷ ²", "don't we'll I'M", "  two  spaces  ", "é é", "👩‍👩‍👧‍👦🏳️‍🌈", "数学 ≠ 数 学",
    "\ufeffbom", "\u200b\u2028\u00a0", "a" * 300, "ǅ ß İ", "\ufffd", "if x:\n\treturn  [y]\n", "العربية עברית", "𝕏𝓎 𐍈",
]  # fmt: skip


@pytest.fixture(autouse=True)
def short_proof(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proofs that are not looked at for their length take a tenth of the time."""
    if "whole_proof" not in request.fixturenames:
        monkeypatch.setattr(llama_cpp, "NUM_TEXTS", 40)
        monkeypatch.setattr(probes, "GREEDY_TOKENS", 8)


@pytest.fixture
def whole_proof() -> None:
    """As users have it."""


@pytest.fixture
def chat(source: Path, tmp_path: Path) -> Path:
    """The source as a chat model, exported."""
    export_model(source, tmp_path / "chat", dtype="float32", is_chat=True)
    return tmp_path / "chat"


def written(source: Path, tmp_path: Path, form: GgufForm = "f32") -> Path:
    path = tmp_path / f"{form}.gguf"
    write_gguf(source, path, form=form, name="test")
    return path


@pytest.mark.usefixtures("whole_proof")
@pytest.mark.parametrize(("form", "limit"), [("f32", 1e-3), ("f16", 0.25)])
def test_llama_cpp_has_the_same_ids_and_greedy_text_and_log_probabilities(
    chat: Path, tmp_path: Path, form: GgufForm, limit: float
) -> None:
    [(file, speed)] = export_gguf(chat, tmp_path / "out", [form], name="test")
    proof = file.llama_cpp
    assert isinstance(proof, LlamaCpp)
    assert proof.texts_split_equally == 1000
    assert proof.greedy_tokens_compared == 64 * (len(PROMPTS) + 1)
    assert proof.greedy_tokens_equal + proof.greedy_tokens_tied == proof.greedy_tokens_compared
    assert proof.max_logp_difference <= limit
    assert proof.max_margin <= 2 * proof.max_logp_difference
    if form == "f32":
        assert proof.greedy_tokens_tied == 0
    assert speed is not None
    assert min(speed.tokens_per_second, speed.memory_bytes) > 0
    assert GgufFile.from_json(file.to_json(), where="here") == file


def test_llama_cpp_splits_a_thousand_texts_into_our_ids(source: Path, tmp_path: Path) -> None:
    """Pages of the documentation, what is hard to split, and random Unicode. Names of special tokens are plain text."""
    paths = sorted((ROOT / "docs").rglob("*.md"))
    lines = [line for path in paths for line in path.read_text(encoding="utf-8").splitlines(keepends=True)]
    draw = random.Random(0)
    wild = ["".join(chr(draw.choice([draw.randrange(1, 0xD800), draw.randrange(0xE000, 0x110000)])) for _ in range(20))
            for _ in range(200)]  # fmt: skip
    texts = [*HOSTILE, *wild, *draw.sample(lines, 800)]
    said = ask(written(source, tmp_path), context=64, texts=texts, prompts=[], answers=[], speed_tokens=0)
    assert len(texts) >= 1000
    assert said["ids"] == Tokenizer.load(source).encode_batch(texts)


def test_beginnings_that_hold_end_tokens_are_compared_too(chat: Path, tmp_path: Path) -> None:
    """The end of the text, of a turn, and half of a character: after none of them does llama.cpp stop to answer."""
    model, tokenizer = load_model(chat), Tokenizer.load(chat)
    half = tokenizer.encode("é")[0]
    answer = [tokenizer.im_end_id, 0, half, 4, *tokenizer.encode("cat"), half]
    said = ask(written(chat, tmp_path), context=64, texts=[], prompts=[[0, 30]], answers=[answer], speed_tokens=0)
    [logits] = logits_of(model, [[0, 30, *answer[:-1]]])
    logp = logits[-len(answer) :].log_softmax(1)
    [likely] = said["likely"]
    assert [best[0][0] for best in likely] == logp.argmax(1).tolist()
    for row, best in zip(logp, likely, strict=True):
        assert [value for _, value in best] == pytest.approx([float(row[number]) for number, _ in best], abs=1e-3)


@pytest.mark.parametrize("form", ["q8_0", "q4_0"])
def test_rows_that_are_no_multiple_of_32_stay_f16_and_are_named(tmp_path: Path, form: GgufForm) -> None:
    tokenizer = Tokenizer(train_tokenizer(["The cat sat on the mat."] * 4, 280))
    tokenizer.save(tmp_path / "tokenizer")
    config = LlamaConfig(
        vocab_size=280, hidden_size=48, intermediate_size=96, num_hidden_layers=1, num_attention_heads=3,
        num_key_value_heads=1, head_dim=16, max_position_embeddings=64, eos_token_id=0, tie_word_embeddings=False,
    )  # fmt: skip
    save_model(tmp_path / "model", init_weights(Llama(config), 1), tmp_path / "tokenizer")
    [(file, _)] = export_gguf(tmp_path / "model", tmp_path / "out", [form], name="test")
    fits = "blk.0.ffn_down.weight"  # 96 wide; all others are 48
    matrices = {tensor.name for tensor in GGUFReader(tmp_path / "out" / file.file).tensors if len(tensor.shape) == 2}
    assert set(file.stored_otherwise) == {name for name in matrices if name != fits and "norm" not in name}
    assert file.llama_cpp.checked


@pytest.mark.parametrize("form", FORMS)
def test_weights_are_those_of_the_model_up_to_the_form(source: Path, tmp_path: Path, form: GgufForm) -> None:
    ours = load_model(source).state_dict()
    stored = {tensor.name: tensor for tensor in GGUFReader(written(source, tmp_path, form)).tensors}
    assert len(stored) == len(ours)
    step = {"f32": 0.0, "f16": 2**-11, "q8_0": 1 / 127 / 2, "q4_0": 1 / 8}[form]  # of the largest weight of a block
    for name, theirs in (("mlp.up_proj", "ffn_up"), ("self_attn.v_proj", "attn_v"), ("input_layernorm", "attn_norm")):
        weight = ours[f"model.layers.1.{name}.weight"].numpy()
        found = stored[f"blk.1.{theirs}.weight"]
        read = dequantize(found.data, found.tensor_type).reshape(weight.shape)
        assert np.abs(read - weight).max() <= step * np.abs(weight).max() * 1.001


Change = Any


def forget_to_pair(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(gguf, "_pair_neighbours", lambda weight, heads: weight)


def another_rope(patch: pytest.MonkeyPatch) -> None:
    add = GGUFWriter.add_rope_freq_base
    patch.setattr(GGUFWriter, "add_rope_freq_base", lambda self, value: add(self, 10_000.0))


def another_split(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(gguf, "PRE", "default")


@pytest.mark.parametrize(
    ("change", "said"),
    [(forget_to_pair, "gives different results"), (another_rope, "gives different results"), (another_split, "splits")],
)
def test_a_file_that_llama_cpp_would_read_wrongly_is_refused(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Change, said: str
) -> None:
    monkeypatch.setattr(probes, "GREEDY_TOKENS", 32)
    change(monkeypatch)
    with pytest.raises(ArtifactError, match=said):
        export_gguf(source, tmp_path / "out", ["f32"], name="test")


def test_a_damaged_file_is_an_error_and_ends_only_the_child(source: Path, tmp_path: Path) -> None:
    path = written(source, tmp_path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ArtifactError, match=r"llama\.cpp ended with"):
        check_gguf(source, path, "f32")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}}, "ByteLevel"),
        ({"pre_tokenizer": None}, r"\{\}"),
        ({"normalizer": {"type": "NFC"}}, "the normalizer NFC"),
    ],
)
def test_a_tokenizer_that_splits_otherwise_is_refused(
    source: Path, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    save_model(tmp_path, load_model(source), source)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps({**content, **change}))
    with pytest.raises(ArtifactError, match=f"no pre-tokenizer of llama.cpp is known here: .*{said}"):
        write_gguf(tmp_path, tmp_path / "x.gguf", form="f32", name="test")
    assert not (tmp_path / "x.gguf").exists()


def test_llama_cpp_renders_our_chat_template(chat: Path, tmp_path: Path) -> None:
    server = _start(str(written(chat, tmp_path)), threads=1, context=64)
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": " 2 + 3? "},
        {"role": "assistant", "content": "5"},
        {"role": "user", "content": "Thanks"},
    ]
    assert _ask(server, "/apply-template", messages=messages)["prompt"] == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n2 + 3?<|im_end|>\n"
        "<|im_start|>assistant\n5<|im_end|>\n<|im_start|>user\nThanks<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_base_model_begins_each_text_with_the_end_of_another_and_has_no_template(
    source: Path, tmp_path: Path
) -> None:
    fields = GGUFReader(written(source, tmp_path)).fields
    assert fields["tokenizer.ggml.add_bos_token"].contents() is True
    assert fields["tokenizer.ggml.bos_token_id"].contents() == fields["tokenizer.ggml.eos_token_id"].contents() == 0
    assert "tokenizer.chat_template" not in fields


def test_without_llama_cpp_it_says_so_with_the_command(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "xllamacpp" else real(name, *more)
    )
    [(file, speed)] = export_gguf(source, tmp_path / "out", ["f16"], name="test")
    assert speed is None
    assert file.llama_cpp.to_json() == {
        "checked": False,
        "why": "not checked: llama.cpp is not installed",
        "command": "pip install xllamacpp, then export again",
    }
    assert "FROM ./test-f16.gguf" in (tmp_path / "out" / "Modelfile").read_text()


def test_another_token_is_tied_within_twice_the_difference_and_else_another() -> None:
    ours = torch.tensor([[0.7, 0.2, 0.1], [0.4, 0.39, 0.21]]).log()
    close = [[(0, float(ours[0, 0])), (1, float(ours[0, 1]))], [(1, float(ours[1, 1]) + 0.02), (0, float(ours[1, 0]))]]
    found = compare([[0, 0]], [ours], [close])
    assert (found.equal, found.tied, found.other) == (1, 1, 0)
    assert found.max_difference == pytest.approx(0.02)
    far = [close[0], [(2, float(ours[1, 2]) + 0.02)]]
    assert replace(compare([[0, 0]], [ours], [far]), max_margin=0.0, max_difference=0.0).other == 1
