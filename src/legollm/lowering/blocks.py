"""A whole decoder as the steps of a plan: its embedding, its blocks in order, its norm and its head."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from legollm.components.blocks import ParallelBlock, PostNormBlock, PreNormBlock, SandwichNormBlock
from legollm.components.decoder import Decoder
from legollm.kernels import plan
from legollm.lowering.embeddings import embed
from legollm.lowering.mixing import mix
from legollm.lowering.table import Normed, lowering_of, matrix, norm_of
from legollm.lowering.thinking import think
from legollm.lowering.writer import Norm, Product, States, Writer


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
