"""What the tokenizers over characters share: frequent characters are tokens, all others are spelled in bytes.

Kudo and Richardson 2018, "SentencePiece", arXiv:1808.06226, and its byte fallback as LLaMA uses it. Two things differ
here. The byte below 128 and the ASCII character that it spells are one token, not two of the same meaning. And a space
stays a space: SentencePiece writes it as U+2581, so text that has that character comes back changed; here it is a
character like any other.
"""

from abc import abstractmethod
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import groupby

from legollm.tokenizers.byte import BYTES
from legollm.tokenizers.patterns import Splitter
from legollm.tokenizers.special import without_special
from legollm.tokenizers.vocabulary import VocabularyTokenizer
from legollm.tokenizers.word_cache import WordCache

COVERAGE = 0.9995
"""The most frequent characters that make up this share of the text get a token; SentencePiece's default."""

MAX_WORD_LENGTH = 256
"""Longer pre-tokens are data rather than words: they are learned from in parts of this many characters."""


class PieceTokenizer(VocabularyTokenizer):
    """Ids: the 256 bytes, then pieces of one character or more, then special tokens.

    A tokenizer adds how it finds the ids of one pre-token (`_encode_word`).
    """

    def __init__(self, pattern: str = "gpt4") -> None:
        super().__init__()
        self._splitter = Splitter(pattern)
        self._set_pieces([], ())

    @abstractmethod
    def _encode_word(self, word: str) -> list[int]:
        """The ids of one pre-token."""

    def _set_pieces(self, pieces: Sequence[str], special_tokens: Sequence[str]) -> None:
        self._set_trained([*BYTES, *(piece.encode("utf-8", "surrogatepass") for piece in pieces)], special_tokens)
        self._pieces = list(pieces)
        self._ids = {chr(value): value for value in range(128)} | {
            piece: i for i, piece in enumerate(pieces, start=len(BYTES))
        }
        self._cache = WordCache(self._encode_word)

    def _encode_ordinary(self, text: str) -> list[int]:
        return self._cache.encode(self._splitter.split(text))

    def _spell(self, character: str) -> list[int]:
        """The id of a character that is a token, else those of its bytes."""
        known = self._ids.get(character)
        return list(character.encode("utf-8", "surrogatepass")) if known is None else [known]

    def _spell_all(self, pieces: Sequence[str]) -> list[int]:
        """`_spell` of each in order, found once for those that come again."""
        spelled = {piece: self._spell(piece) for piece in set(pieces)}
        return [i for piece in pieces for i in spelled[piece]]

    def _count_words(self, texts: str | Iterable[str], special_tokens: Sequence[str]) -> Counter[str]:
        """How often each pre-token occurs; the texts are read once and not kept."""
        counts: Counter[str] = Counter()
        for text in without_special(texts, special_tokens):
            counts.update(self._splitter.split(text))
        return counts


def frequent_characters(counts: Mapping[str, int], room: int) -> list[str]:
    """The characters beyond ASCII that get a token: COVERAGE of the text, and at most half of `room`.

    The other half is for longer pieces: a vocabulary of single characters compresses nothing. In order of frequency,
    ties by code point.
    """
    characters: Counter[str] = Counter()
    for word, count in counts.items():
        for character in word:
            characters[character] += count
    wanted = COVERAGE * characters.total()
    covered = 0
    chosen: list[str] = []
    for character, count in sorted(characters.items(), key=lambda item: (-item[1], item[0])):
        if covered >= wanted or len(chosen) >= room // 2:
            break
        covered += count
        if not character.isascii():
            chosen.append(character)
    return chosen


def training_words(counts: Mapping[str, int], characters: Collection[str]) -> dict[str, int]:
    """The parts of `counts` that pieces are learned from, sorted, so that the order of the texts leaves no trace.

    A word is cut at each character that is neither ASCII nor in `characters`, because what is spelled in bytes teaches
    no piece; and into parts of MAX_WORD_LENGTH.
    """
    known = {chr(value) for value in range(128)} | set(characters)
    parts: Counter[str] = Counter()
    for word, count in counts.items():
        for is_known, run in groupby(word, key=known.__contains__):
            if is_known:
                part = "".join(run)
                for begin in range(0, len(part), MAX_WORD_LENGTH):
                    parts[part[begin : begin + MAX_WORD_LENGTH]] += count
    return dict(sorted(parts.items()))
