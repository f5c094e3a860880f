"""One token per word: short sequences, but every word that training has not seen is lost."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

import regex

from legollm.errors import TokenizerError
from legollm.tokenizers.special import without_special
from legollm.tokenizers.vocabulary import VocabularyTokenizer

UNKNOWN = "<unk>"

# Words of any script (\w includes combining marks), inner apostrophes kept; punctuation and white space one by one.
_WORD = regex.compile(r"\w+(?:['’]\w+)*|[^\w\s]|\s")


class WordTokenizer(VocabularyTokenizer):
    """Ids in order of frequency; id 0 is `<unk>` and stands for every other word.

    lossless: white space is kept as tokens of its own, so decoding gives the text back up to `<unk>`. Otherwise it is
    dropped as in classic word models, and each word stands for itself and one space after it.
    """

    kind = "word"

    def __init__(self, *, lossless: bool = True) -> None:
        super().__init__()
        self._lossless = lossless
        self._set_words([])

    def train(
        self,
        texts: str | Iterable[str],
        *,
        vocab_size: int | None = None,
        special_tokens: Sequence[str] = (),
        progress: Callable[[int, int], None] | None = None,
        min_freq: int = 1,
    ) -> None:
        """Keep the most frequent words that occur at least min_freq times; ties go to the smaller code points.

        vocab_size counts `<unk>` and the special tokens; None keeps all words.

        Raises:
            TokenizerError: vocab_size has no room for a single word.
        """
        counts: Counter[str] = Counter()
        for text in without_special(texts, special_tokens):
            counts.update(self._words_of(text))
        room = None if vocab_size is None else vocab_size - 1 - len(special_tokens)
        if room is not None and room < 1:
            raise TokenizerError(
                f"vocab_size {vocab_size} has no room for words; use {2 + len(special_tokens)} or more"
            )
        frequent = [word for word, count in counts.items() if count >= min_freq]
        words = sorted(frequent, key=lambda word: (-counts[word], word))[:room]
        self._set_words(words, special_tokens)
        if progress is not None:
            progress(self.vocab_size, self.vocab_size)

    def oov_rate(self, texts: str | Iterable[str]) -> float:
        """The share of words, white space not counted, that are not in the vocabulary."""
        words = unknown = 0
        for text in [texts] if isinstance(texts, str) else texts:
            for word in self._words_of(text):
                if not word.isspace():
                    words += 1
                    unknown += word not in self._ids
        return unknown / max(1, words)

    def _words_of(self, text: str) -> Iterator[str]:
        words = map(regex.Match.group, _WORD.finditer(text))
        return words if self._lossless else itertools.filterfalse(str.isspace, words)

    def _set_words(self, words: Sequence[str], special_tokens: Sequence[str] = ()) -> None:
        self._words = list(words)
        self._ids = {word: i for i, word in enumerate(words, start=1)}
        end = "" if self._lossless else " "
        self._set_trained([(w + end).encode("utf-8", "surrogatepass") for w in [UNKNOWN, *words]], special_tokens)

    def _encode_ordinary(self, text: str) -> list[int]:
        get = self._ids.get
        return [get(word, 0) for word in self._words_of(text)]

    def _state(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "lossless": self._lossless,
            "words": self._words,
            "special_tokens": dict(self._special),
        }

    @classmethod
    def _restore(cls, state: Mapping[str, Any]) -> Self:
        tokenizer = cls(lossless=bool(state["lossless"]))
        tokenizer._set_words(state["words"])
        tokenizer._set_vocabulary(tokenizer._ordinary, state["special_tokens"])
        return tokenizer
