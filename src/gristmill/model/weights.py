"""How a model gets its weights: seeded initialisation, and Hugging Face folders (safetensors and JSON; never pickle).

A saved folder is a stock LlamaForCausalLM checkpoint: config.json, generation_config.json, model.safetensors and the
tokenizer's files. Tied embeddings are stored once. Writing is not atomic; the caller writes into a folder it commits.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from gristmill.errors import ArtifactError
from gristmill.model.config import LlamaConfig
from gristmill.model.tensor_file import write_tensors
from gristmill.model.transformer import Llama
from gristmill.store.durable import write_json

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
WEIGHTS_FILE = "model.safetensors"
_HEAD, _EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


@torch.no_grad()
def init_weights(model: Llama, seed: int) -> Llama:
    """Fill every parameter of the model in place and return it.

    Matrices and embeddings are normal(0, initializer_range); projections that write to the residual stream (o_proj,
    down_proj) are scaled by 1/sqrt(2 × layers); norms are 1. Each parameter draws from its own generator, seeded by
    (seed, name), so a change of order or of depth leaves the others as they were.
    """
    config = model.config
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            parameter.fill_(1.0)
            continue
        std = config.initializer_range
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            std /= math.sqrt(2 * config.num_hidden_layers)
        generator = torch.Generator().manual_seed(_seed_of(seed, name))
        values = torch.empty(parameter.shape, dtype=torch.float32).normal_(0.0, std, generator=generator)
        parameter.copy_(values)
    return model


def _seed_of(seed: int, name: str) -> int:
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1  # 63 bits: what every torch generator takes


def save_model(folder: Path, model: Llama, tokenizer_files_from: Path | None) -> None:
    """Write the model into `folder` (made if absent) as a Hugging Face checkpoint; tokenizer files are copied."""
    save_weights(folder, model.state_dict(), model.config, tokenizer_files_from)


def save_weights(
    folder: Path, weights: Mapping[str, Tensor], config: LlamaConfig, tokenizer_files_from: Path | None
) -> dict[str, str]:
    """`save_model` of a model whose weights are given by name, such as those of all ranks. Returns the SHA-256 of the file of weights,
    by its name."""
    folder.mkdir(parents=True, exist_ok=True)
    written = {WEIGHTS_FILE: write_tensors(folder / WEIGHTS_FILE, weights, {"format": "pt"})}
    dtype = str(next(iter(weights.values())).dtype).removeprefix("torch.")
    write_json(folder / "config.json", {**config.to_dict(), "dtype": dtype})
    ids = {key: getattr(config, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    write_json(folder / "generation_config.json", {key: value for key, value in ids.items() if value is not None})
    if tokenizer_files_from is not None:
        _copy_tokenizer(tokenizer_files_from, folder)
    return written


def load_model(folder: Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> Llama:
    """Read a Llama from a Hugging Face folder, one file or sharded, converted to `dtype`.

    Raises ArtifactError, listing the names, if tensors are missing, unexpected or of another shape than the config says;
    and where the folder holds no safetensors (files that hold pickled code are never opened).
    """
    config = LlamaConfig.from_dict(_read_json(folder / "config.json"), where=str(folder / "config.json"))
    tensors = _without_copies(_read_tensors(folder), config, folder)
    with torch.device("meta"):
        model = Llama(config)
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    _check_names_and_shapes(expected, tensors, folder)
    # Memory of their own: in a mapped file tensors begin at any multiple of eight bytes, on which the last bit of a product depends.
    own = {name: tensors[name].to(device=device, dtype=dtype, copy=True) for name in expected}
    model.load_state_dict(own, assign=True)
    return model


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    index = folder / "model.safetensors.index.json"
    if index.exists():
        names = sorted(set(_read_json(index).get("weight_map", {}).values()))
    else:
        names = [WEIGHTS_FILE]
    tensors: dict[str, Tensor] = {}
    for name in names:
        path = folder / Path(name).name  # an index cannot point outside its folder
        if not path.exists():
            raise ArtifactError(
                f"{path} does not exist. A model folder holds its weights as safetensors; "
                "convert other formats with their own software first."
            )
        try:
            tensors.update(load_file(path))
        except SafetensorError as error:
            raise ArtifactError(f"{path} is not a whole safetensors file ({error}). Fetch or make it again.") from error
    return tensors


def _without_copies(tensors: dict[str, Tensor], config: LlamaConfig, folder: Path) -> dict[str, Tensor]:
    """Drop what older software stored beside the weights: rotary frequency tables and the copy of a tied embedding."""
    kept = {name: value for name, value in tensors.items() if not name.endswith("rotary_emb.inv_freq")}
    if config.tie_word_embeddings and _HEAD in kept and _EMBEDDING in kept:
        if not torch.equal(kept[_HEAD], kept[_EMBEDDING]):
            raise ArtifactError(
                f"{folder}: the config ties the embeddings, but {_HEAD} and {_EMBEDDING} differ. "
                'Set "tie_word_embeddings" to false in config.json if the head is its own.'
            )
        del kept[_HEAD]
    return kept


def _check_names_and_shapes(expected: dict[str, tuple[int, ...]], found: dict[str, Tensor], folder: Path) -> None:
    problems = [f"missing: {name}" for name in expected if name not in found]
    problems += [f"unexpected: {name}" for name in found if name not in expected]
    problems += [
        f"shape of {name}: {tuple(found[name].shape)}, the config asks for {shape}"
        for name, shape in expected.items()
        if name in found and tuple(found[name].shape) != shape
    ]
    if problems:
        raise ArtifactError(
            f"{folder}: the weights do not fit config.json.\n  " + "\n  ".join(problems) + "\n  "
            "Use the config.json that was saved with these weights."
        )


def _copy_tokenizer(source: Path, folder: Path) -> None:
    if not (source / "tokenizer.json").exists():
        raise ArtifactError(f"{source / 'tokenizer.json'} does not exist; it is needed beside the saved model.")
    for name in TOKENIZER_FILES:
        if (source / name).exists() and source.resolve() != folder.resolve():
            shutil.copyfile(source / name, folder / name)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} does not exist; it is not a model folder.") from error
    except ValueError as error:
        raise ArtifactError(f"{path} is not valid JSON ({error}).") from error
    if not isinstance(content, dict):
        raise ArtifactError(f"{path} holds {type(content).__name__}, expected a JSON object.")
    return content
