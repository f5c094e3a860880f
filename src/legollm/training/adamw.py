"""AdamW: a step per parameter from running means of its gradient and of the gradient's square."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from legollm.training.optimizer import GroupedOptimizer, in_blocks

SMALLEST = torch.finfo(torch.float32).tiny
"""Roots are not taken of less: that of zero, of which a table has many, takes 30 times as long in PyTorch on a CPU."""


class AdamW(GroupedOptimizer):
    """Adam (Kingma & Ba 2015, arXiv:1412.6980) with decoupled decay (Loshchilov & Hutter 2019, arXiv:1711.05101)."""

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float = 1e-3,
        betas: tuple[float, ...] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def move(self, parameter: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        lr, (beta1, beta2) = group["lr"], group["betas"]
        if not state:
            state["step"] = 0
            state["mean"] = torch.zeros_like(parameter)
            state["square"] = torch.zeros_like(parameter)
        state["step"] += 1
        # Both running means start at zero and are too small at first; dividing by 1 - beta^t makes them unbiased. For
        # the square it is done to the two numbers around it (Kingma & Ba, end of section 2), which saves a pass.
        fix1, fix2 = 1 - beta1 ** state["step"], math.sqrt(1 - beta2 ** state["step"])
        for p, g, mean, square in in_blocks(parameter, grad, state["mean"], state["square"]):
            mean.lerp_(g, 1 - beta1)
            square.mul_(beta2).addcmul_(g, g, value=1 - beta2)
            scale = square.clamp_min(SMALLEST).sqrt_().add_(group["eps"] * fix2)
            p.mul_(1 - lr * group["weight_decay"])
            p.addcdiv_(mean, scale, value=-lr * fix2 / fix1)
