"""Optimizers: how a gradient becomes a step."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from legollm.errors import ConfigError
from legollm.training.schedule import Schedule


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """The optimizer and its learning-rate schedule."""

    lr: float = 1e-3
    """Peak learning rate, reached after warm-up."""
    schedule: Schedule = "cosine"
    """How the rate falls after warm-up: cosine, linear, constant, or wsd (stable, then a linear decay at the end)."""
    warmup_steps: int = 100
    """Steps over which the rate rises linearly."""
    min_lr_ratio: float = 0.1
    """The rate at the end, as a share of the peak."""
    decay_fraction: float = 0.2
    """wsd only: the share of all steps in which the rate falls."""
    betas: tuple[float, ...] = (0.9, 0.95)
    """Decay of the running means of the gradient and of its square."""
    eps: float = 1e-8
    """Added to the root of the second moment."""
    weight_decay: float = 0.1
    """Pull towards zero on matrices and embeddings, never on norms and biases; times the learning rate, per step."""

    def __post_init__(self) -> None:
        if not (0 < self.lr < 10):
            raise ConfigError(f"lr: must be above 0 and below 10, found {self.lr}")
        if self.warmup_steps < 0:
            raise ConfigError(f"warmup_steps: must not be negative, found {self.warmup_steps}")
        if len(self.betas) != 2 or not all(0 <= b < 1 for b in self.betas):
            raise ConfigError(f"betas: two numbers from 0 up to, not including, 1, found {list(self.betas)}")
        for name in ("min_lr_ratio", "decay_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name}: a share from 0 to 1, found {getattr(self, name)}")
        if self.eps <= 0 or self.weight_decay < 0:
            raise ConfigError(
                f"eps: must be above 0 and weight_decay not negative, found {self.eps}, {self.weight_decay}"
            )


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


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups that hold every trainable parameter once: matrices and embeddings decay, vectors do not.

    Norm scales and biases have one dimension; pulling them to zero would fight what they are for.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    groups = []
    for decay, chosen in (
        (weight_decay, [n for n in named if n[1].ndim >= 2]),
        (0.0, [n for n in named if n[1].ndim < 2]),
    ):
        if chosen:
            names, parameters = zip(*chosen, strict=True)
            groups.append({"params": list(parameters), "names": list(names), "weight_decay": decay})
    return groups


def build_optimizer(model: nn.Module, cfg: OptimConfig) -> AdamW:
    """The optimizer of a configuration over all trainable parameters of `model`."""
    return AdamW(decay_groups(model, cfg.weight_decay), lr=cfg.lr, betas=cfg.betas, eps=cfg.eps)


def optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """The optimizer's memory as named tensors: `mean.PARAMETER`, `square.PARAMETER`, `step.PARAMETER`."""
    tensors = {}
    for group in optimizer.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            for key, value in optimizer.state.get(parameter, {}).items():
                tensors[f"{key}.{name}"] = value if isinstance(value, Tensor) else torch.tensor(value)
    return tensors


def restore_optimizer(optimizer: Optimizer, tensors: dict[str, Tensor]) -> None:
    """The inverse of `optimizer_tensors`."""
    for group in optimizer.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            found = {key: tensors[f"{key}.{name}"] for key in ("mean", "square", "step") if f"{key}.{name}" in tensors}
            if found:
                moved = {k: v.to(parameter.device) for k, v in found.items() if k != "step"}
                optimizer.state[parameter] = {"step": int(found["step"]), **moved}
