"""What recomputing blocks saves in memory and costs in time: one training step of a LLaMA with 12 blocks of width 512.

Each row is a process of its own, because memory that was touched once stays with a process. Peak is the largest
resident size during the steps minus that before them, so weights are left out, gradients are in. `kept` is what
`legollm plan` says of the same settings.

    python benchmarks/bench_recompute.py [--rows 4] [--tokens 512] [--steps 3]
"""

import argparse
import json
import resource
import subprocess
import sys
import time

SETTINGS = ("none", "3", "2", "full")
ONE = "--one"


def model_config() -> "object":
    from legollm.architectures.llama3 import Llama3Config

    return Llama3Config(vocab_size=512, max_seq_len=2048, n_layers=12, d_model=512, n_heads=8, n_kv_heads=8, d_ff=1536)


def measure(which: str, n_rows: int, n_tokens: int, n_steps: int) -> dict[str, float]:
    """Peak memory and seconds of a step, in this process."""
    import torch

    from legollm.architectures import ARCHITECTURES
    from legollm.evaluation.cost import cost_of
    from legollm.interfaces import Batch
    from legollm.training.objective import NextToken
    from legollm.transforms.recompute import recompute

    wish = which if which in ("none", "full") else int(which)

    def build() -> torch.nn.Module:
        model = ARCHITECTURES["llama3"].build(model_config())
        recompute(model, wish)
        return model

    model = build().train()
    tokens = torch.randint(512, (n_rows, n_tokens), generator=torch.Generator().manual_seed(0))
    batch, seconds = Batch(tokens, tokens.roll(-1, 1)), []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(n_steps):
        start = time.perf_counter()
        (NextToken()(model, batch) / tokens.numel()).backward()
        seconds.append(time.perf_counter() - start)
        model.zero_grad(set_to_none=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    kept = cost_of(build, n_tokens, batch_size=n_rows).kept_bytes
    return {"peak_mib": peak / 1024, "kept_mib": kept / 2**20, "seconds": min(seconds)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument(ONE, choices=SETTINGS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one, args.rows, args.tokens, args.steps)))
        return
    print(f"{'recompute':<10} {'peak MiB':>9} {'kept MiB':>9} {'s / step':>9} {'time':>6}")
    usual = 0.0
    for which in SETTINGS:
        words = [sys.executable, __file__, ONE, which, "--rows", str(args.rows), "--tokens", str(args.tokens)]
        done = subprocess.run([*words, "--steps", str(args.steps)], capture_output=True, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        usual = usual or found["seconds"]
        print(
            f"{which:<10} {found['peak_mib']:>9.0f} {found['kept_mib']:>9.0f} {found['seconds']:>9.2f} "
            f"{found['seconds'] / usual:>5.2f}x"
        )


if __name__ == "__main__":
    main()
