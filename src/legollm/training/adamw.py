"""AdamW: a step per parameter from running means of its gradient and of the gradient's square."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class AdamW(Optimizer):
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
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        loss = closure() if closure else None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self.move(parameter, parameter.grad, group)
        return loss

    def move(self, parameter: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        state, lr, (beta1, beta2) = self.state[parameter], group["lr"], group["betas"]
        if not state:
            state["step"] = 0
            state["mean"] = torch.zeros_like(parameter)
            state["square"] = torch.zeros_like(parameter)
        state["step"] += 1
        mean, square, step = state["mean"], state["square"], state["step"]
        mean.lerp_(grad, 1 - beta1)
        square.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        # Both running means start at zero and are too small at first; dividing by 1 - beta^t makes them unbiased.
        scale = (square.sqrt() / math.sqrt(1 - beta2**step)).add_(group["eps"])
        parameter.mul_(1 - lr * group["weight_decay"])
        parameter.addcdiv_(mean, scale, value=-lr / (1 - beta1**step))
