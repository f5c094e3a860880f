"""Where, how precisely and from which seed to compute."""

import ctypes
import hashlib
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from legollm.errors import ConfigError

log = logging.getLogger(__name__)

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")
"""Where Linux tells how much memory there is, and how much of it this container may take."""

Precision = Literal["auto", "float32", "bfloat16"]
Device = Literal["auto", "cpu", "cuda", "mps"]


def pick_device(wish: Device = "auto") -> torch.device:
    """The device to compute on; `auto` takes a GPU where there is one.

    Raises:
        ConfigError: a device this machine does not have.
    """
    has = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    name = next(name for name, there in has.items() if there) if wish == "auto" else wish
    if not has[name]:
        raise ConfigError(f"device: {wish!r} is not on this machine; possible: {', '.join(n for n in has if has[n])}")
    return torch.device(name)


def free_bytes(device: torch.device) -> int | None:
    """Memory that is free on a device now; None where nothing tells."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu" or not MEMINFO.exists():
        return None
    lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
    free = int(lines["MemAvailable"].split()[0]) << 10
    limit, used = CGROUP / "memory.max", CGROUP / "memory.current"
    if limit.exists() and used.exists() and (most := limit.read_text().strip()) != "max":
        free = min(free, int(most) - int(used.read_text()))
    return free


def keep_freed_memory() -> None:
    """Have the C library keep what is freed, so that the tensors of the next step find it mapped already.

    By default glibc gives every large block back, and the kernel clears it again page by page: a step of a model of a
    million parameters takes 1.5 times as long. Elsewhere than on Linux with glibc nothing happens.
    """
    mmap_threshold, trim_threshold, top_pad = -3, -1, -2  # as malloc.h numbers them
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is not None and hasattr(libc, "gnu_get_libc_version"):
        libc.mallopt(mmap_threshold, 1 << 30)
        libc.mallopt(trim_threshold, 2**31 - 1)
        libc.mallopt(top_pad, 64 << 20)


def pick_precision(wish: Precision, device: torch.device) -> Literal["float32", "bfloat16"]:
    """The precision of matrix products; `auto` takes bfloat16 where it is clearly faster, measured in 50 ms."""
    if wish != "auto":
        return wish
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    if device.type != "cpu" or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return "float32"
    seconds = {dtype: product_seconds(dtype) for dtype in (torch.float32, torch.bfloat16)}
    ratio = seconds[torch.float32] / seconds[torch.bfloat16]
    log.info("bfloat16 products run at %.1f times the speed of float32 here", ratio)
    # Casting costs time, too, which products alone do not show; the margin for it is a choice, not a measurement.
    return "bfloat16" if ratio > 1.5 else "float32"


def product_seconds(dtype: torch.dtype, size: int = 512, repeats: int = 7) -> float:
    """The median time of one square matrix product."""
    a = torch.ones(size, size, dtype=dtype)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - start)
    return sorted(times)[repeats // 2]


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Matrix products in `precision`; parameters, norms and losses stay in float32."""
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not torch.float32)


class Undrawn(TorchFunctionMode):
    """Numbers that have no memory are not drawn: torch would load its compiler to do nothing, 80 MB and a second."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in (Tensor.normal_, Tensor.uniform_) and args[0].is_meta:
            return args[0]
        return func(*args, **(kwargs or {}))


@contextmanager
def without_memory() -> Iterator[None]:
    """What is built inside has shapes but no numbers: to be counted, drawn as a picture, or filled from a file."""
    with torch.device("meta"), Undrawn():
        yield


def seed_of(seed: int, stream: str) -> int:
    """One seed drives everything through named streams (init, data, dropout, sampling); none disturbs another."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{stream}".encode()).digest()[:7], "big")


def generator(seed: int, stream: str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator for one stream of one seed."""
    return torch.Generator(device).manual_seed(seed_of(seed, stream))
