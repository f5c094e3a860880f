"""Time of a mixture of experts as their number grows, with the same arithmetic per token.

    python benchmarks/bench_moe.py [--d_expert=384 --rows=8 ...]

Times follow the experts that work on a token, not those that exist; what is left grows with the experts: their
gradients are written whole, and each has fewer rows to multiply at once. The times of one row are taken in turn, and
the ratio is the median of the rounds, so that another program on the machine slows down both sides of it.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from legollm.components.feedforward import SwiGLU
from legollm.components.moe import MoE
from legollm.components.routing import Router, TopK

N_ACTIVE = 2


def mixture(n_experts: int, d_model: int, d_expert: int) -> MoE:
    router = Router(d_model, n_experts, TopK(N_ACTIVE), balance_loss=0.01)
    return MoE(router=router, experts=[SwiGLU(d_model, d_expert) for _ in range(n_experts)])


def step(layer: nn.Module, x: torch.Tensor) -> Callable[[], None]:
    """Forward and backward, as in training."""
    counted = torch.ones(x.shape[:2], dtype=torch.bool)

    def run() -> None:
        layer.zero_grad(set_to_none=True)
        loss = layer(x).square().mean()
        if isinstance(layer, MoE):
            loss = loss + layer.collect(counted) / counted.sum()
        loss.backward()

    return run


def decode(layer: nn.Module, x: torch.Tensor) -> Callable[[], None]:
    """Forward of one token, as in generation."""

    @torch.inference_mode()
    def run() -> None:
        layer(x[:1, :1])

    return run


def seconds(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, default in {"d_model": 256, "d_expert": 384, "rows": 8, "seq_len": 256, "rounds": 11}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    torch.manual_seed(0)
    x = torch.randn(args.rows, args.seq_len, args.d_model)
    layers: dict[str, nn.Module] = {"dense": SwiGLU(args.d_model, N_ACTIVE * args.d_expert)}
    layers |= {f"E = {n}": mixture(n, args.d_model, args.d_expert) for n in (4, 8, 16, 32)}
    print(f"{x.size(0) * x.size(1)} tokens, d_model {args.d_model}, {N_ACTIVE} experts of {args.d_expert} per token")
    print(f"{'':8} {'parameters':>12} {'training step':>14} {'to E = 4':>9} {'one token':>10} {'to E = 4':>9}")
    times: dict[str, list[list[float]]] = {name: [[], []] for name in layers}
    runs = {name: (step(layer, x), decode(layer, x)) for name, layer in layers.items()}
    for name in runs:
        runs[name][0]()  # the first step of a layer allocates
    for _ in range(args.rounds):
        for name, both in runs.items():
            for kind, run in enumerate(both):
                times[name][kind].append(seconds(run))
    for name, layer in layers.items():
        cells = []
        for kind in (0, 1):
            ratios = [a / b for a, b in zip(times[name][kind], times["E = 4"][kind], strict=True)]
            cells += [f"{1e3 * min(times[name][kind]):.2f} ms", f"{statistics.median(ratios):.2f}"]
        n_parameters = sum(parameter.numel() for parameter in layer.parameters())
        print(f"{name:8} {n_parameters:>12,} {cells[0]:>14} {cells[1]:>9} {cells[2]:>10} {cells[3]:>9}")


if __name__ == "__main__":
    main()
