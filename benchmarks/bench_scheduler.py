"""Output tokens per second of mixed requests: python benchmarks/bench_scheduler.py [key=value ...].

    shape=gpt2-124m          random weights of that shape; see `legollm bench generate`
    engines=cpu-int8,cpu     of `legollm bench generate`
    at_once=1,4,16,64        requests that the scheduler lets write together
    requests=32 rounds=3

Prompts have 16 to 128 tokens and answers 16 to 96, drawn once. Beside the scheduler stands what one has without it: the
same requests in batches of 16 that wait for their longest (`complete`), where the engine is the same. Medians of rounds
in turns. `waste` is memory in use that holds no token, and in brackets what a cache with room for the longest wastes.
"""

import random
import statistics
import sys
import time
from typing import Any

import torch

from legollm.checkpoints.loading import load
from legollm.commands.bench_generate import model_folder
from legollm.commands.bench_worker import engine_of
from legollm.generation.complete import Decoding, complete
from legollm.generation.sampling import Sampling
from legollm.generation.scheduler import Scheduler, Scheduling

Work = list[tuple[list[int], Sampling]]


def main(words: dict[str, str]) -> None:
    rng = random.Random(0)
    work: Work = [
        ([rng.randrange(50, 250) for _ in range(rng.randint(16, 128))], Sampling(temperature=0, max_new_tokens=n))
        for n in (rng.randint(16, 96) for _ in range(int(words.get("requests", "32"))))
    ]
    sizes = [int(n) for n in words.get("at_once", "1,4,16,64").split(",")]
    n_rounds = int(words.get("rounds", "3"))
    with model_folder(words.get("shape", "gpt2-124m")) as folder:
        for engine in words.get("engines", "cpu-int8,cpu").split(","):
            kind, precision, _ = engine_of(engine)
            model: Any = load(folder, engine=kind, precision=precision).writer_of(Sampling())
            scheduled(model, work[:2], 2)  # what is compiled, and caches
            rows: dict[str, list[tuple[float, str]]] = {}
            for _ in range(n_rounds):
                for n in sizes:
                    rows.setdefault(f"scheduler, {n} at once", []).append(scheduled(model, work, n))
                rows.setdefault("batches of 16", []).append((in_batches(model, work), ""))
            print(f"\n{engine}: {len(work)} requests")
            for name, found in rows.items():
                print(f"{name:24}{statistics.median(rate for rate, _ in found):8.1f} tokens/s  {found[-1][1]}")


def scheduled(model: Any, work: Work, at_once: int) -> tuple[float, str]:
    """Tokens per second, and what is to be said about memory."""
    scheduler = Scheduler(model, Scheduling(max_rows=at_once, n_blocks=16 * max(at_once, 8)))
    start = time.perf_counter()
    requests = [scheduler.submit(ids, sampling) for ids, sampling in work]
    wastes = []
    while scheduler.has_work:
        scheduler.step()
        usage = scheduler.cache.usage()
        wastes.append((usage.waste, usage.contiguous_waste))
    seconds = time.perf_counter() - start
    mine, other = (statistics.mean(values) for values in zip(*wastes, strict=True))
    return sum(len(one.new_ids) for one in requests) / seconds, f"waste {mine:.0%} ({other:.0%})"


def in_batches(model: Any, work: Work) -> float:
    """Tokens per second where each batch goes on until its longest answer is there; only what was asked for counts."""
    start = time.perf_counter()
    for first in range(0, len(work), 16):
        batch = work[first : first + 16]
        longest = max(sampling.max_new_tokens for _, sampling in batch)
        sampling = Sampling(temperature=0, max_new_tokens=longest)
        complete(model, [ids for ids, _ in batch], sampling, decoding=Decoding(batch_size=16))
    return sum(sampling.max_new_tokens for _, sampling in work) / (time.perf_counter() - start)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main(dict(word.split("=", 1) for word in sys.argv[1:]))
