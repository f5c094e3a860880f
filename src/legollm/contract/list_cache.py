"""The shortest cache there can be: lists. What every other cache is measured against, and what the checks use."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from legollm.components.masks import Causal, Ragged
from legollm.interfaces import Mask


class ListLayerCache:
    """One layer's keys and values, a list entry per call."""

    def __init__(self) -> None:
        self.k: list[Tensor] = []
        self.v: list[Tensor] = []

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """k and v: (B, K, T, Dh) of the new tokens -> (B, K, S, Dh) of all so far."""
        self.k.append(k)
        self.v.append(v)
        return torch.cat(self.k, 2), torch.cat(self.v, 2)

    @property
    def shape(self) -> tuple[int, int]:
        """(K, Dh) of what it was given last."""
        return self.k[-1].size(1), self.k[-1].size(3)


class ListCache:
    """Remembers every token; see Cache in interfaces.py."""

    def __init__(self, n_layers: int) -> None:
        self.n_layers = n_layers
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.length = 0
        self.layers: Sequence[ListLayerCache] = [ListLayerCache() for _ in range(self.n_layers)]
        self.positions: list[Tensor] = []
        self.tokens: list[Tensor] = []

    def at_once(self, n_tokens: int) -> int:
        """All of them."""
        return n_tokens

    def place(self, n_tokens: int, positions: Tensor | None) -> tuple[Tensor, Mask]:
        """The next positions, or those that are given, with the mask of rows of unequal length."""
        if positions is None:
            return torch.arange(self.length, self.length + n_tokens), Causal()
        self.positions.append(positions)
        return positions, Ragged(positions, torch.cat(self.positions, 1))

    def with_before(self, tokens: Tensor, n_before: int) -> Tensor:
        """The new tokens with those before them."""
        self.tokens.append(tokens)
        held = F.pad(torch.cat(self.tokens, 1), (n_before, 0))
        return held[:, held.size(1) - n_before - tokens.size(1) :]

    def advance(self, n_tokens: int) -> None:
        self.length += n_tokens

    def truncate(self, length: int) -> None:
        """Forget the columns from `length` on."""
        for layer in self.layers:
            if layer.k:
                layer.k, layer.v = ([torch.cat(part, 2)[:, :, :length]] for part in (layer.k, layer.v))
        self.positions = [torch.cat(self.positions, 1)[:, :length]] if self.positions else []
        self.tokens = [torch.cat(self.tokens, 1)[:, :length]] if self.tokens else []
        self.length = length
