# mypy: disable-error-code="no-any-return"
"""Vectors for the last few tokens together: what a pair or a triple means need not be found out by attention."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from legollm.components.positions import TokenEmbedding


class NgramEmbedding(nn.Module):
    """A vector of the token, plus one of the pair that ends there, one of the triple, and so on.

    Tables have fewer rows than there are n-grams; which row one has is a hash of it, and those that share a row are
    told apart by the layers above (Roy et al. 2022, arXiv:2207.06366; Huang et al. 2025, arXiv:2501.16975).
    """

    def __init__(self, tokens: TokenEmbedding, n_rows: Sequence[int]) -> None:
        """n_rows: of the table of pairs, of triples, ..."""
        super().__init__()
        self.tokens, self.n_rows = tokens, tuple(n_rows)
        self.n_before = len(n_rows)
        """Tokens before the first one that `forward` has to be given."""
        self.sparse = False
        """Whether a table's gradient is a list of the rows that were looked up, which not every optimizer takes."""
        vocab_size, d_model = tokens.weight.shape
        self.base = vocab_size + 1  # one more than there are tokens: the last stands for none
        self.ngrams = nn.ModuleList(TokenEmbedding(n, d_model) for n in n_rows)

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """tokens: (B, n_before + T), positions of the last T: (T,) or (B, T) -> (B, T, D).

        What lies before position 0 is no token, whatever `tokens` holds there.
        """
        x = self.tokens(tokens[:, self.n_before :], positions)
        for table, rows in zip(self.ngrams.parameters(), self.rows(tokens, positions), strict=True):
            x = x + F.embedding(rows, table, sparse=self.sparse)
        return x

    def rows(self, tokens: Tensor, positions: Tensor) -> list[Tensor]:
        """The row of each table: tokens (B, n_before + T), positions of the last T -> (B, T) for each."""
        key, found = tokens[:, self.n_before :], []
        for back, n_rows in enumerate(self.n_rows, start=1):
            before = tokens[:, self.n_before - back : tokens.size(1) - back]
            key = key + torch.where(positions >= back, before, self.base - 1) * self.base**back
            found.append(key % n_rows)
        return found
