"""Tokens per second with and without a cache, and the bytes it takes: python benchmarks/bench_cache.py [threads].

Each cell generates `length` tokens greedily after a prompt of one token, cache allocation included; medians of runs
that alternate between the two, so that both meet the same machine.
"""

import statistics
import sys
import time

import torch

from legollm.architectures import build
from legollm.components.decoder import Decoder
from legollm.generation.cache import kv_bytes_per_token
from legollm.generation.complete import Decoding, complete
from legollm.generation.sampling import Sampling

LENGTHS = (1, 2, 3, 4, 8, 16, 32, 64, 128, 256, 512)
TOKENS_PER_CELL = 384


def seconds(model: Decoder, length: int, *, use_cache: bool) -> float:
    """One generation of `length` tokens."""
    start = time.perf_counter()
    complete(model, [[1]], Sampling(temperature=0, max_new_tokens=length), decoding=Decoding(use_cache=use_cache))
    return time.perf_counter() - start


def main() -> None:
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
    model = build("qwen3", n_layers=4, d_model=256, n_heads=8, n_kv_heads=4, d_head=32, d_ff=688, vocab_size=4096)
    model.eval()
    per_token = kv_bytes_per_token(model.kv_shapes, torch.float32)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {torch.get_num_threads()} threads")
    print(f"{'length':>6} {'recomputed':>12} {'cached':>12} {'ratio':>6} {'cache':>12}")
    for length in LENGTHS:
        times: dict[bool, list[float]] = {False: [], True: []}
        for repeat in range(max(3, min(101, TOKENS_PER_CELL // length))):
            for cached in (False, True) if repeat % 2 else (True, False):
                times[cached].append(seconds(model, length, use_cache=cached))
        slow, fast = (length / statistics.median(times[cached]) for cached in (False, True))
        print(f"{length:>6} {slow:>8.0f} t/s {fast:>8.0f} t/s {fast / slow:>6.2f} {length * per_token:>6,} bytes")


if __name__ == "__main__":
    main()
