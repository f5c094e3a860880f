"""The loss on a fixed set of batches, in units that compare across tokenizers."""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import nn

from legollm.device import autocast
from legollm.interfaces import Objective


class Loss(NamedTuple):
    """A loss and what it was taken over."""

    nats: float
    """Mean over the terms."""
    n_terms: int

    def bits_per_byte(self, n_bytes: float) -> float:
        """Bits needed per byte of the text that the terms cover; does not depend on how it was cut into tokens."""
        return self.nats * self.n_terms / n_bytes / math.log(2)

    @property
    def perplexity(self) -> float:
        return math.exp(min(self.nats, 700.0))


@torch.no_grad()
def mean_loss(model: nn.Module, objective: Objective, batches: Iterable[Any], precision: str = "float32") -> Loss:
    """The loss of `model`, in its present mode, over all terms of all batches."""
    device = next(model.parameters()).device
    total, n_terms = 0.0, 0
    for batch in batches:
        moved = type(batch)(*(part.to(device) for part in batch))
        with autocast(precision, device):
            total += float(objective(model, moved))
        n_terms += objective.n_terms(moved)
    return Loss(total / max(n_terms, 1), n_terms)
