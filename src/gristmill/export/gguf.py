"""One GGUF file from a Hugging Face Llama folder, for llama.cpp and the programs built on it.

A form says how matrices are stored: f32, f16, q8_0 (8.5 bits per weight) or q4_0 (4.5 bits). Norms stay float32. q8_0 and q4_0
store blocks of 32 neighbouring weights with one scale; a matrix whose row length is not a multiple of 32 stays f16, and the writer
returns its name. In q4_0 the embedding, which small models also use as their head, is q8_0.

Two details give wrong results without an error if they are missing. llama.cpp's rotary positions pair neighbouring dimensions,
Hugging Face's pair the two halves, so the rows of q_proj and k_proj are reordered. And llama.cpp splits text by a named
pre-tokenizer: SmolLM2's is recognised here, any other is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType, LlamaFileType, TokenType
from numpy.typing import NDArray
from torch import Tensor

from gristmill.errors import ArtifactError
from gristmill.model.config import LlamaConfig
from gristmill.model.transformer import Llama
from gristmill.model.weights import load_model
from gristmill.recipe.schema.evaluation import GgufForm
from gristmill.tokens.tokenizer import Tokenizer

FORMS: dict[GgufForm, tuple[GGMLQuantizationType, LlamaFileType]] = {
    "f32": (GGMLQuantizationType.F32, LlamaFileType.ALL_F32),
    "f16": (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
    "q8_0": (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
    "q4_0": (GGMLQuantizationType.Q4_0, LlamaFileType.MOSTLY_Q4_0),
}
BLOCK = 32  # weights under one scale

# Hugging Face's names of tensors, and GGUF's; "{}" is the layer
NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
    "model.layers.{}.input_layernorm.weight": "blk.{}.attn_norm.weight",
    "model.layers.{}.self_attn.q_proj.weight": "blk.{}.attn_q.weight",
    "model.layers.{}.self_attn.k_proj.weight": "blk.{}.attn_k.weight",
    "model.layers.{}.self_attn.v_proj.weight": "blk.{}.attn_v.weight",
    "model.layers.{}.self_attn.o_proj.weight": "blk.{}.attn_output.weight",
    "model.layers.{}.post_attention_layernorm.weight": "blk.{}.ffn_norm.weight",
    "model.layers.{}.mlp.gate_proj.weight": "blk.{}.ffn_gate.weight",
    "model.layers.{}.mlp.up_proj.weight": "blk.{}.ffn_up.weight",
    "model.layers.{}.mlp.down_proj.weight": "blk.{}.ffn_down.weight",
}
PRE = "smollm"  # llama.cpp's name for single digits, then the pattern of GPT-2
DIGITS = {"type": "Digits", "individual_digits": True}
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}


def write_gguf(source: Path, path: Path, *, form: GgufForm, name: str) -> list[str]:
    """Write the model in the folder `source` to `path`; return the matrices that are not in `form`, by their GGUF names.

    A chat model (its end token is <|im_end|>) carries its chat template; a base model begins each text with <|endoftext|>, like
    the documents it was trained on. Raises ArtifactError when the folder is not a complete Llama, or has a tokenizer with a
    pre-tokenizer other than SmolLM2's.
    """
    model, tokenizer = load_model(source), Tokenizer.load(source)
    writer = gguf.GGUFWriter(path, "llama")
    _add_shape(writer, model.config, name, form)
    _add_tokenizer(writer, source, tokenizer, model.config)
    others = []
    for gguf_name, values in _tensors(model):
        kind = _stored_as(gguf_name, values, form)
        if values.ndim == 2 and kind is not FORMS[form][0]:
            others.append(gguf_name)
        writer.add_tensor(gguf_name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return others


def _add_shape(writer: gguf.GGUFWriter, config: LlamaConfig, name: str, form: GgufForm) -> None:
    writer.add_name(name)
    writer.add_file_type(FORMS[form][1])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)


def _add_tokenizer(writer: gguf.GGUFWriter, source: Path, tokenizer: Tokenizer, config: LlamaConfig) -> None:
    path = source / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    _refuse_other_tokenizers(content, path)
    tokens, kinds = _tokens(content, config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(PRE)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in content["model"]["merges"]])
    is_chat = config.ends_at(tokenizer.im_end_id)
    writer.add_bos_token_id(tokenizer.eos_id)
    writer.add_eos_token_id(tokenizer.im_end_id if is_chat else tokenizer.eos_id)
    writer.add_eot_token_id(tokenizer.im_end_id)
    writer.add_pad_token_id(tokenizer.pad_id)
    writer.add_add_bos_token(not is_chat)
    writer.add_add_eos_token(False)
    template = source / "chat_template.jinja"
    if is_chat and template.exists():
        writer.add_chat_template(template.read_text(encoding="utf-8"))


def _refuse_other_tokenizers(content: dict[str, Any], path: Path) -> None:
    model, splits = content["model"], content["pre_tokenizer"] or {}
    parts = splits.get("pretokenizers", [splits])
    ours = [{key: part.get(key) for key in known} for part, known in zip(parts, (DIGITS, BYTE_LEVEL))]
    changes = {key: model.get(key) for key in ("dropout", "byte_fallback", "ignore_merges") if model.get(key)}
    if ours != [DIGITS, BYTE_LEVEL] or len(parts) != 2:
        found = json.dumps(splits, ensure_ascii=False)[:200]
    elif content["normalizer"] is not None:
        found = f"the normalizer {content['normalizer'].get('type')}"
    elif model["type"] != "BPE" or changes:
        found = f"a model of type {model['type']} with {changes}"
    else:
        return
    raise ArtifactError(
        f"{path} splits text in a way for which no pre-tokenizer of llama.cpp is known here: {found}.\n"
        "  Expected SmolLM2's: BPE without a normalizer, single digits, then the byte-level pattern of GPT-2.\n"
        "  Convert this model with llama.cpp's own converter."
    )


def _tokens(content: dict[str, Any], vocab_size: int) -> tuple[list[str], list[TokenType]]:
    """Every id's token and kind. Rows of the embedding beyond the vocabulary get names that no text contains."""
    tokens = [f"[PAD{number}]" for number in range(vocab_size)]
    kinds = [TokenType.UNUSED] * vocab_size
    for token, number in content["model"]["vocab"].items():
        tokens[number], kinds[number] = token, TokenType.NORMAL
    for added in content["added_tokens"]:
        kind = TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED
        tokens[added["id"]], kinds[added["id"]] = added["content"], kind
    return tokens, kinds


