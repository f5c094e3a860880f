"""Byte-pair encoding as one would explain it: count all pairs, merge the most frequent, start again.

Sennrich, Haddow and Birch 2016, arXiv:1508.07909. Slow on purpose: the fast RegexBPETokenizer is held against this.
"""

import logging
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, AnyStr, Self

from legollm.tokenizers.byte import BYTES, room_beside_bytes
from legollm.tokenizers.patterns import Splitter
from legollm.tokenizers.special import without_special
from legollm.tokenizers.vocabulary import VocabularyTokenizer

log = logging.getLogger(__name__)


def merge(parts: list[AnyStr], pair: tuple[AnyStr, AnyStr]) -> list[AnyStr]:
    """`parts` with each occurrence of the pair joined, from left to right."""
    joined: list[AnyStr] = []
    for part in parts:
        if joined and (joined[-1], part) == pair:
            joined[-1] += part
        else:
            joined.append(part)
    return joined


class NaiveBPETokenizer(VocabularyTokenizer):
    """256 bytes and the merges learned from a text; without a pattern, merges may span words."""

    kind = "naive_bpe"

    def __init__(self, pattern: str | None = None) -> None:
        super().__init__()
        self._splitter = Splitter(pattern) if pattern is not None else None
        self.merges: list[tuple[bytes, bytes]] = []
        self._set_trained(BYTES, ())

    def train(
        self,
        texts: str | Iterable[str],
        *,
        vocab_size: int,
        special_tokens: Sequence[str] = (),
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Merge the most frequent pair, among equals the greatest pair of byte strings, until the vocabulary is full.

        Raises:
            TokenizerError: vocab_size has no room for 256 bytes and the special tokens.
        """
        n_merges = room_beside_bytes(vocab_size, special_tokens)
        pieces = [parts for text in without_special(texts, special_tokens) for parts in self._pieces(text)]
        self.merges = []
        while len(self.merges) < n_merges:
            counts = Counter(pair for parts in pieces for pair in pairwise(parts))
            pair = max(counts, key=lambda pair: (counts[pair], pair), default=None)
            if pair is None or counts[pair] < 2:
                log.warning("%d of %d merges learned: no pair occurs twice any more", len(self.merges), n_merges)
                break
            pieces = [merge(parts, pair) for parts in pieces]
            self.merges.append(pair)
            if progress is not None:
                progress(len(self.merges), n_merges)
        self._set_trained([*BYTES, *(left + right for left, right in self.merges)], special_tokens)

    def _pieces(self, text: str) -> list[list[bytes]]:
        pieces = [text] if self._splitter is None else self._splitter.split(text)
        return [[BYTES[value] for value in piece.encode("utf-8", "surrogatepass")] for piece in pieces]

    def _encode_ordinary(self, text: str) -> list[int]:
        ids = {token: i for i, token in self._ordinary.items()}
        pieces = self._pieces(text)
        for pair in self.merges:
            pieces = [merge(parts, pair) for parts in pieces]
        return [ids[part] for parts in pieces for part in parts]

    def _state(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "pattern": None if self._splitter is None else self._splitter.regex,
            "merges": [[b64encode(part).decode() for part in pair] for pair in self.merges],
            "special_tokens": dict(self._special),
        }

    @classmethod
    def _restore(cls, state: Mapping[str, Any]) -> Self:
        tokenizer = cls(state["pattern"])
        tokenizer.merges = [(b64decode(left), b64decode(right)) for left, right in state["merges"]]
        tokens = [*BYTES, *(left + right for left, right in tokenizer.merges)]
        tokenizer._set_vocabulary(dict(enumerate(tokens)), state["special_tokens"])
        return tokenizer
