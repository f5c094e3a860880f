# mypy: disable-error-code="no-any-return"
"""Positions: vectors for the tokens, and ways to tell the model in which order they came.

Positions are (T,) for rows of equal length, or (B, T) for ragged rows, with -1 at padding.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Self, TypeAlias

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

    kind: Literal["llama3"] = "llama3"
    """Which scaling this is."""
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

    @property
    def magnitude(self) -> float:
        """What queries and keys are multiplied by."""
        return 1.0

    def apply(self, inv_freq: Tensor) -> Tensor:
        """Radians per token, (Dh/2,) -> (Dh/2,)."""
        turns = self.original_max_seq_len * inv_freq / (2 * math.pi)
        keep = ((turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)).clamp(0, 1)
        return (1 - keep) * inv_freq / self.factor + keep * inv_freq


@dataclass(frozen=True, kw_only=True)
class LinearScaling:
    """Positions squeezed into the range trained on (Chen et al. 2023, arXiv:2306.15595): token m is at m / factor."""

    kind: Literal["linear"] = "linear"
    """Which scaling this is."""
    factor: float = 4.0
    """How many times longer texts become; neighbours are as many times harder to tell apart."""

    def __post_init__(self) -> None:
        check_factor(self.factor)

    @property
    def magnitude(self) -> float:
        """What queries and keys are multiplied by."""
        return 1.0

    def apply(self, inv_freq: Tensor) -> Tensor:
        """Radians per token, (Dh/2,) -> (Dh/2,)."""
        return inv_freq / self.factor


@dataclass(frozen=True, kw_only=True)
class NtkScaling:
    """A larger base: the slowest channel is slowed down by `factor`, the fastest not at all (Peng et al. 2023, 3.1).

    "NTK-aware" scaling, in its fixed form (arXiv:2309.00071): theta becomes theta * factor^(Dh / (Dh - 2)).
    """

    kind: Literal["ntk"] = "ntk"
    """Which scaling this is."""
    factor: float = 4.0
    """How many times longer texts become."""

    def __post_init__(self) -> None:
        check_factor(self.factor)

    @property
    def magnitude(self) -> float:
        """What queries and keys are multiplied by."""
        return 1.0

    def apply(self, inv_freq: Tensor) -> Tensor:
        """Radians per token, (Dh/2,) -> (Dh/2,)."""
        share = torch.arange(len(inv_freq), dtype=inv_freq.dtype) / max(len(inv_freq) - 1, 1)  # 0 fastest, 1 slowest
        return inv_freq / self.factor**share


@dataclass(frozen=True, kw_only=True)
class YarnScaling:
    """Channels that turn often stay, those that hardly turn are squeezed, attention sharpens (Peng et al. 2023).

    YaRN (arXiv:2309.00071). Unlike LLaMA 3's rule the ones between are blended along the channels, not along their
    frequencies, and queries and keys grow a little, because softmax over more tokens is flatter.
    """

    kind: Literal["yarn"] = "yarn"
    """Which scaling this is."""
    factor: float = 4.0
    """How many times longer texts become."""
    beta_fast: float = 32.0
    """Channels with more turns than this in the original context stay as they are."""
    beta_slow: float = 1.0
    """Channels with fewer turns than this are squeezed fully."""
    original_max_seq_len: int = 8192
    """Tokens the model had been trained on before it was stretched."""
    attention_factor: float | None = None
    """What queries and keys are multiplied by; null is 0.1 ln(factor) + 1."""

    def __post_init__(self) -> None:
        check_factor(self.factor)
        if not 0 < self.beta_slow < self.beta_fast:
            raise ConfigError(f"beta_slow: {self.beta_slow} has to be above 0 and below beta_fast = {self.beta_fast}")

    @property
    def magnitude(self) -> float:
        """What queries and keys are multiplied by."""
        return 0.1 * math.log(self.factor) + 1.0 if self.attention_factor is None else self.attention_factor

    def apply(self, inv_freq: Tensor) -> Tensor:
        """Radians per token, (Dh/2,) -> (Dh/2,)."""
        n = len(inv_freq)
        # Channel i turns exp(-step * i) radians per token; one that is alone is the fastest and stays.
        step = -math.log(inv_freq[-1]) / (n - 1) if n > 1 else 1.0

        def channel(turns: float) -> float:
            """Which one, as a fraction, turns so often in the original context."""
            return math.log(self.original_max_seq_len / (turns * 2 * math.pi)) / step

        first = max(math.floor(channel(self.beta_fast)), 0)
        last = min(math.ceil(channel(self.beta_slow)), 2 * n - 1)
        span = max(last - first, 0.001)  # published code has these bounds; 0.001 makes a step of an empty range
        squeezed = ((torch.arange(n, dtype=inv_freq.dtype) - first) / span).clamp(0, 1)
        return squeezed * inv_freq / self.factor + (1 - squeezed) * inv_freq


RopeScaling: TypeAlias = Llama3Scaling | LinearScaling | NtkScaling | YarnScaling


def check_factor(factor: float) -> None:
    """Texts become longer, not shorter.

    Raises:
        ConfigError: a factor below 1.
    """
    if factor < 1:
        raise ConfigError(f"factor: expected a number from 1, found {factor}")


class RotaryEmbedding(nn.Module):
    """Turn each pair of channels by an angle that grows with the position (Su et al. 2021, arXiv:2104.09864).

    The product of a query and a key then depends on how far apart they are, not on where they stand. Pairs are
    (i, i + Dh/2), the "half" layout.
    """

    inv_freq: Tensor
    """Radians per token, (R/2,); not saved, and float32 in every module, whatever its other numbers are."""

    def __init__(
        self, d_head: int, *, theta: float, scaling: RopeScaling | None = None, d_rotary: int | None = None
    ) -> None:
        """d_rotary: the first R channels of a head turn, the others tell no position; None is all of them."""
        super().__init__()
        self.d_rotary = d_rotary or d_head
        self.magnitude = scaling.magnitude if scaling else 1.0
        # On the CPU: real also in a model built on meta.
        channels = torch.arange(0, self.d_rotary, 2, dtype=torch.float32, device="cpu")
        inv_freq = 1.0 / theta ** (channels / self.d_rotary)
        self.register_buffer("inv_freq", scaling.apply(inv_freq) if scaling else inv_freq, persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Follow the module to its device, not to its dtype: bfloat16 angles are off by a radian at position 1000."""
        exact = self.inv_freq
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.inv_freq = exact.to(self.inv_freq.device)
        return self

    def cos_sin(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """positions: (T,) or (B, T) -> what `rotate` takes, 2 x (1 or B, 1, T, R)."""
        wide = torch.promote_types(dtype, torch.float32)
        angles = (positions[..., None].to(wide) * self.inv_freq.to(wide)).unsqueeze(-3)  # (..., 1, T, R/2)
        cos, sin = angles.cos(), angles.sin()
        if self.magnitude != 1:
            cos, sin = cos * self.magnitude, sin * self.magnitude
        cos, sin = cos.to(dtype), sin.to(dtype)
        return torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1)

    def turn(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """x: (B, H, T, R) -> (B, H, T, R)."""
        return rotate(x, cos, sin)

    def forward(self, q: Tensor, k: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """q: (B, H, T, Dh), k: (B, K, T, Dh), positions: (T,) or (B, T) -> q and k, turned."""
        cos, sin = self.cos_sin(positions, q.dtype)
        n = self.d_rotary
        if n == q.size(-1):
            return self.turn(q, cos, sin), self.turn(k, cos, sin)
        q_turned, k_turned = self.turn(q[..., :n], cos, sin), self.turn(k[..., :n], cos, sin)
        return torch.cat([q_turned, q[..., n:]], dim=-1), torch.cat([k_turned, k[..., n:]], dim=-1)


class InterleavedRotaryEmbedding(RotaryEmbedding):
    """Rotary positions whose pairs are neighbours, (2i, 2i + 1), as the paper and Meta's checkpoints have them.

    `interleaved_to_half` and `half_to_interleaved` carry weights from one layout to the other.
    """

    def cos_sin(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """positions: (T,) or (B, T) -> 2 x (1 or B, 1, T, R), channels in pairs."""
        cos, sin = super().cos_sin(positions, dtype)
        halves = (*cos.shape[:-1], 2, self.d_rotary // 2)
        return cos.view(halves).mT.flatten(-2), sin.view(halves).mT.flatten(-2)

    def turn(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """x: (B, H, T, R) -> (B, H, T, R)."""
        return x * cos + x.reshape(*x.shape[:-1], -1, 2).flip(-1).flatten(-2) * sin


class NoPositions(nn.Module):
    """In the place of RotaryEmbedding: the causal mask alone tells order (Kazemnejad et al. 2023, arXiv:2305.19466)."""

    def forward(self, q: Tensor, k: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """q and k as they are."""
        return q, k


class Alibi(nn.Module):
    """Scores fall with the distance, by a fixed slope of each head (Press et al. 2021, arXiv:2108.12409).

    Slopes are a geometric sequence from 2^(-8/H) to 2^-8; where H is no power of two, that of the next lower one and
    every other slope of the next higher one.
    """

    def __init__(self, n_heads: int) -> None:
        super().__init__()
        n = 2 ** math.floor(math.log2(n_heads))
        self.exponents = [8 * i / n for i in range(1, n + 1)] + [4 * i / n for i in range(1, 2 * (n_heads - n), 2)]

    def forward(self, query_positions: Tensor, key_positions: Tensor) -> Tensor:
        """(T,) and (S,) -> (H, T, S), or (B, T) and (B, S) -> (B, H, T, S), float32."""
        slopes = torch.tensor([2**-exponent for exponent in self.exponents], device=query_positions.device)
        distance = (query_positions[..., :, None] - key_positions[..., None, :]).abs()
        return -slopes[:, None, None] * distance.unsqueeze(-3)


class T5Bias(nn.Module):
    """A learned number for each head and distance is added to the scores (Raffel et al. 2019, arXiv:1910.10683).

    Short distances have a bucket each; longer ones share buckets that widen logarithmically, and all of max_distance
    and more are one. bidirectional: half of the buckets are for keys after the query.
    """

    def __init__(self, n_heads: int, *, n_buckets: int = 32, max_distance: int = 128, bidirectional: bool) -> None:
        super().__init__()
        self.n_buckets, self.max_distance, self.bidirectional = n_buckets, max_distance, bidirectional
        self.weight = nn.Parameter(torch.empty(n_buckets, n_heads).normal_(std=0.02))

    def buckets(self, offsets: Tensor) -> Tensor:
        """offsets: key position minus query position, any shape -> the row of the table for each."""
        if self.bidirectional:
            n, after = self.n_buckets // 2, (offsets > 0) * (self.n_buckets // 2)
            distance = offsets.abs()
        else:
            n, after = self.n_buckets, torch.zeros_like(offsets)
            distance = -offsets.clamp(max=0)
        n_exact = n // 2
        octaves = torch.log(distance.clamp(min=1).float() / n_exact) / math.log(self.max_distance / n_exact)
        shared = (n_exact + (octaves * (n - n_exact)).long()).clamp(max=n - 1)
        return after + torch.where(distance < n_exact, distance, shared)

    def forward(self, query_positions: Tensor, key_positions: Tensor) -> Tensor:
        """(T,) and (S,) -> (H, T, S), or (B, T) and (B, S) -> (B, H, T, S)."""
        offsets = key_positions[..., None, :] - query_positions[..., :, None]
        return F.embedding(self.buckets(offsets), self.weight).movedim(-1, -3)


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
