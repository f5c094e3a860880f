"""Which optimizer: how a gradient becomes a step, on which parameters, and how its memory is saved."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from legollm.errors import ConfigError
from legollm.interfaces import Optimizer
from legollm.parts import as_part_of, rows_of
from legollm.training.adamw import AdamW
from legollm.training.lion import Lion
from legollm.training.muon import Muon, matrix_groups
from legollm.training.optimizer import GroupedOptimizer
from legollm.training.schedule import Schedule
from legollm.training.sgd import SGD

__all__ = ["AdamW", "OptimConfig", "build_optimizer", "decay_groups", "optimizer_tensors", "restore_optimizer"]


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """The optimizer and its learning-rate schedule."""

    name: Literal["adamw", "muon", "lion", "sgd"] = "adamw"
    """adamw; muon for the matrices inside the blocks, adagrad for tables of n-grams and adamw for the rest; lion, whose
    rates are 3 to 10 times smaller; sgd with momentum."""
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
    """Decay of the running means of the gradient and of its square; lion: of the mean it looks at and the one it keeps
    (0.9 and 0.99 in the paper)."""
    momentum: float = 0.95
    """muon: decay of the running mean of the gradient; sgd: of its running sum."""
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
        for name in ("min_lr_ratio", "decay_fraction", "momentum"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name}: a share from 0 to 1, found {getattr(self, name)}")
        if self.eps <= 0 or self.weight_decay < 0:
            raise ConfigError(
                f"eps: must be above 0 and weight_decay not negative, found {self.eps}, {self.weight_decay}"
            )


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


def build_optimizer(model: nn.Module, cfg: OptimConfig, aside: nn.Module | None = None) -> GroupedOptimizer:
    """The optimizer of a configuration over all trainable parameters of `model`.

    aside: a module that learns along and is no part of the model; its parameters are named `aside.NAME`.
    """
    if cfg.name == "muon":
        groups = matrix_groups(model, cfg.weight_decay) + groups_aside(aside)
        return Muon(groups, momentum=cfg.momentum, lr=cfg.lr, betas=cfg.betas, eps=cfg.eps)
    groups = decay_groups(model, cfg.weight_decay) + groups_aside(aside)
    if cfg.name == "lion":
        return Lion(groups, lr=cfg.lr, betas=cfg.betas)
    if cfg.name == "sgd":
        return SGD(groups, lr=cfg.lr, momentum=cfg.momentum)
    return AdamW(groups, lr=cfg.lr, betas=cfg.betas, eps=cfg.eps)


def groups_aside(aside: nn.Module | None) -> list[dict[str, Any]]:
    """A group of its own, which does not decay."""
    if aside is None:
        return []
    names, parameters = zip(*((f"aside.{name}", p) for name, p in aside.named_parameters()), strict=True)
    kinds = {"is_matrix": False, "is_table": False}
    return [{"params": list(parameters), "names": list(names), "weight_decay": 0.0, **kinds}]


STATE_KEYS = ("step", "mean", "square")


def optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """The optimizer's memory as named tensors, such as `mean.PARAMETER`, `square.PARAMETER`, `step.PARAMETER`.

    Divided as the parameters are.
    """
    tensors = {}
    for group in optimizer.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            for key, value in optimizer.state.get(parameter, {}).items():
                is_number = not isinstance(value, Tensor)
                tensors[f"{key}.{name}"] = torch.tensor(value) if is_number else as_part_of(value, parameter)
    return tensors


def restore_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """The inverse of `optimizer_tensors`, from whole tensors, into parameters that may be divided in any way."""
    for group in optimizer.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            found = {key: tensors[f"{key}.{name}"] for key in STATE_KEYS if f"{key}.{name}" in tensors}
            for key, value in found.items():  # the number of steps is a number, the rest lies beside the parameter
                optimizer.state[parameter][key] = (
                    int(value) if key == "step" else rows_of(value, parameter).clone().to(parameter.device)
                )
