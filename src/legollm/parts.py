"""Tensors that lie in parts on several processes, each holding some rows: what FSDP makes of a model's weights.

A tensor that lies whole on this process passes through all of these as it is.
"""

from typing import Any

import torch
from torch import Tensor


def is_divided(tensor: Tensor) -> bool:
    """Whether other processes hold some of its rows."""
    return hasattr(tensor, "full_tensor")  # torch's DTensor, whose import costs a second


def own_part(tensor: Tensor) -> Tensor:
    """The rows that lie here, sharing memory with `tensor`."""
    part: Any = tensor
    return part.to_local() if is_divided(tensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """All rows, from all processes; each of them must ask."""
    divided: Any = tensor
    return divided.full_tensor() if is_divided(tensor) else tensor


def as_part_of(part: Tensor, like: Tensor) -> Tensor:
    """Rows as `like` has them here, understood as part of a tensor of its shape."""
    if not is_divided(like):
        return part
    from torch.distributed.tensor import DTensor

    divided: Any = like
    return DTensor.from_local(part, divided.device_mesh, divided.placements, shape=like.shape, stride=like.stride())


def rows_of(tensor: Tensor, like: Tensor) -> Tensor:
    """Of a whole tensor the rows that `like` has here."""
    if not is_divided(like):
        return tensor
    mesh = like.device_mesh  # type: ignore[attr-defined]
    first = mesh.get_local_rank() * -(-like.size(0) // mesh.size())  # as torch.chunk divides
    return tensor[first : first + own_part(like).size(0)]


def n_not_finite(tensor: Tensor) -> int:
    """Numbers among those that lie here which are not finite."""
    return int(torch.isfinite(own_part(tensor)).logical_not().sum())
