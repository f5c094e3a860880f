"""The weights of a folder: one safetensors file, or several with an index of what is where.

Neither reading nor writing ever holds more than a piece of one tensor, so a model may be larger than the memory.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from legollm.architectures.weight_map import listing
from legollm.checkpoints.reader import DTYPES, WHOLE_NUMBERS, Entry, TensorFile, inside, read_json
from legollm.errors import CheckpointError

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
PIECE = 1 << 20
"""Bytes read, converted and written at a time."""
NAMES = {dtype: name for name, dtype in (DTYPES | WHOLE_NUMBERS).items()}


class Shards:
    """The tensors of a folder by name, all headers checked and none read yet.

    Raises:
        CheckpointError: no weights, an index that is wrong, or a file that is missing, superfluous or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[str, TensorFile] = {}
        for path, listed in files_of(folder).items():
            file = TensorFile(path)
            if twice := sorted(self.files.keys() & file.entries.keys()):
                raise CheckpointError(f"{path}: {listing(twice)} also in another shard; fetch the folder again")
            if listed is not None:
                compare_with_index(folder, path, listed, file.entries.keys())
            self.files |= dict.fromkeys(file.entries, file)
        self.entries = {name: file.entries[name] for name, file in self.files.items()}

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Tensor:
        """A tensor, or its rows from `start` to before `stop`."""
        return self.files[name].read(name, start, stop)

    def pieces(self, name: str, dtype: torch.dtype) -> Iterator[Tensor]:
        """A tensor from its first row to its last, some rows at a time, in another dtype if need be."""
        for start, stop in row_ranges(self.entries[name]):
            yield self.read(name, start, stop).to(dtype)


def row_ranges(entry: Entry) -> Iterator[tuple[int, int | None]]:
    """Rows that weigh about PIECE bytes together."""
    if not entry.shape or entry.n_bytes <= PIECE:
        yield 0, None
        return
    n = max(1, PIECE * entry.shape[0] // entry.n_bytes)
    for start in range(0, entry.shape[0], n):
        yield start, min(start + n, entry.shape[0])


def files_of(folder: Path) -> dict[Path, set[str] | None]:
    """The files that hold the weights, all of them inside `folder`, and what the index says is in each.

    Raises:
        CheckpointError: there are none, or the index names what is no file here, or misses one that is.
    """
    if inside(folder, WEIGHTS).is_file():
        return {folder / WEIGHTS: None}
    if not inside(folder, INDEX).is_file():
        raise CheckpointError(f"{folder}: no weights; expected {WEIGHTS} or {INDEX} (pickled .bin files are not read)")
    index = read_json(folder / INDEX).get("weight_map")
    if not isinstance(index, dict) or not index:
        raise CheckpointError(f"{folder / INDEX}: has no weight_map; fetch it again")
    listed: dict[Path, set[str] | None] = {}
    for name in sorted(set(map(str, index.values()))):
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise CheckpointError(f"{folder / INDEX}: {name!r} is not the plain name of a .safetensors file")
        if not inside(folder, name).is_file():
            raise CheckpointError(f"{folder / name}: missing; {INDEX} lists it; fetch it")
        listed[folder / name] = {tensor for tensor, where in index.items() if where == name}
    if more := sorted(path.name for path in folder.glob("model-*-of-*.safetensors") if path not in listed):
        raise CheckpointError(f"{folder / INDEX}: does not list {listing(more)}; remove them, or fetch the index again")
    return listed


def compare_with_index(folder: Path, path: Path, listed: set[str], found: Iterable[str]) -> None:
    """Raise unless a shard holds what the index says."""
    problems = [
        f"{len(names)} {what}: {listing(sorted(names))}"
        for what, names in (("missing", listed - set(found)), ("not in the index", set(found) - listed))
        if names
    ]
    if problems:
        raise CheckpointError(f"{path}: is not what {INDEX} says: {'; '.join(problems)}; fetch both again")


class Shape(NamedTuple):
    """A tensor that is going to be written."""

    dtype: torch.dtype
    shape: Sequence[int]

    @property
    def n_bytes(self) -> int:
        return self.dtype.itemsize * math.prod(self.shape)


def write_shards(
    folder: Path, shapes: Mapping[str, Shape], pieces: Callable[[str], Iterable[Tensor]], *, max_bytes: int
) -> None:
    """One file, or files of at most max_bytes and an index; `pieces` yields a tensor from first row to last."""
    shards: list[dict[str, Shape]] = [{}]
    for name, shape in shapes.items():
        if shards[-1] and sum(one.n_bytes for one in shards[-1].values()) + shape.n_bytes > max_bytes:
            shards.append({})
        shards[-1][name] = shape
    names = [f"model-{i:05}-of-{len(shards):05}.safetensors" for i in range(1, len(shards) + 1)]
    names = names if len(shards) > 1 else [WEIGHTS]
    for name, shard in zip(names, shards, strict=True):
        write_tensors(folder / name, shard, pieces)
    if len(shards) > 1:
        write_index(
            folder, shapes, {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
        )


def write_index(folder: Path, shapes: Mapping[str, Shape], files: Mapping[str, str]) -> None:
    """What lies in which file."""
    index = {"metadata": {"total_size": sum(shape.n_bytes for shape in shapes.values())}, "weight_map": dict(files)}
    (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def write_tensors(path: Path, shapes: Mapping[str, Shape], pieces: Callable[[str], Iterable[Tensor]]) -> None:
    """A safetensors file. Wide numbers come first, so that every tensor starts at a multiple of its own width."""
    order = sorted(shapes, key=lambda name: -shapes[name].dtype.itemsize)
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in order:
        dtype, shape = shapes[name]
        start, end = end, end + shapes[name].n_bytes
        header[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            written = sum(file.write(bytes_of(piece)) for piece in pieces(name))
            assert written == shapes[name].n_bytes, name


def bytes_of(tensor: Tensor) -> memoryview:
    """The memory of a tensor, in the order of its elements."""
    return memoryview(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
