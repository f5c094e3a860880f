"""Thinking within a token: what feed-forward layers become in a plan, and mixtures of them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from legollm.architectures.vanilla import NoFeedForward
from legollm.components.feedforward import GLU, MLP, GeGLU, ReGLU, SwiGLU
from legollm.components.moe import MoE
from legollm.components.routing import Router, SigmoidTopK, Soft, StraightThrough, Switch, TopK
from legollm.errors import LoweringError
from legollm.kernels import plan
from legollm.lowering.table import Normed, activation_of, lowering_of, matrix, product, products
from legollm.lowering.weights import Weight, packed
from legollm.lowering.writer import Product, States, Writer, bits


def mlp(brick: MLP, writer: Writer, x: Normed, out: States, add: bool) -> None:
    inside = writer.scratch("inside", brick.up_proj.out_features)
    products(writer, x, [Product(matrix(writer, brick.up_proj), inside, brick.up_proj.bias)])
    activation = activation_of(brick)
    product(writer, brick.down_proj, inside, out, add=add, activation=activation)


def gated_mlp(brick: Any, writer: Writer, x: Normed, out: States, add: bool) -> None:
    width = brick.gate_proj.out_features
    inside = writer.scratch("inside", 2 * width)
    gate, up = inside.after(0, width), inside.after(width, width)
    products(writer, x, [Product(matrix(writer, brick.gate_proj), gate), Product(matrix(writer, brick.up_proj), up)])
    activation = activation_of(brick)
    product(writer, brick.down_proj, gate, out, add=add, activation=activation, gate=width)


def no_feed_forward(brick: NoFeedForward, writer: Writer, x: Normed, out: States, add: bool) -> None:
    if not add:
        raise LoweringError("no lowering for the norm of nothing; engine=torch runs it")


RULES: Mapping[type[nn.Module], Callable[[Any], tuple[int, int]]] = {
    TopK: lambda rule: (plan.SHARES_OF_CHOSEN if rule.normalise else plan.SHARES, rule.n_active),
    Switch: lambda rule: (plan.SHARES, 1),
    Soft: lambda rule: (plan.SHARES, 0),
    StraightThrough: lambda rule: (plan.BEST, 1),
    SigmoidTopK: lambda rule: (plan.SIGMOIDS, rule.n_active),
}
"""A rule of routing in the plan's words, and how many experts work on a token; 0 is all."""


def moe(brick: MoE, writer: Writer, x: Normed, out: States, add: bool) -> None:
    router, kinds = brick.router, {type(expert) for expert in brick.experts}
    lowering_of({Router: None}, router)
    if not all(FEED_FORWARDS.get(kind) is gated_mlp for kind in kinds) or len(kinds) > 1:
        raise LoweringError("no lowering for experts that are not all of one gated kind; engine=torch runs them")
    rule, n_active = lowering_of(RULES, router.rule)(router.rule)
    n_active = n_active or router.n_experts
    scores = writer.scratch("scores", router.n_experts)
    routes = writer.scratch("routes", 4 * n_active)
    writer.linear(x.read(writer, plan.FLOAT32), [Product(packed(router.proj.weight, "float32"), scores)])
    writer.step(
        plan.ROUTE,
        IN=scores.address,
        IN_STRIDE=scores.stride,
        N_EXPERTS=router.n_experts,
        N_ACTIVE=n_active,
        RULE=rule,
        ROUTES=routes.address,
        SCALE=bits(1 / router.temperature),
        BIAS=writer.address(getattr(router.rule, "bias", None)),
        FACTOR=bits(getattr(router.rule, "scale", 1.0)),
    )
    beside = None
    if brick.shared is not None:  # now, because `out` may be what it reads
        beside = writer.scratch("beside", out.width)
        think(brick.shared, writer, x, beside, add=False)
    if not add:
        writer.clear(out)
    all_experts: Any = list(brick.experts)
    width = all_experts[0].gate_proj.out_features
    inside = writer.scratch("inside", 2 * width, n_active)
    states: States | None = None
    for name, place in (("gate_proj", inside.after(0, width)), ("up_proj", inside.after(width, width))):
        weights = of_experts(writer, [getattr(expert, name) for expert in all_experts])
        if states is None or states.form != weights[0].form:
            states = x.read(writer, weights[0].form, tiles=False)
        writer.experts(states, weights, place, routes, n_active, add=False)
    down = of_experts(writer, [expert.down_proj for expert in all_experts])
    states = writer.prepare(
        inside,
        width,
        form=down[0].form,
        activation=activation_of(all_experts[0]),
        gate=width,
        name="product",
        repeats=n_active,
        tiles=False,
    )
    writer.experts(states, down, out, routes, n_active, add=True)
    if beside is not None:
        writer.prepare(beside, out.width, form=plan.PLAIN, out=out, add=True)


def of_experts(writer: Writer, linears: Sequence[nn.Module]) -> list[Weight]:
    """
    Raises:
        LoweringError: some are quantised and others not, or otherwise.
    """
    weights = [matrix(writer, linear) for linear in linears]
    if len({weight.form for weight in weights}) > 1:
        raise LoweringError("no lowering for experts of which some are quantised; engine=torch runs them")
    return weights


FEED_FORWARDS: Mapping[type[nn.Module], Callable[[Any, Writer, Normed, States, bool], None]] = {
    MLP: mlp,
    GLU: gated_mlp,
    SwiGLU: gated_mlp,
    GeGLU: gated_mlp,
    ReGLU: gated_mlp,
    NoFeedForward: no_feed_forward,
    MoE: moe,
}


def think(brick: nn.Module, writer: Writer, x: Normed, out: States, add: bool) -> None:
    lowering_of(FEED_FORWARDS, brick)(brick, writer, x, out, add)
