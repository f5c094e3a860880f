"""Tokenizers side by side on the same texts: what each costs, what each loses, and what a larger vocabulary buys."""

import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from legollm.errors import TokenizerError
from legollm.interfaces import Tokenizer
from legollm.tokenizers.byte import BYTES
from legollm.tokenizers.regex_bpe import RegexBPETokenizer

ALL = "all"
"""Names the row over all texts, where there are several."""


@runtime_checkable
class LosesWords(Protocol):
    """A tokenizer that writes `<unk>` for what it does not know, and can say how often."""

    def oov_rate(self, texts: str | Iterable[str]) -> float: ...


@dataclass(frozen=True, kw_only=True)
class Row:
    """One tokenizer's figures on one text."""

    name: str
    """Of the tokenizer."""
    kind: str
    text: str
    """Its name; "all" for all of them together."""
    vocab_size: int
    n_bytes: int
    """UTF-8 bytes of the text."""
    n_words: int
    """Runs of characters between white space."""
    n_tokens: int
    ids_used: int
    """Different ids that occur."""
    oov_rate: float
    """Share of words (of characters for kind char) that became `<unk>`; byte-level tokenizers lose none."""
    seconds: float
    """Of encoding a second time, when what is compiled or remembered is there."""

    @property
    def bytes_per_token(self) -> float:
        """Compression: more is better, as a model's context then holds more text."""
        return self.n_bytes / max(1, self.n_tokens)

    @property
    def tokens_per_word(self) -> float:
        """Fertility. Languages without spaces between words have few words, so compare it along one text only."""
        return self.n_tokens / max(1, self.n_words)

    @property
    def vocab_used(self) -> float:
        """Share of the ids that occur: rows of a model's embedding that this text trains."""
        return self.ids_used / max(1, self.vocab_size)

    @property
    def megabytes_per_s(self) -> float:
        return self.n_bytes / 1e6 / max(self.seconds, 1e-9)


def compare(tokenizers: Mapping[str, Tokenizer], texts: Mapping[str, Iterable[str]]) -> list[Row]:
    """For each named text (its documents) a row per tokenizer; after several texts, rows over all of them.

    Raises:
        TokenizerError: a text is empty, or a tokenizer cannot encode it.
    """
    corpora = {name: [document for document in documents if document] for name, documents in texts.items()}
    if not corpora or not all(corpora.values()):
        empty = next((name for name, documents in corpora.items() if not documents), "the texts")
        raise TokenizerError(f"nothing to compare on: {empty} is empty; give some text")
    rows = [_row(name, tokenizer, text, corpora[text]) for text in corpora for name, tokenizer in tokenizers.items()]
    if len(corpora) > 1:
        everything = [document for documents in corpora.values() for document in documents]
        rows += [_row(name, tokenizer, ALL, everything) for name, tokenizer in tokenizers.items()]
    return rows


def _row(name: str, tokenizer: Tokenizer, text: str, documents: Sequence[str]) -> Row:
    counts: Counter[int] = Counter()
    for document in documents:
        counts.update(tokenizer.encode(document))
    start = time.perf_counter()
    for document in documents:
        tokenizer.encode(document)
    seconds = time.perf_counter() - start
    return Row(
        name=name,
        kind=tokenizer.kind,
        text=text,
        vocab_size=tokenizer.vocab_size,
        n_bytes=n_bytes_of(documents),
        n_words=sum(len(document.split()) for document in documents),
        n_tokens=counts.total(),
        ids_used=len(counts),
        oov_rate=tokenizer.oov_rate(documents) if isinstance(tokenizer, LosesWords) else 0.0,
        seconds=seconds,
    )


def n_bytes_of(documents: Iterable[str]) -> int:
    """Their size in UTF-8."""
    return sum(len(document.encode("utf-8", "surrogatepass")) for document in documents)


@dataclass(frozen=True, kw_only=True)
class SizeRow:
    """How long a text is in tokens of a vocabulary of one size."""

    vocab_size: int
    n_bytes: int
    n_tokens: int

    @property
    def bytes_per_token(self) -> float:
        return self.n_bytes / max(1, self.n_tokens)


def at_sizes(tokenizer: RegexBPETokenizer, sizes: Collection[int], documents: Sequence[str]) -> Iterator[SizeRow]:
    """The length of the documents at each size, ascending, up to the size the tokenizer was trained for.

    Merges are learned most frequent first, so the first n of them are what training for n would have learned: one
    training serves all sizes.
    """
    n_bytes = n_bytes_of(documents)
    largest = len(BYTES) + len(tokenizer.merges)
    for size in sorted({size for size in sizes if len(BYTES) <= size <= largest}):
        smaller = first_merges(tokenizer, size - len(BYTES))
        n_tokens = sum(len(smaller.encode(document)) for document in documents)
        yield SizeRow(vocab_size=size, n_bytes=n_bytes, n_tokens=n_tokens)


def first_merges(tokenizer: RegexBPETokenizer, n: int) -> RegexBPETokenizer:
    """The tokenizer that learned only the first n merges, without special tokens."""
    merges = tokenizer.merges[:n]
    tokens = dict(enumerate([*BYTES, *(left + right for left, right in merges)]))
    model = replace(tokenizer._model(), tokens=tokens, merges=merges, special_tokens={}, visible=())
    return tokenizer._from_model(model)