def _tensors(model: Llama) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Each tensor under GGUF's name, float32."""
    config = model.config
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, tensor in model.state_dict().items():
        parts = name.split(".")
        layer = parts[2] if parts[1] == "layers" else ""
        pattern = ".".join("{}" if number == 2 and layer else part for number, part in enumerate(parts))
        if parts[-2] in heads:
            tensor = _pair_neighbours(tensor, heads[parts[-2]])
        yield NAMES[pattern].format(layer), tensor.contiguous().numpy()


def _pair_neighbours(weight_HD: Tensor, num_heads: int) -> Tensor:
    """Rows of each head from halves (0, 1, … | K/2, K/2+1, …) to pairs (0, K/2, 1, K/2+1, …)."""
    rows, columns = weight_HD.shape
    return weight_HD.view(num_heads, 2, rows // num_heads // 2, columns).transpose(1, 2).reshape(rows, columns)


def _stored_as(name: str, values: NDArray[np.float32], form: GgufForm) -> GGMLQuantizationType:
    kind = FORMS[form][0]
    if values.ndim == 1:
        return GGMLQuantizationType.F32
    if form in ("f32", "f16"):
        return kind
    if values.shape[1] % BLOCK:
        return GGMLQuantizationType.F16
    return GGMLQuantizationType.Q8_0 if name in ("token_embd.weight", "output.weight") else kind
