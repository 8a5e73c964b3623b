"""A model whose parameters are spread over ranks (FSDP2), and the same functions for one that is not.

    gather ─→ forward, backward of each micro-batch, nothing exchanged ─→ last backward: gradients added up, parameters spread

Each rank holds a part of every parameter, gradient and optimizer state. During a step it also holds whole parameters and
whole sums of its own gradients, so parameters and gradients are exchanged once a step, however many micro-batches a rank has,
and ranks may have different numbers of them. Every function here does nothing to a model that is whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, Replicate, distribute_tensor

from gristmill.model.transformer import Llama


def shard_over(model: Llama, mesh: DeviceMesh) -> None:
    """Spreads each layer, and what is around the layers, over a mesh of one dimension, or over the second of two.

    Gradients are added up over ranks, never averaged: the loss is divided by the units of the whole batch. `hidden` is a way
    forward too: preference losses and scores call it by name.
    """
    for module in (*model.model.layers, model):
        fully_shard(module, mesh=mesh, reshard_after_forward=False)
    for shard in _shards(model):
        shard.set_gradient_divide_factor(1.0)
        shard.set_force_sum_reduction_for_comms(True)
    register_fsdp_forward_method(model, "hidden")


def gather(model: nn.Module) -> None:
    """Makes every parameter whole on this rank, until the last backward pass of a step or `spread`."""
    for shard in _shards(model):
        shard.unshard()


def spread(model: nn.Module) -> None:
    """Lets go of the whole parameters; the rank keeps its parts."""
    for shard in _shards(model):
        shard.reshard()


@contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """Parameters are whole inside, for whatever reads them: evaluation, generation. All ranks enter."""
    gather(model)
    yield
    spread(model)


def exchange_after(model: nn.Module, *, is_last: bool) -> None:
    """Whether the next backward pass adds up the gradients of all ranks and spreads the parameters: after the last micro-batch."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(is_last)
        model.set_reshard_after_backward(is_last)


def begin_again(model: nn.Module) -> None:
    """After a pass that was not finished: nothing is under way any more. Gradients of whole parameters are the caller's to drop: FSDP
    keeps them."""
    if isinstance(model, FSDPModule):
        model.reset_iter_state()


def part_of(tensor: Tensor) -> Tensor:
    """What this rank holds of a tensor; all of one that is whole."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def num_copies(tensor: Tensor) -> int:
    """How many ranks hold the same part: more than one where a mesh has replicas."""
    if not isinstance(tensor, DTensor):
        return 1
    mesh, placements = tensor.device_mesh, tensor.placements
    return math.prod(mesh.size(place) for place, how in enumerate(placements) if isinstance(how, Replicate))


def whole(tensor: Tensor) -> Tensor:
    """The tensor with the parts of all ranks. All ranks call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def put_together(tensors: Mapping[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """The tensors with the parts of all ranks, one after the other; only those that are whole already are not moved to the CPU.

    All ranks call it. Those that do not keep them get nothing, and never hold more than one.
    """
    kept: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        found = whole(tensor)
        if keep:
            kept[name] = found if found is tensor else found.cpu()
    return kept


def like(parameter: Tensor, value: Tensor) -> Tensor:
    """This rank's part of a whole value, on the parameter's device and spread as it is; nothing is exchanged."""
    value = value.to(parameter.device)
    if not isinstance(parameter, DTensor):
        return value
    return distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)


def _shards(model: nn.Module) -> list[FSDPModule]:
    return [module for module in model.modules() if isinstance(module, FSDPModule)]
