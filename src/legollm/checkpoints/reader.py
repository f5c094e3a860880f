"""Files from strangers: JSON and safetensors, checked to the last byte before a number is read.

A safetensors file is 8 bytes that say how long the header is, the header as JSON, and the tensors' bytes one after
another. The header is held against the file: what overlaps, leaves holes or points beyond the end is refused.
"""

import json
import math
import struct
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from legollm.errors import CheckpointError

MAX_HEADER = 100_000_000
"""Bytes; the format's own limit."""
MAX_JSON = 200_000_000
"""Bytes; an index of the largest published models has a hundredth."""
DTYPES = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
WHOLE_NUMBERS = {"I8": torch.int8, "U8": torch.uint8}
"""What quantised weights are stored in, beside their scales."""
SIZES = {"F64": 8, "I64": 8, "U64": 8, "C64": 8, "F32": 4, "I32": 4, "U32": 4, "BF16": 2, "F16": 2, "I16": 2, "U16": 2}
SIZES |= dict.fromkeys(("F8_E4M3", "F8_E5M2", "F8_E8M0", "I8", "U8", "BOOL"), 1)
POINTER = b"version https://git-lfs"


class Entry(NamedTuple):
    """A tensor in a file."""

    dtype: str
    """As the format calls it: F32, BF16, ..."""
    shape: tuple[int, ...]
    start: int
    """Bytes from the start of the file."""

    @property
    def n_bytes(self) -> int:
        return SIZES[self.dtype] * math.prod(self.shape)


def inside(folder: Path, name: str) -> Path:
    """The path of a file that lies in the folder itself.

    A link may lead elsewhere in the folder, or, in a download cache, from snapshots/REVISION to the blobs beside it.

    Raises:
        CheckpointError: `name` is a path, or a link that leads out of the folder.
    """
    path = folder / name
    if Path(name).name != name or name in ("", "..") or "\\" in name or "\0" in name:
        raise CheckpointError(f"{folder}: {name!r} is not the plain name of a file; nothing outside a folder is read")
    home = folder.resolve()
    homes = [home, home.parent.parent / "blobs"] if home.parent.name == "snapshots" else [home]
    target = path.resolve()
    if not any(target.is_relative_to(one) for one in homes):
        raise CheckpointError(f"{path}: a link to {target}, outside of the folder; put the file itself there")
    return path


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a model's folder.

    Raises:
        CheckpointError: no such file, a link out of its folder, not JSON, or keys that occur twice.
    """
    if not inside(path.parent, path.name).is_file():
        raise CheckpointError(f"{path}: no such file; a model folder has one")
    if (size := path.stat().st_size) > MAX_JSON:
        raise CheckpointError(f"{path}: {size:,} bytes of JSON, more than {MAX_JSON:,}; fetch it again")
    return parse_object(path, path.read_bytes())


def parse_object(path: Path, text: bytes) -> dict[str, Any]:
    """A JSON object, with each key once and no number that JSON has not, such as NaN."""
    if text.startswith(POINTER):
        refuse_pointer(path)
    try:
        value = json.loads(text, object_pairs_hook=unique, parse_constant=finite, parse_float=finite)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON: {error}; fetch it again") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected a JSON object, found {type(value).__name__}; fetch it again")
    return value


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Python would let the last of two equal keys win, other readers the first."""
    found = dict(pairs)
    if len(found) < len(pairs):
        ((twice, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {twice!r} occurs twice")
    return found


def finite(text: str) -> float:
    """A number that is one: NaN, Infinity and 1e999 are not."""
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text} is no finite number")
    return value


def refuse_pointer(path: Path) -> NoReturn:
    raise CheckpointError(f"{path}: a pointer to a large file, not the file; run `git lfs pull` where it came from")


class TensorFile:
    """A safetensors file whose header has been checked; tensors are read one by one, or some rows of one.

    Raises:
        CheckpointError: anything in the header that the format forbids, or that the file is too short for.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            if POINTER.startswith(start) and len(start) == 8:
                refuse_pointer(path)
            if size < 8:
                raise self.bad(f"{size} bytes")
            (n_header,) = struct.unpack("<Q", start)
            if n_header > MAX_HEADER:
                raise self.bad(f"a header of {n_header:,} bytes, and {MAX_HEADER:,} is the limit")
            if n_header > size - 8:
                raise self.bad(f"a header of {n_header:,} bytes in a file of {size:,}")
            header = parse_object(path, file.read(n_header))
        header.pop("__metadata__", None)
        self.entries = {name: self.entry(name, value, 8 + n_header) for name, value in header.items()}
        end = 8 + n_header
        for name, one in sorted(self.entries.items(), key=lambda item: (item[1].start, item[1].n_bytes)):
            if one.start != end:
                found = "overlaps the tensor before it" if one.start < end else "comes after a hole"
                raise self.bad(f"tensor {name!r} {found}")
            end += one.n_bytes
        if end != size:
            raise self.bad(f"{size:,} bytes instead of {end:,}")

    def entry(self, name: str, value: Any, base: int) -> Entry:
        """One tensor of the header, `base` bytes before the first."""
        match value:
            case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(start), int(end)]}:
                pass
            case _:
                raise self.bad(f"tensor {name!r} has no dtype, shape and two offsets")
        if dtype not in SIZES:
            raise self.bad(f"tensor {name!r} has the unknown dtype {dtype!r}")
        if not all(type(n) is int and 0 <= n < 2**48 for n in (*shape, start, end)):
            raise self.bad(f"tensor {name!r} has an impossible shape or offset")
        found = Entry(dtype, tuple(shape), base + start)
        if found.n_bytes != end - start:
            raise self.bad(f"tensor {name!r} has {end - start:,} bytes where its shape takes {found.n_bytes:,}")
        return found

    def bad(self, found: str) -> CheckpointError:
        return CheckpointError(f"{self.path}: not a safetensors file, or cut short: {found}; fetch it again")

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Tensor:
        """A tensor, or its rows from `start` to before `stop`, straight from the disk into its own memory."""
        one = self.entries[name]
        stop = one.shape[0] if stop is None and one.shape else stop
        shape = (max(0, stop - start), *one.shape[1:]) if stop is not None else one.shape
        tensor = torch.empty(shape, dtype=(DTYPES | WHOLE_NUMBERS)[one.dtype])
        if tensor.numel():
            n_row = one.n_bytes // one.shape[0] if one.shape else 0
            with self.path.open("rb") as file:
                file.seek(one.start + start * n_row)
                if file.readinto(tensor.view(-1).view(torch.uint8).numpy().data) != tensor.nbytes:
                    raise self.bad(f"it ends within tensor {name!r}")
        return tensor
