"""The steps of a plan against their plain definitions, in PyTorch: products of all formats, norms, activations."""

import functools
import itertools
import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

pytest.importorskip("numba")

from legollm.components.feedforward import gelu, gelu_tanh, relu, relu_squared
from legollm.kernels import plan
from legollm.lowering.team import Team
from legollm.lowering.weights import FORMS, Precision, packed
from legollm.lowering.writer import Norm, Product, States, Writer

MAX_ROWS = 50


@functools.cache
def two_threads() -> Team:
    return Team(2, None)


def carried_out(
    write: Callable[[Writer, States, States], None], x: Tensor, width: int, precision: Precision, tiled: bool = False
) -> Tensor:
    """What a plan makes of rows x: (N, K) -> (N, width)."""
    writer = Writer(precision, MAX_ROWS)
    source, target = writer.states(x.size(1)), writer.states(width)
    write(writer, source, target)
    steps = writer.finish()
    team = two_threads()
    source.memory[: x.numel()] = x.flatten()
    rows = np.zeros((MAX_ROWS, 5), np.int64)
    team.job[team.at.PLAN], team.job[team.at.N_ROWS] = steps.address, len(x)
    team.job[team.at.ROWS_AT], team.job[team.at.N_ROW_FIELDS] = rows.ctypes.data, rows.shape[1]
    team.make_room(team.room_for(writer.widest))
    team.job[team.at.TILED] = tiled
    team.run(steps.n_steps)
    behind = target.memory[len(x) * width :]
    assert behind.equal(torch.zeros_like(behind))  # nothing is written beside its place
    return target.memory[: len(x) * width].view(len(x), width)


def as_products_read_them(x: Tensor, precision: Precision) -> Tensor:
    """States, in groups of 64 or 32 as bytes with a scale where weights are whole numbers."""
    if precision in ("float32", "bfloat16"):
        return x
    size = 64 if precision == "int8" else 32
    groups = F.pad(x, (0, -x.size(1) % size)).view(len(x), -1, size)
    scales = groups.abs().amax(-1, keepdim=True).clamp_min(1e-30) / 127
    return ((groups / scales).round() * scales).view(len(x), -1)[:, : x.size(1)]


@pytest.mark.parametrize("precision", FORMS)
def test_products(precision: Precision) -> None:
    generator = torch.Generator().manual_seed(0)
    for rows, width, n in itertools.product((1, 6, 33), (1, 31, 64, 70, 129), (1, 2, 3, 9)):
        weight = torch.randn(rows, width, generator=generator)
        bias, x = torch.randn(rows, generator=generator), torch.randn(n, width, generator=generator)

        def write(writer: Writer, source: States, target: States, weight: Tensor = weight, bias: Tensor = bias) -> None:
            lying = writer.weight(weight)
            states = writer.prepare(source, lying.width, form=lying.form)
            writer.linear(states, [Product(lying, target, bias)])
            writer.linear(states, [Product(lying, target, None, add=True)])

        found = carried_out(write, x, rows, precision)
        wanted = as_products_read_them(x, precision) @ packed(weight, precision).plain().t()
        assert (found - 2 * wanted - bias).norm() < 1e-5 * (1 + wanted.norm())


def test_products_by_tiles() -> None:
    if not two_threads().has_tiles:
        pytest.skip("this processor has no tiles, or the system allows none")
    generator = torch.Generator().manual_seed(0)
    for rows, width, n in itertools.product((1, 17, 33, 100), (1, 31, 64, 97), (1, 16, 17, 50)):
        weight, x = torch.randn(rows, width, generator=generator), torch.randn(n, width, generator=generator)

        def write(writer: Writer, source: States, target: States, weight: Tensor = weight) -> None:
            lying = writer.weight(weight)
            writer.linear(writer.prepare(source, lying.width, form=lying.form), [Product(lying, target)])

        found = carried_out(write, x, rows, "bfloat16", tiled=True)
        wanted = x @ packed(weight, "bfloat16").plain().t()
        assert (found - wanted).norm() < 3e-5 * wanted.norm()


ACTIVATIONS: dict[int, Callable[[Tensor], Tensor]] = {
    plan.RELU: relu,
    plan.RELU_SQUARED: relu_squared,
    plan.SIGMOID: F.sigmoid,
    plan.SILU: F.silu,
    plan.GELU: gelu,
    plan.GELU_TANH: gelu_tanh,
}


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_activations(kind: int) -> None:
    x = torch.cat([torch.linspace(-12, 12, 301), torch.tensor([-1e4, -200.0, -90, -88, 0, 88, 200, 1e4, 1e-20])])[None]

    def write(writer: Writer, source: States, target: States) -> None:
        writer.prepare(source, x.size(1), form=plan.PLAIN, activation=kind, out=target)

    found, wanted = carried_out(write, x, x.size(1), "float32"), ACTIVATIONS[kind](x.double()).float()
    torch.testing.assert_close(found, wanted, rtol=2e-6, atol=5e-7)


def test_norms() -> None:
    generator = torch.Generator().manual_seed(1)
    for width in (1, 8, 37, 200):
        x = 3 + torch.randn(4, width, generator=generator)
        weight, bias = torch.randn(2, width, generator=generator)
        norms = {
            Norm(plan.RMS, weight, None, 0.1): F.rms_norm(x, (width,), weight, 0.1),
            Norm(plan.LAYER, weight, bias, 0.1): F.layer_norm(x, (width,), weight, bias, 0.1),
        }
        for norm, wanted in norms.items():

            def write(writer: Writer, source: States, target: States, norm: Norm = norm, width: int = width) -> None:
                writer.prepare(source, width, form=plan.PLAIN, norm=norm, out=target)
                writer.prepare(source, width, form=plan.PLAIN, norm=norm, out=target, add=True)

            torch.testing.assert_close(carried_out(write, x, width, "float32"), 2 * wanted, rtol=2e-6, atol=2e-6)


def test_helpers_leave_when_their_team_is_gone() -> None:
    before = threading.active_count()
    team = Team(4, None)
    assert threading.active_count() == before + 3
    del team
    assert threading.active_count() == before
