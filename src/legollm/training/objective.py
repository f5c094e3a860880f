"""What is minimised: a sum and its number of terms, so that how a batch was split leaves no trace."""

from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from legollm.components.decoder import Decoder
from legollm.components.masks import Documents
from legollm.interfaces import Batch, PackedBatch
from legollm.parts import is_divided
from legollm.training.balance import routing_loss
from legollm.training.linear_loss import linear_cross_entropy, rows_at_once

IGNORED = -100
"""A target that is not counted: padding, or a prompt the model shall not learn to write."""


class NextToken:
    """Cross entropy of every target that is not IGNORED, in nats; in training, what routed layers ask for besides."""

    def __call__(self, model: nn.Module, batch: Batch | PackedBatch) -> Tensor:
        """batch: tokens and targets (B, T) -> the summed loss, ()."""
        counts = batch.targets != IGNORED
        targets, everywhere = batch.targets[counts], bool(counts.all())
        asked: dict[str, Any] = {}
        if isinstance(batch, PackedBatch):
            asked |= {"positions": batch.positions, "mask": Documents(batch.documents)}
        if isinstance(model, Decoder) and in_parts(model.lm_head, targets.numel()):
            hidden = model.hidden(batch.tokens, **asked)  # (B, T, D)
            hidden = hidden.flatten(0, 1) if everywhere else hidden[counts]  # (N, D)
            loss = linear_cross_entropy(hidden, model.lm_head.weight, model.lm_head.bias, targets)
        else:
            asked |= {} if everywhere else {"at": counts}  # the head is often half of the work
            logits: Tensor = model(batch.tokens, **asked)  # (B, T, V), or (N, V) of the counted targets
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))  # sums of bfloat16 would round
            loss = F.cross_entropy(logits.flatten(0, -2), targets, reduction="sum")
        return loss + routing_loss(model, counts)

    def n_terms(self, batch: Batch | PackedBatch) -> int:
        return int((batch.targets != IGNORED).sum())


def in_parts(head: nn.Module, n_targets: int) -> TypeGuard[nn.Linear]:
    """Whether the logits are so many that loss and gradients are better computed without having all of them.

    Only where the head is nothing but a matrix that this process has as a whole.
    """
    return type(head) is nn.Linear and not is_divided(head.weight) and n_targets > rows_at_once(head.weight.size(0))
