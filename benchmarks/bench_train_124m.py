"""Training steps at the shape of GPT-2 124M: this loop with its defaults, nanoGPT with its own and at its best.

4 rows of 512 tokens per step, random ids. Engines take turns, each in a process of its own: 2 steps to warm up, then
`steps` of them timed, and so `rounds` times. nanoGPT is left out unless its folder, with model.py, is given. `share` is
that of the machine: FLOPs of a step by the usual count (6 per weight and token, and attention) over its time, as a part
of what one large matrix product reaches in the same process and precision; on a GPU that is the model's FLOP
utilisation (MFU) against a measured peak.

    NANOGPT=FOLDER python benchmarks/bench_train_124m.py [engine=NAME,...] [steps=5] [rounds=1] [device=cpu]
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from itertools import pairwise
from typing import Any

ENGINES = ("legollm", "legollm-compiled", "nanogpt-best", "nanogpt")
N_ROWS, N_TOKENS, VOCAB, N_LAYERS, WIDTH = 4, 512, 50_257, 12, 768
WARM_UP = 2


def legollm_steps(device: str, n_steps: int, wish: str) -> tuple[list[float], str, float]:
    """Seconds of each step of the loop that `legollm train` runs, its precision and its last loss."""
    import torch

    from legollm.architectures import ARCHITECTURES
    from legollm.device import keep_freed_memory, pick_precision
    from legollm.interfaces import Batch
    from legollm.training.objective import NextToken
    from legollm.training.optim import OptimConfig, build_optimizer
    from legollm.training.train import TrainConfig, TrainState, train

    class Ids:
        def __init__(self) -> None:
            self.rng = torch.Generator().manual_seed(0)

        def __next__(self) -> Batch:
            ids = torch.randint(VOCAB, (N_ROWS, N_TOKENS + 1), generator=self.rng)
            return Batch(ids[:, :-1], ids[:, 1:])

        def state_dict(self) -> dict[str, Any]:
            return {}

        def load_state_dict(self, state: Any) -> None: ...

    keep_freed_memory()
    place = torch.device(device)
    row = ARCHITECTURES["gpt2"]
    model = row.build(row.presets["gpt2"], seed=0).to(place)
    precision = pick_precision("auto", place)
    optim, losses, times = OptimConfig(), list[float](), [time.perf_counter()]

    def log(step: int, **values: float | int | str) -> None:  # reads the loss, so it comes after the step was done
        losses.append(float(values["loss"]))
        times.append(time.perf_counter())

    train(
        model,
        NextToken(),
        Ids(),
        build_optimizer(model, optim),
        TrainConfig(max_steps=n_steps, log_every=1, precision=precision, compile=wish),
        learning_rate=lambda step: 1e-4,
        state=TrainState(),
        log=log,
        evaluate=lambda state: None,
        save=lambda state: None,
    )
    seconds = [after - before for before, after in pairwise(times)]
    return seconds, precision, losses[-1]


def nanogpt_steps(device: str, n_steps: int, best: bool) -> tuple[list[float], str, float]:
    """The same of nanoGPT's model and of its loop: float32, or bfloat16, a fused optimizer and a compiled model."""
    import torch

    sys.path.insert(0, os.environ["NANOGPT"])
    from model import GPT, GPTConfig

    torch.manual_seed(0)
    module = GPT(GPTConfig(vocab_size=VOCAB)).to(device)
    groups = [
        {"params": [p for p in module.parameters() if (p.dim() >= 2) is decays], "weight_decay": 0.1 * decays}
        for decays in (True, False)
    ]
    fused = {"fused": True} if best or device == "cuda" else {}
    optimizer = torch.optim.AdamW(groups, lr=1e-4, betas=(0.9, 0.95), **fused)
    model = torch.compile(module) if best else module
    rng, seconds, value = torch.Generator().manual_seed(0), [], 0.0
    for _ in range(n_steps):
        start = time.perf_counter()
        ids = torch.randint(VOCAB, (N_ROWS, N_TOKENS + 1), generator=rng).to(device)
        with torch.autocast(device, dtype=torch.bfloat16, enabled=best):
            _, loss = model(ids[:, :-1], ids[:, 1:].contiguous())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        value = loss.item()
        seconds.append(time.perf_counter() - start)
    return seconds, "bfloat16" if best else "float32", value


