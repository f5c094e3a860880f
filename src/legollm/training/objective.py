"""What is minimised: a sum and its number of terms, so that how a batch was split leaves no trace."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from legollm.interfaces import Batch
from legollm.training.balance import routing_loss

IGNORED = -100
"""A target that is not counted: padding, or a prompt the model shall not learn to write."""


class NextToken:
    """Cross entropy of every target that is not IGNORED, in nats; in training, what routed layers ask for besides."""

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """batch: tokens and targets (B, T) -> the summed loss, ()."""
        counts = batch.targets != IGNORED
        everywhere = bool(counts.all())
        logits: Tensor = model(batch.tokens) if everywhere else model(batch.tokens, at=counts)  # (B, T, V) or (N, V)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))  # sums of bfloat16 would round
        loss = F.cross_entropy(logits.flatten(0, -2), batch.targets[counts], reduction="sum")
        return loss + routing_loss(model, counts)

    def n_terms(self, batch: Batch) -> int:
        return int((batch.targets != IGNORED).sum())
