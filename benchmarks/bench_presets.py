"""How long the presets take here: the steps of each times the time of a step; whole runs of those that are named.

    python benchmarks/bench_presets.py [TEXT] [--presets tiny small base] [--steps 60] [--whole tiny]

A step's time is the median over the log lines of a run of --steps steps and ten more, of which the first ten do not
count. Without a text the built-in corpus is taken.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from legollm.commands.run_presets import SIZES
from legollm.training.metrics import read_rows


def trained(*words: str) -> tuple[float, list[dict[str, float]]]:
    """Seconds of a whole `legollm train` in a process of its own, and the rows of its metrics."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        command = [sys.executable, "-m", "legollm", "train", f"run={folder}", *words]
        subprocess.run(command, check=True, capture_output=True)
        return time.perf_counter() - start, list(read_rows(Path(folder) / "metrics.jsonl"))


def step_seconds(n_steps: int, *words: str) -> float:
    """The time of a step, evaluation and saving left out."""
    quiet = ("train.log_every=10", "train.eval_every=0", "train.save_every=0", f"train.max_steps={n_steps + 10}")
    rows = [row for row in trained(*words, *quiet)[1] if "tokens_per_s" in row]
    return median(row["tokens"] / row["step"] / row["tokens_per_s"] for row in rows[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", nargs="?")
    parser.add_argument("--presets", nargs="*", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--whole", nargs="*", choices=list(SIZES), default=[])
    args = parser.parse_args()
    source = [f"data.source={args.text}"] if args.text else []
    for name in args.presets:
        n_steps, seconds = SIZES[name]["train"]["max_steps"], step_seconds(args.steps, f"preset={name}", *source)
        print(
            f"{name:<8}{n_steps:>6,} steps x {1e3 * seconds:>6.1f} ms = {n_steps * seconds / 60:>5.1f} minutes",
            flush=True,
        )
    for name in args.whole:
        seconds, rows = trained(f"preset={name}", *source)
        last = rows[-1]
        bits = f"{last['val_loss']:.3f} nats per token, {last['val_bpb']:.3f} bits per byte"
        print(f"{name:<8}whole run {seconds / 60:>5.1f} minutes, {bits} of the validation text", flush=True)


if __name__ == "__main__":
    main()
