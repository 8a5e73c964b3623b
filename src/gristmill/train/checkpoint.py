"""Checkpoints: absent or complete, checked before they are trusted, and loadable as they are by Hugging Face tools.

    checkpoints/step-0000123/
        model.safetensors, config.json, generation_config.json, tokenizer files     a Hugging Face model folder
        optimizer.safetensors     "exp_avg/<parameter>", "exp_avg_sq/<parameter>", "step/<parameter>"
        state.json                progress, stage, recipe fingerprint, what bit-exact resuming depends on
        manifest.json             size and SHA-256 of all of them

The commit protocol is recipe/artifact.py's. There is no pickle anywhere: weights and optimizer state are safetensors.
"""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from gristmill.errors import ArtifactError, ResourceError
from gristmill.model.transformer import Llama
from gristmill.model.weights import load_model, save_model
from gristmill.planning.speed import hardware_name
from gristmill.store.artifact import PARTIAL_SUFFIX, commit, set_aside, verify_manifest
from gristmill.store.durable import out_of_space_is_a_resource_error, read_json, write_json
from gristmill.store.fingerprint import differences

OPTIMIZER = "optimizer.safetensors"
STATE = "state.json"
MOMENTS = ("exp_avg", "exp_avg_sq", "step")
_NAME = re.compile(r"step-(\d{7,})")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A committed checkpoint folder and its state.json."""

    folder: Path
    step: int
    state: Mapping[str, Any]


def environment(micro_batch_tokens: int, device: str) -> dict[str, Any]:
    """What bit-exact resuming depends on, besides the recipe: libraries choose their kernels by the processor or GPU too."""
    return {
        "torch": torch.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "micro_batch_tokens": micro_batch_tokens,
        "device": device,
        "hardware": torch.cuda.get_device_name(device) if device.startswith("cuda") else hardware_name(),
    }


def environment_changes(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """One line for each thing that differs ("threads: 4 → 2"); empty means that a resumed run is bit-exact on a CPU."""
    return differences(dict(saved), dict(now))


def save_checkpoint(
    parent: Path,
    step: int,
    *,
    model: Llama,
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, Any],
    tokenizer_files_from: Path | None,
) -> Path:
    """Writes and commits `parent`/step-NNNNNNN and returns it.

    When the disk is full, the unfinished folder is removed, earlier checkpoints stay as they are, and ResourceError is raised.
    """
    parent.mkdir(parents=True, exist_ok=True)
    final = parent / f"step-{step:07d}"
    working = final.with_name(final.name + PARTIAL_SUFFIX)
    if working.exists():
        shutil.rmtree(working)
    try:
        with out_of_space_is_a_resource_error(final):
            working.mkdir()
            save_model(working, model, tokenizer_files_from)
            save_file(optimizer_tensors(model, optimizer), working / OPTIMIZER)
            write_json(working / STATE, dict(state))
            commit(working, final)
    except SafetensorError as error:
        shutil.rmtree(working, ignore_errors=True)
        if any(f"(os error {code})" in str(error) for code in (errno.ENOSPC, errno.EDQUOT)):
            raise ResourceError(
                f"the disk is full while writing {final}; earlier checkpoints are intact. {_FREE}"
            ) from error
        raise
    except ResourceError:
        shutil.rmtree(working, ignore_errors=True)
        raise
    return final


_FREE = "Free some space and run the same command; it goes on from the newest of them."


def newest_valid_checkpoint(parent: Path, *, say: Callable[[str], None] = lambda line: None) -> Checkpoint | None:
    """The newest checkpoint whose every file has the size and hash of its manifest; None when there is none at all.

    `say` gets a line for each damaged one that was passed over. Raises ArtifactError when there are checkpoints and none is
    sound: starting anew in silence would throw work away.
    """
    damaged: list[str] = []
    for folder in sorted(checkpoint_folders(parent), reverse=True):
        try:
            checkpoint = read_checkpoint(folder)
        except ArtifactError as error:
            damaged.append(f"{folder.name}: {error}")
            say(f"checkpoint {folder} is damaged and is passed over: {error}")
            continue
        if damaged:
            say(f"going on from {folder}, the newest checkpoint that is sound")
        return checkpoint
    if damaged:
        listing = "\n  ".join(damaged)
        raise ArtifactError(
            f"no checkpoint in {parent} is sound:\n  {listing}\n  Remove {parent} to start from the beginning."
        )
    return None


def read_checkpoint(folder: Path) -> Checkpoint:
    """The checkpoint in `folder`, all of its files verified. Raises ArtifactError when one is missing or changed."""
    try:
        entries = read_json(folder / "manifest.json")
        for name in ("model.safetensors", "config.json", OPTIMIZER, STATE):
            if name not in entries:
                raise ArtifactError(f"{folder / 'manifest.json'} does not list {name}.")
        verify_manifest(folder)
        state = read_json(folder / STATE)
        return Checkpoint(folder=folder, step=int(state["progress"]["step"]), state=state)
    except (KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(
            f"{folder} has a damaged manifest.json or state.json ({type(error).__name__}: {error})."
        ) from error


def checkpoint_folders(parent: Path) -> list[Path]:
    """Committed checkpoint folders (verified or not), oldest step first."""
    if not parent.is_dir():
        return []
    return sorted(path for path in parent.iterdir() if path.is_dir() and _NAME.fullmatch(path.name))


def load_checkpoint(
    checkpoint: Checkpoint, make_optimizer: Callable[[Llama], torch.optim.Optimizer], *, device: str
) -> tuple[Llama, torch.optim.Optimizer]:
    """Model and optimizer as they were when the checkpoint was saved."""
    model = load_model(checkpoint.folder, device=device)
    optimizer = make_optimizer(model)
    load_optimizer_tensors(checkpoint.folder / OPTIMIZER, model, optimizer)
    return model, optimizer


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """AdamW's moments and step counts by parameter name; empty before the first step."""
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
        on = parameter.device if kind != "step" else _step_device(optimizer, parameter)
        optimizer.state[parameter][kind] = value.to(on)
    incomplete = [
        name for name, parameter in parameters.items() if len(optimizer.state.get(parameter, {})) not in (0, 3)
    ]
    if incomplete:
        raise ArtifactError(f"{path} lacks a part of the optimizer state of {incomplete[0]!r}.")


