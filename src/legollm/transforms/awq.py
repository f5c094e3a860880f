"""AWQ: channels that are large in what a map reads are made larger in its weights, and smaller where they come from.

Lin et al. 2023, arXiv:2306.00978. Rounding a weight w * s and dividing what it is multiplied with by s leaves an error
that is s times smaller, as long as the largest weight of the group stays the largest. What is divided is what made the
states: a norm's weights, or the rows of the map before. So the result is a model like any other.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from legollm.components.attention import Attention
from legollm.components.blocks import ParallelBlock, PreNormBlock, SandwichNormBlock
from legollm.components.cross_attention import CrossAttention
from legollm.components.encoder_decoder import PreNormCrossBlock
from legollm.components.feedforward import MLP, GatedMLP
from legollm.components.moe import MoE
from legollm.components.norm import LayerNorm, RMSNorm
from legollm.components.quantized import Bits, plain, rounded
from legollm.transforms.calibration import Inputs

STEPS = 20
"""Strengths that are tried: s = |x|^(i / STEPS)."""


class Channels(NamedTuple):
    """States that one part makes and some linear maps read, and nothing else does."""

    maker: nn.Module
    """A norm, or a linear map."""
    readers: list[nn.Linear]


def channels_of(module: nn.Module) -> Iterator[Channels]:
    """The states within a brick whose scale may be chosen freely."""
    brick: Any = module
    if isinstance(module, Attention) and brick.v_proj.out_features == brick.o_proj.in_features:
        yield Channels(brick.v_proj, [brick.o_proj])
    elif isinstance(module, GatedMLP):
        yield Channels(brick.up_proj, [brick.down_proj])
    elif type(module) in (PreNormBlock, SandwichNormBlock):
        yield Channels(brick.norm1, readers_of(brick.attn))
        yield Channels(brick.norm2, readers_of(brick.ffn))
    elif type(module) is PreNormCrossBlock:
        yield Channels(brick.norm1, readers_of(brick.attn))
        yield Channels(brick.cross_norm, readers_of(brick.cross_attn))
        yield Channels(brick.norm2, readers_of(brick.ffn))
    elif type(module) is ParallelBlock:
        attention, ffn = readers_of(brick.attn), readers_of(brick.ffn)
        yield Channels(brick.norm, [*attention, *ffn] if attention and ffn else [])


def readers_of(module: nn.Module) -> list[nn.Linear]:
    """The linear maps that read what a brick is given; none for a brick that is not known."""
    brick: Any = module
    if type(module) is Attention:
        return [brick.q_proj, brick.k_proj, brick.v_proj]
    if type(module) is CrossAttention:
        return [brick.q_proj]
    if type(module) is MLP:
        return [brick.up_proj]
    if isinstance(module, GatedMLP):
        return [brick.gate_proj, brick.up_proj]
    if type(module) is MoE:
        parts = [readers_of(part) for part in (*brick.experts, *([brick.shared] if brick.shared is not None else []))]
        return [brick.router.proj, *(reader for part in parts for reader in part)] if all(parts) else []
    return []


@torch.no_grad()
def rescale(part: nn.Module, inputs: Mapping[nn.Module, Inputs], bits: Bits, group_size: int) -> None:
    """Choose the scales of all free channels of a part of a model, in place; it computes what it did.

    inputs: what the maps read that are going to be quantised.
    """
    for module in list(part.modules()):
        for maker, readers in channels_of(module):
            wanted = {reader: inputs[reader] for reader in readers if reader in inputs and inputs[reader].n_states}
            if not wanted or type(maker) not in (LayerNorm, RMSNorm, nn.Linear):
                continue
            s = best_scales(wanted, bits, group_size)
            for own in maker.parameters():
                own.div_((s if own.dim() == 1 else s[:, None]).to(own.dtype))
            for reader in readers:
                reader.weight.mul_(s.to(reader.weight.dtype))
            for one in {id(one): one for one in wanted.values()}.values():
                one.gram /= s[:, None] * s
                one.magnitudes /= s


def best_scales(readers: Mapping[nn.Linear, Inputs], bits: Bits, group_size: int) -> Tensor:
    """Of the strengths tried, the scales with the least error in the readers' answers; ones are among them."""
    n_states = sum(one.n_states for one in readers.values())
    magnitudes = sum((one.magnitudes * one.n_states for one in readers.values()), torch.zeros(())) / n_states
    best, least = torch.ones_like(magnitudes), float("inf")
    for step in range(STEPS):
        s = magnitudes.clamp_min(1e-8).pow(step / STEPS)
        s = (s / (s.max() * s.min()).sqrt()).clamp(1e-4, 1e4)
        error = 0.0
        for reader, inputs in readers.items():
            weight = reader.weight.detach().float()
            stands_for = plain(*rounded(weight * s, bits, group_size), weight.size(1))
            error += inputs.error(weight - stands_for / s)
        if error < least:
            best, least = s, error
    return best
