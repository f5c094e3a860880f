"""What is minimised: a sum and its number of terms, so that how a batch was split leaves no trace."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from legollm.components.masks import Documents
from legollm.interfaces import Batch, PackedBatch
from legollm.training.balance import routing_loss

IGNORED = -100
"""A target that is not counted: padding, or a prompt the model shall not learn to write."""


class NextToken:
    """Cross entropy of every target that is not IGNORED, in nats; in training, what routed layers ask for besides."""

    def __call__(self, model: nn.Module, batch: Batch | PackedBatch) -> Tensor:
        """batch: tokens and targets (B, T) -> the summed loss, ()."""
        counts = batch.targets != IGNORED
        asked: dict[str, Any] = {} if bool(counts.all()) else {"at": counts}  # the head is often half of the work
        if isinstance(batch, PackedBatch):
            asked |= {"positions": batch.positions, "mask": Documents(batch.documents)}
        logits: Tensor = model(batch.tokens, **asked)  # (B, T, V), or (N, V) of the counted targets
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))  # sums of bfloat16 would round
        loss = F.cross_entropy(logits.flatten(0, -2), batch.targets[counts], reduction="sum")
        return loss + routing_loss(model, counts)

    def n_terms(self, batch: Batch | PackedBatch) -> int:
        return int((batch.targets != IGNORED).sum())
