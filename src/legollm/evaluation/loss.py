"""The loss on a fixed set of batches, in units that compare across tokenizers."""

import math
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import nn

from legollm.device import autocast
from legollm.interfaces import Objective
from legollm.team import ALONE, Team


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
def mean_loss(
    model: nn.Module, objective: Objective, batches: Iterable[Any], precision: str = "float32", team: Team = ALONE
) -> Loss:
    """The loss of `model`, in its present mode, over all terms of all batches, which the processes share out."""
    device = next(model.parameters()).device
    total, n_terms = 0.0, 0
    for batch, counts in shared_out(batches, team):
        moved = type(batch)(*(part.to(device) for part in batch))
        with autocast(precision, device):
            loss = float(objective(model, moved))
        if counts:
            total += loss
            n_terms += objective.n_terms(moved)
    total, n_all = team.sums(total, n_terms)
    return Loss(total / max(n_all, 1), int(n_all))


def shared_out(batches: Iterable[Any], team: Team) -> Iterator[tuple[Any, bool]]:
    """Every process's batches: by turns, and equally many, since a divided model computes in all of them at once.

    Who has none in the last round takes another's, which does not count.
    """
    source = iter(batches)
    while turn := list(islice(source, team.size)):
        counts = team.rank < len(turn)
        yield turn[team.rank if counts else 0], counts
