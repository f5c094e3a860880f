"""What is not kept for the backward pass: the same gradients in every bit, and memory that is really given back."""

import weakref
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from legollm.components import spared as module
from legollm.components.attention import attend
from legollm.components.feedforward import MLP, GatedMLP, gelu_tanh
from legollm.components.masks import Causal
from legollm.components.spared import SPARING
from legollm.transforms.recompute import Sparing

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
def test_gradients_are_the_same_in_every_bit(make: Callable[[Outputs], nn.Module], autocast: bool) -> None:
    torch.manual_seed(0)
    part, x = make([]), torch.randn(2, 5, 8)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        kept = gradients(part, x)
        part.forward = Sparing(part)
        again = gradients(part, x)
    assert len(kept) == len(again) == 1 + len(list(part.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(kept, again, strict=True))


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("spares", [True, False])
def test_what_is_wide_is_given_back_after_the_forward_pass(make: Callable[[Outputs], nn.Module], spares: bool) -> None:
    outputs: Outputs = []
    part = make(outputs)
    if spares:
        part.forward = Sparing(part)
    y = part(torch.randn(2, 5, 8))
    assert [ref() is not None for ref in outputs] == [not spares]
    y.sum().backward()
    assert len(outputs) == (2 if spares else 1)  # computed once more, or not


@pytest.mark.parametrize("spares", [True, False])
def test_attention_weights_are_not_kept(spares: bool) -> None:
    q, k, v = (torch.randn(2, 3, 9, 4, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
    saved: list[Tensor] = []
    token = SPARING.set(saved.append if spares else None)
    with saved_tensors_hooks(lambda x: (saved.append(x), x)[1], lambda x: x):
        y = attend(q, k, v, Causal(), backend="naive")
    SPARING.reset(token)
    assert any(x.shape[-2:] == (9, 9) for x in saved) is not spares
    y.sum().backward()
    assert q.grad is not None


def test_without_gradients_nothing_is_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "checkpoint", lambda *args, **more: pytest.fail("no gradient is wanted"))
    part = mlp([])
    part.forward = Sparing(part)
    with torch.no_grad():
        part(torch.randn(2, 5, 8))
