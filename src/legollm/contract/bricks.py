# mypy: disable-error-code="no-any-return, no-untyped-call"
"""What a brick promises by itself; the rest it promises as a part of a model, and a small one is built around it."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from legollm.components.masks import Causal
from legollm.contract.models import EXACT, check_model
from legollm.contract.studs import D_HEAD, SIZES, D, model_around
from legollm.contract.verdict import Check, Outcome, Verdict, difference, verdicts, within

T = 10


class Brick(NamedTuple):
    """A kind of part, and how to make one."""

    stud: str
    """The place it goes to, a key of STUDS."""
    make: Callable[[], nn.Module]

    def run(self, x: Tensor) -> Tensor:
        """x: (B, T, D) through a fresh one in eval mode; queries and keys are heads of x."""
        part, positions = self.make().to(x.dtype).eval(), torch.arange(x.size(-2))
        if self.stud in ("mixer", "block"):
            return part(x, positions, Causal(), None)
        if self.stud == "rotary":
            heads = x.unflatten(-1, (-1, D_HEAD)).transpose(1, 2)
            q, _ = part(heads, heads, positions)
            return q.transpose(1, 2).flatten(-2)
        return part(x)


def check_brick(stud: str, make: Callable[[], nn.Module]) -> list[Verdict]:
    """Every check of one brick; `make` gives a new one with the same numbers each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        own = verdicts(BRICK_CHECKS[stud], Brick(stud, make))
        return [*own, *check_model(model_around(stud, make))]


def states(*shape: int) -> Tensor:
    """Numbers as a residual stream has them, (*shape, D)."""
    return torch.randn(*shape, D, generator=torch.Generator().manual_seed(0))


def shape_and_dtype_stay(brick: Brick) -> Outcome:
    """(B, T, D) in, (B, T, D) out, in float32, float64 and bfloat16."""
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        x = states(3, T).to(dtype)
        y = brick.run(x)
        if (y.shape, y.dtype) != (x.shape, dtype):
            return Outcome(False, f"{tuple(x.shape)} of {dtype} became {tuple(y.shape)} of {y.dtype}")
    return Outcome(True, f"(B, T, {D}); float32, float64, bfloat16")


def zeros_stay_finite(brick: Brick) -> Outcome:
    """All-zero states, as padding may have, give numbers and gradients that are no NaN."""
    x = torch.zeros(1, T, D, requires_grad=True)
    y = brick.run(x)
    y.sum().backward()
    passed = bool(y.isfinite().all()) and x.grad is not None and bool(x.grad.isfinite().all())
    return Outcome(passed, "finite" if passed else "NaN or infinity in the result or its gradient")


def each_token_is_alone(brick: Brick) -> Outcome:
    """Tokens and rows give what they give alone."""
    x = states(3, T).double()
    y = brick.run(x)
    alone = torch.stack([torch.stack([brick.run(x[b : b + 1, t : t + 1])[0, 0] for t in range(T)]) for b in range(3)])
    return within(difference(y, alone), EXACT)


def only_distance_counts(brick: Brick) -> Outcome:
    """Products of queries and keys stay the same when all positions move by as much."""
    part = brick.make().double().eval()
    heads = states(2, T).double().unflatten(-1, (-1, D_HEAD)).transpose(1, 2)

    def scores(shift: int) -> Tensor:
        q, k = part(heads, heads.flip(1), torch.arange(shift, shift + T))
        return q @ k.transpose(-1, -2)

    return within(difference(scores(0), scores(7)), EXACT)


def positions_can_come_in_pieces(brick: Brick) -> Outcome:
    """The vectors of later positions do not depend on whether the earlier ones are asked for; -1 is padding."""
    part, positions = brick.make().eval(), torch.arange(T)
    whole = part(positions)
    if whole.shape != (T, D) or part(positions.expand(3, T)).shape != (3, T, D):
        return Outcome(False, f"(T,) became {tuple(whole.shape)}, expected (T, {D}), and (B, T) likewise")
    part(torch.full((1, 2), -1))
    return within(difference(torch.cat([part(positions[:4]), part(positions[4:])]), whole), 0.0)


def biases_can_come_in_pieces(brick: Brick) -> Outcome:
    """(T,) queries and (S,) keys give (H, T, S), and later queries what they give among all."""
    part, positions = brick.make().eval(), torch.arange(T)
    whole = part(positions, positions)
    if whole.shape != (n_heads := int(SIZES["n_heads"]), T, T):
        return Outcome(False, f"{T} queries and keys became {tuple(whole.shape)}, expected {(n_heads, T, T)}")
    return within(difference(part(positions[4:], positions), whole[:, 4:]), 0.0)


def vectors_have_the_model_s_width(brick: Brick) -> Outcome:
    """(B, T) tokens give (B, T, D)."""
    x = brick.make().eval()(torch.zeros(3, T, dtype=torch.long), torch.arange(T))
    return Outcome(x.shape == (3, T, D), f"(3, {T}) became {tuple(x.shape)}, expected (3, {T}, {D})")


ALL = (shape_and_dtype_stay, zeros_stay_finite)
BRICK_CHECKS: Mapping[str, tuple[Check, ...]] = {
    "mixer": ALL,
    "block": ALL,
    "ffn": (*ALL, each_token_is_alone),
    "norm": (*ALL, each_token_is_alone),
    "rotary": (shape_and_dtype_stay, only_distance_counts),
    "positions": (positions_can_come_in_pieces,),
    "position_bias": (biases_can_come_in_pieces,),
    "embedding": (vectors_have_the_model_s_width,),
}
