"""How a decoder knows where its tokens stand, for those who want to move them: caches that forget."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from legollm.components.attention import Attention
from legollm.components.decoder import Decoder
from legollm.components.ngram_embedding import NgramEmbedding
from legollm.components.positions import (
    Alibi,
    InterleavedRotaryEmbedding,
    NoPositions,
    RotaryEmbedding,
    ScaledTokenEmbedding,
    T5Bias,
    TokenEmbedding,
)

RELATIVE = (type(None), Alibi, T5Bias)
"""What may be added to scores and counts distances only."""
WITHOUT = (TokenEmbedding, ScaledTokenEmbedding, NgramEmbedding)
"""Embeddings that do not say where a token stands."""


@dataclass(frozen=True)
class Places:
    """What has to be done to a kept key when its token moves."""

    ropes: tuple[RotaryEmbedding | None, ...]
    """What turns the keys of each block; None where they do not know their place."""
    fixed: str | None
    """Why tokens cannot move at all, in a few words; None if they can."""


def places_of(model: nn.Module) -> Places:
    """Look at the parts of a built model. What is not known here is taken to be fixed."""
    if not isinstance(model, Decoder):
        return Places((), f"a {type(model).__name__} is not known to count distances only")
    if type(model.embed) not in WITHOUT:
        return Places((), "the vectors of absolute positions are added where the text comes in")
    ropes: list[RotaryEmbedding | None] = []
    blocks: Any = model.blocks
    for block in blocks:
        attn = block.attn
        if type(attn) is not Attention or not isinstance(attn.position_bias, RELATIVE):
            return Places((), f"{type(attn).__name__} from outside may count positions from the start")
        rope: Any = attn.rope
        if type(rope) not in (RotaryEmbedding, InterleavedRotaryEmbedding, NoPositions):
            return Places((), f"{type(rope).__name__} is not known to turn back")
        ropes.append(None if type(rope) is NoPositions else rope)
    return Places(tuple(ropes), None)


def moved(rope: RotaryEmbedding, keys: Tensor, by: Tensor) -> Tensor:
    """Keys that stand elsewhere: (..., K, S, Dh), `by` positions further, (B,) for rows (B, K, S, Dh)."""
    cos, sin = rope.cos_sin(by[:, None], keys.dtype)  # (B, 1, 1, R)
    n = rope.d_rotary
    if rope.magnitude != 1:  # which they were given before
        cos, sin = cos / rope.magnitude, sin / rope.magnitude
    turned = rope.turn(keys[..., :n], cos, sin)
    if n == keys.size(-1):
        return turned
    keys = keys.clone()
    keys[..., :n] = turned
    return keys
