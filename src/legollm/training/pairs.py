"""Objectives over pairs: a target written for a source; a label or a number given to a text, a tag to each word."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from legollm.architectures.scored import last_scores
from legollm.components.decoder import Decoder
from legollm.data.pairs import LabelBatch, SourceBatch, TagBatch
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


class NumberOfText:
    """Squared distance of the number of each text from what it is to be."""

    def __call__(self, model: nn.Module, batch: LabelBatch) -> Tensor:
        """-> the summed loss, ()."""
        found = wide(label_logits(model, batch)).squeeze(-1)  # (B,)
        n_tokens = (batch.positions >= 0).sum()
        routed = routing_loss(model, batch.positions >= 0) * (batch.labels.numel() / n_tokens)
        return (found - batch.labels).square().sum() + routed

    def n_terms(self, batch: LabelBatch) -> int:
        return batch.labels.size(0)


class TagOfWord:
    """Cross entropy of the tag of each word, in nats, read at its last token: there a decoder knows all of it."""

    def __call__(self, model: nn.Module, batch: TagBatch) -> Tensor:
        """-> the summed loss, ()."""
        counts = batch.tags != IGNORED
        loss = F.cross_entropy(wide(model(batch.tokens, at=counts)), batch.tags[counts], reduction="sum")
        return loss + routing_loss(model, counts)

    def n_terms(self, batch: TagBatch) -> int:
        return int((batch.tags != IGNORED).sum())


def label_logits(model: nn.Module, batch: LabelBatch) -> Tensor:
    """The logits of the labels, (B, C): of an encoder as it gives them, of a decoder at each text's last token."""
    if isinstance(model, Decoder):
        return last_scores(model, batch.tokens, (batch.positions >= 0).sum(1))
    logits: Tensor = model(batch.tokens, batch.positions)
    return logits


def wide(logits: Tensor) -> Tensor:
    """In float32 at least: sums of bfloat16 would round."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
