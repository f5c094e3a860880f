"""Studs: the places of a model where a brick fits, how to tell which one fits where, and what is built around it."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from legollm.components.attention import Attention
from legollm.components.blocks import PreNormBlock
from legollm.components.decoder import Decoder
from legollm.components.feedforward import SwiGLU
from legollm.components.norm import RMSNorm
from legollm.components.outside import STARS, STUDS, build_brick, positions_kind
from legollm.components.positions import NoPositions, RotaryEmbedding, TokenAndPositionEmbedding, TokenEmbedding
from legollm.errors import ConfigError

SIZES: Mapping[str, int | float] = {
    "vocab_size": 97,
    "max_seq_len": 40,
    "n_layers": 2,
    "n_heads": 4,
    "n_kv_heads": 2,
    "d_model": 32,
    "d_head": 8,
    "d_ff": 64,
    "n_experts": 4,
    "theta": 10_000.0,
    "dropout": 0.1,
}
"""What a part under test is built with, by the names of its parameters: sizes that run in milliseconds."""
V, D, D_HEAD, D_FF = 97, 32, 8, 64


def make_part(target: Any, name: str) -> nn.Module:
    """A module out of a class or a function, its sizes those of SIZES.

    Raises:
        ConfigError: it cannot be built.
    """
    return build_brick(target, name, {**SIZES, "rope": RotaryEmbedding(D_HEAD, theta=10_000.0)})


def stud_of(part: nn.Module, target: Any, name: str) -> str:
    """Where a part goes, by the names of what its forward and its constructor take.

    Raises:
        ConfigError: it fits nowhere, or in two places.
    """
    names = [p.name for p in inspect.signature(part.forward).parameters.values() if p.kind not in STARS]
    if kind := positions_kind(part):
        return kind
    if names[:1] == ["tokens"]:
        return "model" if "cache" in names else "embedding"
    if "mask" in names:
        return "block" if hasattr(part, "attn") else "mixer"
    if len(names) == 1:
        made_of = inspect.signature(target).parameters
        for parameter, stud in {"d_ff": "ffn", "eps": "norm"}.items():
            if parameter in made_of:
                return stud
        raise ConfigError(f"{name}: forward({names[0]}) is that of an ffn and of a norm; say kind=ffn or kind=norm")
    places = "; ".join(f"{stud}({', '.join(taken)})" for stud, taken in STUDS.items())
    raise ConfigError(f"{name}: forward({', '.join(names)}) fits nowhere; possible: {places}; or say kind=")


def model_around(stud: str, make: Callable[[], nn.Module]) -> Decoder:
    """A small decoder whose parts for that stud are made by `make`; the other parts are this package's."""

    def part(here: str, otherwise: Callable[[], nn.Module]) -> nn.Module:
        return make() if here == stud else otherwise()

    def attention() -> nn.Module:
        absolute = stud in ("positions", "position_bias")
        rope = part("rotary", NoPositions if absolute else lambda: RotaryEmbedding(D_HEAD, theta=10_000.0))
        bias = make() if stud == "position_bias" else None
        return Attention(D, n_heads=4, n_kv_heads=2, d_head=D_HEAD, rope=rope, position_bias=bias)

    def block() -> nn.Module:
        return PreNormBlock(
            norm1=part("norm", lambda: RMSNorm(D)),
            attn=part("mixer", attention),
            norm2=part("norm", lambda: RMSNorm(D)),
            ffn=part("ffn", lambda: SwiGLU(D, D_FF)),
        )

    embed: nn.Module = part("embedding", lambda: TokenEmbedding(V, D))
    if stud == "positions":
        embed = TokenAndPositionEmbedding(tokens=embed, positions=make())
    head = nn.Linear(D, V, bias=False)
    nn.init.normal_(head.weight, std=0.02)
    return Decoder(
        embed=embed,
        blocks=[part("block", block) for _ in range(2)],
        norm=part("norm", lambda: RMSNorm(D)),
        lm_head=head,
    )


def tiny_config(config: type[Any], **changes: Any) -> Any:
    """The configuration of an architecture at SIZES; whatever else it has keeps its default."""
    fields = {field.name for field in dataclasses.fields(config)}
    return config(**{name: value for name, value in SIZES.items() if name in fields} | changes)


def seeded(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """`make`, with the same numbers each time it is called."""

    def again() -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return make()

    return again
