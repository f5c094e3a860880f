"""Thousands of steps take no more memory than hundreds."""

from pathlib import Path

import psutil
import pytest

from legollm.training.train import TrainState
from tiny_run import go

MIB = 2**20


@pytest.mark.parametrize(
    "n_steps", [pytest.param(1200, marks=pytest.mark.slow), pytest.param(2500, marks=pytest.mark.soak)]
)
def test_memory_does_not_grow_with_the_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_steps: int) -> None:
    """Resident size by step, after 400 steps of warm-up: it rises by less than 1 MiB per 1000."""
    sizes = list[tuple[int, float]]()
    process = psutil.Process()

    def figures() -> dict[str, float]:
        sizes.append((len(sizes) * 20, process.memory_info().rss / MIB))
        return {}

    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    loop = {"max_steps": n_steps, "log_every": 20, "eval_every": 100, "save_every": 250}
    state: TrainState = go(tmp_path, job={"figures": figures}, **loop)
    assert state.step == n_steps
    after = [(step, size) for step, size in sizes if step >= 400]
    assert slope(after) * 1000 < 1


def slope(points: list[tuple[int, float]]) -> float:
    """Of the line with the least squared distance."""
    n = len(points)
    mean_x, mean_y = sum(x for x, _ in points) / n, sum(y for _, y in points) / n
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)
