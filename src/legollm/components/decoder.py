# mypy: disable-error-code="no-any-return"
"""The decoder-only transformer: embedding, a stack of blocks, a final norm and a head."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from legollm.components.masks import Causal, Ragged
from legollm.interfaces import Cache, LayerCache, Mask


class Decoder(nn.Module):
    """A causal language model out of any bricks that fit.

    max_seq_len: positions the embedding has; None where any number works. n_before: tokens before the new ones that
    the embedding looks at.
    """

    def __init__(
        self,
        *,
        embed: nn.Module,
        blocks: Sequence[nn.Module],
        norm: nn.Module,
        lm_head: nn.Module,
        max_seq_len: int | None = None,
        n_before: int = 0,
    ) -> None:
        super().__init__()
        self.embed, self.blocks, self.norm, self.lm_head = embed, nn.ModuleList(blocks), norm, lm_head
        self.max_seq_len, self.n_before = max_seq_len, n_before

    @property
    def kv_shapes(self) -> list[tuple[int, int]]:
        """(K, Dh) of every block, in order: what a cache for this model holds per token."""
        blocks: Iterable[Any] = self.blocks
        return [block.attn.kv_shape for block in blocks]

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        cache: Cache | None = None,
        at: Tensor | None = None,
        mask: Mask | None = None,
    ) -> Tensor:
        """tokens: (B, T) int64 -> logits (B, T, V). With a cache, `tokens` continue what it holds.

        positions: None, or (B, T) for rows of unequal length, -1 at padding.
        at: None, or (B, T) bool: logits are wanted only there, and come as (N, V). The head is often half the work.
        mask: what tokens see where that is not all before them: a prefix in both directions, their own document.
        """
        x = self.hidden(tokens, positions, cache, mask)
        return self.lm_head(x if at is None else x[at])

    def hidden(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        cache: Cache | None = None,
        mask: Mask | None = None,
    ) -> Tensor:
        """The states before `lm_head`, (B, T, D), for those who do not want all logits at once."""
        usual: Mask
        layers: Sequence[LayerCache | None] = [None] * len(self.blocks)
        if cache is not None:
            layers = cache.layers
            positions, usual = cache.place(tokens.size(1), positions)
        elif positions is not None:
            usual = Ragged(positions, positions)
        else:
            positions, usual = torch.arange(tokens.size(1), device=tokens.device), Causal()
        mask = usual if mask is None else mask
        n_new = tokens.size(1)
        if self.n_before:
            pad = (self.n_before, 0)
            tokens = F.pad(tokens, pad) if cache is None else cache.with_before(tokens, self.n_before)
        x = self.embed(tokens, positions)  # (B, T, D)
        for block, layer in zip(self.blocks, layers, strict=True):
            x = block(x, positions, mask, layer)
        if cache is not None:
            cache.advance(n_new)
        return self.norm(x)
