"""What is not kept for the backward pass: the same gradients in every bit, and memory that is really given back."""

import weakref
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from legollm.components import spared as module
from legollm.components.feedforward import MLP, GatedMLP, gelu_tanh
from legollm.transforms.recompute import Forgetful

Outputs = list[weakref.ref[Tensor]]


def watched(outputs: Outputs, activation: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """An activation whose outputs can be seen to live or not."""

    def watching(x: Tensor) -> Tensor:
        y = activation(x)
        outputs.append(weakref.ref(y))
        return y

    return watching


def mlp(outputs: Outputs) -> nn.Module:
    return MLP(8, 32, activation=watched(outputs, gelu_tanh))


def gated(outputs: Outputs) -> nn.Module:
    return GatedMLP(8, 32, activation=watched(outputs, F.silu))


KINDS = [mlp, gated]


def gradients(part: nn.Module, x: Tensor) -> list[Tensor]:
    x = x.clone().requires_grad_()
    part(x).square().sum().backward()
    found = [x.grad, *(p.grad for p in part.parameters())]
    part.zero_grad()
    return [grad for grad in found if grad is not None]


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("autocast", [False, True])
def test_gradients_are_the_same_in_every_bit(
    make: Callable[[Outputs], nn.Module], autocast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    part, x = make([]), torch.randn(2, 5, 8)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        kept = gradients(part, x)
        monkeypatch.setattr(module, "LARGE", 0)
        again = gradients(part, x)
    assert len(kept) == len(again) == 1 + len(list(part.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(kept, again, strict=True))


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize(("large", "lives"), [(1 << 20, True), (0, False)])
def test_what_is_large_is_given_back_after_the_forward_pass(
    make: Callable[[Outputs], nn.Module], large: int, lives: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LARGE", large)
    outputs: Outputs = []
    y = make(outputs)(torch.randn(2, 5, 8))
    assert [ref() is not None for ref in outputs] == [lives]
    y.sum().backward()
    assert len(outputs) == (1 if lives else 2)  # computed once more, or not


@pytest.mark.parametrize("make", KINDS)
def test_a_block_that_forgets_all_keeps_nothing_for_it(
    make: Callable[[Outputs], nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LARGE", 0)
    monkeypatch.setattr(module, "checkpoint", lambda *args, **more: pytest.fail("spared twice"))
    part = make([])
    part.forward = Forgetful(part)
    gradients(part, torch.randn(2, 5, 8))


def test_without_gradients_nothing_is_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGE", 0)
    monkeypatch.setattr(module, "checkpoint", lambda *args, **more: pytest.fail("no gradient is wanted"))
    with torch.no_grad():
        mlp([])(torch.randn(2, 5, 8))
