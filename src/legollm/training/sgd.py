"""SGD with momentum: a step along the running sum of gradients."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from legollm.training.optimizer import GroupedOptimizer, in_blocks


class SGD(GroupedOptimizer):
    """Stochastic gradient descent with heavy-ball momentum (Polyak 1964; Sutskever et al. 2013).

    The decay is decoupled, as AdamW's: it does not enter the running sum.
    """

    def __init__(
        self, params: Iterable[Any], *, lr: float = 1e-2, momentum: float = 0.9, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, lr=lr, momentum=momentum, weight_decay=weight_decay)

    def move(self, parameter: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        lr = group["lr"]
        if not state:
            state["mean"] = torch.zeros_like(parameter)
        for p, g, total in in_blocks(parameter, grad, state["mean"]):
            total.mul_(group["momentum"]).add_(g)
            p.mul_(1 - lr * group["weight_decay"]).add_(total, alpha=-lr)
