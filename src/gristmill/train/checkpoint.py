"""What a checkpoint holds: loadable as it is by Hugging Face tools, checked before it is trusted.

    .store/checkpoints/0000123-<prefix>/
        model.safetensors, config.json, generation_config.json, tokenizer files     a Hugging Face model folder
        optimizer.safetensors             "exp_avg/<parameter>", "exp_avg_sq/<parameter>", "step/<parameter>"
        metrics.jsonl, samples.jsonl      what was logged up to here
        state.json                        progress, the prefix, whose it is, what bit-exact resuming depends on
        manifest.json                     size and SHA-256 of all of them

Where checkpoints are kept is store/checkpoints.py, which of them a run may resume from checkpoints.py. There is no pickle anywhere:
weights and optimizer state are safetensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from gristmill.errors import ArtifactError
from gristmill.graph.machine import Threads
from gristmill.graph.ranks import ONE_RANK, Ranks
from gristmill.model.config import LlamaConfig
from gristmill.model.tensor_file import write_tensors
from gristmill.model.transformer import Llama
from gristmill.model.weights import WEIGHTS_FILE, load_model, save_weights
from gristmill.planning.speed import hardware_name
from gristmill.store.artifact import MANIFEST, verify_manifest
from gristmill.store.durable import read_json, write_json
from gristmill.store.fingerprint import differences
from gristmill.train.ranks.sharding import like

OPTIMIZER = "optimizer.safetensors"
STATE = "state.json"
MOMENTS = ("exp_avg", "exp_avg_sq", "step")
_USUAL = {"ranks": ONE_RANK.size, "replicas": ONE_RANK.replicas, "compiled": False}


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A committed checkpoint folder and its state.json."""

    folder: Path
    state: Mapping[str, Any]


def environment(
    micro_batch_tokens: int, device: str, threads: Threads, ranks: Ranks = ONE_RANK, *, compiled: bool = False
) -> dict[str, Any]:
    """What bit-exact resuming depends on, besides the recipe: libraries choose their kernels by the processor or GPU too.

    threads: as asked for. With "auto" nothing is promised, because the number follows the load. Ranks are noted where there are
    several, by which sums are made in another order, and so are compiled parts.
    """
    shared = {"ranks": ranks.size, "replicas": ranks.replicas} if ranks.size > 1 else {}
    return {
        **shared,
        **({"compiled": True} if compiled else {}),
        "torch": torch.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": threads,
        "micro_batch_tokens": micro_batch_tokens,
        "device": device,
        "hardware": torch.cuda.get_device_name(device) if device.startswith("cuda") else hardware_name(),
    }


def environment_changes(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """One line for each thing that differs ("threads: 4 → 2"); empty means that a resumed run is bit-exact on a CPU."""
    return differences({**_USUAL, **saved}, {**_USUAL, **now})


def write_checkpoint(
    folder: Path,
    *,
    weights: Mapping[str, torch.Tensor],
    moments: Mapping[str, torch.Tensor],
    config: LlamaConfig,
    state: Mapping[str, Any],
    tokenizer_files_from: Path | None,
) -> dict[str, str]:
    """Writes the files of a checkpoint into a folder that somebody else commits. moments: `optimizer_tensors`, whole.

    Returns the SHA-256 of the two files of tensors, taken while they were written.
    """
    with ThreadPoolExecutor(1) as thread:
        optimizer = thread.submit(write_tensors, folder / OPTIMIZER, moments)
        written = save_weights(folder, weights, config, tokenizer_files_from)
        written[OPTIMIZER] = optimizer.result()
    write_json(folder / STATE, dict(state))
    return written


def read_checkpoint(folder: Path) -> Checkpoint:
    """The checkpoint in `folder`, all of its files verified. Raises ArtifactError when one is missing or changed."""
    entries = read_json(folder / MANIFEST)
    for name in (WEIGHTS_FILE, "config.json", OPTIMIZER, STATE):
        if name not in entries:
            raise ArtifactError(f"{folder / MANIFEST} does not list {name}.")
    verify_manifest(folder)
    state = read_json(folder / STATE)
    if missing := {"progress", "prefix", "identity", "run", "environment", "notes"} - state.keys():
        raise ArtifactError(
            f"{folder / STATE} lacks {', '.join(sorted(missing))}; another version of gristmill wrote it."
        )
    return Checkpoint(folder=folder, state=state)


def load_checkpoint(
    checkpoint: Checkpoint,
    make_optimizer: Callable[[Llama], torch.optim.Optimizer],
    *,
    device: str,
    ranks: Ranks = ONE_RANK,
) -> tuple[Llama, torch.optim.Optimizer]:
    """Model and optimizer as they were when the checkpoint was saved, spread over the ranks that there are now."""
    model = load_model(checkpoint.folder, device=device)
    ranks.shard(model)
    optimizer = make_optimizer(model)
    load_optimizer_tensors(checkpoint.folder / OPTIMIZER, model, optimizer)
    return model, optimizer


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """AdamW's moments and step counts by parameter name, as this rank holds them; empty before the first step."""
    tensors: dict[str, torch.Tensor] = {}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{key}/{name}"] = value.detach().contiguous()
    return tensors


def load_optimizer_tensors(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Puts the saved moments into `optimizer`. Raises ArtifactError when they do not fit the model's parameters."""
    parameters = dict(model.named_parameters())
    for key, value in load_file(path).items():
        kind, _, name = key.partition("/")
        if kind not in MOMENTS or name not in parameters:
            raise ArtifactError(f"{path} holds {key!r}, which fits no parameter of the model beside it.")
        parameter = parameters[name]
        value = value.clone()  # else the mapped file keeps its place on the disk when the checkpoint is pruned
        own = value.to(_step_device(optimizer, parameter)) if kind == "step" else like(parameter, value)
        optimizer.state[parameter][kind] = own
    incomplete = [
        name for name, parameter in parameters.items() if len(optimizer.state.get(parameter, {})) not in (0, 3)
    ]
    if incomplete:
        raise ArtifactError(f"{path} lacks a part of the optimizer state of {incomplete[0]!r}.")


def _step_device(optimizer: torch.optim.Optimizer, parameter: torch.Tensor) -> torch.device:
    """Fused AdamW keeps its step counts beside the parameter, the plain one on the CPU."""
    return parameter.device if optimizer.defaults.get("fused") else torch.device("cpu")
