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

STUDS: Mapping[str, tuple[str, ...]] = {
    "model": ("tokens",),
    "embedding": ("tokens", "positions"),
    "positions": ("positions",),
    "rotary": ("q", "k", "positions"),
    "position_bias": ("query_positions", "key_positions"),
    "mixer": ("x", "positions", "mask", "cache"),
    "block": ("x", "positions", "mask", "cache"),
    "ffn": ("x",),
    "norm": ("x",),
}
"""Where a part can go, and what its forward is given there."""


def make_part(target: Any, name: str) -> nn.Module:
    """A module out of a class or a function: parameters without a default get their values from SIZES.

    Raises:
        ConfigError: it is no class and no function, wants something else, or gives something that is no module.
    """
    if not callable(target) or isinstance(target, nn.Module):
        raise ConfigError(f"{name}: expected a class or a function that makes a module, found {type(target).__name__}")
    values: dict[str, Any] = {**SIZES, "rope": RotaryEmbedding(D_HEAD, theta=10_000.0)}
    needed = [p for p in inspect.signature(target).parameters.values() if p.default is p.empty and p.kind not in STARS]
    if unknown := [p.name for p in needed if p.name not in values]:
        raise ConfigError(
            f"{name}: nobody knows a value for {', '.join(unknown)}; give a default, use the names "
            f"{', '.join(values)}, or name a function without parameters that makes one"
        )
    plain = [values[p.name] for p in needed if p.kind is p.POSITIONAL_ONLY]
    try:
        part = target(*plain, **{p.name: values[p.name] for p in needed if p.kind is not p.POSITIONAL_ONLY})
    except Exception as error:  # whatever the user's own class does
        raise ConfigError(f"{name}: cannot be built: {type(error).__name__}: {error}") from error
    if not isinstance(part, nn.Module):
        raise ConfigError(f"{name}: expected a torch.nn.Module, found {type(part).__name__}")
    return part


STARS = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def stud_of(part: nn.Module, target: Any, name: str) -> str:
    """Where a part goes, by the names of what its forward and its constructor take.

    Raises:
        ConfigError: it fits nowhere, or in two places.
    """
    names = [p.name for p in inspect.signature(part.forward).parameters.values() if p.kind not in STARS]
    for first, stud in {"q": "rotary", "query_positions": "position_bias", "positions": "positions"}.items():
        if names[:1] == [first]:
            return stud
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


def refuse_misfit(part: nn.Module, stud: str, name: str) -> None:
    """
    Raises:
        ConfigError: forward cannot be called with what that place gives it, or the attribute a cache needs is missing.
    """
    taken = STUDS[stud]
    try:
        inspect.signature(part.forward).bind(*taken)
    except TypeError as error:
        found = ", ".join(inspect.signature(part.forward).parameters)
        raise ConfigError(
            f"{name}: forward({found}) cannot be called as forward({', '.join(taken)}), as a {stud} is: {error}"
        ) from error
    owner = {"mixer": part, "model": part, "block": getattr(part, "attn", None)}.get(stud)
    attribute = "kv_shapes" if stud == "model" else "kv_shape"
    if stud in ("mixer", "model", "block") and not hasattr(owner, attribute):
        whose = "its attn" if stud == "block" else "it"
        raise ConfigError(
            f"{name}: {whose} has no {attribute}, the heads and width (K, Dh) of the keys and values a cache keeps"
        )


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
