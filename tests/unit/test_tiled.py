"""Tiled attention: never a table of T x T numbers, and yet the same gradients."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from legollm.components import tiled
from legollm.components.attention import attend
from legollm.components.masks import Causal, Near
from legollm.components.tiled import attend_tiled


class Largest(TorchDispatchMode):
    """How many numbers the largest tensor has that any operation makes; backward runs under it, too."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.numel = max([self.numel, *(t.numel() for t in tree_leaves(out) if isinstance(t, Tensor))])
        return out


def largest(T: int, backend: Any, sinks: Tensor | None = None) -> int:
    q, k, v = (torch.randn(1, n, T, 4, requires_grad=True) for n in (2, 1, 1))
    with Largest() as seen:
        attend(q, k, v, Causal(), sinks=sinks, backend=backend).sum().backward()
    return seen.numel


def test_memory_grows_with_the_length_and_not_its_square(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiled, "TILE", 16)
    sinks = torch.zeros(2, requires_grad=True)
    for T in (64, 128, 256):
        assert largest(T, attend_tiled, sinks) <= max(2 * T * 4, 2 * 16 * 16)
        assert largest(T, "naive", sinks) >= 2 * T * T


@pytest.mark.parametrize("T", [1, 2, 3, 4, 7])
def test_tiles_need_not_fit(T: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiled, "TILE", 3)
    q, k, v = (torch.randn(2, 2, n, 4, dtype=torch.float64) for n in (T, 7, 7))
    expected = attend(q, k, v, Causal(), backend="naive")
    torch.testing.assert_close(attend(q, k, v, Causal(), backend=attend_tiled), expected, rtol=0, atol=1e-12)


def test_tiles_that_are_hidden_whole_are_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiled, "TILE", 4)
    computed = []
    real = tiled.tile_of_scores

    def counting(*args: Any) -> Tensor | None:
        scores = real(*args)
        computed.append(scores is not None)
        return scores

    monkeypatch.setattr(tiled, "tile_of_scores", counting)
    q, k, v = torch.randn(3, 1, 1, 16, 4)
    attend(q, k, v, Causal(), backend=attend_tiled)
    assert (len(computed), sum(computed)) == (16, 10)
    computed.clear()
    attend(q, k, v, Near(Causal(), 2, q.device), backend=attend_tiled)
    assert sum(computed) == 7


def test_gradients_are_those_of_finite_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiled, "TILE", 2)
    generator = torch.Generator().manual_seed(0)
    shapes = [(1, 2, 3, 4), (1, 1, 3, 4), (1, 1, 3, 4), (2, 3, 3), (2,)]
    given = [torch.randn(s, generator=generator, dtype=torch.float64, requires_grad=True) for s in shapes]

    def run(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, sinks: Tensor) -> Tensor:
        return attend(q, k, v, Causal(), bias=bias, sinks=sinks, backend=attend_tiled)

    assert torch.autograd.gradcheck(run, given)


@pytest.mark.parametrize("size", [1e-3, 1e2])
def test_large_scores_do_not_overflow_in_half_precision(size: float) -> None:
    q, k, v = (size * torch.randn(1, 1, 40, 8, generator=torch.Generator().manual_seed(i)) for i in range(3))
    exact = attend(q.double(), k.double(), v.double(), Causal(), backend="naive")
    got = attend(q.bfloat16(), k.bfloat16(), v.bfloat16(), Causal(), backend=attend_tiled)
    assert got.dtype == torch.bfloat16
    rounded = attend(*(t.bfloat16().double() for t in (q, k, v)), Causal(), backend="naive")
    torch.testing.assert_close(got.double(), rounded, rtol=0.01, atol=0.01 * float(exact.abs().max()))