def _step_device(optimizer: torch.optim.Optimizer, parameter: torch.Tensor) -> torch.device:
    """Fused AdamW keeps its step counts beside the parameter, the plain one on the CPU."""
    return parameter.device if optimizer.defaults.get("fused") else torch.device("cpu")


def prune(parent: Path, *, keep_last: int) -> list[Path]:
    """Removes all checkpoints but the newest `keep_last` and the milestones (state.json: "milestone" is set).

    Also removes leftovers. A folder is renamed before its files go, so that a kill in the middle leaves nothing
    that looks like a checkpoint. Returns what was removed.
    """
    removed: list[Path] = []
    for folder in checkpoint_folders(parent)[:-keep_last]:
        try:
            is_milestone = bool(read_json(folder / STATE).get("milestone"))
        except (ArtifactError, AttributeError):
            is_milestone = True  # damaged: a person should see it
        if not is_milestone:
            folder.rename(folder.with_name(folder.name + PARTIAL_SUFFIX))
            removed.append(folder)
    remove_leftovers(parent)
    return removed


def remove_leftovers(parent: Path) -> None:
    """Removes folders that a killed save or prune left unfinished."""
    for leftover in parent.glob(f"step-*{PARTIAL_SUFFIX}"):
        shutil.rmtree(leftover)


def set_damaged_aside(parent: Path, *, newer_than: int) -> None:
    """Moves the checkpoints that resuming passed over to `parent`/damaged/<name>/1, so that they do not count or stand in the way."""
    for folder in checkpoint_folders(parent):
        match = _NAME.fullmatch(folder.name)
        if match is not None and int(match[1]) > newer_than:
            set_aside(folder, parent / "damaged" / folder.name)
