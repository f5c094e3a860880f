"""Where, how precisely and from which seed."""

from pathlib import Path
from typing import Literal

import pytest
import torch

from legollm import device
from legollm.device import autocast, free_bytes, generator, pick_device, pick_precision, seed_of
from legollm.errors import ConfigError

CPU = torch.device("cpu")


def has(monkeypatch: pytest.MonkeyPatch, *, cuda: bool, mps: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(("cuda", "mps", "picked"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")])
def test_auto_takes_the_fastest_there_is(monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, picked: str) -> None:
    has(monkeypatch, cuda=cuda, mps=mps)
    assert pick_device("auto").type == picked
    assert pick_device("cpu").type == "cpu"


def test_a_device_that_is_not_there_is_refused_with_those_that_are(monkeypatch: pytest.MonkeyPatch) -> None:
    has(monkeypatch, cuda=False, mps=False)
    with pytest.raises(ConfigError, match="'cuda' is not on this machine; possible: cpu"):
        pick_device("cuda")


@pytest.mark.parametrize("wish", ["float32", "bfloat16"])
def test_a_wish_is_granted_without_measuring(
    monkeypatch: pytest.MonkeyPatch, wish: Literal["float32", "bfloat16"]
) -> None:
    monkeypatch.setattr(device, "product_seconds", lambda dtype: pytest.fail("measured"))
    assert pick_precision(wish, CPU) == wish


@pytest.mark.parametrize(("speedup", "picked"), [(1.0, "float32"), (1.4, "float32"), (3.0, "bfloat16")])
def test_auto_wants_a_clear_gain(monkeypatch: pytest.MonkeyPatch, speedup: float, picked: str) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    monkeypatch.setattr(device, "product_seconds", lambda dtype: speedup if dtype == torch.float32 else 1.0)
    assert pick_precision("auto", CPU) == picked


def test_measuring_draws_no_random_numbers() -> None:
    before = torch.get_rng_state()
    pick_precision("auto", CPU)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_autocast(precision: str, dtype: torch.dtype) -> None:
    with autocast(precision, CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


def test_streams_of_a_seed_are_named_and_independent() -> None:
    names = ("init", "data", "dropout", "sampling")
    seeds = {seed_of(seed, name) for seed in (0, 1, 1337) for name in names}
    assert len(seeds) == 12
    assert all(0 <= seed < 2**56 for seed in seeds)
    assert seed_of(1337, "init") == seed_of(1337, "init") == 16_137_552_101_163_748  # also in ten years


def test_a_generator_repeats_and_leaves_the_global_one_alone() -> None:
    before = torch.get_rng_state()
    a, b = (torch.rand(4, generator=generator(7, "data")) for _ in range(2))
    assert torch.equal(a, b)
    assert not torch.equal(a, torch.rand(4, generator=generator(7, "init")))
    assert torch.equal(torch.get_rng_state(), before)


def test_free_memory_is_the_least_that_machine_and_container_allow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(device, "CGROUP", tmp_path)
    assert free_bytes(CPU) is None
    (tmp_path / "meminfo").write_text("MemTotal:     4000 kB\nMemAvailable:    3000 kB\n")
    assert free_bytes(CPU) == 3000 * 1024
    (tmp_path / "memory.current").write_text("500\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert free_bytes(CPU) == 3000 * 1024
    (tmp_path / "memory.max").write_text("2000\n")
    assert free_bytes(CPU) == 1500
