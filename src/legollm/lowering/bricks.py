"""What each brick becomes in a plan: a table from brick classes to the functions that write their steps.

A class that is not in its table has no lowering; a subclass has none either, because it may compute something else.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from legollm.architectures.vanilla import NoFeedForward
from legollm.components.attention import Attention
from legollm.components.blocks import ParallelBlock, PostNormBlock, PreNormBlock, SandwichNormBlock
from legollm.components.decoder import Decoder
from legollm.components.feedforward import (
    GLU,
    MLP,
    GeGLU,
    ReGLU,
    SwiGLU,
    gelu,
    gelu_tanh,
    relu,
    relu_squared,
)
from legollm.components.moe import MoE
from legollm.components.ngram_embedding import NgramEmbedding
from legollm.components.norm import LayerNorm, RMSNorm
from legollm.components.positions import (
    Alibi,
    InterleavedRotaryEmbedding,
    LearnedPositionEmbedding,
    NoPositions,
    RotaryEmbedding,
    ScaledTokenEmbedding,
    SinusoidalPositionEmbedding,
    T5Bias,
    TokenAndPositionEmbedding,
    TokenEmbedding,
)
from legollm.components.routing import Router, SigmoidTopK, Soft, StraightThrough, Switch, TopK
from legollm.errors import LoweringError
from legollm.kernels import plan
from legollm.lowering.weights import Weight, packed
from legollm.lowering.writer import Norm, Product, States, Writer, bits

TOKEN, POSITION = 0, 1
"""The indices that every row has."""


def lowering_of(table: Mapping[Any, Any], brick: Any) -> Any:
    """The row of a brick's class.

    Raises:
        LoweringError: there is none.
    """
    kind = type(brick)
    if kind not in table:
        raise LoweringError(f"no lowering for {kind.__module__}.{kind.__qualname__}; engine=torch runs it")
    return table[kind]


# ---- vectors ------------------------------------------------------------------------------------------------------

NORMS: Mapping[type[nn.Module], Callable[[Any], Norm]] = {
    nn.Identity: lambda brick: Norm(),
    RMSNorm: lambda brick: Norm(plan.RMS, brick.weight, None, brick.eps),
    LayerNorm: lambda brick: Norm(plan.LAYER, brick.weight, brick.bias, brick.eps),
}

ACTIVATIONS: Mapping[Callable[[Tensor], Tensor], int] = {
    relu: plan.RELU,
    relu_squared: plan.RELU_SQUARED,
    gelu: plan.GELU,
    gelu_tanh: plan.GELU_TANH,
    F.silu: plan.SILU,
    F.sigmoid: plan.SIGMOID,
}


class Normed(NamedTuple):
    """What half a block reads: norm(x), made in the form that whoever reads it wants."""

    x: States
    norm: Norm

    def read(self, writer: Writer, form: int) -> States:
        return writer.prepare(self.x, self.x.width, form=form, norm=self.norm)


def norm_of(brick: nn.Module) -> Norm:
    norm: Norm = lowering_of(NORMS, brick)(brick)
    return norm


def matrix(writer: Writer, linear: nn.Module) -> Weight:
    """
    Raises:
        LoweringError: what stands there is not a plain linear map.
    """
    lowering_of({nn.Linear: None}, linear)
    return writer.weight(linear.weight)  # type: ignore[arg-type]


# ---- embeddings ---------------------------------------------------------------------------------------------------


def token_embedding(brick: TokenEmbedding, writer: Writer, x: States) -> None:
    writer.n_tokens = brick.weight.size(0)
    factor = math.sqrt(brick.weight.size(1)) if type(brick) is ScaledTokenEmbedding else 1.0
    writer.gather(x, writer.weight(brick.weight), index=TOKEN, factor=factor)


def token_and_position_embedding(brick: TokenAndPositionEmbedding, writer: Writer, x: States) -> None:
    embed(brick.tokens, writer, x)
    positions = brick.positions
    if type(positions) is LearnedPositionEmbedding:
        writer.gather(x, packed(positions.weight, "float32"), index=POSITION, add=True)
        return
    lowering_of({SinusoidalPositionEmbedding: None}, positions)
    empty = packed(torch.zeros(1, x.width), "float32")
    row = writer.gather(x, empty, index=POSITION, add=True)
    writer.table(positions, lambda n: positions(torch.arange(n)), row, plan.WEIGHT)


def ngram_rows(brick: NgramEmbedding, which: int, tokens: Tensor, positions: Tensor) -> Tensor:
    return brick.rows(tokens, positions)[which]


def ngram_embedding(brick: NgramEmbedding, writer: Writer, x: States) -> None:
    embed(brick.tokens, writer, x)
    for back, table in enumerate(brick.ngrams, start=1):
        index = writer.index(partial(ngram_rows, brick, back - 1))
        writer.gather(x, writer.weight(table.weight), index=index, add=True)  # type: ignore[arg-type]


EMBEDDINGS: Mapping[type[nn.Module], Callable[[Any, Writer, States], None]] = {
    TokenEmbedding: token_embedding,
    ScaledTokenEmbedding: token_embedding,
    TokenAndPositionEmbedding: token_and_position_embedding,
    NgramEmbedding: ngram_embedding,
}


def embed(brick: nn.Module, writer: Writer, x: States) -> None:
    """x = the states of the tokens."""
    lowering_of(EMBEDDINGS, brick)(brick, writer, x)


# ---- attention ----------------------------------------------------------------------------------------------------

ROPES: Mapping[type[nn.Module], int] = {
    NoPositions: plan.NOT_TURNED,
    RotaryEmbedding: plan.HALVES,
    InterleavedRotaryEmbedding: plan.NEIGHBOURS,
}
BIASES = {Alibi: None, T5Bias: None}


def turns(rope: RotaryEmbedding, n: int) -> Tensor:
    """Cosines and signed sines of positions 0 to n - 1: (n, 2R)."""
    return torch.cat(rope.cos_sin(torch.arange(n), torch.float32), -1)[0]


def distances(bias: nn.Module, n: int) -> Tensor:
    """What a key 0 to n - 1 positions back adds to the score: (H, n)."""
    scores: Tensor = bias(torch.tensor([n - 1]), torch.arange(n - 1, -1, -1))
    return scores[:, 0].float()


def attention(brick: Attention, writer: Writer, layer: int, x: Normed, out: States, add: bool) -> None:
    """out (+)= attention of x."""
    n_kv_heads, d = brick.n_kv_heads, brick.d_head
    n_heads = brick.q_proj.out_features // d
    q_norm, k_norm = norm_of(brick.q_norm), norm_of(brick.k_norm)
    if (q_norm.kind, q_norm.eps) != (k_norm.kind, k_norm.eps):
        raise LoweringError("no lowering for queries and keys with different norms; engine=torch runs them")
    qkv = writer.scratch("qkv", (n_heads + 2 * n_kv_heads) * d)
    parts, start = [], 0
    for linear in (brick.q_proj, brick.k_proj, brick.v_proj):
        width = linear.out_features
        parts.append(Product(matrix(writer, linear), qkv.after(start, width), linear.bias))
        start += width
    writer.linear(x.read(writer, parts[0].weight.form), parts)
    rope: Any = brick.rope
    kind = lowering_of(ROPES, rope)
    heads = {"IN": qkv.address, "IN_STRIDE": qkv.stride, "N_HEADS": n_heads, "N_KV_HEADS": n_kv_heads, "D_HEAD": d}
    row = writer.step(
        plan.STORE,
        **heads,
        LAYER_INDEX=layer,
        NORM=q_norm.kind,
        NORM_WEIGHT=writer.address(q_norm.weight),
        NORM_BIAS=writer.address(q_norm.bias),
        K_NORM_WEIGHT=writer.address(k_norm.weight),
        K_NORM_BIAS=writer.address(k_norm.bias),
        EPS=bits(q_norm.eps),
        TURN=kind,
        D_ROTARY=0 if kind == plan.NOT_TURNED else rope.d_rotary,
    )
    if kind != plan.NOT_TURNED:
        writer.table(rope, lambda n: turns(rope, n), row, plan.TURNS)
    mixed = writer.scratch("mixed", n_heads * d)
    row = writer.step(
        plan.ATTEND,
        **heads,
        LAYER_INDEX=layer,
        OUT=mixed.address,
        OUT_STRIDE=mixed.stride,
        SCALE=bits(d**-0.5 if brick.scale is None else brick.scale),
        WINDOW=brick.window or 0,
        SINKS=writer.address(brick.sinks),
    )
    if brick.position_bias is not None:
        lowering_of(BIASES, brick.position_bias)
        bias = brick.position_bias
        writer.table(bias, lambda n: distances(bias, n), row, plan.DISTANCES)
    product(writer, brick.o_proj, mixed, out, add=add)


def product(
    writer: Writer, linear: nn.Linear, x: States, out: States, *, add: bool, activation: int = 0, gate: int = 0
) -> None:
    """out (+)= linear(activation(x))."""
    weight = matrix(writer, linear)
    prepared = writer.prepare(x, weight.width, form=weight.form, activation=activation, gate=gate, name="product")
    writer.linear(prepared, [Product(weight, out, linear.bias, add)])


# ---- feed-forward -------------------------------------------------------------------------------------------------


def activation_of(brick: Any) -> int:
    """
    Raises:
        LoweringError: there is none for it.
    """
    if brick.activation not in ACTIVATIONS:
        raise LoweringError(f"no lowering for the activation {brick.activation}; engine=torch runs it")
    return ACTIVATIONS[brick.activation]


def mlp(brick: MLP, writer: Writer, x: Normed, out: States, add: bool) -> None:
    inside = writer.scratch("inside", brick.up_proj.out_features)
    weight = matrix(writer, brick.up_proj)
    writer.linear(x.read(writer, weight.form), [Product(weight, inside, brick.up_proj.bias)])
    activation = activation_of(brick)
    product(writer, brick.down_proj, inside, out, add=add, activation=activation)


def gated_mlp(brick: Any, writer: Writer, x: Normed, out: States, add: bool) -> None:
    width = brick.gate_proj.out_features
    inside = writer.scratch("inside", 2 * width)
    gate, up = inside.after(0, width), inside.after(width, width)
    products = [Product(matrix(writer, brick.gate_proj), gate), Product(matrix(writer, brick.up_proj), up)]
    writer.linear(x.read(writer, products[0].weight.form), products)
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
    for name, place in (("gate_proj", inside.after(0, width)), ("up_proj", inside.after(width, width))):
        weights = [matrix(writer, getattr(expert, name)) for expert in all_experts]
        if name == "gate_proj":
            states = x.read(writer, weights[0].form)
        writer.experts(states, weights, place, routes, n_active, add=False)
    down = [matrix(writer, expert.down_proj) for expert in all_experts]
    activation = activation_of(all_experts[0])
    states = writer.prepare(
        inside, width, form=down[0].form, activation=activation, gate=width, name="product", repeats=n_active
    )
    writer.experts(states, down, out, routes, n_active, add=True)
    if beside is not None:
        writer.prepare(beside, out.width, form=plan.PLAIN, out=out, add=True)


FEED_FORWARDS: Mapping[type[nn.Module], Callable[[Any, Writer, Normed, States, bool], None]] = {
    MLP: mlp,
    GLU: gated_mlp,
    SwiGLU: gated_mlp,
    GeGLU: gated_mlp,
    ReGLU: gated_mlp,
    NoFeedForward: no_feed_forward,
    MoE: moe,
}
MIXERS: Mapping[type[nn.Module], Callable[[Any, Writer, int, Normed, States, bool], None]] = {Attention: attention}


def mix(brick: nn.Module, writer: Writer, layer: int, x: Normed, out: States, add: bool) -> None:
    lowering_of(MIXERS, brick)(brick, writer, layer, x, out, add)


def think(brick: nn.Module, writer: Writer, x: Normed, out: States, add: bool) -> None:
    lowering_of(FEED_FORWARDS, brick)(brick, writer, x, out, add)


# ---- blocks -------------------------------------------------------------------------------------------------------


def pre_norm_block(block: PreNormBlock, writer: Writer, layer: int, x: States) -> None:
    mix(block.attn, writer, layer, Normed(x, norm_of(block.norm1)), x, add=True)
    think(block.ffn, writer, Normed(x, norm_of(block.norm2)), x, add=True)


def post_norm_block(block: PostNormBlock, writer: Writer, layer: int, x: States) -> None:
    mix(block.attn, writer, layer, Normed(x, Norm()), x, add=True)
    writer.prepare(x, x.width, form=plan.PLAIN, norm=norm_of(block.norm1), out=x)
    think(block.ffn, writer, Normed(x, Norm()), x, add=True)
    writer.prepare(x, x.width, form=plan.PLAIN, norm=norm_of(block.norm2), out=x)


def sandwich_norm_block(block: SandwichNormBlock, writer: Writer, layer: int, x: States) -> None:
    half = writer.scratch("half", x.width)
    mix(block.attn, writer, layer, Normed(x, norm_of(block.norm1)), half, add=False)
    writer.prepare(half, x.width, form=plan.PLAIN, norm=norm_of(block.attn_norm), out=x, add=True)
    think(block.ffn, writer, Normed(x, norm_of(block.norm2)), half, add=False)
    writer.prepare(half, x.width, form=plan.PLAIN, norm=norm_of(block.ffn_norm), out=x, add=True)


def parallel_block(block: ParallelBlock, writer: Writer, layer: int, x: States) -> None:
    half, y = writer.scratch("half", x.width), Normed(x, norm_of(block.norm))
    mix(block.attn, writer, layer, y, half, add=False)
    think(block.ffn, writer, y, x, add=True)
    writer.prepare(half, x.width, form=plan.PLAIN, out=x, add=True)


BLOCKS: Mapping[type[nn.Module], Callable[[Any, Writer, int, States], None]] = {
    PreNormBlock: pre_norm_block,
    PostNormBlock: post_norm_block,
    SandwichNormBlock: sandwich_norm_block,
    ParallelBlock: parallel_block,
}


# ---- the whole ----------------------------------------------------------------------------------------------------


def lower_body(model: Decoder, writer: Writer) -> States:
    """From tokens to what the head reads; returns where that is.

    Raises:
        LoweringError: a part has no lowering.
    """
    lowering_of({Decoder: None}, model)
    weight = next(model.embed.parameters())
    x = writer.states(weight.size(1))
    embed(model.embed, writer, x)
    for layer, block in enumerate(model.blocks):
        lowering_of(BLOCKS, block)(block, writer, layer, x)
    norm = norm_of(model.norm)
    if norm.kind != plan.NO_NORM:
        writer.prepare(x, x.width, form=plan.PLAIN, norm=norm, out=x)
    return x


def lower_head(model: Decoder, writer: Writer) -> int:
    """From states to logits; returns how many there are. Where states and logits lie is filled in when it runs."""
    head: Any = model.lm_head
    if type(head) is nn.Identity:
        return writer.n_tokens
    weight = matrix(writer, head)
    nowhere = States(torch.empty(0), weight.width, weight.width)
    prepared = writer.prepare(nowhere, weight.width, form=weight.form)
    writer.linear(prepared, [Product(weight, nowhere._replace(width=weight.rows, stride=weight.rows), head.bias)])
    return weight.rows
