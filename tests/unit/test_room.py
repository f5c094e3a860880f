"""A run that cannot fit is refused before it starts, with the arithmetic."""

import logging
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import get_args, get_type_hints

import pytest
import torch

from legollm.checkpoints.manifest import steps
from legollm.commands import room
from legollm.errors import ConfigError
from legollm.training.optim import OptimConfig
from tiny_run import go


def free(monkeypatch: pytest.MonkeyPatch, n_bytes: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=n_bytes))


def size_of(folder: Path) -> int:
    return sum((folder / name).stat().st_size for name in ("model.safetensors", "optim.safetensors"))


def test_checkpoints_that_do_not_fit_are_refused_before_a_step_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go(tmp_path / "usual")
    free(monkeypatch, 10_000)
    with pytest.raises(
        ConfigError,
        match=r"^train\.keep: 3 more checkpoints of .* weights and .* of adamw are .*, and 10,000 are free at",
    ) as caught:
        go(tmp_path / "run")
    numbers = [int(word.replace(",", "")) for word in str(caught.value).split() if word.replace(",", "").isdigit()]
    n, weights, remembered, needed, _ = numbers
    assert n * (weights + remembered) == needed
    assert remembered == 2 * weights
    assert weights + remembered == pytest.approx(size_of(tmp_path / "usual" / "checkpoint"), rel=0.4)  # headers, rng
    assert not (tmp_path / "run" / "metrics.jsonl").read_text()
    assert not steps(tmp_path / "run" / "checkpoints")


@pytest.mark.parametrize(("loop", "n"), [({"save_every": 0}, 1), ({"save_every": 1, "keep": 5}, 7)])
def test_as_many_as_will_be_there_at_once_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loop: dict[str, int], n: int
) -> None:
    free(monkeypatch, 1)
    with pytest.raises(ConfigError, match=rf"^train\.keep: {n} more checkpoints"):
        go(tmp_path, **loop)


def test_what_is_there_already_is_not_counted_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go(tmp_path, max_steps=11)
    n_there = len(steps(tmp_path / "checkpoints"))
    free(monkeypatch, 1)
    with pytest.raises(ConfigError, match=rf"^train\.keep: {4 - n_there} more checkpoints"):
        go(tmp_path, max_steps=100)


def test_a_full_disk_is_only_warned_of_if_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    free(monkeypatch, 1)
    with caplog.at_level(logging.WARNING):
        assert go(tmp_path, on_save_failure="warn").step == 12
    assert "and 1 are free at" in caplog.text


def test_too_little_memory_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(room, "available_memory", lambda device: 1000)
    go(tmp_path)
    assert "and 1,000 are available, with nothing left for activations" in caplog.text


def test_the_memory_of_this_machine_is_plausible() -> None:
    found = room.available_memory(torch.device("cpu"))
    assert found is None or 2**20 < found < 2**50


def test_every_optimizer_is_known() -> None:
    assert set(get_args(get_type_hints(OptimConfig)["name"])) == set(room.REMEMBERED)
