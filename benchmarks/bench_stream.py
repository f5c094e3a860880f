"""What a text without end costs and loses: python benchmarks/bench_stream.py RUN TEXT [window] [threads].

RUN is a trained model (a run or checkpoint folder), TEXT a file longer than its window. First the loss along the text,
in nats per token, with everything kept, a window, a window and 4 sinks, and a window that is read again by halves. Then
the time for one more token, median of 200, and the memory of the process at 1,000, 10,000 and 50,000 tokens, with
compiled kernels where they are there. The three places are timed in turns, so that they meet the same machine.
"""

import copy
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from legollm.checkpoints.loading import Loaded, load
from legollm.evaluation.streams import losses_along, losses_reread
from legollm.generation.cache import FullCache, kv_bytes_per_token
from legollm.generation.ring_cache import RingCache
from legollm.generation.sampling import Sampling
from legollm.interfaces import Cache

N_READ = 8192
"""Tokens of the text whose loss is looked at."""
N_PARTS = 8
PLACES = (1_000, 10_000, 50_000)
N_TIMED = 200
SINKS = 4


def losses(lm: Loaded, text: str, window: int) -> None:
    """The table of losses."""
    model, ids = lm.writer, lm.text_side().encode(text)[: N_READ + 1]
    n = (len(ids) - 1) // N_PARTS
    with torch.inference_mode():
        found = {
            "everything": losses_along(model, ids, FullCache.for_model(model, 1, len(ids))),
            f"window {window}": losses_along(model, ids, RingCache.for_model(model, 1, window)),
            f"window {window}, {SINKS} sinks": losses_along(model, ids, RingCache.for_model(model, 1, window, SINKS)),
            "re-prefill": losses_reread(model, ids, window),
        }
    print(f"{'loss up to token':<24}" + "".join(f"{n * (i + 1):>8,}" for i in range(N_PARTS)) + f"{'all':>8}")
    for name, one in found.items():
        parts = one[: n * N_PARTS].view(N_PARTS, n).mean(1).tolist()
        print(f"{name:<24}" + "".join(f"{part:>8.3f}" for part in parts) + f"{one.mean():>8.3f}")


def resident() -> float:
    """MiB of this process."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096 / 2**20


def step(model: Any, token: Tensor, cache: Cache) -> Tensor:
    """The likeliest next token, (1, 1)."""
    logits: Tensor = model.lm_head(model.hidden(token, None, cache)[:, -1])
    return logits.argmax(-1, keepdim=True)


@torch.inference_mode()
def times(model: Any, cache: Cache, last: int) -> list[tuple[float, float]]:
    """Milliseconds for a token, and MiB, at each place: copies made on the way, timed in turns at the end."""
    token, kept = torch.tensor([[1]]), []
    for n in range(1, last + 1):
        token = step(model, token, cache)
        if n in PLACES:
            kept.append((copy.deepcopy(cache), token, resident()))
    seconds: list[list[float]] = [[] for _ in kept]
    for _ in range(N_TIMED):
        for (held, following, _), mine in zip(kept, seconds, strict=True):
            start = time.perf_counter()
            step(model, following, held)
            mine.append(time.perf_counter() - start)
    return [(1000 * statistics.median(mine), mib) for mine, (_, _, mib) in zip(seconds, kept, strict=True)]


def main() -> None:
    folder, text = sys.argv[1], Path(sys.argv[2]).read_text(encoding="utf-8")
    torch.set_num_threads(int(sys.argv[4]) if len(sys.argv) > 4 else 1)
    lm = load(folder)
    window = int(sys.argv[3]) if len(sys.argv) > 3 else lm.config.max_seq_len
    losses(lm, text, window)
    sys.stdout.flush()
    model = lm.writer_of(Sampling(max_new_tokens=10_000_000))
    per_token = kv_bytes_per_token(model.kv_shapes, torch.float32)
    print(f"\n{type(model).__name__}, a cache of {window} tokens takes {window * per_token:,} bytes")
    print(f"{'ms for a token (MiB) at':<24}" + "".join(f"{place:>16,}" for place in PLACES))
    caches = {
        f"window {window}": (RingCache.for_model(model, 1, window), PLACES[-1]),
        f"window {window}, {SINKS} sinks": (RingCache.for_model(model, 1, window, SINKS), PLACES[-1]),
        "everything": (FullCache.for_model(model, 1, PLACES[1] + N_TIMED), PLACES[1]),
    }
    for name, (cache, last) in caches.items():
        cells = [f"{ms:.3f} ({mib:.0f})" for ms, mib in times(model, cache, last)]
        print(f"{name:<24}" + "".join(f"{cell:>16}" for cell in cells))


if __name__ == "__main__":
    main()