def flops_per_step() -> float:
    """6 per weight of a matrix and token, and the two products of attention, over half of all pairs."""
    weights = 12 * N_LAYERS * WIDTH**2 + VOCAB * WIDTH
    return N_ROWS * N_TOKENS * (6 * weights + 6 * N_LAYERS * WIDTH * N_TOKENS)


def flops_per_second(device: str, precision: str) -> float:
    """The best of five products of 2,048 x 768 and 768 x 3,072, the model's most common; on a GPU, of 8,192 square."""
    import torch

    sizes = (8192, 8192, 8192) if device == "cuda" else (2048, 768, 3072)
    dtype = getattr(torch, precision)
    a, b = (torch.randn(n, m, device=device, dtype=dtype) for n, m in (sizes[:2], sizes[1:]))
    best = 0.0
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(5):
            c = a @ b
        float(c[0, 0])  # waits for a GPU
        best = max(best, 5 * 2 * sizes[0] * sizes[1] * sizes[2] / (time.perf_counter() - start))
    return best


def measure(engine: str, device: str, n_steps: int) -> dict[str, Any]:
    """One engine in this process."""
    n_all = WARM_UP + n_steps
    if engine.startswith("legollm"):
        seconds, precision, loss = legollm_steps(device, n_all, "always" if engine == "legollm-compiled" else "auto")
    else:
        seconds, precision, loss = nanogpt_steps(device, n_all, best=engine == "nanogpt-best")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if device == "cuda":
        import torch

        peak = torch.cuda.max_memory_allocated() / 2**20
    ceiling = flops_per_second(device, precision)
    timed = seconds[WARM_UP:]
    return {
        "seconds": timed,
        "first": seconds[0],
        "precision": precision,
        "peak": peak,
        "ceiling": ceiling,
        "loss": loss,
    }


def main() -> None:
    words = dict(word.split("=", 1) for word in sys.argv[1:] if "=" in word)
    if unknown := [
        word for word in sys.argv[1:] if word.split("=")[0] not in {"engine", "steps", "rounds", "device", "one"}
    ]:
        sys.exit(f"{unknown[0]}: unknown; {__doc__}")
    device, n_steps, n_rounds = words.get("device", "cpu"), int(words.get("steps", 5)), int(words.get("rounds", 1))
    if "one" in words:
        print(json.dumps(measure(words["one"], device, n_steps)))
        return
    engines = words.get("engine", ",".join(ENGINES)).split(",")
    if "NANOGPT" not in os.environ:
        print("nanoGPT is left out: NANOGPT=FOLDER names where its model.py lies")
        engines = [engine for engine in engines if not engine.startswith("nanogpt")]
    found: dict[str, list[dict[str, Any]]] = {engine: [] for engine in engines}
    for _ in range(n_rounds):
        for engine in engines:
            command = [sys.executable, __file__, f"one={engine}", f"steps={n_steps}", f"device={device}"]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found[engine].append(json.loads(done.stdout.splitlines()[-1]))
    print(
        f"{'engine':<16} {'precision':<9} {'tokens/s':>8} {'ratio':>6} {'share':>6} {'first s':>7} {'peak MiB':>8} "
        f"{'loss':>7}"
    )
    ours = 0.0
    for engine, runs in found.items():
        step = statistics.median(second for run in runs for second in run["seconds"])
        rate = N_ROWS * N_TOKENS / step
        ours = ours or rate
        share = flops_per_step() / step / statistics.median(run["ceiling"] for run in runs)
        first = statistics.median(run["first"] for run in runs)
        peak, last = max(run["peak"] for run in runs), runs[-1]
        print(
            f"{engine:<16} {last['precision']:<9} {rate:>8.0f} {ours / rate:>5.2f}x {share:>6.0%} {first:>7.1f} "
            f"{peak:>8.0f} {last['loss']:>7.3f}"
        )


if __name__ == "__main__":
    main()
