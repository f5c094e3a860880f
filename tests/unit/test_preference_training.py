"""What losses over pairs do to a small model: where they start, and that they pull the answers apart."""

import math

import pytest
import torch

from legollm.alignment.pairs import Pair, pair_batch, scored_batch, with_strangers
from legollm.alignment.preferences import LossName, PreferenceConfig, PreferenceLoss
from legollm.alignment.reference import log_probs_of, with_reference
from legollm.alignment.reward import RewardLoss, rewards_of
from legollm.architectures.scored import with_scores
from legollm.components.decoder import Decoder
from tiny_models import some_tokens, tiny_model

START = {"dpo": math.log(2), "ipo": 25.0, "kto": 0.5}


def some_pairs() -> list[Pair]:
    ids = some_tokens(6, 12).tolist()
    return [Pair(row[: 3 + i % 3], (row[3 + i % 3 : 9], row[9:])) for i, row in enumerate(ids)]


def model_and_pairs(name: str) -> tuple[Decoder, list[Pair]]:
    model, pairs = tiny_model(name), with_strangers(some_pairs(), max_len=40)
    return model, with_reference(pairs, log_probs_of(model, pairs, batch_size=4, max_len=40))


@pytest.mark.parametrize("loss", ["dpo", "ipo", "kto", "orpo", "simpo"])
def test_margins_rise_from_where_the_reference_is(loss: LossName) -> None:
    model, pairs = model_and_pairs("llama3")
    objective = PreferenceLoss(PreferenceConfig(loss=loss), n_pairs=len(pairs))
    batch = pair_batch(pairs)
    first = float(objective(model, batch).detach()) / len(pairs)
    assert first == pytest.approx(START.get(loss, first), abs=1e-4)
    before = objective.val_figures.read()
    if loss in START:
        assert [before[name] for name in ("margin", "chosen_reward", "kl")] == pytest.approx([0, 0, 0], abs=1e-5)
    optimizer = torch.optim.SGD(model.parameters(), lr=3e-3 if loss == "ipo" else 0.05)
    for _ in range(3):
        optimizer.zero_grad()
        (objective(model, batch) / len(pairs)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    objective.val_figures.read()
    assert float(objective(model, batch).detach()) / len(pairs) < first
    after = objective.val_figures.read()
    assert after["margin"] > before["margin"]
    assert after["accuracy"] >= before["accuracy"]


def test_a_pair_counts_alike_in_any_company() -> None:
    """Also where tokens are sent to experts."""
    model, pairs = model_and_pairs("mixtral")
    objective = PreferenceLoss(PreferenceConfig(), n_pairs=len(pairs))
    together = objective(model, pair_batch(pairs, max_len=40))
    alone = sum(objective(model, pair_batch([pair])) for pair in pairs)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-4)


def test_rewards_are_learned() -> None:
    model, pairs = with_scores(tiny_model("qwen3"), 1), some_pairs()
    objective, batch = RewardLoss(0.0, 0.01, n_pairs=len(pairs)), scored_batch(pairs)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    model.train()
    for _ in range(15):
        optimizer.zero_grad()
        objective(model, batch).backward()
        optimizer.step()
    seen = objective.figures.read()
    chosen, rejected = rewards_of(model, batch).unbind(1)
    assert (chosen > rejected).all()
    assert seen["accuracy"] == 1
    assert abs(seen["chosen_reward"] + seen["rejected_reward"]) < 2  # what centring is for
