"""The policy objective: numbers worked by hand, TRL's on fixed tensors, gradients, estimators, controllers."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from legollm.alignment.policy import (
    Meter,
    ObjectiveConfig,
    Penalty,
    PolicyBatch,
    PolicyGradient,
    clipped_loss,
    divergence,
    value_loss,
)
from legollm.errors import ConfigError
from legollm.training.memory import divided
from legollm.training.objective import IGNORED

NEW = torch.tensor([[-0.5, -1.0, -2.0, -0.3], [-1.2, -0.4, -0.7, -0.9], [-0.1, -3.0, -0.2, -1.5]])
OLD = torch.tensor([[-0.9, -0.9, -1.6, -0.3], [-1.0, -0.5, -1.3, -0.2], [-0.6, -2.5, -0.3, -1.1]])
REFERENCE = torch.tensor([[-0.7, -1.1, -1.5, -0.4], [-1.3, -0.2, -0.6, -1.0], [-0.4, -2.0, -0.5, -1.4]])
MASK = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 0, 0]]).bool()
ADVANTAGES = torch.tensor([[1.0], [-0.5], [0.8]]).expand(3, 4)


class Fixed(nn.Module):
    """A model over two ids, the first of which has the given log-probabilities."""

    def __init__(self, log_probs: Tensor) -> None:
        super().__init__()
        self.log_probs = nn.Parameter(log_probs.clone())

    def hidden(self, tokens: Tensor) -> Tensor:
        chosen = self.log_probs[tokens[:, 0]]
        return torch.stack([chosen, (-chosen.exp()).log1p()], -1)  # (B, T, 2)

    def lm_head(self, states: Tensor) -> Tensor:
        return states


def batch_of(**changes: Any) -> PolicyBatch:
    """tokens: the number of the row, which is all that the model looks at."""
    zeros = torch.zeros(3, 4)
    parts = {
        "tokens": torch.arange(3)[:, None].expand(3, 4),
        "targets": torch.where(MASK, 0, IGNORED),
        "log_probs": OLD * MASK,
        "reference": REFERENCE * MASK,
        "advantages": ADVANTAGES * MASK,
        "values": zeros,
        "returns": zeros,
        "serial": torch.zeros(3, dtype=torch.int64),
        "age": torch.zeros(3, dtype=torch.int64),
    }
    return PolicyBatch(**(parts | changes))


def objective(meter: Meter | None = None, *, beta: float = 0.0, **more: Any) -> PolicyGradient:
    names = ObjectiveConfig.__dataclass_fields__
    cfg = ObjectiveConfig(beta=beta, **{key: value for key, value in more.items() if key in names})
    rest = {"average": "answer", "n_ids": 2, "max_new_tokens": 4} | {k: v for k, v in more.items() if k not in names}
    return PolicyGradient(cfg, meter=meter or Meter(), penalty=Penalty(beta), **rest)


def mean_of(one: PolicyGradient, batch: PolicyBatch) -> float:
    return float(one(Fixed(NEW), batch).detach()) / one.n_terms(batch)


# What TRL 1.16 gives for the tensors above: GRPOTrainer._compute_loss and, in the last row, RLOOTrainer's.
TRL = [
    ({"average": "answer"}, -0.3598040643219675),
    ({"average": "answer", "beta": 0.1}, -0.3449359987691228),
    ({"average": "constant", "beta": 0.1}, -0.15421732964528162),
    ({"average": "token", "beta": 0.1, "clip_high": 0.28}, -0.22162310619370884),
    ({"average": "token", "clip_high": 0.28}, -0.23237463956329293),
    ({"average": "sum", "by_answer": True}, -0.431824013832323),
]


@pytest.mark.parametrize(("settings", "loss"), TRL)
def test_losses_equal_those_of_trl(settings: dict[str, Any], loss: float) -> None:
    assert mean_of(objective(**settings), batch_of()) == pytest.approx(loss, abs=1e-6)


def test_a_clipped_ratio_pushes_no_further() -> None:
    log_ratio = torch.tensor([1.5, 0.5, 1.5, 0.5]).log().requires_grad_()
    loss = clipped_loss(log_ratio, torch.tensor([1.0, 1.0, -1.0, -1.0]), 0.2, 0.2)
    assert loss.tolist() == pytest.approx([-1.2, -0.5, 1.5, 0.8])
    (gradient,) = torch.autograd.grad(loss.sum(), log_ratio)
    assert gradient.tolist() == pytest.approx([0.0, -0.5, 1.5, 0.0])  # of -r A, where it is not clipped


def test_on_fresh_answers_the_gradient_is_that_of_reinforce() -> None:
    model = Fixed(NEW)
    for average, weight in (("sum", 1.0), ("constant", 0.25), ("token", 1.0)):
        model.zero_grad()
        objective(average=average)(model, batch_of(log_probs=NEW * MASK)).backward()
        assert model.log_probs.grad is not None
        torch.testing.assert_close(model.log_probs.grad, -ADVANTAGES * MASK * weight)  # d(log p) is 1 here


def test_no_advantage_no_gradient() -> None:
    model = Fixed(NEW)
    objective()(model, batch_of(advantages=torch.zeros(3, 4))).backward()
    assert model.log_probs.grad is not None
    assert (model.log_probs.grad == 0).all()


def test_how_a_batch_is_divided_leaves_no_trace() -> None:
    for settings, _ in TRL:
        one = objective(**settings)
        whole = mean_of(one, batch_of())
        parts = [one(Fixed(NEW), part).detach() for part in divided(batch_of(), 2)]
        assert float(sum(parts)) / one.n_terms(batch_of()) == pytest.approx(whole)


def test_answers_that_do_not_count_are_counted_nowhere() -> None:
    targets = torch.where(MASK, 0, IGNORED)
    targets[1] = IGNORED
    one = objective(average="token")
    assert one.n_terms(batch_of(targets=targets)) == 5
    assert math.isfinite(mean_of(objective(), batch_of(targets=targets)))


def test_estimates_of_a_divergence_by_hand() -> None:
    log_probs, reference = torch.tensor([-1.0, -0.5]), torch.tensor([-0.5, -1.0])
    assert divergence(log_probs, reference, "k1").tolist() == [-0.5, 0.5]
    assert divergence(log_probs, reference, "k2").tolist() == [0.125, 0.125]
    wanted = [math.exp(0.5) - 1.5, math.exp(-0.5) - 0.5]
    assert divergence(log_probs, reference, "k3").tolist() == pytest.approx(wanted)


def test_k1_and_k3_have_no_bias() -> None:
    policy, reference = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.4, 0.4, 0.2])
    exact = float((policy * (policy / reference).log()).sum())
    for estimator in ("k1", "k3"):
        assert float((policy * divergence(policy.log(), reference.log(), estimator)).sum()) == pytest.approx(exact)


def test_a_bonus_for_entropy() -> None:
    flat = torch.full((3, 4), math.log(0.5))
    one = objective(average="token", entropy=0.1)
    none = batch_of(log_probs=flat, advantages=torch.zeros(3, 4))
    assert float(one(Fixed(flat), none).detach()) / one.n_terms(none) == pytest.approx(-0.1 * math.log(2))


def test_a_value_that_ran_away_is_judged_by_the_larger_error() -> None:
    values, old, returns = torch.tensor([0.5, 1.0]), torch.tensor([0.0, 0.0]), torch.tensor([1.0, 1.0])
    assert value_loss(values, old, returns, None).tolist() == pytest.approx([0.125, 0.0])
    assert value_loss(values, old, returns, 0.2).tolist() == pytest.approx([0.32, 0.32])  # of 0.2 instead


def test_beta_follows_the_divergence() -> None:
    penalty = Penalty(0.1, target=2.0)
    penalty.update(2.2)  # 10 % above
    assert penalty.beta == pytest.approx(0.101)
    penalty.update(100.0)  # the error counts as 20 %
    assert penalty.beta == pytest.approx(0.101 * 1.02)
    penalty.update(0.0)
    assert penalty.beta == pytest.approx(0.101 * 1.02 * 0.98)
    fixed = Penalty(0.1)
    fixed.update(100.0)
    assert fixed.beta == 0.1


def test_what_is_measured() -> None:
    meter = Meter()
    mean_of(objective(meter), batch_of())
    ratio = (NEW - OLD).exp()[MASK]
    up, down = ADVANTAGES[MASK] > 0, ADVANTAGES[MASK] < 0
    clipped = (up & (ratio > 1.2)) | (down & (ratio < 0.8))
    assert meter.latest["clip_fraction"] == pytest.approx(float(clipped.float().mean()))
    assert meter.latest["logprob_gap"] == pytest.approx(float((NEW - OLD)[MASK].abs().max()))
    p = NEW.exp()[MASK]
    assert meter.latest["entropy"] == pytest.approx(float(-(p * p.log() + (1 - p) * (1 - p).log()).mean()))


def test_the_gap_is_only_that_of_fresh_answers() -> None:
    meter = Meter()
    mean_of(objective(meter), batch_of(age=torch.ones(3, dtype=torch.int64)))
    assert "logprob_gap" not in meter.latest


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"clip": 0.0}, "clip: must be above 0"),
        ({"beta": -1.0}, "beta: must not be negative"),
        ({"kl_target": 2.0}, "give it a start"),
        ({"kl_limit": 0.0}, "kl_limit"),
    ],
)
def test_impossible_settings(settings: dict[str, float], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        ObjectiveConfig(**settings)  # type: ignore[arg-type]
