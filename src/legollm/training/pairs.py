"""Objectives over pairs: a target written for a source, a label given to a text."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from legollm.data.pairs import LabelBatch, SourceBatch
from legollm.training.objective import IGNORED


class NextGivenSource:
    """Cross entropy of every target token, given its source and the target before it, in nats."""

    def __call__(self, model: nn.Module, batch: SourceBatch) -> Tensor:
        """-> the summed loss, ()."""
        counts = batch.targets != IGNORED
        logits = model(batch.source, batch.tokens, batch.source_positions, at=counts)  # (N, V)
        return F.cross_entropy(wide(logits), batch.targets[counts], reduction="sum")

    def n_terms(self, batch: SourceBatch) -> int:
        return int((batch.targets != IGNORED).sum())


class LabelOfText:
    """Cross entropy of the label of each text, in nats."""

    def __call__(self, model: nn.Module, batch: LabelBatch) -> Tensor:
        """-> the summed loss, ()."""
        return F.cross_entropy(wide(model(batch.tokens, batch.positions)), batch.labels, reduction="sum")

    def n_terms(self, batch: LabelBatch) -> int:
        return batch.labels.size(0)


def wide(logits: Tensor) -> Tensor:
    """In float32 at least: sums of bfloat16 would round."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
