"""Tokens per second with and without a cache, and the bytes it takes: python benchmarks/bench_cache.py [threads].

Each cell generates `length` tokens greedily after a prompt of one token, cache allocation included; medians of runs
that alternate between the two, so that both meet the same machine. Then, each in a process of its own, the memory and
time that a long prompt takes when it is read in pieces.
"""

import resource
import statistics
import subprocess
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
N_PROMPT = 4096
CHUNKS = (N_PROMPT, 1024, 256, 64)


def seconds(model: Decoder, length: int, *, use_cache: bool) -> float:
    """One generation of `length` tokens."""
    start = time.perf_counter()
    complete(model, [[1]], Sampling(temperature=0, max_new_tokens=length), decoding=Decoding(use_cache=use_cache))
    return time.perf_counter() - start


def built() -> Decoder:
    return build("qwen3", n_layers=4, d_model=256, n_heads=8, n_kv_heads=4, d_head=32, d_ff=688, vocab_size=4096).eval()


def read_prompt(chunk: int) -> None:
    """In a process of its own: the prompt is read in pieces; prints the seconds and the most MiB."""
    model = built()
    start = time.perf_counter()
    prompt = [i % 4096 for i in range(N_PROMPT)]
    sampling, decoding = Sampling(temperature=0, max_new_tokens=2), Decoding(prefill_chunk=chunk)
    complete(model, [prompt], sampling, decoding=decoding)
    seconds = time.perf_counter() - start
    print(f"{chunk:>6} {seconds:>10.2f} s {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:>10.0f} MiB")


def main() -> None:
    if sys.argv[1:2] == ["prompt"]:
        torch.set_num_threads(int(sys.argv[3]))
        read_prompt(int(sys.argv[2]))
        return
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
    model = built()
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
    print(f"\na prompt of {N_PROMPT:,} tokens in pieces\n{'tokens':>6} {'time':>12} {'most memory':>14}", flush=True)
    for chunk in CHUNKS:
        subprocess.run([sys.executable, __file__, "prompt", str(chunk), str(torch.get_num_threads())], check=True)


if __name__ == "__main__":
    main()
