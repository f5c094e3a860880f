"""The states of tokens: what each kind of embedding becomes in a plan."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from legollm.components.ngram_embedding import NgramEmbedding
from legollm.components.positions import (
    LearnedPositionEmbedding,
    ScaledTokenEmbedding,
    SinusoidalPositionEmbedding,
    TokenAndPositionEmbedding,
    TokenEmbedding,
)
from legollm.kernels import plan
from legollm.lowering.table import lowering_of
from legollm.lowering.weights import packed
from legollm.lowering.writer import States, Writer

TOKEN, POSITION = 0, 1
"""The indices that every row has."""


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
