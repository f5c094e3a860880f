"""AdamW against torch's own, who decays, and memory that survives a file."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from legollm.architectures import ARCHITECTURES, build
from legollm.errors import ConfigError
from legollm.training.optim import (
    AdamW,
    OptimConfig,
    build_optimizer,
    decay_groups,
    optimizer_tensors,
    restore_optimizer,
)

SMALL: dict[str, Any] = {"vocab_size": 11, "max_seq_len": 8, "n_layers": 1, "d_model": 8, "n_heads": 2}


def tiny(name: str = "gpt2") -> nn.Module:
    settings = SMALL | {"n_kv_heads": 1, "d_head": 4}
    known = {field.name for field in dataclasses.fields(ARCHITECTURES[name].config)}
    return build(name, **{key: settings[key] for key in settings if key in known})


def random_step(model: nn.Module, optimizer: AdamW, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=rng, dtype=torch.float64).to(parameter.dtype)
    optimizer.step()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_fifty_steps_equal_torch(dtype: torch.dtype, weight_decay: float) -> None:
    rng = torch.Generator().manual_seed(1)
    settings = {"lr": 3e-3, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": weight_decay}
    ours = [nn.Parameter(torch.randn(shape, generator=rng, dtype=dtype)) for shape in [(7, 5), (5,), (2, 3, 4)]]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    mine, reference = AdamW(ours, **settings), torch.optim.AdamW(theirs, **settings)  # type: ignore[arg-type]
    for step in range(50):
        for group in (*mine.param_groups, *reference.param_groups):
            group["lr"] = 3e-3 * (1 - step / 60)
        for a, b in zip(ours, theirs, strict=True):
            scale = 10.0 ** (step % 7 - 3)  # gradients from 1e-3 to 1e3
            a.grad = torch.randn(a.shape, generator=rng, dtype=dtype) * scale
            b.grad = a.grad.clone()
        mine.step()
        reference.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-7)


def test_a_parameter_without_a_gradient_stays() -> None:
    moving, still = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    optimizer = AdamW([moving, still], weight_decay=0.5)
    moving.grad = torch.ones(3)
    optimizer.step()
    assert torch.equal(still, torch.ones(3))
    assert not torch.equal(moving, torch.ones(3))
    assert still not in optimizer.state


@pytest.mark.parametrize("name", [name for name, row in ARCHITECTURES.items() if row.learns != "counts"])
def test_decay_groups_hold_every_parameter_once(name: str) -> None:
    model = tiny(name)
    groups = decay_groups(model, 0.1)
    held = [p for group in groups for p in group["params"]]
    assert len(held) == len({id(p) for p in held})
    assert {id(p) for p in held} == {id(p) for p in model.parameters()}
    named = {n: p for group in groups for n, p in zip(group["names"], group["params"], strict=True)}
    assert all(named[n] is p for n, p in model.named_parameters())
    for group in groups:
        assert {p.ndim >= 2 for p in group["params"]} == {group["weight_decay"] == 0.1}


def test_tied_weights_are_one_parameter() -> None:
    model = build("gpt2", **SMALL, tie_embeddings=True)
    assert model.lm_head.weight is model.embed.tokens.weight
    names = [name for group in decay_groups(model, 0.1) for name in group["names"]]
    assert "embed.tokens.weight" in names
    assert "lm_head.weight" not in names


def test_frozen_parameters_are_left_out() -> None:
    model = tiny()
    model.embed.requires_grad_(False)
    names = [name for group in decay_groups(model, 0.1) for name in group["names"]]
    assert names
    assert not any(name.startswith("embed.") for name in names)


def test_only_matrices_are_pulled_to_zero() -> None:
    model = tiny()
    for parameter in model.parameters():
        parameter.data.fill_(1.0)
    optimizer = build_optimizer(model, OptimConfig(lr=0.1, weight_decay=0.5))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for parameter in model.parameters():
        expected = torch.full_like(parameter, 0.95 if parameter.ndim >= 2 else 1.0)
        torch.testing.assert_close(parameter.data, expected)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_memory_survives_a_file_exactly(tmp_path: Path, name: Literal["adamw", "muon"]) -> None:
    """Ten steps, through a file, ten more: bit for bit the twenty of a run that never stopped."""
    never_stopped, model = tiny(), tiny()
    cfg = OptimConfig(name=name, lr=1e-2)
    one, before = build_optimizer(never_stopped, cfg), build_optimizer(model, cfg)
    for seed in range(10):
        random_step(never_stopped, one, seed)
        random_step(model, before, seed)
    save_file(optimizer_tensors(before), tmp_path / "optim.safetensors")
    after = build_optimizer(model, cfg)
    restore_optimizer(after, load_file(tmp_path / "optim.safetensors"))
    assert_same_tensors(optimizer_tensors(after), optimizer_tensors(before))
    for seed in range(10, 20):
        random_step(never_stopped, one, seed)
        random_step(model, after, seed)
    for a, b in zip(never_stopped.parameters(), model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_memory_belongs_to_names_not_places() -> None:
    model = tiny()
    optimizer = build_optimizer(model, OptimConfig())
    random_step(model, optimizer, 0)
    tensors = optimizer_tensors(optimizer)
    assert set(tensors) == {
        f"{key}.{name}" for name, _ in model.named_parameters() for key in ("mean", "square", "step")
    }
    backwards = build_optimizer(model, OptimConfig())
    restore_optimizer(backwards, dict(reversed(tensors.items())))
    assert_same_tensors(optimizer_tensors(backwards), tensors)


def test_memory_of_a_parameter_that_never_moved_is_absent() -> None:
    model = tiny()
    optimizer = build_optimizer(model, OptimConfig())
    first = next(iter(model.parameters()))
    first.grad = torch.ones_like(first)
    optimizer.step()
    tensors = optimizer_tensors(optimizer)
    assert len(tensors) == 3
    fresh = build_optimizer(model, OptimConfig())
    restore_optimizer(fresh, tensors)
    assert list(fresh.state) == [first]


def assert_same_tensors(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    for name, tensor in a.items():
        assert tensor.dtype == b[name].dtype
        assert torch.equal(tensor, b[name]), name


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"lr": 0.0}, "lr"),
        ({"warmup_steps": -1}, "warmup_steps"),
        ({"betas": (0.9,)}, "betas"),
        ({"betas": (0.9, 1.0)}, "betas"),
        ({"min_lr_ratio": 1.5}, "min_lr_ratio"),
        ({"decay_fraction": -0.1}, "decay_fraction"),
        ({"eps": 0.0}, "eps"),
        ({"weight_decay": -0.1}, "weight_decay"),
    ],
)
def test_impossible_settings_are_named(wrong: dict[str, float], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        OptimConfig(**wrong)  # type: ignore[arg-type]
