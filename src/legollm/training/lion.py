"""Lion: steps of one size, in the direction that the gradient and its running mean agree on by sign."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from legollm.training.optimizer import GroupedOptimizer, in_blocks


class Lion(GroupedOptimizer):
    """Evolved sign momentum (Chen et al. 2023, arXiv:2302.06675): one memory per parameter instead of AdamW's two.

    Every number moves by exactly lr, so rates are 3 to 10 times smaller and decays as much larger than AdamW's.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float = 1e-4,
        betas: tuple[float, ...] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, weight_decay=weight_decay)

    def move(self, parameter: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        lr, (beta1, beta2) = group["lr"], group["betas"]
        if not state:
            state["mean"] = torch.zeros_like(parameter)
        for p, g, mean in in_blocks(parameter, grad, state["mean"]):
            direction = mean.lerp(g, 1 - beta1).sign_()
            p.mul_(1 - lr * group["weight_decay"]).add_(direction, alpha=-lr)
            mean.lerp_(g, 1 - beta2)
