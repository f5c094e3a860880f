"""One token per character: the smallest vocabulary that still reads as text."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self

from legollm.errors import TokenizerError
from legollm.tokenizers.offsets import Span
from legollm.tokenizers.special import without_special
from legollm.tokenizers.vocabulary import VocabularyTokenizer

UNKNOWN = "<unk>"


class CharTokenizer(VocabularyTokenizer):
    """Ids are the code points of the training text in order; of Shakespeare's plays there are 65.

    With `unk`, id 0 stands for every other character; without, encoding one is an error.
    """

    kind = "char"

    def __init__(self, *, unk: bool = False) -> None:
        super().__init__()
        self._set_characters([], unk=unk)

    def train(
        self,
        texts: str | Iterable[str],
        *,
        vocab_size: int | None = None,
        special_tokens: Sequence[str] = (),
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Learn the characters of `texts`: all of them, or with `unk` the most frequent that fit vocab_size.

        Raises:
            TokenizerError: vocab_size is too small for all characters, and there is no `<unk>` for the rest.
        """
        counts: Counter[str] = Counter()
        for text in without_special(texts, special_tokens):
            counts.update(text)
        characters = sorted(counts)
        room = len(characters) if vocab_size is None else vocab_size - len(special_tokens) - self._unk
        if room < len(characters):
            if not self._unk or room < 1:
                needed = len(characters) + len(special_tokens)
                raise TokenizerError(
                    f"the text has {len(characters)} different characters, too many for vocab_size {vocab_size}; "
                    f"use {needed} or more, or CharTokenizer(unk=True) to keep the frequent ones"
                )
            characters = sorted(sorted(characters, key=lambda c: (-counts[c], c))[:room])
        self._set_characters(characters, unk=self._unk, special_tokens=special_tokens)
        if progress is not None:
            progress(self.vocab_size, self.vocab_size)

    def oov_rate(self, texts: str | Iterable[str]) -> float:
        """The share of characters that are not in the vocabulary."""
        counts: Counter[str] = Counter()
        for text in [texts] if isinstance(texts, str) else texts:
            counts.update(text)
        unknown = sum(count for character, count in counts.items() if character not in self._ids)
        return unknown / max(1, counts.total())

    def _set_characters(self, characters: Sequence[str], *, unk: bool, special_tokens: Sequence[str] = ()) -> None:
        self._unk = unk
        self._characters = list(characters)
        self._ids = {character: i for i, character in enumerate(characters, start=int(unk))}
        tokens = [UNKNOWN.encode()] * unk + [c.encode("utf-8", "surrogatepass") for c in characters]
        self._set_trained(tokens, special_tokens)

    def _encode_ordinary(self, text: str) -> list[int]:
        if self._unk:
            get = self._ids.get
            return [get(character, 0) for character in text]
        try:
            ids = self._ids
            return [ids[character] for character in text]
        except KeyError as error:
            character = error.args[0]
            raise TokenizerError(
                f"character {character!r} (U+{ord(character):04X}) at position {text.index(character)} is not in the "
                f"vocabulary of {len(self._ids)} characters; train on text that has it, or use CharTokenizer(unk=True)"
            ) from None

    def _spans(self, text: str, ids: Sequence[int]) -> list[Span]:
        return [(i, i + 1) for i in range(len(text))]  # `<unk>` has the place of the character it stands for

    def _state(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "unk": self._unk,
            "characters": self._characters,
            "special_tokens": dict(self._special),
        }

    @classmethod
    def _restore(cls, state: Mapping[str, Any]) -> Self:
        tokenizer = cls()
        tokenizer._set_characters(state["characters"], unk=bool(state["unk"]))
        tokenizer._set_vocabulary(tokenizer._ordinary, state["special_tokens"])
        return tokenizer
