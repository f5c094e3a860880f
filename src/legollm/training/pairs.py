"""Objectives over pairs: a target written for a source, a label given to a text."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from legollm.architectures.scored import last_scores
from legollm.components.decoder import Decoder
from legollm.data.pairs import LabelBatch, SourceBatch
from legollm.training.balance import routing_loss
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
        loss = F.cross_entropy(wide(label_logits(model, batch)), batch.labels, reduction="sum")
        n_tokens = (batch.positions >= 0).sum()
        return loss + routing_loss(model, batch.positions >= 0) * (batch.labels.numel() / n_tokens)

    def n_terms(self, batch: LabelBatch) -> int:
        return batch.labels.size(0)


def label_logits(model: nn.Module, batch: LabelBatch) -> Tensor:
    """The logits of the labels, (B, C): of an encoder as it gives them, of a decoder at each text's last token."""
    if isinstance(model, Decoder):
        return last_scores(model, batch.tokens, (batch.positions >= 0).sum(1))
    logits: Tensor = model(batch.tokens, batch.positions)
    return logits


def wide(logits: Tensor) -> Tensor:
    """In float32 at least: sums of bfloat16 would round."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
