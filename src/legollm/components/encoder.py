# mypy: disable-error-code="no-any-return"
"""The encoder: reads a whole text at once, every token seeing all others."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from legollm.components.masks import Everything


class Encoder(nn.Module):
    """An embedding, a stack of blocks and a final norm, without a causal mask (Vaswani et al. 2017, arXiv:1706.03762).

    The blocks are those of a decoder: what they may see is the mask's business.
    """

    def __init__(self, *, embed: nn.Module, blocks: Sequence[nn.Module], norm: nn.Module) -> None:
        super().__init__()
        self.embed, self.blocks, self.norm = embed, nn.ModuleList(blocks), norm

    def forward(self, tokens: Tensor, positions: Tensor | None = None) -> Tensor:
        """tokens: (B, S) int64 -> states (B, S, D).

        positions: None, or (B, S) for rows of unequal length, -1 at padding, whose states mean nothing.
        """
        mask = text_of(tokens, positions)
        if positions is None:
            positions = torch.arange(tokens.size(1), device=tokens.device)
        x = self.embed(tokens, positions)  # (B, S, D)
        for block in self.blocks:
            x = block(x, positions, mask)
        return self.norm(x)


def text_of(tokens: Tensor, positions: Tensor | None) -> Everything:
    """All columns that hold text: what each token of a text sees, and what those see that look at it from outside."""
    return Everything(tokens.device, positions)


class SegmentedEmbedding(nn.Module):
    """Token, position and segment vectors, added and normalised (BERT; Devlin et al. 2018, arXiv:1810.04805).

    A text is one segment, the first; what the table holds besides tells the second text of a pair from the first.
    """

    def __init__(
        self, *, tokens: nn.Module, positions: nn.Module, n_segments: int, norm: nn.Module, d_model: int, dropout: float
    ) -> None:
        super().__init__()
        self.tokens, self.positions, self.norm = tokens, positions, norm
        self.segments = nn.Parameter(torch.empty(n_segments, d_model).normal_(std=0.02))
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """tokens: (B, S), positions: (S,) or (B, S) -> (B, S, D)."""
        x = self.tokens(tokens, positions) + self.positions(positions) + self.segments[0]
        return self.dropout(self.norm(x))


class EncoderClassifier(nn.Module):
    """An encoder whose state of the first token decides for a whole text (Devlin et al. 2018, arXiv:1810.04805)."""

    def __init__(self, *, encoder: Encoder, pooler: nn.Module, head: nn.Module, dropout: float = 0.0) -> None:
        super().__init__()
        self.encoder, self.pooler, self.head = encoder, pooler, head
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, positions: Tensor | None = None) -> Tensor:
        """tokens: (B, S) int64 -> logits of the labels, (B, C).

        positions: None, or (B, S) for rows of unequal length, -1 at padding.
        """
        states = self.encoder(tokens, positions)  # (B, S, D)
        if positions is None:
            first = states[:, 0]
        else:
            column = (positions == 0).int().argmax(1)  # 0 unless padding stands to the left
            first = states[torch.arange(tokens.size(0), device=tokens.device), column]
        return self.head(self.dropout(self.pooler(first).tanh()))
