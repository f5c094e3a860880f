"""The same small model here and in nanoGPT, in turns: tokens per second, milliseconds per step and peak memory.

    python benchmarks/bench_nanogpt.py NANOGPT TEXT [--steps 200] [--rounds 3]

NANOGPT is a copy of it with data/shakespeare_char prepared, TEXT is Tiny Shakespeare. Both train a GPT of 4 layers and
width 128 on 12 rows of 64 characters with AdamW and their own defaults for all else, each in a process of its own.
Medians over the rounds; in a run, over its steps without the first tenth.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from legollm.training.metrics import read_rows

TOKENS = 12 * 64
NANOGPT = (
    "config/train_shakespeare_char.py --device=cpu --compile=False --eval_iters=1 --eval_interval=100000 "
    "--log_interval=1 --block_size=64 --batch_size=12 --n_layer=4 --n_head=4 --n_embd=128 --dropout=0.0"
)
HERE = (
    "tokenizer=char model.arch=gpt2 model.max_seq_len=64 model.n_layers=4 model.n_heads=4 model.d_model=128 "
    "train.batch_size=12 train.log_every=10 train.eval_every=0 train.save_every=0"
)


def run(command: list[str], folder: Path) -> tuple[str, float]:
    """What a command printed, and the most memory its process had, in MiB."""
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, cwd=folder, stdout=said, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        text = said.read()
    if process.returncode:
        raise SystemExit(text)
    return text, usage.ru_maxrss / 1024


def nanogpt(folder: Path, n_steps: int) -> tuple[float, float]:
    """Seconds of a step, and peak MiB."""
    with tempfile.TemporaryDirectory() as out:
        words = [*NANOGPT.split(), f"--max_iters={n_steps}", f"--lr_decay_iters={n_steps}", f"--out_dir={out}"]
        said, peak = run([sys.executable, "train.py", *words], folder)
    times = [float(ms) / 1000 for ms in re.findall(r"^iter \d+: .* time ([\d.]+)ms", said, re.MULTILINE)]
    return median(times[len(times) // 10 :]), peak


def here(text: Path, n_steps: int) -> tuple[float, float]:
    """Seconds of a step, and peak MiB."""
    with tempfile.TemporaryDirectory() as folder:
        words = [f"run={folder}", f"data.source={text.resolve()}", f"train.max_steps={n_steps}", *HERE.split()]
        _, peak = run([sys.executable, "-m", "legollm", "train", *words], Path.cwd())
        rows = [row for row in read_rows(Path(folder) / "metrics.jsonl") if "tokens_per_s" in row]
    return median(TOKENS / row["tokens_per_s"] for row in rows[len(rows) // 10 :]), peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nanogpt", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    measured: dict[str, list[tuple[float, float]]] = {"nanoGPT": [], "legollm": []}
    for _ in range(args.rounds):
        measured["nanoGPT"].append(nanogpt(args.nanogpt, args.steps))
        measured["legollm"].append(here(args.text, args.steps))
    print(f"{'':<10}{'ms/step':>9}{'tokens/s':>11}{'peak MiB':>10}")
    for name, runs in measured.items():
        seconds, peak = median(one[0] for one in runs), median(one[1] for one in runs)
        print(f"{name:<10}{1e3 * seconds:>9.1f}{TOKENS / seconds:>11,.0f}{peak:>10.0f}")


if __name__ == "__main__":
    main()
