"""The studs of the bricks: every place where one part of legollm can be swapped for another.

Consumers name these Protocols; implementations do not inherit from them. Each has a suite in tests/contract/ that
runs over all of its implementations. One legend for shapes, here and everywhere: B rows, T new positions, S positions
attended to, D d_model, H heads, K key/value heads, Dh d_head, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, Self, runtime_checkable

if TYPE_CHECKING:  # tokenizers do without torch, and start a second sooner
    from torch import Tensor, nn


@runtime_checkable
class Tokenizer(Protocol):
    """Text <-> ids. Ids are 0 .. vocab_size - 1, special tokens included."""

    kind: str
    """The name in the table of tokenizers: byte, char, word, naive_bpe, bpe, char_bpe, unigram; or wordpiece."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all that decides its ids, hexadecimal: tells whether it is the one that wrote a file."""
        ...

    @property
    def special_tokens(self) -> Mapping[str, int]:
        """Control tokens and their ids; empty if there are none."""
        ...

    def encode(
        self,
        text: str,
        *,
        allowed_special: Collection[str] | Literal["all"] = (),
        disallowed_special: Collection[str] | Literal["all"] = (),
    ) -> list[int]:
        """Token ids of `text`. What looks like a special token is plain text unless it is in `allowed_special`.

        disallowed_special: names that are an error instead; "all" means all that are not allowed.

        Raises:
            TokenizerError: `text` contains a special token that is disallowed.
        """
        ...

    def encode_with_offsets(
        self,
        text: str,
        *,
        allowed_special: Collection[str] | Literal["all"] = (),
        disallowed_special: Collection[str] | Literal["all"] = (),
    ) -> tuple[list[int], list[tuple[int, int]]]:
        """The ids of `encode`, and for each the characters it touches: text[start:end].

        Raises:
            TokenizerError: as `encode`; or tokens that do not spell the text and so have no place in it.
        """
        ...

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text, specials never parsed."""
        ...

    def decode(self, ids: Iterable[int], *, skip_special: bool = False) -> str:
        """The text of `ids`; bytes that are no UTF-8 become U+FFFD."""
        ...

    def decode_bytes(self, ids: Iterable[int], *, skip_special: bool = False) -> bytes:
        """The bytes of `ids`, exactly."""
        ...

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes one id stands for.

        Raises:
            TokenizerError: no such id.
        """
        ...

    def save(self, path: Path | str) -> None: ...

    @classmethod
    def load(cls, path: Path | str) -> Self: ...


class Mask(Protocol):
    """Which keys each query may see."""

    def allowed(self, n_queries: int, n_keys: int) -> Tensor | None:
        """True where attention is allowed: (T, S) or (B, 1, T, S). None: plain causal, last query on last key."""
        ...


class LayerCache(Protocol):
    """The keys and values one attention layer has already computed."""

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store T new keys and values (B, K, T, Dh); return all S that the new queries may see (B, K, S, Dh)."""
        ...


class Cache(Protocol):
    """What a model remembers between calls: one LayerCache per block."""

    @property
    def length(self) -> int:
        """Columns held so far, padding included."""
        ...

    @property
    def layers(self) -> Sequence[LayerCache]: ...

    def at_once(self, n_tokens: int) -> int:
        """How many of the next n_tokens can be read in one call, at least one: not all where old ones have to go."""
        ...

    def place(self, n_tokens: int, positions: Tensor | None) -> tuple[Tensor, Mask]:
        """Positions and mask of the next n_tokens; the cache decides, because one that slides renumbers its tokens.

        positions: None for rows of equal length, else (B, T) with -1 at padding.

        Raises:
            ContextError: the cache cannot hold that many.
        """
        ...

    def with_before(self, tokens: Tensor, n_before: int) -> Tensor:
        """The new tokens (B, T), after `place`, with the n_before columns left of them: (B, n_before + T).

        Columns that do not exist are 0. For models whose embedding looks back: the tokens are remembered.
        """
        ...

    def advance(self, n_tokens: int) -> None:
        """The last call's tokens are in every layer now."""
        ...

    def truncate(self, length: int) -> None:
        """Forget the columns from `length` on."""
        ...

    def reset(self) -> None:
        """Forget everything; the memory stays allocated."""
        ...


class LanguageModel(Protocol):
    """Tokens -> logits of the next token at every position. Implementations are nn.Modules."""

    def __call__(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        cache: Cache | None = None,
        at: Tensor | None = None,
    ) -> Tensor:
        """tokens: (B, T) int64 -> logits (B, T, V); with a cache, `tokens` continue what it holds.

        positions: None, or (B, T) for rows of unequal length, -1 at padding (left of the row's text).
        at: None, or (B, T) bool: only these logits are wanted, as (N, V).
        """
        ...


class Batch(NamedTuple):
    """One micro-batch for next-token training: a pair of tensors."""

    tokens: Tensor
    """(B, T) int64."""
    targets: Tensor
    """(B, T) int64, the token that follows each; -100 is not counted."""


class PackedBatch(NamedTuple):
    """One micro-batch whose rows hold several documents each, every one of them trained on as if it were alone."""

    tokens: Tensor
    """(B, T) int64."""
    targets: Tensor
    """(B, T) int64, the token that follows each in its document; -100 is not counted."""
    documents: Tensor
    """(B, T) int64, of each column the number of its document in the row; -1 is padding."""
    positions: Tensor
    """(B, T) int64, starting from 0 with each document."""


class BatchSource(Protocol):
    """An endless, resumable supply of batches."""

    def __next__(self) -> Any: ...

    def state_dict(self) -> dict[str, Any]:
        """All that decides the next batch, as JSON-ready values."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class Objective(Protocol):
    """What to minimise."""

    def __call__(self, model: nn.Module, batch: Any) -> Tensor:
        """The loss summed over the terms of the batch, in nats, ()."""
        ...

    def n_terms(self, batch: Any) -> int:
        """How many terms that sum has: unmasked targets, pairs, sampled tokens."""
        ...


class Optimizer(Protocol):
    """Turns gradients into steps; also torch.optim.Optimizer, which has these attributes and more."""

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Parameters as `params`, with the settings they share, such as `lr`, which the loop sets before each step."""
        ...

    @property
    def state(self) -> Mapping[Any, Any]:
        """What is remembered of each parameter, by name."""
        ...

    def step(self) -> Any: ...

    def zero_grad(self, set_to_none: bool = True) -> None: ...


class MetricLog(Protocol):
    """Where the numbers of a run go; those of its layers are nested, layer -> figure -> value."""

    def __call__(self, step: int, **values: float | int | str | Mapping[str, Mapping[str, float]]) -> None: ...
