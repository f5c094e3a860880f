"""Muon against torch's own, which parameters it moves, and a run with it that is stopped and continued."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from legollm.architectures import ARCHITECTURES, build
from legollm.training.adamw import AdamW
from legollm.training.metrics import read_rows
from legollm.training.muon import TABLE_RATE, Muon, matrix_groups, orthogonalised
from legollm.training.optim import OptimConfig, build_optimizer, optimizer_tensors, restore_optimizer
from tiny_run import go

SETTINGS = {"lr": 0.02, "momentum": 0.95, "weight_decay": 0.1}
SHAPES = [(8, 24), (24, 8), (16, 16), (1, 12), (12, 1), (8, 24), (24, 8)]
"""Wide, tall, square, a single row, a single column, and two that are orthogonalised together with others."""


def pairs(shapes: list[tuple[int, int]], seed: int = 0) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    rng = torch.Generator().manual_seed(seed)
    ours = [nn.Parameter(torch.randn(shape, generator=rng)) for shape in shapes]
    return ours, [nn.Parameter(p.detach().clone()) for p in ours]


def both_step(
    mine: Muon, ours: list[nn.Parameter], reference: torch.optim.Muon, theirs: list[nn.Parameter], step: int
) -> None:
    rng = torch.Generator().manual_seed(100 + step)
    for group in (*mine.param_groups, *reference.param_groups):
        group["lr"] = SETTINGS["lr"] * (1 - step / 30)
    for a, b in zip(ours, theirs, strict=True):
        a.grad = torch.randn(a.shape, generator=rng) * 10.0 ** (step % 5 - 2)
        b.grad = a.grad.clone()
    mine.step()
    reference.step()


def optimizers(ours: list[nn.Parameter], theirs: list[nn.Parameter]) -> tuple[Muon, torch.optim.Muon]:
    group = {"params": ours, "is_matrix": True, "weight_decay": SETTINGS["weight_decay"]}
    mine = Muon([group], lr=SETTINGS["lr"], momentum=SETTINGS["momentum"])
    return mine, torch.optim.Muon(theirs, **SETTINGS, adjust_lr_fn="match_rms_adamw")  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", SHAPES[:5])
def test_one_matrix_equals_torch(shape: tuple[int, int]) -> None:
    """Bit for bit, or as far as one product of a batch of one may be summed in another order."""
    ours, theirs = pairs([shape])
    mine, reference = optimizers(ours, theirs)
    both_step(mine, ours, reference, theirs, 0)
    torch.testing.assert_close(ours[0], theirs[0], rtol=0, atol=1e-6)


def test_many_steps_of_many_matrices_equal_torch_within_bfloat16() -> None:
    ours, theirs = pairs(SHAPES)
    start = [p.detach().clone() for p in ours]
    mine, reference = optimizers(ours, theirs)
    for step in range(20):
        both_step(mine, ours, reference, theirs, step)
    for a, b, before in zip(ours, theirs, start, strict=True):
        moved = (b - before).norm()
        assert moved > 0.05
        assert (a - b).norm() < 0.01 * moved


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 4, 20), (1, 1, 7)])
def test_singular_values_become_about_one_and_directions_stay(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    found = orthogonalised(1e4 * x).double()
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.3
    assert values.max() < 1.3
    u, _, v = torch.linalg.svd(x.double(), full_matrices=False)
    inside = u.mT @ found @ v.mT  # diagonal where the singular vectors are kept
    off = inside - torch.diag_embed(inside.diagonal(dim1=-2, dim2=-1))
    assert off.abs().max() < 0.05


def test_a_gradient_of_zeros_moves_nothing() -> None:
    ours, _ = pairs([(4, 6)])
    before = ours[0].detach().clone()
    optimizer = Muon([{"params": ours, "is_matrix": True, "weight_decay": 0.0}], lr=0.1)
    ours[0].grad = torch.zeros(4, 6)
    optimizer.step()
    assert torch.equal(ours[0], before)


def test_what_is_no_matrix_moves_as_with_adamw() -> None:
    ours, theirs = pairs([(4, 6), (1, 6)])
    muon, adamw = Muon(ours, lr=0.1, weight_decay=0.2), AdamW(theirs, lr=0.1, weight_decay=0.2)
    for seed in range(3):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn(a.shape, generator=torch.Generator().manual_seed(seed))
            b.grad = a.grad.clone()
        muon.step()
        adamw.step()
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("sparse", [True, False])
def test_tables_equal_torch_s_adagrad(sparse: bool) -> None:
    """Rows that are looked up again and again, now and then, and never; as a list of rows and as a whole table."""
    start = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    mine = Muon([{"params": [ours], "is_table": True}], lr=0.01)
    reference = torch.optim.Adagrad([theirs], lr=0.01 * TABLE_RATE, eps=1e-12)
    for step in range(12):
        rows = torch.tensor([0, 3, 0, step % 7])
        for table, listed in ((ours, sparse), (theirs, False)):
            table.grad = None
            looked_up = nn.functional.embedding(rows, table, sparse=listed)
            (looked_up * 10.0 ** (step % 5 - 2)).square().sum().backward()  # type: ignore[no-untyped-call]
        mine.step()
        reference.step()
        torch.testing.assert_close(ours, theirs)
    assert torch.equal(ours[7:], start[7:])
    assert (ours[:7] - start[:7]).abs().min() > 0


def test_a_table_is_not_moved_by_a_gradient_too_small_to_be_squared() -> None:
    table = nn.Parameter(torch.zeros(2, 3))
    table.grad = torch.full((2, 3), 1e-30)
    Muon([{"params": [table], "is_table": True}], lr=0.01).step()
    assert float(table.detach().abs().max()) < 1e-9


@pytest.mark.parametrize("name", ["adamw", "lion", "sgd"])
def test_other_optimizers_see_the_whole_table(name: Any) -> None:
    tables = []
    for sparse in (True, False):
        model = nn.Module()
        model.table = nn.Parameter(torch.ones(5, 3))
        optimizer = build_optimizer(model, OptimConfig(name=name, lr=0.1))
        for rows in ([1, 3, 1], [2], [3]):
            optimizer.zero_grad()
            looked_up = nn.functional.embedding(torch.tensor(rows), model.table, sparse=sparse)
            looked_up.square().sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        tables.append(model.table.detach())
    assert torch.equal(*tables)


def test_tables_of_n_grams_are_a_group_of_their_own() -> None:
    model = tiny("vanilla", ngram_rows=(20, 30))
    (group,) = [group for group in matrix_groups(model, 0.1) if group["is_table"]]
    assert group["names"] == ["embed.tokens.ngrams.0.weight", "embed.tokens.ngrams.1.weight"]
    assert group["weight_decay"] == 0.0


def test_a_matrix_without_a_gradient_stays() -> None:
    ours, _ = pairs([(4, 6), (4, 6)])
    still = ours[1].detach().clone()
    optimizer = Muon([{"params": ours, "is_matrix": True, "weight_decay": 0.5}], lr=0.1)
    ours[0].grad = torch.ones(4, 6)
    optimizer.step()
    assert torch.equal(ours[1], still)
    assert list(optimizer.state) == [ours[0]]


SMALL: dict[str, Any] = {
    "vocab_size": 11, "max_seq_len": 8, "n_layers": 2, "d_model": 8, "d_head": 4, "n_heads": 2, "n_kv_heads": 1
}  # fmt: skip
LEARNED = [name for name, row in ARCHITECTURES.items() if row.learns != "counts"]


def tiny(name: str, **changes: Any) -> nn.Module:
    known = {field.name for field in dataclasses.fields(ARCHITECTURES[name].config)}
    return build(name, **{key: value for key, value in (SMALL | changes).items() if key in known})


@pytest.mark.parametrize("name", LEARNED)
@pytest.mark.parametrize("tied", [True, False])
def test_every_parameter_is_in_one_group_and_only_matrices_of_blocks_are_orthogonalised(name: str, tied: bool) -> None:
    model = tiny(name, tie_embeddings=tied)
    groups = matrix_groups(model, 0.1)
    held = [p for group in groups for p in group["params"]]
    assert len(held) == len({id(p) for p in held})
    assert {id(p) for p in held} == {id(p) for p in model.parameters()}
    names = dict(model.named_parameters())
    for group in groups:
        assert all(names[n] is p for n, p in zip(group["names"], group["params"], strict=True))
        assert {p.ndim >= 2 for p in group["params"]} == {group["weight_decay"] == 0.1}
    inside = {f"{n}.weight" for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    inside -= {"lm_head.weight", "head.weight"}
    assert {n for group in groups if group["is_matrix"] for n in group["names"]} == inside


def test_frozen_parameters_are_left_out() -> None:
    model = tiny("llama3")
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    frozen_but_one = next(p for n, p in model.named_parameters() if n.endswith("q_proj.weight")).requires_grad_(True)
    (group,) = matrix_groups(model, 0.1)
    assert group["params"] == [frozen_but_one]


def grads(model: nn.Module, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=rng)


@pytest.mark.parametrize("name", ["gpt2", "qwen3"])
def test_its_memory_goes_through_a_state_exactly(name: str) -> None:
    never_stopped, model = tiny(name), tiny(name)
    cfg = OptimConfig(name="muon", lr=0.01)
    one, before = build_optimizer(never_stopped, cfg), build_optimizer(model, cfg)
    for seed in range(3):
        for m, optimizer in ((never_stopped, one), (model, before)):
            grads(m, seed)
            optimizer.step()
    tensors: dict[str, Tensor] = {key: value.clone() for key, value in optimizer_tensors(before).items()}
    matrices = {n for group in before.param_groups if group["is_matrix"] for n in group["names"]}
    assert matrices
    assert {key for key in tensors if key.partition(".")[2] in matrices} == {f"mean.{n}" for n in matrices}
    after = build_optimizer(model, cfg)
    restore_optimizer(after, tensors)
    for m, optimizer in ((never_stopped, one), (model, after)):
        grads(m, 9)
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(never_stopped.parameters(), model.parameters(), strict=True))


def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path: Path) -> None:
    job = {"optim": OptimConfig(name="muon", lr=1e-2, warmup_steps=3)}
    go(tmp_path / "whole", job=job, save_every=12)
    go(tmp_path / "stopped", job=job, save_every=5, eval_every=0)
    last = tmp_path / "stopped" / "checkpoints" / "step-00000012"
    (last / "model.safetensors").write_bytes(b"damaged")  # so that it continues at step 10
    go(tmp_path / "stopped", job=job, save_every=5)
    files = [
        (tmp_path / name / "checkpoints" / "step-00000012" / file).read_bytes()
        for file in ("model.safetensors", "optim.safetensors")
        for name in ("whole", "stopped")
    ]
    assert files[0] == files[1]
    assert files[2] == files[3]
    losses = [
        [row["loss"] for row in read_rows(tmp_path / name / "metrics.jsonl") if "loss" in row]
        for name in ("whole", "stopped")
    ]
    assert len(losses[0]) == 12
    assert losses[0] == losses[1]
