"""Looking into a decoder while it reads a text: what every head attends to, every block makes, every router decides.

Hooks listen to bricks as they run and change nothing: the logits are the same in every bit with and without them.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from legollm.components.attention import Attention, attend, key_positions
from legollm.components.decoder import Decoder
from legollm.components.masks import Near
from legollm.components.routing import Router, Routing
from legollm.interfaces import Mask


@dataclass
class Look:
    """What was seen while a text of T tokens was read."""

    logits: Tensor = field(default_factory=lambda: torch.empty(0))
    """(T, V)."""
    states: list[Tensor] = field(default_factory=list)
    """(T, D) each: what the embedding made, then what each block made of it."""
    attention: dict[int, Tensor] = field(default_factory=dict)
    """By block, (H, T, T) float32 at least: how much each query, a row, takes from each key."""
    routing: dict[int, Routing] = field(default_factory=dict)
    """By block, of the T tokens."""


@torch.inference_mode()
def look(model: nn.Module, ids: Tensor) -> Look:
    """Let `model` read a text and watch it. ids: (T,) int64.

    Of a model that is not a Decoder there are only logits, and of a brick that is not ours there is nothing to see.
    """
    seen, was_training = Look(), model.training
    model.eval()
    try:
        with watched(model, seen):
            seen.logits = model(ids[None])[0]
    finally:
        model.train(was_training)
    return seen


@contextmanager
def watched(model: nn.Module, seen: Look) -> Iterator[None]:
    """Inside, each forward of `model` for one row writes into `seen`."""
    hooks: list[RemovableHandle] = []
    try:
        if isinstance(model, Decoder):
            hooks.append(model.embed.register_forward_hook(keeps_state(seen)))
            for i, block in enumerate(model.blocks):
                hooks.append(block.register_forward_hook(keeps_state(seen)))
                for part in block.modules():
                    if isinstance(part, Attention):
                        hooks += AttentionWatch(part, i, seen).hooks
                    elif isinstance(part, Router):
                        hooks.append(part.register_forward_hook(keeps_routing(seen, i)))
        yield
    finally:
        for hook in hooks:
            hook.remove()


def keeps_state(seen: Look) -> Callable[[nn.Module, Any, Tensor], None]:
    def keep(module: nn.Module, given: Any, x: Tensor) -> None:
        seen.states.append(x[0])

    return keep


def keeps_routing(seen: Look, block: int) -> Callable[[nn.Module, Any, tuple[Tensor, Routing]], None]:
    def keep(module: nn.Module, given: Any, decided: tuple[Tensor, Routing]) -> None:
        seen.routing[block] = Routing(*(part[0] for part in decided[1]))

    return keep


class AttentionWatch:
    """Takes queries and keys where they leave the rotary positions, and makes the weights out of them once more.

    The positions' brick may be shared by all blocks, so it is listened to only while this block's attention runs.
    """

    def __init__(self, attn: Attention, block: int, seen: Look) -> None:
        self.block, self.seen = block, seen
        self.now: tuple[Tensor, Mask] | None = None
        self.attn = attn
        self.hooks = [
            attn.register_forward_pre_hook(self.starts, with_kwargs=True),
            attn.rope.register_forward_hook(self.turned),
            attn.register_forward_hook(self.ends),
        ]

    def starts(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = inspect.signature(self.attn.forward).bind(*args, **kwargs).arguments
        self.now = given["positions"], given["mask"]

    def turned(self, module: nn.Module, args: Any, turned: tuple[Tensor, Tensor]) -> None:
        if self.now is not None:
            self.seen.attention[self.block] = weights_of(self.attn, *turned, *self.now)[0]

    def ends(self, module: nn.Module, args: Any, y: Tensor) -> None:
        self.now = None


def weights_of(attn: Attention, q: Tensor, k: Tensor, positions: Tensor, mask: Mask) -> Tensor:
    """What `attn` multiplies values with. q: (B, H, T, Dh), k: (B, K, T, Dh) -> (B, H, T, T), float32 at least.

    The formula is `attend`'s own: where the value of a key is the unit vector of its place, what comes out are the
    weights. As many places are asked for at a time as a head is wide.
    """
    wide = torch.promote_types(q.dtype, torch.float32)
    q, k = q.to(wide), k.to(wide)
    n_keys, width = k.shape[-2:]
    bias = None
    if attn.position_bias is not None:
        bias = attn.position_bias(positions, key_positions(mask, positions, n_keys))
    if attn.window is not None:
        mask = Near(mask, attn.window, q.device)
    units = F.pad(torch.eye(n_keys, dtype=wide, device=q.device), (0, -n_keys % width))
    parts = [
        attend(q, k, values.expand_as(k), mask, bias=bias, sinks=attn.sinks, scale=attn.scale, backend="naive")
        for values in torch.split(units, width, dim=1)
    ]
    return torch.cat(parts, -1)[..., :n_keys]
