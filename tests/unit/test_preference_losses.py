"""Losses over pairs of answers, against numbers worked by hand and those of TRL 1.16 for the same log-probabilities."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from legollm.alignment.pairs import Pair, ScoredPairBatch, judged_batch, pair_batch
from legollm.alignment.preferences import (
    Figures,
    JudgedLoss,
    PreferenceConfig,
    PreferenceLoss,
    dpo_loss,
    ipo_loss,
    kto_loss,
    log_one_minus_exp,
    orpo_loss,
    simpo_loss,
    unasked,
)
from legollm.alignment.reward import RewardLoss, bradley_terry_loss
from legollm.errors import ConfigError

# Two pairs: log-probabilities of the tokens of (preferred, other), under the model and under the reference.
LOG_PROBS = [[[-1.0, -0.5, -2.0], [-1.5, -0.5, -1.0, -0.25]], [[-0.25, -0.75], [-3.0, -0.5]]]
REFERENCE = [[[-1.25, -1.0, -2.0], [-1.0, -0.5, -0.75, -0.5]], [[-0.5, -0.5], [-2.0, -0.25]]]
MEANS = torch.tensor([[-3.5 / 3, -3.25 / 4], [-0.5, -1.75]])


class Says(nn.Module):
    """Gives the targets of a batch, all of which are id 1, the log-probabilities it was told, in order."""

    def __init__(self, log_probs: list[float]) -> None:
        super().__init__()
        self.register_buffer("log_probs", torch.tensor(log_probs))

    def forward(self, tokens: Tensor, at: Tensor) -> Tensor:
        mine = self.log_probs[: int(at.sum())]
        return torch.stack([torch.log(-torch.expm1(mine)), mine], -1)


def case(**settings: Any) -> tuple[PreferenceLoss, Says, Any]:
    pairs = [
        Pair([0, 0], tuple([1] * len(row) for row in rows), tuple(of))
        for rows, of in zip(LOG_PROBS, REFERENCE, strict=True)
    ]
    flat = [value for rows in LOG_PROBS for row in rows for value in row]
    return PreferenceLoss(PreferenceConfig(**settings), n_pairs=2), Says(flat), pair_batch(pairs)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        # TRL 1.16.0, means over the two pairs: DPOTrainer with loss_type sigmoid, sigmoid_norm and ipo (which there
        # divides by the length); CPOTrainer with loss_type sigmoid on log-ratios, and simpo.
        ({"loss": "dpo", "beta": 0.5}, 0.42870068550109863),
        ({"loss": "dpo", "beta": 0.5, "per_token": True}, 0.5764200687408447),
        ({"loss": "dpo", "beta": 0.5, "label_smoothing": 0.1}, 0.49120068550109863),
        ({"loss": "ipo", "beta": 0.5, "per_token": True}, 0.265625),
        ({"loss": "simpo", "beta": 2.0, "gamma": 0.5}, (1.4696929454803467 + 0.12692801654338837) / 2),
        # By hand: both margins are 1.25, and (1.25 - 1)^2 = 0.0625.
        ({"loss": "ipo", "beta": 0.5}, 0.0625),
        ({"loss": "dpo", "beta": 0.5, "sft": 0.2}, 0.42870068550109863 + 0.2 * (3.5 / 3 + 0.5) / 2),
    ],
    ids=lambda value: " ".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_the_objective(settings: dict[str, Any], expected: float) -> None:
    objective, model, batch = case(**settings)
    assert objective.n_terms(batch) == 2
    assert float(objective(model, batch)) / 2 == pytest.approx(expected, abs=1e-6)


def test_orpo_is_what_trl_computes_and_the_answer_learned() -> None:
    ratio = torch.tensor([-0.5083445310592651, -0.06395059078931808])  # ORPOTrainer.odds_ratio_loss with beta 0.5
    torch.testing.assert_close(orpo_loss(*MEANS.unbind(1), 0.5), -MEANS[:, 0] - ratio, rtol=0, atol=1e-6)


def test_kto_is_what_trl_computes() -> None:
    """KTOTrainer with weights 1.5 and 0.5 and a divergence of 0.275: the mean over the four answers."""
    ratios, is_good = torch.tensor([0.75, 0.0, -0.5, -1.25]), torch.tensor([True, True, False, False])
    found = kto_loss(ratios, is_good, torch.tensor(0.275), 0.5, desirable=1.5, undesirable=0.5)
    assert float(found.mean()) == pytest.approx(0.45601171255111694, abs=1e-6)


# Five answers that were judged, each with one to another prompt: log-probabilities under model and reference.
JUDGED = [
    (True, [-1.0, -0.5, -2.0], [-1.25, -1.0, -2.0], [-1.0, -2.0], [-1.5, -2.5]),
    (False, [-1.5, -0.5, -1.0, -0.25], [-1.0, -0.5, -0.75, -0.5], [-0.5], [-1.5]),
    (True, [-0.25, -0.75], [-0.5, -0.5], [-3.0, -0.5, -0.25], [-2.5, -0.5, -0.5]),
    (False, [-3.0, -0.5], [-2.0, -0.25], [-0.75, -0.5], [-1.0, -1.0]),
    (True, [-0.5], [-1.0], [-1.0, -1.0], [-1.0, -0.75]),
]


class SaysOf(nn.Module):
    """`Says` for judged answers: their own log-probabilities, and under no_grad those of the answers to others."""

    def forward(self, tokens: Tensor, at: Tensor) -> Tensor:
        which = 1 if torch.is_grad_enabled() else 3
        return Says([value for row in JUDGED for value in row[which]])(tokens, at)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [  # TRL 1.16.0, KTOTrainer's loss of these numbers; its divergence is 0.45
        ({"beta": 0.5}, 0.4390401244163513),
        ({"beta": 0.5, "desirable": 1.5, "undesirable": 0.5}, 0.5219869613647461),
        ({"beta": 0.1, "undesirable": 1.33}, 0.5489091277122498),
    ],
)
def test_kto_of_unpaired_answers_is_what_trl_computes(settings: dict[str, Any], expected: float) -> None:
    rows = [Pair([0, 0], ([1] * len(a), [1] * len(b)), (ra, rb), good) for good, a, ra, b, rb in JUDGED]
    batch = judged_batch(rows)
    objective = JudgedLoss(PreferenceConfig(loss="kto", **settings), n_answers=5)
    assert objective.n_terms(batch) == 5
    assert float(objective(SaysOf(), batch)) / 5 == pytest.approx(expected, abs=1e-6)
    seen = objective.figures.read()
    assert seen["chosen_reward"] == pytest.approx(settings["beta"] * 1.25 / 3)
    assert seen["rejected_reward"] == pytest.approx(settings["beta"] * -0.875)
    assert (seen["chosen_logp"], seen["rejected_logp"]) == pytest.approx((-5 / 3, -3.375))
    assert seen["accuracy"] == pytest.approx(4 / 5)  # the third did not gain 0.45
    objective(SaysOf(), judged_batch([row for row in rows if row.is_good]))
    assert "rejected_reward" not in objective.figures.read()


def test_the_reward_loss_is_what_trl_computes() -> None:
    found = bradley_terry_loss(torch.tensor([0.5, -1.0]), torch.tensor([0.25, 0.75]), margin=0.3, centring=0.01)
    assert float(found.mean()) == pytest.approx(1.4479035139083862, abs=1e-6)  # RewardTrainer


def test_what_each_loss_is_before_anything_is_learned() -> None:
    zero = torch.zeros(1)
    assert float(dpo_loss(zero, 0.1)) == pytest.approx(math.log(2))
    assert float(ipo_loss(zero, 0.1)) == pytest.approx(25)
    assert float(kto_loss(zero, zero > 0, zero, 0.1)) == pytest.approx(0.5)
    assert float(bradley_terry_loss(zero, zero)) == pytest.approx(math.log(2))


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "dpo": lambda c, r: dpo_loss(c - r, 0.1),
    "dpo smoothed": lambda c, r: dpo_loss(c - r, 0.1, 0.1),
    "ipo": lambda c, r: ipo_loss(c - r, 0.1),
    "kto": lambda c, r: kto_loss(torch.stack([c, r], 1), torch.tensor([True, False]), torch.tensor(0.2).double(), 0.1),
    "orpo": lambda c, r: orpo_loss(c, r, 0.1),
    "simpo": lambda c, r: simpo_loss(c, r, 2.0, 1.0),
    "bradley-terry": lambda c, r: bradley_terry_loss(c, r, 0.1),
}


@pytest.mark.parametrize("name", LOSSES)
def test_the_gradient_pulls_the_answers_apart(name: str) -> None:
    rng = torch.Generator().manual_seed(1)
    chosen, rejected = (-3 * torch.rand(50, generator=rng, dtype=torch.float64) - 0.01 for _ in range(2))
    chosen.requires_grad_(), rejected.requires_grad_()
    LOSSES[name](chosen, rejected).sum().backward()
    assert chosen.grad is not None
    assert rejected.grad is not None
    assert (chosen.grad < 0).all()
    assert (rejected.grad > 0).all()
    assert torch.autograd.gradcheck(LOSSES[name], (chosen, rejected))


def test_ipo_pulls_back_what_went_too_far() -> None:
    margin = torch.tensor([4.9, 5.1], requires_grad=True)  # 1 / (2 * 0.1) is 5
    ipo_loss(margin, 0.1).sum().backward()
    assert margin.grad is not None
    assert margin.grad.sign().tolist() == [-1, 1]


def test_odds_of_certain_and_of_hopeless_answers_are_finite() -> None:
    x = torch.tensor([-1e-9, -1e-6, -0.1, -0.69, -0.7, -5.0, -80.0], requires_grad=True)
    expected = torch.log1p(-torch.exp(x.double().clamp(max=-1e-7)))
    found = log_one_minus_exp(x)
    torch.testing.assert_close(found.double(), expected, rtol=2e-6, atol=1e-30)
    found.sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_figures_of_the_log() -> None:
    objective, model, batch = case(loss="dpo", beta=0.5)
    objective(model, batch)
    seen = objective.figures.read()
    assert seen["accuracy"] == 1
    assert [seen[name] for name in ("margin", "chosen_reward", "rejected_reward")] == [0.625, 0.1875, -0.4375]
    assert (seen["chosen_logp"], seen["rejected_logp"]) == (-2.25, -3.375)
    squares = [[0.25**2, 0.5**2, 0, 0.5**2, 0, 0.25**2, 0.25**2], [0.25**2, 0.25**2, 1, 0.25**2]]
    assert seen["kl"] == pytest.approx((sum(squares[0]) / 7 + sum(squares[1]) / 4) / 2 / 2)
    assert objective.figures.read() == {} == objective.val_figures.read()
    objective(model.eval(), batch)
    assert objective.val_figures.read() == seen
    assert "kl" not in case(loss="simpo")[0].figures.read()


def test_figures_are_of_the_last_step_however_it_was_split() -> None:
    figures = Figures(n_pairs=4)
    for values in ([1.0, 1.0], [3.0, 4.0], [5.0], [6.0]):
        figures.add({"x": torch.tensor(values)})
    assert figures.read() == {"x": 4.5}


def test_what_the_model_says_unasked_is_where_kto_begins_to_gain() -> None:
    pairs = [Pair([0, 0], ([1, 1], [1], [1, 1]), ([-1.0, -1.0], [-1.0], [-2.0, -2.0]))]
    objective = PreferenceLoss(PreferenceConfig(loss="kto"), n_pairs=1)
    batch = pair_batch(pairs)
    assert float(unasked(Says([-1.5, -2.25]), batch, divides=False)) == pytest.approx(0.25)
    assert float(unasked(Says([-2.5, -2.25]), batch, divides=False)) == 0  # never below
    found = objective(Says([-1.0, -1.0, -1.0]), batch)  # log-ratios 0, 0, and 2 of the stranger
    assert float(found) == pytest.approx((1 - 1 / (1 + math.exp(0.2)) + 1 - 1 / (1 + math.exp(-0.2))) / 2)


def test_scores_are_compared_at_the_last_token() -> None:
    class Counts(nn.Module):
        def forward(self, tokens: Tensor, at: Tensor) -> Tensor:
            return tokens[at].float()[:, None]

    tokens = torch.tensor([[[1, 9, 0], [1, 2, 7]], [[4, 0, 0], [1, 5, 0]]])
    objective = RewardLoss(0.0, 0.0, n_pairs=2)
    loss = objective(Counts(), ScoredPairBatch(tokens, torch.tensor([[2, 3], [1, 2]])))
    assert float(loss) == pytest.approx(math.log1p(math.exp(-2)) + math.log1p(math.exp(1)))
    assert objective.figures.read() == {"accuracy": 0.5, "margin": 0.5, "chosen_reward": 6.5, "rejected_reward": 6.0}


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"beta": 0.0}, "beta: must be above 0"),
        ({"label_smoothing": 0.5}, "from 0 to below 0.5"),
        ({"sft": -1.0}, "sft: must not be negative"),
        ({"loss": "ipo", "label_smoothing": 0.1}, "setting of loss=dpo"),
        ({"gamma": 2.0}, "setting of loss=simpo"),
    ],
)
def test_impossible_settings(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        PreferenceConfig(**settings)
