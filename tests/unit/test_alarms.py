"""Alarms: one line each, at the right moment, and none without a reason."""

import math

import pytest
import torch

from legollm.architectures import ARCHITECTURES
from legollm.interfaces import Batch
from legollm.training.alarms import (
    LEAST,
    STALE_LOOKS,
    usual,
    warn_of_first_loss,
    warn_of_plateau,
    warn_of_spike,
)
from legollm.training.objective import NextToken
from tiny_models import TINY, tiny_config

TRAINED_ON_TEXT = [name for name in TINY if ARCHITECTURES[name].learns == "steps"]


def test_nothing_is_usual_before_there_were_some_steps(caplog: pytest.LogCaptureFixture) -> None:
    assert usual([1.0] * (LEAST - 1)) == math.inf
    assert usual([*[1.0] * LEAST, 50.0]) == 1.0
    warn_of_spike(3, 1e9, [1.0] * 3)
    assert not caplog.records


def test_the_first_of_some_spikes_is_mentioned(caplog: pytest.LogCaptureFixture) -> None:
    norms = [1.0] * 30
    for step, norm in enumerate([1.2, 9.0, 30.0, 40.0, 1.0, 30.0]):
        warn_of_spike(step, norm, norms)
        norms.append(norm)
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["step 2", "step 5"]


def test_a_plateau_is_mentioned_once(caplog: pytest.LogCaptureFixture) -> None:
    for step in range(10, 200, 10):
        warn_of_plateau(step, min(step, 50), 1.5, 10)
        warn_of_plateau(step, None, None, 10)
        warn_of_plateau(step, step, 1.5, 0)
    (record,) = caplog.records
    assert record.getMessage().startswith(
        f"step {50 + 10 * STALE_LOOKS}: no better validation loss in 5 looks than 1.5000"
    )


def test_a_start_worse_than_guessing_is_mentioned(caplog: pytest.LogCaptureFixture) -> None:
    warn_of_first_loss(math.log(50) + 0.3, 50)
    assert not caplog.records
    warn_of_first_loss(9.0, 50)
    assert "step 1: the loss is 9.00, guessing among 50 ids costs ln 50 = 3.91" in caplog.text


@pytest.mark.parametrize("name", TRAINED_ON_TEXT)
def test_every_model_starts_at_about_guessing(name: str) -> None:
    config = tiny_config(name)
    model = ARCHITECTURES[name].build(config, seed=0)
    tokens = torch.randint(config.vocab_size, (8, 8), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        loss = float(NextToken()(model.eval(), Batch(tokens, tokens.roll(-1, 1)))) / tokens.numel()
    assert loss == pytest.approx(math.log(config.vocab_size), abs=0.3)
