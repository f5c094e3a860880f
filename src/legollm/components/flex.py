"""PyTorch's FlexAttention: a kernel compiled for the mask at hand, which skips what the mask hides whole."""

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from legollm.errors import ConfigError


@cache
def compiled_flex_attention() -> Any:
    """Compiled for each kind of mask and bias, half a minute on a CPU, and kept."""
    return torch.compile(flex_attention)


def attend_flex(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    allowed: Tensor | None,
    *,
    bias: Tensor | None,
    sinks: Tensor | None,
    scale: float | None,
) -> Tensor:
    """Dong et al. 2024, arXiv:2412.05496. Arguments as in `attend_tiled`.

    Raises:
        ConfigError: gradients on a CPU, for which PyTorch has no kernel; or no compiler, or none for these numbers.
    """
    B, T, S = q.size(0), q.size(2), k.size(2)
    if q.device.type == "cpu":
        if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (q, k, v, bias, sinks)):
            raise ConfigError("backend: flex has no gradients on a CPU; use sdpa, naive or tiled")
        q, k, v = q.detach(), k.detach(), v.detach()  # it looks at requires_grad also where nobody asks for gradients
        bias, sinks = (None if t is None else t.detach() for t in (bias, sinks))

    def visible(b: Tensor, h: Tensor, row: Tensor, column: Tensor) -> Tensor:
        if allowed is None:
            return (column <= row + S - T) | (column == S)
        key = column.clamp(max=S - 1)
        return (allowed[row, key] if allowed.dim() == 2 else allowed[b, 0, row, key]) | (column == S)

    def score(product: Tensor, b: Tensor, h: Tensor, row: Tensor, column: Tensor) -> Tensor:
        key = column.clamp(max=S - 1)
        if bias is not None:
            product = product + (bias[h, row, key] if bias.dim() == 3 else bias[b, h, row, key])
        return product if sinks is None else torch.where(column == S, sinks[h], product)

    if sinks is not None:  # as in `attend_sdpa`: one more key, whose value is nothing
        k, v = F.pad(k, (0, 0, 0, 1)), F.pad(v, (0, 0, 0, 1))
    rows = B if allowed is not None and allowed.dim() == 4 else None
    blocks = create_block_mask(visible, rows, None, T, k.size(2), device=q.device)
    grouped = q.size(1) != k.size(1)
    try:
        y: Tensor = compiled_flex_attention()(
            q, k, v, score_mod=score, block_mask=blocks, scale=scale, enable_gqa=grouped
        )
    except RuntimeError as error:  # the compiler's own kind is one; importing its name costs a second
        why = str(error).splitlines()[0]
        raise ConfigError(f"backend: flex does not compile here, {why}; use sdpa, naive or tiled") from error
    return y
