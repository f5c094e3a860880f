"""How well `legollm plan` foretells: the most memory of a run, against that of a real run of four steps.

    python benchmarks/bench_plan.py [FROM:TO] [--json]

FROM:TO takes some of the rows, such as 0:5. Each run is a process of its own on the built-in corpus; `measured` is the
most memory it had (VmHWM), checkpoint included. No import of PyTorch here: a process begins with the memory that the
one that starts it has.
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
    "gpt2-wide": "model.arch=gpt2 model.n_layers=4 model.d_model=512 model.n_heads=8 train.batch_size=4",
    "llama3-deep": "model.arch=llama3 model.n_layers=12 model.d_model=192 model.n_heads=6 model.n_kv_heads=2 "
    "model.d_ff=512 train.batch_size=8",
    "qwen3": "preset=small train.batch_size=8",
    "vanilla": "model.arch=vanilla model.n_layers=6 model.d_model=256 model.n_heads=8 model.n_kv_heads=8 "
    "model.d_ff=1024 train.batch_size=8",
    "large": "model.arch=gpt2 model.n_layers=8 model.d_model=768 model.n_heads=12 train.batch_size=1",
}
HOW = {
    "adamw": "train.precision=float32 model.max_seq_len=128",
    "bf16": "train.precision=bfloat16 model.max_seq_len=128",
    "long": "train.precision=float32 model.max_seq_len=512 optim.name=lion",
    "muon": "train.precision=bfloat16 model.max_seq_len=256 optim.name=muon",
    "sgd": "train.precision=float32 model.max_seq_len=256 optim.name=sgd train.grad_accum=2",
}
ROWS = {f"{model}, {how}": f"{MODELS[model]} {HOW[how]}".split() for how in HOW for model in MODELS}
SHORT = ["train.max_steps=4", "train.eval_every=0", "train.device=cpu"]


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


def measured(name: str, folder: Path) -> dict[str, Any]:
    words = [*ROWS[name], *SHORT, f"data.prepared={folder / 'data'}"]
    planned = json.loads(legollm("plan", *words, "--json")[0])
    _, most = legollm("train", *words, f"run={folder / name.replace(', ', '-')}")
    predicted = planned["peak_bytes"]["total"]
    tensors = planned["peak_bytes"]["tensors"]
    return {"name": name, "predicted": predicted, "measured": most, "ratio": predicted / most, "tensors": tensors}


def main(words: list[str]) -> None:
    start, _, stop = next((word for word in words if ":" in word), ":").partition(":")
    names = list(ROWS)[int(start or 0) : int(stop) if stop else None]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        legollm("data", "prepare", "world", f"folder={folder}/data", "data.read.world_bytes=1_000_000")
        if "--json" not in words:
            print(f"{'':20} {'predicted':>10} {'measured':>10} {'ratio':>6} {'tensors':>10}")
        for name in names:
            rows.append(row := measured(name, Path(folder)))
            if "--json" not in words:
                sizes = [f"{row[key] / 2**20:,.0f} MiB" for key in ("predicted", "measured", "tensors")]
                print(f"{name:20} {sizes[0]:>10} {sizes[1]:>10} {row['ratio']:6.2f} {sizes[2]:>10}", flush=True)
    if "--json" in words:
        print(json.dumps(rows))
    else:
        ratios = [row["ratio"] for row in rows]
        print(f"{len(rows)} runs, median {statistics.median(ratios):.2f}, from {min(ratios):.2f} to {max(ratios):.2f}")


if __name__ == "__main__":
    main(sys.argv[1:])
