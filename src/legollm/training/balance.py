"""What routed layers add to training: their losses, an alarm for experts nobody asks, figures for the log."""

import logging
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from legollm.components.moe import MoE
from legollm.team import ALONE, Team

log = logging.getLogger(__name__)

IDLE_PASSES = 200
"""Passes without a token after which an expert counts as dead."""


def routed_layers(model: nn.Module) -> Iterator[tuple[str, MoE]]:
    """The names and layers of a model that send tokens to experts; dense models have none."""
    return ((name, layer) for name, layer in model.named_modules() if isinstance(layer, MoE))


def routing_loss(model: nn.Module, counted: Tensor) -> Tensor:
    """The losses of the last pass of every routed layer, summed over the counted tokens: ().

    A sum over tokens, as the objective's own: their total over a step does not depend on its split into micro-batches.
    Zero outside training, so that an evaluation measures the text alone. Warns of an expert that got no token in
    IDLE_PASSES passes in a row.
    """
    total = torch.zeros((), device=counted.device)
    for name, layer in routed_layers(model):
        total = total + layer.collect(counted)
        for expert in (e for e, passes in enumerate(layer.idle) if passes == IDLE_PASSES):
            log.warning(
                "%s: expert %d of %d got no token in %d passes; raise model.balance_loss, or lower optim.lr",
                name,
                expert,
                len(layer.idle),
                IDLE_PASSES,
            )
    return total


def balance_figures(model: nn.Module, team: Team = ALONE) -> dict[str, float | int]:
    """How evenly experts were used since the last call, by all processes; empty for dense models, or if nothing was
    collected.

    busiest_expert: the most tokens one expert of any layer got, as a multiple of an even share: 1 is perfect.
    idle_experts: how many experts of all layers got none.
    """
    loads = [team.sums(*layer.load) for _, layer in routed_layers(model)]
    loads = [load for load in loads if sum(load)]
    for _, layer in routed_layers(model):
        layer.load = [0] * len(layer.load)
    if not loads:
        return {}
    busiest = max(max(load) * len(load) / sum(load) for load in loads)
    return {"busiest_expert": busiest, "idle_experts": sum(load.count(0.0) for load in loads)}
