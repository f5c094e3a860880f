# mypy: disable-error-code="no-any-return"
"""The whole transformer: an encoder reads the source, a decoder writes the target and looks at what was read."""

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from legollm.components.cross_attention import LayerMemory
from legollm.components.decoder import Decoder
from legollm.components.encoder import Encoder, text_of
from legollm.interfaces import LayerCache, Mask


class PreNormCrossBlock(nn.Module):
    """Normalise and add, three times: mix, look at the source, think (as T5; Raffel et al. 2019, arXiv:1910.10683)."""

    def __init__(
        self,
        *,
        norm1: nn.Module,
        attn: nn.Module,
        cross_norm: nn.Module,
        cross_attn: nn.Module,
        norm2: nn.Module,
        ffn: nn.Module,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1, self.attn = norm1, attn
        self.cross_norm, self.cross_attn = cross_norm, cross_attn
        self.norm2, self.ffn = norm2, ffn
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, positions: Tensor, mask: Mask, cache: LayerCache | None, memory: LayerMemory
    ) -> Tensor:
        """x: (B, T, D), positions: (T,) or (B, T) -> (B, T, D)."""
        x = x + self.dropout(self.attn(self.norm1(x), positions, mask, cache))
        x = x + self.dropout(self.cross_attn(self.cross_norm(x), memory))
        return x + self.dropout(self.ffn(self.norm2(x)))


class PostNormCrossBlock(nn.Module):
    """Add and normalise, three times: mix, look at the source, think (Vaswani et al. 2017, arXiv:1706.03762)."""

    def __init__(
        self,
        *,
        norm1: nn.Module,
        attn: nn.Module,
        cross_norm: nn.Module,
        cross_attn: nn.Module,
        norm2: nn.Module,
        ffn: nn.Module,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1, self.attn = norm1, attn
        self.cross_norm, self.cross_attn = cross_norm, cross_attn
        self.norm2, self.ffn = norm2, ffn
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, positions: Tensor, mask: Mask, cache: LayerCache | None, memory: LayerMemory
    ) -> Tensor:
        """x: (B, T, D), positions: (T,) or (B, T) -> (B, T, D)."""
        x = self.norm1(x + self.dropout(self.attn(x, positions, mask, cache)))
        x = self.cross_norm(x + self.dropout(self.cross_attn(x, memory)))
        return self.norm2(x + self.dropout(self.ffn(x)))


class InformedBlock(nn.Module):
    """A block together with its memory of one source: a decoder block like any other (Vaswani et al. 2017, fig. 1)."""

    def __init__(self, block: Any, memory: LayerMemory) -> None:
        super().__init__()
        self.block, self.memory = block, memory

    @property
    def attn(self) -> nn.Module:
        """The layer that a cache serves."""
        return self.block.attn

    def forward(self, x: Tensor, positions: Tensor, mask: Mask, cache: LayerCache | None = None) -> Tensor:
        """x: (B, T, D), positions: (T,) or (B, T) -> (B, T, D)."""
        return self.block(x, positions, mask, cache, self.memory)


class EncoderDecoder(nn.Module):
    """An encoder, and a decoder whose blocks look at its states (Vaswani et al. 2017, arXiv:1706.03762).

    Given a source, what is left is a Decoder: masks, caches, sampling and the decode loop know nothing else.
    """

    def __init__(
        self,
        *,
        encoder: Encoder,
        embed: nn.Module,
        blocks: Sequence[nn.Module],
        norm: nn.Module,
        lm_head: nn.Module,
    ) -> None:
        super().__init__()
        self.encoder, self.embed, self.blocks = encoder, embed, nn.ModuleList(blocks)
        self.norm, self.lm_head = norm, lm_head

    def forward(
        self,
        source: Tensor,
        tokens: Tensor,
        source_positions: Tensor | None = None,
        positions: Tensor | None = None,
        at: Tensor | None = None,
    ) -> Tensor:
        """source: (B, S), tokens: (B, T), both int64 -> logits of the target token that follows each, (B, T, V).

        source_positions, positions: None, or (B, S) and (B, T) for rows of unequal length, -1 at padding.
        at: None, or (B, T) bool: logits are wanted only there, and come as (N, V).
        """
        return self.given(source, source_positions)(tokens, positions, at=at)

    def given(self, source: Tensor, source_positions: Tensor | None = None) -> Decoder:
        """Read a source, (B, S): the model of its targets, which shares all weights.

        Keys and values of the source are made here, once, however many tokens are then written.
        """
        states = self.encoder(source, source_positions)  # (B, S, D)
        mask = text_of(source, source_positions)
        blocks: Iterable[Any] = self.blocks
        return Decoder(
            embed=self.embed,
            blocks=[InformedBlock(block, block.cross_attn.remember(states, mask)) for block in blocks],
            norm=self.norm,
            lm_head=self.lm_head,
        )
