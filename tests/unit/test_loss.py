"""The loss over many batches, and its units."""

import math

import pytest
import torch
from torch import Tensor, nn

from legollm.evaluation.loss import Loss, mean_loss
from legollm.interfaces import Batch
from legollm.training.objective import IGNORED, NextToken

V = 8


class Table(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(V, V, generator=torch.Generator().manual_seed(0)))
        self.dropout = nn.Dropout(0.5)

    def forward(self, tokens: Tensor, at: Tensor | None = None) -> Tensor:
        logits: Tensor = self.dropout(self.table[tokens])
        return logits if at is None else logits[at]


def test_batches_weigh_by_their_targets_not_equally() -> None:
    model = Table().eval()
    rng = torch.Generator().manual_seed(1)
    tokens, targets = torch.randint(V, (2, 3, 5), generator=rng), torch.randint(V, (2, 3, 5), generator=rng)
    targets[1, 1:], targets[1, 0, :4] = IGNORED, IGNORED  # 15 targets and 1
    loss = mean_loss(model, NextToken(), [Batch(*pair) for pair in zip(tokens, targets, strict=True)])
    log_probs = model.table.detach().double().log_softmax(-1)
    pairs = [(a, b) for a, b in zip(tokens.flatten(), targets.flatten(), strict=True) if b != IGNORED]
    assert loss.n_terms == len(pairs) == 16
    assert loss.nats == pytest.approx(-sum(float(log_probs[a, b]) for a, b in pairs) / 16, rel=1e-5)


def test_the_mode_of_the_model_is_left_as_it_is() -> None:
    model = Table().train()
    batch = Batch(torch.zeros(1, 4, dtype=torch.int64), torch.zeros(1, 4, dtype=torch.int64))
    assert len({mean_loss(model, NextToken(), [batch]).nats for _ in range(5)}) > 1  # dropout is on
    assert model.training
    assert model.table.grad is None


def test_units() -> None:
    certain_of_one_in_eight = Loss(nats=math.log(8), n_terms=10)
    assert certain_of_one_in_eight.perplexity == pytest.approx(8)
    assert certain_of_one_in_eight.bits_per_byte(n_bytes=10) == pytest.approx(3)
    assert certain_of_one_in_eight.bits_per_byte(n_bytes=40) == pytest.approx(0.75)  # tokens of four bytes
    assert math.isfinite(Loss(1e9, 1).perplexity)


def test_nothing_to_measure_is_zero_terms() -> None:
    assert mean_loss(Table(), NextToken(), []) == Loss(0.0, 0)
