# mypy: disable-error-code="no-any-return"
"""Positions: vectors for the tokens, and ways to tell the model in which order they came.

Positions are (T,) for rows of equal length, or (B, T) for ragged rows, with -1 at padding.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from legollm.errors import ConfigError, ContextError, TokenizerError


class TokenEmbedding(nn.Module):
    """A learned vector per token id; where the token stands is left to the attention layers."""

    def __init__(self, vocab_size: int, d_model: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocab_size, d_model).normal_(std=0.02))

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """tokens: (B, T) int64 -> (B, T, D).

        Raises:
            TokenizerError: an id outside the vocabulary (on a GPU the device's own assertion fires instead).
        """
        try:
            return F.embedding(tokens, self.weight)
        except IndexError as error:  # looked at only now, so that right ids pay nothing for the check
            vocab_size = self.weight.size(0)
            wrong = tokens[(tokens < 0) | (tokens >= vocab_size)][0].item()
            raise TokenizerError(
                f"token {wrong} is not among the model's ids 0 to {vocab_size - 1}; encode with the tokenizer it was "
                "trained with"
            ) from error


class ScaledTokenEmbedding(TokenEmbedding):
    """Token vectors times sqrt(D), so that they are not drowned by what is added (Vaswani et al. 2017, section 3.4)."""

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """tokens: (B, T) int64 -> (B, T, D)."""
        return super().forward(tokens, positions) * math.sqrt(self.weight.size(1))


class LearnedPositionEmbedding(nn.Module):
    """A learned vector per position: there is no position beyond the last (Radford et al. 2018)."""

    def __init__(self, max_seq_len: int, d_model: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(max_seq_len, d_model).normal_(std=0.02))

    def forward(self, positions: Tensor) -> Tensor:
        """positions: (T,) or (B, T) -> (..., T, D); padding gets the vector of position 0, which nobody looks at.

        Raises:
            ContextError: a position of max_seq_len or more (on a GPU the device's own assertion fires instead).
        """
        try:
            return F.embedding(positions.clamp(min=0), self.weight)
        except IndexError as error:
            raise ContextError(
                f"position {int(positions.max())} does not exist: max_seq_len = {self.weight.size(0)}; give the model "
                "fewer tokens or build it with a larger max_seq_len"
            ) from error


class SinusoidalPositionEmbedding(nn.Module):
    """A fixed vector per position, sines and cosines of falling frequency (Vaswani et al. 2017, arXiv:1706.03762)."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.d_model = d_model

    def forward(self, positions: Tensor) -> Tensor:
        """positions: (T,) or (B, T) -> (..., T, D) float32; channel 2i is sin(p / 10000^(2i/D)), 2i+1 its cosine."""
        channels = torch.arange(0, self.d_model, 2, device=positions.device)
        angles = positions[..., None] / 10_000.0 ** (channels / self.d_model)  # (..., T, D/2)
        return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)


class TokenAndPositionEmbedding(nn.Module):
    """The vector of the token plus the vector of its position."""

    def __init__(self, *, tokens: nn.Module, positions: nn.Module, dropout: float = 0.0) -> None:
        super().__init__()
        self.tokens, self.positions = tokens, positions
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """tokens: (B, T), positions: (T,) or (B, T) -> (B, T, D)."""
        x = self.tokens(tokens, positions)
        return self.dropout(x + self.positions(positions).to(x.dtype))


@dataclass(frozen=True, kw_only=True)
class Llama3Scaling:
    """How LLaMA 3.1 and 3.2 stretch rotary positions to longer texts (Grattafiori et al. 2024, arXiv:2407.21783).

    Channels that turn often within the original context keep their frequency, those that hardly turn are slowed down
    by `factor`, and the ones between are blended.
    """

    factor: float = 8.0
    """How many times slower the lowest frequencies become."""
    low_freq_factor: float = 1.0
    """Channels with fewer turns than this in the original context are slowed down fully."""
    high_freq_factor: float = 4.0
    """Channels with more turns than this in the original context stay as they are."""
    original_max_seq_len: int = 8192
    """Tokens the model had been trained on before it was stretched."""

    def __post_init__(self) -> None:
        if self.factor <= 0 or self.low_freq_factor >= self.high_freq_factor:
            raise ConfigError(
                f"low_freq_factor: {self.low_freq_factor} has to be below high_freq_factor = {self.high_freq_factor}, "
                f"and factor = {self.factor} above 0"
            )

    def apply(self, inv_freq: Tensor) -> Tensor:
        """Radians per token, (Dh/2,) -> (Dh/2,)."""
        turns = self.original_max_seq_len * inv_freq / (2 * math.pi)
        keep = ((turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)).clamp(0, 1)
        return (1 - keep) * inv_freq / self.factor + keep * inv_freq


class RotaryEmbedding(nn.Module):
    """Turn each pair of channels by an angle that grows with the position (Su et al. 2021, arXiv:2104.09864).

    The product of a query and a key then depends on how far apart they are, not on where they stand. Pairs are
    (i, i + Dh/2), the "half" layout.
    """

    inv_freq: Tensor
    """Radians per token, (Dh/2,); not saved, and float32 in every module, whatever its other numbers are."""

    def __init__(self, d_head: int, *, theta: float, scaling: Llama3Scaling | None = None) -> None:
        super().__init__()
        channels = torch.arange(0, d_head, 2, dtype=torch.float32, device="cpu")  # real also in a model built on meta
        inv_freq = 1.0 / theta ** (channels / d_head)
        self.register_buffer("inv_freq", scaling.apply(inv_freq) if scaling else inv_freq, persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Follow the module to its device, not to its dtype: bfloat16 angles are off by a radian at position 1000."""
        exact = self.inv_freq
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.inv_freq = exact.to(self.inv_freq.device)
        return self

    def cos_sin(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """positions: (T,) or (B, T) -> what `rotate` takes, 2 x (1 or B, 1, T, Dh)."""
        wide = torch.promote_types(dtype, torch.float32)
        angles = (positions[..., None].to(wide) * self.inv_freq.to(wide)).unsqueeze(-3)  # (..., 1, T, Dh/2)
        cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
        return torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1)

    def forward(self, q: Tensor, k: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """q: (B, H, T, Dh), k: (B, K, T, Dh), positions: (T,) or (B, T) -> q and k, turned."""
        cos, sin = self.cos_sin(positions, q.dtype)
        return rotate(q, cos, sin), rotate(k, cos, sin)


class NoPositions(nn.Module):
    """In the place of RotaryEmbedding: the causal mask alone tells order (Kazemnejad et al. 2023, arXiv:2305.19466)."""

    def forward(self, q: Tensor, k: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """q and k as they are."""
        return q, k


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x: (B, H, T, Dh) -> (B, H, T, Dh). Turning by a, then by b, is turning by a + b."""
    return x * cos + x.roll(x.size(-1) // 2, dims=-1) * sin  # the roll swaps the two channels of each pair


def interleaved_to_half(weight: Tensor, d_head: int) -> Tensor:
    """Rows of a query or key projection from rotary pairs (2i, 2i + 1), as Meta stores them, to (i, i + Dh/2).

    weight: (H * Dh, ...) -> (H * Dh, ...).
    """
    return weight.view(-1, d_head // 2, 2, *weight.shape[1:]).transpose(1, 2).reshape(weight.shape)


def half_to_interleaved(weight: Tensor, d_head: int) -> Tensor:
    """The inverse of `interleaved_to_half`; llama.cpp's files have this order, too."""
    return weight.view(-1, 2, d_head // 2, *weight.shape[1:]).transpose(1, 2).reshape(weight.shape)
