"""What batches cost: their share of a training step, their memory as the corpus grows, and what reading ahead gives.

    python benchmarks/bench_loader.py [step] [memory] [ahead]

step: the loop of `legollm train` with a small model, with `data.prefetch` 0 and 2; `batch` is the time to make one
batch alone, `waiting` what the loop spends in asking for one.
memory: resident memory, in a process of its own, while 4,000 batches of 12 x 512 are read from token files of 1 MB to
1 GB (sparse: the ids are zeros, which are mapped and read as any others).
ahead: time per batch when 0, 1 or 2 are read ahead while the caller pauses for half a millisecond, and whether they are
the same.
"""

import argparse
import hashlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from legollm.architectures import build
from legollm.data.loader import RowBatches, Rows, TextBatches, Windows
from legollm.data.packing import Packed
from legollm.data.prefetch import Prefetched
from legollm.training.objective import NextToken
from legollm.training.optim import OptimConfig, build_optimizer
from legollm.training.train import TrainConfig, TrainState, train

SHAPES = ((12, 64), (4, 512))
N_STEPS = 60
SIZES_MB = (1, 10, 100, 1000)
MEASURE = """
import sys
from pathlib import Path
import numpy as np
from legollm.data.loader import WindowBatches

def resident():
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) / 1024

ids = np.memmap(sys.argv[1], np.uint16, mode="r")
batches = WindowBatches(ids, batch_size=12, seq_len=512, seed=1)
for _ in range(200):
    next(batches)
before = resident()
most = 0.0
for i in range(4000):
    next(batches)
    if i % 50 == 0:
        most = max(most, resident())
print(before, most, resident())
"""


class Timed:
    """A source that notes how long each batch made its caller wait."""

    def __init__(self, batches: TextBatches) -> None:
        self.batches, self.seconds = batches, list[float]()

    def __next__(self) -> Any:
        start = time.perf_counter()
        batch = next(self.batches)
        self.seconds.append(time.perf_counter() - start)
        return batch

    def state_dict(self) -> dict[str, Any]:
        return self.batches.state_dict()

    def load_state_dict(self, state: Any) -> None:
        self.batches.load_state_dict(state)


def corpus(n_tokens: int) -> tuple[Any, Any]:
    """Random ids in documents of 180 tokens on average, and where each begins."""
    rng = np.random.RandomState(0)
    lengths = rng.geometric(1 / 180, size=n_tokens // 180)
    return rng.randint(2048, size=lengths.sum()).astype("<u2"), np.cumsum(lengths) - lengths


def orders(seq_len: int) -> Iterator[tuple[str, Rows]]:
    ids, starts = corpus(5_000_000)
    yield "windows", Windows(ids, seq_len=seq_len, seed=1)
    yield "best_fit", Packed(ids, starts, seq_len=seq_len, seed=1)


def bench_step() -> None:
    print("rows    packing   prefetch  step ms  batch ms   share  waiting ms   share")
    for batch_size, seq_len in SHAPES:
        for packing, rows in orders(seq_len):
            source = RowBatches(rows, batch_size=batch_size)
            next(source)
            start = time.perf_counter()
            for _ in range(2000):
                next(source)
            batch_s = (time.perf_counter() - start) / 2000
            for prefetch in (0, 2):
                timed = Timed(Prefetched(source, prefetch) if prefetch else source)
                step_s = step_seconds(timed, seq_len)
                waiting_s = statistics.mean(timed.seconds[-N_STEPS:])
                print(
                    f"{batch_size}x{seq_len:<5}{packing:<10}{prefetch:8}{1e3 * step_s:9.2f}{1e3 * batch_s:10.3f}"
                    f"{batch_s / step_s:8.2%}{1e3 * waiting_s:12.3f}{waiting_s / step_s:8.2%}",
                    flush=True,
                )


def step_seconds(batches: Timed, seq_len: int) -> float:
    """The median step of the loop with a model of 0.8 million parameters."""
    torch.manual_seed(0)
    shape = {"n_layers": 4, "n_heads": 4, "n_kv_heads": 2, "d_model": 120, "d_head": 30, "d_ff": 320}
    model = build("qwen3", vocab_size=2048, max_seq_len=seq_len, **shape)
    assert 0.75e6 < sum(p.numel() for p in model.parameters()) < 0.9e6
    moments: list[float] = []
    train(
        model,
        NextToken(),
        batches,
        build_optimizer(model, OptimConfig()),
        TrainConfig(max_steps=N_STEPS + 10, log_every=1, eval_every=0, save_every=0, device="cpu"),
        learning_rate=lambda step: 1e-4,
        state=TrainState(),
        log=lambda step, **values: moments.append(time.perf_counter()),
        evaluate=lambda state: None,
        save=lambda state: None,
    )
    return statistics.median(np.diff(moments[-N_STEPS:]))


def bench_memory() -> None:
    print("file MB   resident MB after 200 batches   most, to 4,200   after 4,200")
    with tempfile.TemporaryDirectory() as folder:
        for size in SIZES_MB:
            path = Path(folder) / f"{size}.bin"
            with path.open("wb") as file:
                file.truncate(size * 1_000_000)
            command = [sys.executable, "-c", MEASURE, str(path)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            before, most, after = map(float, done.stdout.split())
            print(f"{size:7}{before:32.0f}{most:17.0f}{after:14.0f}", flush=True)


def bench_ahead() -> None:
    print("rows    read ahead  waiting ms per batch  SHA-256 of 2,000 batches")
    for batch_size, seq_len in SHAPES:
        for n_ahead in (0, 1, 2):
            _, rows = next(orders(seq_len))
            source = RowBatches(rows, batch_size=batch_size)
            timed = Timed(Prefetched(source, n_ahead) if n_ahead else source)
            digest = hashlib.sha256()
            for _ in range(2000):
                digest.update(next(timed).tokens.numpy().data)
                time.sleep(5e-4)
            waiting = 1e3 * statistics.median(timed.seconds)
            print(f"{batch_size}x{seq_len:<5}{n_ahead:10}{waiting:22.3f}  {digest.hexdigest()[:16]}", flush=True)


def main() -> None:
    parts = {"step": bench_step, "memory": bench_memory, "ahead": bench_ahead}
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[[], *parts], help="all of them if none is named")
    for name in parser.parse_args().parts or parts:
        parts[name]()
        print()


if __name__ == "__main__":
    main()
