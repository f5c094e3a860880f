"""The simplest tokenizer there is: every byte of UTF-8 is a token."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self

from legollm.errors import TokenizerError
from legollm.tokenizers.vocabulary import VocabularyTokenizer

log = logging.getLogger(__name__)

BYTES = [bytes([value]) for value in range(256)]


def room_beside_bytes(vocab_size: int, special_tokens: Sequence[str]) -> int:
    """How many ids are left for longer tokens.

    Raises:
        TokenizerError: not even the bytes and the special tokens fit.
    """
    room = vocab_size - len(BYTES) - len(special_tokens)
    if room < 0:
        raise TokenizerError(
            f"vocab_size {vocab_size} has no room for 256 bytes and {len(special_tokens)} special tokens; "
            f"use {vocab_size - room} or more"
        )
    return room


class ByteTokenizer(VocabularyTokenizer):
    """256 ids, one per byte: serves any text without training, at the price of long sequences."""

    kind = "byte"

    def __init__(self, special_tokens: Sequence[str] = ()) -> None:
        super().__init__()
        self._set_trained(BYTES, special_tokens)

    def train(
        self,
        texts: str | Iterable[str],
        *,
        vocab_size: int | None = None,
        special_tokens: Sequence[str] = (),
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """There is nothing to learn, so `texts` is not read; here so that one recipe serves every tokenizer.

        Raises:
            TokenizerError: vocab_size has no room for 256 bytes and the special tokens.
        """
        size = len(BYTES) + len(special_tokens)
        if vocab_size is not None and vocab_size < size:
            raise TokenizerError(f"vocab_size {vocab_size} is too small for bytes and special tokens; use {size}")
        if vocab_size is not None and vocab_size > size:
            log.warning("vocab_size %d is not reached: bytes and special tokens are %d", vocab_size, size)
        self._set_trained(BYTES, special_tokens)
        if progress is not None:
            progress(size, size)

    def encode_bytes(self, data: bytes) -> list[int]:
        """Any bytes at all, text or not."""
        return list(data)

    def _encode_ordinary(self, text: str) -> list[int]:
        return list(text.encode("utf-8", "surrogatepass"))

    def _state(self) -> dict[str, Any]:
        return {"kind": self.kind, "special_tokens": dict(self._special)}

    @classmethod
    def _restore(cls, state: Mapping[str, Any]) -> Self:
        tokenizer = cls()
        tokenizer._set_vocabulary(dict(enumerate(BYTES)), state["special_tokens"])
        return tokenizer
