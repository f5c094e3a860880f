"""How well `legollm plan` foretells: the most memory and the time of a step, against those of real runs.

    python benchmarks/bench_plan.py [FROM:TO] [--json]

FROM:TO takes some of the rows, such as 0:5. For each, `legollm plan calibrate=true` and `legollm train` follow one
another, each a process of its own, on the built-in corpus. Measured memory is the most that the run had (VmHWM),
checkpoint and last evaluation included; measured time is the median of its steps, the first ones left out. No import of
PyTorch here: a process begins with the memory that the one that starts it has.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

MODELS = {
    "bigram": "model.arch=bigram",
    "gpt2 0.5M": "model.arch=gpt2 model.n_layers=3 model.d_model=96 model.n_heads=4",
    "gpt2 15M": "model.arch=gpt2 model.n_layers=4 model.d_model=512 model.n_heads=8",
    "gpt2 60M": "model.arch=gpt2 model.n_layers=8 model.d_model=768 model.n_heads=12",
    "gpt2 124M": "model.preset=gpt2",
    "llama3 6M": "model.arch=llama3 model.n_layers=12 model.d_model=192 model.n_heads=6 model.n_kv_heads=2 "
    "model.d_ff=512",
    "llama3 30M": "model.arch=llama3 model.n_layers=8 model.d_model=512 model.n_heads=8 model.n_kv_heads=4 "
    "model.d_ff=1536",
    "qwen3 0.2M": "preset=tiny",
    "qwen3 2M": "preset=small",
    "vanilla 6M": "model.arch=vanilla model.n_layers=6 model.d_model=256 model.n_heads=8 model.n_kv_heads=8 "
    "model.d_ff=1024",
    "mixtral 8M": "model.arch=mixtral model.n_layers=4 model.d_model=256 model.n_heads=8 model.n_kv_heads=4 "
    "model.d_ff=512 model.n_experts=4",
}
ROWS = [
    # model, batch, seq_len, steps, how
    ("bigram", 32, 128, 40, ""),
    ("gpt2 0.5M", 16, 128, 30, ""),
    ("gpt2 0.5M", 64, 64, 25, "optim.name=muon"),
    ("gpt2 15M", 4, 128, 16, ""),
    ("gpt2 15M", 4, 256, 14, "bfloat16 optim.name=muon"),
    ("gpt2 15M", 2, 256, 10, "train.grad_accum=4"),
    ("gpt2 15M", 8, 512, 6, "bfloat16 train.recompute=full"),
    ("gpt2 60M", 1, 128, 10, ""),
    ("gpt2 60M", 1, 128, 12, "bfloat16"),
    ("gpt2 60M", 2, 256, 8, "bfloat16 optim.name=muon"),
    ("gpt2 124M", 1, 256, 6, "model.vocab_size=50304"),
    ("llama3 6M", 8, 128, 16, ""),
    ("llama3 6M", 8, 512, 7, "optim.name=lion"),
    ("llama3 6M", 8, 256, 12, "bfloat16 optim.name=muon"),
    ("llama3 30M", 4, 256, 8, "bfloat16"),
    ("llama3 30M", 2, 128, 10, "train.grad_accum=2 optim.name=sgd"),
    ("llama3 30M", 4, 512, 6, "bfloat16 train.recompute=2"),
    ("qwen3 0.2M", 16, 64, 40, ""),
    ("qwen3 2M", 16, 256, 12, ""),
    ("qwen3 2M", 8, 512, 12, "bfloat16 optim.name=lion"),
    ("qwen3 2M", 4, 256, 12, "bfloat16 model.vocab_size=50304"),
    ("qwen3 2M", 16, 256, 8, "model.vocab_size=32000 train.grad_accum=2"),
    ("vanilla 6M", 8, 256, 12, "bfloat16"),
    ("vanilla 6M", 8, 512, 8, "optim.name=muon"),
    ("mixtral 8M", 4, 256, 10, ""),
]
SHORT = ["train.eval_every=0", "train.device=cpu", "train.log_every=1"]
COLD = 3
"""Steps of a run whose times do not count."""
MEMORY, TIME = 0.10, 0.20
"""How far off is good enough."""


def legollm(*words: str) -> tuple[str, int]:
    """What a command prints, and the most memory it had, in bytes."""
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen([sys.executable, "-m", "legollm", *words], stdout=out, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        text = out.read().decode()
    if process.returncode:
        raise SystemExit(f"legollm {' '.join(words)}: status {process.returncode}\n{text}")
    return text, usage.ru_maxrss << 10


def words_of(row: tuple[str, int, int, int, str]) -> list[str]:
    model, batch_size, seq_len, steps, how = row
    precision = "bfloat16" if "bfloat16" in how else "float32"
    words = [*MODELS[model].split(), *how.replace("bfloat16", "").split(), f"train.precision={precision}"]
    return [*words, f"train.batch_size={batch_size}", f"model.max_seq_len={seq_len}", f"train.max_steps={steps}"]


def measured(number: int, folder: Path) -> dict[str, Any]:
    model, batch_size, seq_len, _, how = ROWS[number]
    words, run = [*words_of(ROWS[number]), *SHORT, f"data.prepared={folder / 'data'}"], folder / str(number)
    planned = json.loads(legollm("plan", *words, "calibrate=true", "--json")[0])
    _, most = legollm("train", *words, f"run={run}")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rates = [line["tokens_per_s"] for line in lines if "tokens_per_s" in line][COLD:]
    step = planned["run"]["tokens"] / planned["run"]["steps"] / statistics.median(rates)
    memory, time = planned["peak_bytes"], planned["time"]
    return {
        "name": f"{model}, {batch_size} x {seq_len}" + (f", {how}" if how else ""),
        "memory": {"predicted": memory["total"], "measured": most, "ratio": memory["total"] / most},
        "step": {"predicted": time["step"], "measured": step, "ratio": time["step"] / step},
        "part": time["measured_part"],
    }


def main(words: list[str]) -> None:
    start, _, stop = next((word for word in words if ":" in word), ":").partition(":")
    numbers = range(len(ROWS))[int(start or 0) : int(stop) if stop else None]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        prepare = ["data.read.world_bytes=1_000_000", "data.val_fraction=0.01"]  # a short last evaluation
        legollm("data", "prepare", "world", f"folder={folder}/data", *prepare)
        if "--json" not in words:
            print(f"{'':58} {'memory of the process, MiB':>26}  {'a step, ms':>24}")
            print(f"{'':58} {'predicted':>10} {'measured':>9} {'':5}  {'predicted':>9} {'measured':>9}")
        for number in numbers:
            rows.append(row := measured(number, Path(folder)))
            if "--json" not in words:
                memory, step = row["memory"], row["step"]
                print(
                    f"{number:2} {row['name']:55} {memory['predicted'] / 2**20:10,.0f} "
                    f"{memory['measured'] / 2**20:9,.0f} {memory['ratio']:5.2f}  {1000 * step['predicted']:9,.1f} "
                    f"{1000 * step['measured']:9,.1f} {step['ratio']:5.2f} {row['part']}",
                    flush=True,
                )
    if "--json" in words:
        print(json.dumps(rows))
        return
    for kind, most in (("memory", MEMORY), ("step", TIME)):
        ratios = [row[kind]["ratio"] for row in rows]
        n_good = sum(abs(ratio - 1) <= most for ratio in ratios)
        print(
            f"{kind}: {n_good} of {len(ratios)} within {100 * most:.0f} %, from {min(ratios):.2f} to {max(ratios):.2f}"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
