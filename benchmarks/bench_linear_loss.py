"""Memory and time of the loss over a large vocabulary: all logits at once, and in parts as training has it.

A head of 50,257 x 768 and 2,048 states, forward and backward. Each row is a process of its own, because memory that was
touched once stays with a process. Peak is the largest resident size during the passes minus that before them, so that
weights and states are left out, and their gradients (160 MB) are in.

    python benchmarks/bench_linear_loss.py [--tokens 2048] [--vocab 50257] [--width 768] [--repeats 3]
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

WAYS = ("all logits", "in parts")
PRECISIONS = ("float32", "bfloat16")


def measure(way: str, precision: str, n_tokens: int, vocab_size: int, width: int, repeats: int) -> dict[str, float]:
    """Peak memory and the median seconds of both passes, in this process."""
    import torch
    import torch.nn.functional as F

    from legollm.device import autocast, keep_freed_memory
    from legollm.training.linear_loss import linear_cross_entropy

    keep_freed_memory()
    rng = torch.Generator().manual_seed(0)
    weight = (torch.randn(vocab_size, width, generator=rng) * 0.02).requires_grad_()
    hidden = torch.randn(n_tokens, width, generator=rng).requires_grad_()
    targets, seconds, loss = torch.randint(vocab_size, (n_tokens,), generator=rng), [], torch.zeros(())
    tiny = torch.ones(2, 2, requires_grad=True)
    (tiny @ tiny).sum().backward()  # what a first pass loads is not part of the figure
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(repeats):
        start = time.perf_counter()
        with autocast(precision, torch.device("cpu")):
            if way == "in parts":
                loss = linear_cross_entropy(hidden, weight, None, targets)
            else:
                loss = F.cross_entropy(F.linear(hidden, weight).float(), targets, reduction="sum")
        (loss / n_tokens).backward()
        seconds.append(time.perf_counter() - start)
        weight.grad = hidden.grad = None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {"peak": peak / 1024, "seconds": statistics.median(seconds), "loss": loss.item() / n_tokens}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--vocab", type=int, default=50_257)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(*args.one, args.tokens, args.vocab, args.width, args.repeats)))
        return
    print(f"{'precision':<10} {'loss':<11} {'peak MiB':>9} {'s / pass':>9} {'nats':>9}")
    for precision in PRECISIONS:
        for way in WAYS:
            words = [sys.executable, __file__, *sys.argv[1:], "--one", way, precision]
            found = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
            print(f"{precision:<10} {way:<11} {found['peak']:>9.0f} {found['seconds']:>9.2f} {found['loss']:>9.4f}")


if __name__ == "__main__":
    main()
