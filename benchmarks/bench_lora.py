"""Adapters against training the whole model: the demo's base learns to answer questions, in each way the same steps.

Each way is a process of its own, because memory that was touched once stays with a process. Peak is the largest
resident size while training minus that before. The base is what `legollm demo` leaves in runs/demo/pretrain.

    python benchmarks/bench_lora.py runs/demo/pretrain [--steps 100] [--only NAME ...] [--lr 0.01] [--no-answers]
"""

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

WAYS: dict[str, dict[str, Any]] = {
    "whole model": {"lr": 2e-3},
    "last block": {"lr": 2e-3, "freeze": ("all_but_last_1",)},
    "rank 2": {"lr": 1e-2, "lora": {"rank": 2}},
    "rank 8": {"lr": 1e-2, "lora": {"rank": 8}},
    "rank 32": {"lr": 1e-2, "lora": {"rank": 32}},
    "rank 32, rslora": {"lr": 1e-2, "lora": {"rank": 32, "kind": "rslora"}},
    "rank 8, dora": {"lr": 1e-2, "lora": {"rank": 8, "kind": "dora"}},
    "rank 8, q_proj and v_proj": {"lr": 1e-2, "lora": {"rank": 8, "targets": ("q_proj", "v_proj")}},
    "rank 8, base of int8": {"lr": 1e-2, "lora": {"rank": 8, "quantize": "int8"}},
    "rank 8, base of int4": {"lr": 1e-2, "lora": {"rank": 8, "quantize": "int4"}},
}
ONE = "--one"


def measure(base: Path, way: str, n_steps: int, lr: float | None, answers: bool) -> dict[str, float]:
    """All figures of one way, in this process. lr: in place of the way's own."""
    from legollm.checkpoints.loading import load
    from legollm.commands.demo import ANSWERING, DemoRun, held_out, item_of
    from legollm.commands.sft import ConversationConfig, SftRun, finetune
    from legollm.commands.start_from import prepared
    from legollm.evaluation.questions import answer_all
    from legollm.training.metrics import read_rows
    from legollm.training.optim import OptimConfig
    from legollm.training.train import TrainConfig
    from legollm.transforms.lora import LoraConfig

    settings = WAYS[way]
    lora, freeze = LoraConfig(**settings.get("lora", {})), settings.get("freeze", ())
    n_trained = prepared(base, lora, freeze, seed=1337).n_trained
    with TemporaryDirectory() as folder:
        cfg = SftRun(
            model=base,
            run=Path(folder) / "run",
            data=ConversationConfig(n_examples=6000, n_turns=3),
            lora=lora,
            freeze=freeze,
            optim=OptimConfig(lr=lr or settings["lr"], warmup_steps=20),
            train=TrainConfig(
                max_steps=n_steps, batch_size=8, eval_every=0, save_every=0, log_every=10, precision="float32"
            ),
        )
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        state = finetune(cfg)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        rows = read_rows(cfg.run / "metrics.jsonl")
        lm = load(cfg.run)
        found = {
            "n_trained": n_trained,
            "disk_mb": sum(file.stat().st_size for file in (cfg.run / "checkpoint").glob("*.safetensors")) / 1e6,
            "peak_mib": peak / 1024,
            "seconds": state.seconds / n_steps,
            "val_loss": next(row["val_loss"] for row in reversed(rows) if "val_loss" in row),
        }
        if answers:
            asked = [item_of(lm, question) for question in held_out(DemoRun(n_questions=200))]
            said = answer_all(lm.writer, lm.text_side(), asked, **ANSWERING, stop_ids=lm.stop_ids())
            found["right"] = sum(one.is_right for one in said) / len(said)
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--only", choices=WAYS, nargs="*", default=list(WAYS))
    parser.add_argument("--lr", type=float)
    parser.add_argument("--no-answers", action="store_true")
    parser.add_argument(ONE, choices=WAYS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.base, args.one, args.steps, args.lr, not args.no_answers)))
        return
    print(f"{'way':<26} {'trained':>9} {'disk MB':>8} {'peak MiB':>9} {'s / step':>9} {'val loss':>9} {'right':>6}")
    for way in args.only:
        words = [sys.executable, __file__, str(args.base), ONE, way, "--steps", str(args.steps)]
        words += (["--no-answers"] if args.no_answers else []) + (["--lr", str(args.lr)] if args.lr else [])
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
        one = json.loads(done.stdout.splitlines()[-1])
        right = f"{one['right']:>6.1%}" if "right" in one else f"{'-':>6}"
        print(
            f"{way:<26} {one['n_trained']:>9,} {one['disk_mb']:>8.2f} {one['peak_mib']:>9.0f} {one['seconds']:>9.3f} "
            f"{one['val_loss']:>9.4f} {right}",
            flush=True,
        )


if __name__ == "__main__":
    main()
