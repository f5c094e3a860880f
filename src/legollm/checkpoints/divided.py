"""Tensors whose rows lie on several processes, written as safetensors files that hold each of them whole.

Every process writes one file. The tensors are gathered one after the other, each for the process whose file it belongs
to, so that nowhere more than one of them is whole at a time, and what is on disk does not tell how many wrote it.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError
from torch import Tensor

from legollm.checkpoints.shards import Shape, write_tensors
from legollm.errors import CheckpointError
from legollm.team import Team, agree


class Divided(NamedTuple):
    """A tensor that is going to be written."""

    shape: Shape
    gather: Callable[[], Tensor]
    """All of its rows, on the CPU; every process has to call it at the same time."""


def write_divided(folder: Path, stem: str, tensors: Mapping[str, Divided], team: Team) -> dict[str, str]:
    """Each process its share of `tensors`, which are named in the same order everywhere -> which file each is in.

    Raises:
        CheckpointError: the disk of one process refused; at all of them.
    """
    order = sorted(tensors, key=lambda name: -tensors[name].shape.dtype.itemsize)  # as they stand in a file
    owners = owners_of({name: tensors[name].shape.n_bytes for name in order}, team.size)
    writers = sorted(set(owners.values()))
    files = {rank: f"{stem}-{i:05}-of-{len(writers):05}.safetensors" for i, rank in enumerate(writers, start=1)}
    left = iter(order)

    def pieces(name: str) -> Iterator[Tensor]:
        for gathered in left:
            tensor = tensors[gathered].gather()  # also what is for others: they ask at the same time
            if gathered == name:
                yield tensor
                return

    problem: CheckpointError | None = None
    mine = {name: tensors[name].shape for name in order if owners[name] == team.rank}
    try:
        if mine:
            write_tensors(folder / files[team.rank], mine, pieces)
    except (OSError, SafetensorError) as error:
        why = getattr(error, "strerror", None) or error
        problem = CheckpointError(f"{folder / files[team.rank]}: could not be written ({why}); make room")
    for name in left:
        tensors[name].gather()
    agree(team, problem, CheckpointError(f"{folder}: another process could not write its part"))
    return {name: files[rank] for name, rank in owners.items()}


def owners_of(sizes: Mapping[str, int], n_owners: int) -> dict[str, int]:
    """Who writes what: neighbours together, and about as many bytes each."""
    total, before, owners = max(1, sum(sizes.values())), 0, {}
    for name, n_bytes in sizes.items():
        owners[name] = min(n_owners - 1, (before + n_bytes // 2) * n_owners // total)
        before += n_bytes
    return owners
