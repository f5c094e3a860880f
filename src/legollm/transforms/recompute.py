"""Blocks that keep only their input in training and compute the rest again when the backward pass needs it.

Memory for activations falls from all blocks to one, for the price of a second forward pass (Chen et al. 2016,
arXiv:1604.06174). The gradients are the same in every bit: the second pass sees the same numbers, dropout included.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from legollm.components.moe import MoE
from legollm.components.spared import SPARING
from legollm.errors import ConfigError

Recompute = Literal["none", "wide", "full"] | int
"""Which blocks forget: none, all, or every n-th one, beginning with the first; or all of them what is wide in them."""


def recompute(model: nn.Module, which: Recompute) -> None:
    """Let blocks of a model forget their activations, in place; parameters and their names stay as they are.

    Raises:
        ConfigError: a model without blocks.
    """
    if which == "none":
        return
    found = list(blocks(model))
    if not found:
        raise ConfigError("train.recompute: this model has no blocks that could be computed again; use none")
    if which == "wide":
        for block in found:
            block.forward = Sparing(block)
        return
    for block in found[:: 1 if which == "full" else which]:
        block.forward = Forgetful(block)


def blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The blocks of a model: what stands in its lists, but not what stands in lists within."""
    for child in module.children():
        yield from child if isinstance(child, nn.ModuleList) else blocks(child)


class Sparing:
    """Takes the place of a block's `forward`: within it, what is wide is not kept."""

    def __init__(self, block: nn.Module) -> None:
        self.compute = block.forward
        self.tell: Callable[[Tensor], object] = lambda kept: None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        before = SPARING.set(self.tell)
        try:
            return self.compute(*args, **kwargs)
        finally:
            SPARING.reset(before)


class Forgetful:
    """Takes the place of a block's `forward`; without a gradient it is just that."""

    def __init__(self, block: nn.Module) -> None:
        self.compute = block.forward
        self.mixtures = [module for module in block.modules() if isinstance(module, MoE)]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        compute = partial(self.compute, *args, **kwargs)
        if not torch.is_grad_enabled():
            return compute()
        again = Again(compute, self.mixtures, next(arg.device for arg in args if isinstance(arg, Tensor)))
        with saved_tensors_hooks(again.forget, again.recall):
            return compute()


class Again:
    """One pass of a block: how it began, and its saved tensors once they were computed again."""

    def __init__(self, compute: Callable[[], Any], mixtures: list[MoE], device: torch.device) -> None:
        self.compute, self.mixtures, self.device = compute, mixtures, device
        self.random = random_state(device)
        self.autocast = (torch.is_autocast_enabled(device.type), torch.get_autocast_dtype(device.type))
        self.n_saved = 0
        self.kept: dict[int, Tensor] = {}

    def forget(self, tensor: Tensor) -> int:
        """In place of a tensor that autograd wants to keep: its number."""
        self.n_saved += 1
        return self.n_saved - 1

    def recall(self, number: int) -> Tensor:
        """The tensor of that number; the first one asked for computes all."""
        if number not in self.kept:
            self.kept = dict(enumerate(self.saved_again()))
            assert len(self.kept) == self.n_saved, "a block that did not do the same twice"
        return self.kept.pop(number)

    def saved_again(self) -> list[Tensor]:
        """All that autograd wants to keep, in the same order, from a second pass that leaves no other trace."""
        saved: list[Tensor] = []
        last = [mixture.last for mixture in self.mixtures]
        enabled, dtype = self.autocast
        before = random_state(self.device)
        set_random_state(self.device, self.random)
        try:
            with (
                torch.enable_grad(),
                torch.autocast(self.device.type, dtype=dtype, enabled=enabled),
                saved_tensors_hooks(lambda tensor: saved.append(tensor.detach()), lambda nothing: nothing),
            ):
                self.compute()
        finally:
            set_random_state(self.device, before)
            for mixture, pass_before in zip(self.mixtures, last, strict=True):
                mixture.last = pass_before  # routing losses are collected once per step, and were
        return saved


def random_state(device: torch.device) -> Tensor:
    """Of the generator that dropout draws from."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def set_random_state(device: torch.device, state: Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
