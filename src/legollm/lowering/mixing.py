"""Mixing across tokens: what attention becomes in a plan."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from legollm.components.attention import Attention
from legollm.components.positions import Alibi, InterleavedRotaryEmbedding, NoPositions, RotaryEmbedding, T5Bias
from legollm.errors import LoweringError
from legollm.kernels import plan
from legollm.lowering.table import Normed, lowering_of, matrix, norm_of, product, products
from legollm.lowering.writer import Product, States, Writer, bits

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
    products(writer, x, parts)
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


MIXERS: Mapping[type[nn.Module], Callable[[Any, Writer, int, Normed, States, bool], None]] = {Attention: attention}


def mix(brick: nn.Module, writer: Writer, layer: int, x: Normed, out: States, add: bool) -> None:
    lowering_of(MIXERS, brick)(brick, writer, layer, x, out, add)
