"""The GGUF container, version 3, written from its specification: typed keys and values, then tensors, all in one file.

Tensors are as a program wants to map them into memory: their dimensions innermost first, each at a multiple of 32
bytes. Three of the many number formats are written: float32, the two of 16 bits, and Q8_0, whose blocks are 32 signed
bytes with one float16 to multiply them by. Files are written, never read from strangers.
"""

import math
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from legollm.checkpoints.shards import bytes_of
from legollm.errors import CheckpointError

MAGIC, VERSION, ALIGNMENT = b"GGUF", 3, 32
BLOCK = 32
"""Numbers that share a scale in Q8_0."""

Value = bool | int | float | str | Sequence[str] | Sequence[int]
"""Of a key. Whole numbers become uint32, in a list int32; other numbers float32."""
U32, I32, F32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9


class Encoding(NamedTuple):
    """A way to store numbers."""

    number: int
    """What the container calls it."""
    file_type: int
    """What it calls a file that mostly has this one."""
    n_block: int
    """Numbers per block."""
    n_bytes: int
    """Bytes per block."""


ENCODINGS: Mapping[str, Encoding] = {
    "float32": Encoding(0, 0, 1, 4),
    "float16": Encoding(1, 1, 1, 2),
    "bfloat16": Encoding(30, 32, 1, 2),
    "q8_0": Encoding(8, 7, BLOCK, 34),
}


class Layout(NamedTuple):
    """A tensor in a file."""

    shape: tuple[int, ...]
    """As torch has it, outermost first."""
    encoding: str
    start: int = 0
    """Bytes from the start of the file."""

    @property
    def row_bytes(self) -> int:
        """Of one row; a vector is a single row."""
        kind = ENCODINGS[self.encoding]
        return self.shape[-1] // kind.n_block * kind.n_bytes

    @property
    def n_bytes(self) -> int:
        return self.row_bytes * math.prod(self.shape[:-1])


def string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def key_value(key: str, value: Value) -> bytes:
    """A key with the type of its value and the value."""
    match value:
        case bool():
            data = struct.pack("<I?", BOOL, value)
        case int():
            data = struct.pack("<II", U32, value)
        case float():
            data = struct.pack("<If", F32, value)
        case str():
            data = struct.pack("<I", STRING) + string(value)
        case [str(), *_]:
            data = struct.pack("<IIQ", ARRAY, STRING, len(value)) + b"".join(string(str(one)) for one in value)
        case _:
            data = struct.pack(f"<IIQ{len(value)}i", ARRAY, I32, len(value), *value)
    return string(key) + data


def header_of(metadata: Mapping[str, Value], tensors: Mapping[str, Layout]) -> tuple[bytes, dict[str, Layout]]:
    """All that comes before the first tensor, and the tensors with their places filled in."""
    parts = [MAGIC, struct.pack("<IQQ", VERSION, len(tensors), len(metadata))]
    parts += [key_value(key, value) for key, value in metadata.items()]
    offsets, end = {}, 0
    for name, one in tensors.items():
        offsets[name] = end
        dims = one.shape[::-1]
        kind = ENCODINGS[one.encoding].number
        parts.append(string(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, end))
        end = aligned(end + one.n_bytes)
    header = b"".join(parts)
    header += b"\0" * (aligned(len(header)) - len(header))
    return header, {name: one._replace(start=len(header) + offsets[name]) for name, one in tensors.items()}


def aligned(n: int) -> int:
    return -(-n // ALIGNMENT) * ALIGNMENT


def write_gguf(
    path: Path,
    metadata: Mapping[str, Value],
    tensors: Mapping[str, Layout],
    pieces: Callable[[str], Iterable[Tensor]],
) -> dict[str, Layout]:
    """Write a file; `pieces` yields each tensor's rows in order, in any float dtype. Returns where everything is."""
    header, placed = header_of(metadata, tensors)
    with path.open("wb") as file:
        file.write(header)
        for name, one in placed.items():
            assert file.tell() == one.start, name
            n = sum(file.write(encode(piece, one.encoding, name)) for piece in pieces(name))
            assert n == one.n_bytes, name
            file.write(b"\0" * (aligned(n) - n))
    return placed


def read_rows(path: Path, one: Layout, start: int = 0, stop: int | None = None) -> Tensor:
    """Rows of a tensor that was written here, as float32; a vector is read whole."""
    if len(one.shape) == 1:
        start, stop = 0, None
    n_rows = math.prod(one.shape[:-1])
    stop = n_rows if stop is None else stop
    with path.open("rb") as file:
        file.seek(one.start + start * one.row_bytes)
        data = file.read((stop - start) * one.row_bytes)
    shape = (stop - start, *one.shape[1:]) if len(one.shape) > 1 else one.shape
    return decode(data, one.encoding).view(shape)


def encode(numbers: Tensor, encoding: str, name: str) -> memoryview:
    """The bytes of some numbers.

    Raises:
        CheckpointError: one is too large for it.
    """
    if encoding == "q8_0":
        encoded, is_finite = quantize(numbers), bool(torch.isfinite(numbers.to(torch.float16)).all())
    else:
        converted = numbers.to(getattr(torch, encoding))
        encoded, is_finite = bytes_of(converted), bool(torch.isfinite(converted).all())
    if not is_finite:
        raise CheckpointError(f"{name}: holds numbers that are not finite in {encoding}; use dtype=bfloat16 or float32")
    return encoded


def quantize(numbers: Tensor) -> memoryview:
    """Q8_0: each block of 32 is a float16, its largest magnitude / 127, and 32 whole numbers from -127 to 127."""
    blocks = numbers.float().reshape(-1, BLOCK).numpy()
    scale = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)
    inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale != 0)
    scaled = blocks * inverse
    whole = np.trunc(scaled + np.copysign(np.float32(0.5), scaled)).astype(np.int8)  # halves away from zero
    return np.concatenate([scale.astype(np.float16).view(np.int8), whole], axis=1).data


def decode(data: bytes, encoding: str) -> Tensor:
    """The inverse of `encode`, as float32 in one row."""
    if encoding != "q8_0":
        return torch.frombuffer(bytearray(data), dtype=getattr(torch, encoding)).float()
    blocks: NDArray[np.int8] = np.frombuffer(data, np.int8).reshape(-1, ENCODINGS[encoding].n_bytes)
    scale = np.ascontiguousarray(blocks[:, :2]).view(np.float16).astype(np.float32)
    return torch.from_numpy((scale * blocks[:, 2:]).reshape(-1))
