"""Advantages: hand-worked groups, a slow and obvious oracle for the generalised ones."""

import math
from statistics import mean, stdev

import pytest
import torch
from torch import Tensor

from legollm.alignment.advantages import (
    RunningBaseline,
    generalised,
    group_centred,
    group_normalised,
    is_dead,
    leave_one_out,
    whitened,
)

REWARDS = torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.5, 0.0]])


def test_standard_scores_of_a_group() -> None:
    for row, scores in zip(REWARDS.tolist(), group_normalised(REWARDS).tolist(), strict=True):
        assert scores == pytest.approx([(x - mean(row)) / (stdev(row) + 1e-4) for x in row])
    # The same from TRL 1.16 (its nanstd, and 1e-4 beside it).
    assert group_normalised(REWARDS)[1].tolist() == pytest.approx([-0.4998001, -0.4998001, 1.4994002, -0.4998001])


def test_dr_grpo_divides_by_nothing() -> None:
    assert group_centred(REWARDS).tolist() == [[0.5, -0.5, -0.5, 0.5], [-0.125, -0.125, 0.375, -0.125]]


def test_an_answer_is_no_part_of_its_own_baseline() -> None:
    for row, found in zip(REWARDS.tolist(), leave_one_out(REWARDS).tolist(), strict=True):
        assert found == pytest.approx([x - mean(row[:i] + row[i + 1 :]) for i, x in enumerate(row)])


def test_groups_whose_answers_are_all_alike_are_dead_and_push_nothing() -> None:
    rewards = torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
    assert is_dead(rewards).tolist() == [True, False, True]
    for advantages in (group_normalised, group_centred, leave_one_out):
        assert (advantages(rewards)[[0, 2]] == 0).all()


def test_a_running_baseline_is_the_mean_of_the_past() -> None:
    baseline = RunningBaseline(share=0.5)
    assert baseline.advantages(torch.tensor([[1.0, 0.0]])).tolist() == [[0.5, -0.5]]
    assert baseline.advantages(torch.tensor([[2.0, 2.0]])).tolist() == [[1.5, 1.5]]  # still against the mean 0.5
    assert baseline.value == 1.25


def naive(rewards: list[float], values: list[float], gamma: float, lam: float) -> list[float]:
    """Every sum written out: A_t = sum_k (gamma lam)^k (r_{t+k} + gamma V_{t+k+1} - V_{t+k})."""
    n = len(rewards)
    following = [*values[1:], 0.0]
    return [
        math.fsum((gamma * lam) ** (k - t) * (rewards[k] + gamma * following[k] - values[k]) for k in range(t, n))
        for t in range(n)
    ]


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.7), (0.97, 0.0), (1.0, 1.0)])
def test_generalised_advantages_equal_the_sums_written_out(gamma: float, lam: float) -> None:
    rng = torch.Generator().manual_seed(0)
    rewards, values = torch.randn(2, 4, 9, generator=rng, dtype=torch.float64)
    mask = torch.zeros(4, 9, dtype=torch.bool)
    spans = [(0, 9), (3, 7), (5, 6), (0, 2)]
    for row, (first, last) in enumerate(spans):
        mask[row, first:last] = True
    advantages, returns = generalised(rewards * mask, values, mask, gamma=gamma, lam=lam)
    for row, (first, last) in enumerate(spans):
        wanted = naive(rewards[row, first:last].tolist(), values[row, first:last].tolist(), gamma, lam)
        assert advantages[row, first:last].tolist() == pytest.approx(wanted)
        torch.testing.assert_close(returns[row, first:last], torch.tensor(wanted).double() + values[row, first:last])
    assert (advantages[~mask] == 0).all()


def test_with_lambda_1_only_what_was_earned_counts() -> None:
    rewards, values = torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[0.3, 0.9, -4.0]])
    mask = torch.ones(1, 3, dtype=torch.bool)
    torch.testing.assert_close(generalised(rewards, values, mask, gamma=1.0, lam=1.0)[1], torch.ones(1, 3))


def test_whitened_over_the_mask_only() -> None:
    x = torch.tensor([[1.0, 2.0, 99.0], [3.0, 99.0, 99.0]])
    mask: Tensor = x < 50
    torch.testing.assert_close(whitened(x, mask), torch.tensor([[-1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]))
