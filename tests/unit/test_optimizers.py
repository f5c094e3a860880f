"""Lion and SGD against the formulas and PyTorch, blocks that change nothing, and what all optimizers share."""

from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from legollm.training import optimizer as shared
from legollm.training.adamw import AdamW
from legollm.training.lion import Lion
from legollm.training.optim import OptimConfig, build_optimizer
from legollm.training.optimizer import GroupedOptimizer, in_blocks
from legollm.training.sgd import SGD

RNG = torch.Generator


def gradients(n_steps: int, shape: tuple[int, ...]) -> list[Tensor]:
    rng = RNG().manual_seed(3)
    return [torch.randn(shape, generator=rng, dtype=torch.float64) * 10.0 ** (i % 5 - 2) for i in range(n_steps)]


def start() -> Tensor:
    return torch.randn(6, 5, generator=RNG().manual_seed(1), dtype=torch.float64)


def test_lion_is_the_paper_s_algorithm_number_by_number() -> None:
    parameter = nn.Parameter(start())
    optimizer = Lion([parameter], lr=0.01, betas=(0.9, 0.99), weight_decay=0.3)
    expected, mean = start().flatten().tolist(), [0.0] * 30
    for grad in gradients(40, (6, 5)):
        parameter.grad = grad.clone()
        optimizer.step()
        for i, g in enumerate(grad.flatten().tolist()):  # Chen et al. 2023, algorithm 2
            c = 0.9 * mean[i] + 0.1 * g
            sign = (c > 0) - (c < 0)
            expected[i] -= 0.01 * (sign + 0.3 * expected[i])
            mean[i] = 0.99 * mean[i] + 0.01 * g
    torch.testing.assert_close(
        parameter.detach().flatten(), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_equals_torch(momentum: float) -> None:
    ours, theirs = nn.Parameter(start()), nn.Parameter(start())
    mine, reference = SGD([ours], lr=0.01, momentum=momentum), torch.optim.SGD([theirs], lr=0.01, momentum=momentum)
    for grad in gradients(30, (6, 5)):
        ours.grad, theirs.grad = grad.clone(), grad.clone()
        mine.step()
        reference.step()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_sgd_s_decay_does_not_enter_the_running_sum() -> None:
    parameter = nn.Parameter(torch.ones(1))
    optimizer = SGD([parameter], lr=0.5, momentum=0.9, weight_decay=0.1)
    for _ in range(2):
        parameter.grad = torch.zeros(1)
        optimizer.step()
    torch.testing.assert_close(parameter.detach(), torch.tensor([0.95**2]))


@pytest.mark.parametrize("kind", [AdamW, Lion, SGD])
@pytest.mark.parametrize("transposed", [False, True])
def test_blocks_change_no_bit(kind: type[Any], transposed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every number moves by itself, wherever a block ends, and however gradients lie in memory."""
    results = []
    for block in (1 << 20, 7):
        monkeypatch.setattr(shared, "BLOCK", block)
        parameter = nn.Parameter(start().float())
        optimizer = kind([parameter], lr=0.01)
        for grad in gradients(5, (5, 6) if transposed else (6, 5)):
            parameter.grad = grad.float().mT if transposed else grad.float()
            optimizer.step()
        results.append(parameter.detach())
    assert torch.equal(*results)


def test_blocks_cover_every_number_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "BLOCK", 4)
    tensor = torch.zeros(3, 3)
    for (part,) in in_blocks(tensor):
        part += 1
    assert torch.equal(tensor, torch.ones(3, 3))


@pytest.mark.parametrize("name", ["adamw", "muon", "lion", "sgd"])
def test_each_learns_and_the_scheduled_rate_counts(name: Literal["adamw", "muon", "lion", "sgd"]) -> None:
    """A line is fitted; with a rate of zero nothing moves."""
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    optimizer = build_optimizer(model, OptimConfig(name=name, lr=0.05, weight_decay=0.0))
    x = torch.randn(64, 4)
    y = x @ torch.tensor([[1.0], [-2.0], [0.5], [0.0]])

    def loss() -> Tensor:
        return (model(x) - y).square().mean()

    first = loss().item()
    for _ in range(400):
        optimizer.zero_grad()
        loss().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert loss().item() < 0.05 * first
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = [parameter.clone() for parameter in model.parameters()]
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_groups_have_their_own_settings_and_share_the_rest() -> None:
    one, two = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer: GroupedOptimizer = AdamW([{"params": [one], "lr": 0.5}, {"params": [two]}], lr=0.1, eps=1e-12)
    one.grad, two.grad = torch.ones(2), torch.ones(2)
    optimizer.step()
    torch.testing.assert_close(one.detach(), torch.full((2,), 1 - 0.5 - 0.5 * 0.01))
    torch.testing.assert_close(two.detach(), torch.full((2,), 1 - 0.1 - 0.1 * 0.01))
    optimizer.zero_grad(set_to_none=False)
    assert float(one.grad.sum()) == 0.0
    optimizer.zero_grad()
    assert one.grad is None
