"""Tokenizers side by side on the same texts: what each costs and what each loses."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from legollm.errors import TokenizerError
from legollm.interfaces import Tokenizer
from legollm.tokenizers.char import CharTokenizer
from legollm.tokenizers.word import WordTokenizer


@dataclass(frozen=True, kw_only=True)
class Row:
    """One tokenizer's figures over all texts."""

    name: str
    kind: str
    vocab_size: int
    n_bytes: int
    """UTF-8 bytes of the texts."""
    n_tokens: int
    bytes_per_token: float
    """Compression: more is better, as a model's context then holds more text."""
    tokens_per_word: float
    """Fertility: tokens for each word between white space. Languages without spaces between words have few words."""
    oov_rate: float
    """Share of words (of characters for kind char) that became `<unk>`; byte-level tokenizers lose none."""
    megabytes_per_s: float
    """Speed of encoding, measured once; the first texts fill a tokenizer's cache."""


def compare(tokenizers: Mapping[str, Tokenizer], texts: Iterable[str]) -> list[Row]:
    """One row per tokenizer, in the order given.

    Raises:
        TokenizerError: there is no text to compare on, or a tokenizer cannot encode it.
    """
    corpus = [text for text in texts if text]
    if not corpus:
        raise TokenizerError("nothing to compare on: all texts are empty; give some text")
    n_bytes = sum(len(text.encode("utf-8", "surrogatepass")) for text in corpus)
    n_words = sum(len(text.split()) for text in corpus)
    rows = []
    for name, tokenizer in tokenizers.items():
        start = time.perf_counter()
        n_tokens = sum(len(tokenizer.encode(text)) for text in corpus)
        seconds = time.perf_counter() - start
        rows.append(
            Row(
                name=name,
                kind=tokenizer.kind,
                vocab_size=tokenizer.vocab_size,
                n_bytes=n_bytes,
                n_tokens=n_tokens,
                bytes_per_token=n_bytes / max(1, n_tokens),
                tokens_per_word=n_tokens / max(1, n_words),
                oov_rate=tokenizer.oov_rate(corpus) if isinstance(tokenizer, CharTokenizer | WordTokenizer) else 0.0,
                megabytes_per_s=n_bytes / 1e6 / max(seconds, 1e-9),
            )
        )
    return rows
