"""What a step of each optimizer costs, here and in PyTorch: milliseconds for one parameter of N numbers, in turns.

    python benchmarks/bench_optimizers.py [--numbers 2000000 38000000] [--rounds 9]

Every engine moves a parameter of its own with a gradient of half zeros, as a table of which few rows are looked up.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import nn

from legollm.device import keep_freed_memory
from legollm.training.adamw import AdamW
from legollm.training.lion import Lion
from legollm.training.sgd import SGD

ENGINES: dict[str, Callable[[list[nn.Parameter]], Any]] = {
    "AdamW": AdamW,
    "Lion": Lion,
    "SGD": SGD,
    "torch AdamW": torch.optim.AdamW,
    "torch AdamW, fused": lambda parameters: torch.optim.AdamW(parameters, fused=True),
}


def steps(n: int, n_rounds: int) -> dict[str, float]:
    """Engine -> median seconds of a step on n numbers."""
    optimizers, times = {}, {}
    for name, make in ENGINES.items():
        parameter = nn.Parameter(torch.randn(n))
        parameter.grad = torch.randn(n) * (torch.arange(n) < n // 2)
        optimizers[name], times[name] = make([parameter]), []
    for _ in range(n_rounds + 2):
        for name, optimizer in optimizers.items():
            start = time.perf_counter()
            optimizer.step()
            times[name].append(time.perf_counter() - start)
    return {name: median(seconds[2:]) for name, seconds in times.items()}  # the first two make the memory


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--numbers", type=int, nargs="+", default=[2_000_000, 38_000_000])
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    keep_freed_memory()
    for n in args.numbers:
        found = steps(n, args.rounds)
        print(f"{n:,} numbers")
        for name, seconds in found.items():
            print(f"  {name:<20}{1e3 * seconds:>8.2f} ms{found['torch AdamW'] / seconds:>7.1f} x PyTorch's loop")


if __name__ == "__main__":
    main()
