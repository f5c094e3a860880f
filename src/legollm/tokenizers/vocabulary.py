"""What every tokenizer here shares: a table from ids to bytes, control tokens, decoding and files.

A tokenizer adds how it finds the ids of ordinary text (`_encode_ordinary`) and what defines it (`_state`, `_restore`).
"""

import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import filterfalse
from operator import index
from pathlib import Path
from typing import Any, Literal, Self

from legollm.errors import TokenizerError
from legollm.tokenizers.files import fingerprint, naming, read_state, write_state
from legollm.tokenizers.offsets import Span, byte_spans, nfc_spans
from legollm.tokenizers.special import check_names, cut_at_special, select
from legollm.tokenizers.stream import DecodeStream


def _whole_numbers(ids: Iterable[int]) -> list[int]:
    """Plain integers, also out of NumPy's and torch's.

    Raises:
        TokenizerError: something that is none; 1.5 is not token 1.
    """
    try:
        return list(map(index, ids))
    except TypeError as error:
        raise TokenizerError(f"token ids are a sequence of whole numbers: {error}") from error


class VocabularyTokenizer(ABC):
    """Text <-> ids over a table of byte strings.

    Lone surrogates, which are no text, are encoded to the three bytes UTF-8 would give them: `decode_bytes` returns
    those exactly, and `decode`, whose result can always be printed and sent, shows U+FFFD.
    """

    kind: str

    _visible: Collection[str] = ()
    """Special tokens that decoding never skips; foreign vocabularies have some, such as <think>."""

    _nfc = False
    """Whether ordinary text is brought into Unicode normal form C before it is encoded."""

    def __init__(self) -> None:
        self._set_vocabulary({}, {})

    @abstractmethod
    def _encode_ordinary(self, text: str) -> list[int]:
        """The ids of text that has no control tokens."""

    @abstractmethod
    def _state(self) -> dict[str, Any]:
        """All that defines this tokenizer, as JSON-ready values."""

    @classmethod
    @abstractmethod
    def _restore(cls, state: Mapping[str, Any]) -> Self:
        """The tokenizer that `_state` described."""

    def _set_vocabulary(self, ordinary: Mapping[int, bytes], special: Mapping[str, int]) -> None:
        check_names(special, set(ordinary.values()))
        names = {i: name for name, i in special.items()}
        for name, i in special.items():
            if i in ordinary or names[i] != name or i < 0:
                raise TokenizerError(f"special token {name!r} has id {i}, which is taken or negative; ids are unique")
        self._ordinary = dict(ordinary)
        self._special = dict(special)
        self._table = self._ordinary | {i: name.encode() for i, name in names.items()}
        self._vocab_size = max(self._table, default=-1) + 1
        self._fingerprint: str | None = None

    def _set_trained(self, ordinary: Sequence[bytes], special_tokens: Sequence[str]) -> None:
        """Ids in order: ordinary tokens first, special tokens after them."""
        check_names(special_tokens, ())
        self._set_vocabulary(
            dict(enumerate(ordinary)), {name: i for i, name in enumerate(special_tokens, start=len(ordinary))}
        )

    @property
    def vocab_size(self) -> int:
        """One more than the largest id, special tokens included."""
        return self._vocab_size

    @property
    def vocab(self) -> dict[int, bytes]:
        """The bytes of every id, special tokens included; foreign vocabularies can have unused ids."""
        return dict(sorted(self._table.items()))

    @property
    def special_tokens(self) -> Mapping[str, int]:
        return dict(self._special)

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of all that defines this tokenizer: equal fingerprints give equal ids."""
        if self._fingerprint is None:  # a tenth of a second for a large vocabulary
            self._fingerprint = fingerprint(self._state())
        return self._fingerprint

    def encode(
        self,
        text: str,
        *,
        allowed_special: Collection[str] | Literal["all"] = (),
        disallowed_special: Collection[str] | Literal["all"] = (),
    ) -> list[int]:
        """Token ids of `text`. What looks like a special token is plain text unless it is in `allowed_special`.

        So a user's text can neither forge a control token nor stop the program. tiktoken's `encode` instead raises
        by default: that is disallowed_special="all", where whatever is not allowed is an error; a name given in both
        sets is refused. Where one name begins with another, the longer one counts. A name that this tokenizer lacks
        is an error, never ignored.

        Raises:
            TokenizerError: `text` contains a special token that is disallowed.
        """
        ids: list[int] = []
        for _, part, special in self._parts(text, allowed_special, disallowed_special):
            if special is None:
                ids += self._encode_ordinary(part)
            else:
                ids.append(special)
        return ids

    def encode_with_offsets(
        self,
        text: str,
        *,
        allowed_special: Collection[str] | Literal["all"] = (),
        disallowed_special: Collection[str] | Literal["all"] = (),
    ) -> tuple[list[int], list[Span]]:
        """The ids of `encode`, and for each the characters it touches: text[start:end].

        A token that is part of a character has that character's span, so neighbours can share one. Where a vocabulary
        brings text into normal form C first (Qwen), spans are in the text given: a character that was put together
        has the span of all that it was put together from.

        Raises:
            TokenizerError: as `encode`; or the tokens do not spell the text, as those with `<unk>`.
        """
        ids: list[int] = []
        offsets: list[Span] = []
        for start, part, special in self._parts(text, allowed_special, disallowed_special):
            if special is None:
                some = self._encode_ordinary(part)
                ids += some
                offsets += [(start + a, start + b) for a, b in self._spans(part, some)]
            else:
                ids.append(special)
                offsets.append((start, start + len(part)))
        return ids, offsets

    def _parts(
        self, text: str, allowed_special: Collection[str] | Literal["all"], disallowed: Collection[str] | Literal["all"]
    ) -> Iterator[tuple[int, str, int | None]]:
        """Ordinary text and special tokens in order: where each begins, what it is, and the id of a special token."""
        allowed = select(self._special, allowed_special)
        refused = select(self._special, disallowed) - (allowed if disallowed == "all" else set())
        position = 0
        for part, is_special in cut_at_special(text, allowed | refused):
            if part in refused and is_special:
                raise TokenizerError(
                    f"the text has the special token {part!r} at character {position}; remove it, or name it in "
                    "allowed_special if the text may control the model"
                )
            yield position, part, self._special[part] if is_special else None
            position += len(part)

    def _spans(self, text: str, ids: Sequence[int]) -> list[Span]:
        """The characters of ordinary text that its `ids` touch, worked out from the bytes of the tokens."""
        origins = None if not self._nfc or unicodedata.is_normalized("NFC", text) else nfc_spans(text)
        normal = text if origins is None else unicodedata.normalize("NFC", text)
        tokens = [self._table[i] for i in ids]
        if b"".join(tokens) != normal.encode("utf-8", "surrogatepass"):
            raise TokenizerError(
                f"the tokens of this {self.kind} tokenizer do not spell the text, so they have no place in it; use "
                "one that keeps every character, such as bpe"
            )
        spans = byte_spans(normal, list(map(len, tokens)))
        return spans if origins is None else [(origins[a][0], origins[b - 1][1]) for a, b in spans]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text, specials never parsed."""
        return [self._encode_ordinary(text) for text in texts]

    def decode(self, ids: Iterable[int], *, skip_special: bool = False) -> str:
        """The text of `ids`; bytes that are no UTF-8 become U+FFFD.

        Raises:
            TokenizerError: an id that no token has, or something that is no whole number.
        """
        return self.decode_bytes(ids, skip_special=skip_special).decode("utf-8", "replace")

    def decode_bytes(self, ids: Iterable[int], *, skip_special: bool = False) -> bytes:
        """The bytes of `ids`, exactly.

        Raises:
            TokenizerError: an id that no token has.
        """
        wanted: Iterable[int] = _whole_numbers(ids)
        if skip_special:
            hidden = {i for name, i in self._special.items() if name not in self._visible}
            wanted = filterfalse(hidden.__contains__, wanted)
        try:
            return b"".join([self._table[i] for i in wanted])
        except KeyError as error:
            raise self._no_such_id(error.args[0]) from None

    def decode_stream(self, ids: Iterable[int], *, skip_special: bool = False) -> Iterator[str]:
        """`decode` while the ids come in: each piece as soon as its characters are whole, never half a character.

        Raises:
            TokenizerError: an id that no token has.
        """
        stream = DecodeStream(self, skip_special=skip_special)
        for token_id in ids:
            if piece := stream.push(token_id):
                yield piece
        if rest := stream.flush():
            yield rest

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes one id stands for.

        Raises:
            TokenizerError: no such id.
        """
        (wanted,) = _whole_numbers([token_id])
        try:
            return self._table[wanted]
        except KeyError:
            raise self._no_such_id(wanted) from None

    def _no_such_id(self, token_id: int) -> TokenizerError:
        unused = self._vocab_size - len(self._table)
        holes = f", {unused} of them unused" if unused else ""
        return TokenizerError(
            f"no token has id {token_id}; ids are 0 to {self._vocab_size - 1}{holes}: was the text encoded with "
            "another tokenizer?"
        )

    def register_special_tokens(self, special_tokens: Mapping[str, int]) -> None:
        """Give names to ids that are free inside the vocabulary, as foreign vocabularies have.

        Raises:
            TokenizerError: an id outside the vocabulary, or one that has a meaning already.
        """
        for name, token_id in special_tokens.items():
            if not 0 <= token_id < self._vocab_size:
                raise TokenizerError(
                    f"special token {name!r}: id {token_id} is outside the vocabulary of {self._vocab_size}, and a "
                    "model of that size has no row for it; train with special_tokens=[...], or use "
                    "add_special_tokens([...]) and resize the model"
                )
            if token_id in self._table and self._special.get(name) != token_id:
                raise TokenizerError(
                    f"special token {name!r}: id {token_id} stands for {self._table[token_id]!r} already; "
                    "add_special_tokens([...]) chooses free ids"
                )
        self._set_vocabulary(self._ordinary, self._special | dict(special_tokens))

    def add_special_tokens(self, names: Sequence[str]) -> dict[str, int]:
        """New control tokens after the last id, so the vocabulary grows: a model needs as many new rows.

        Raises:
            TokenizerError: a name that exists already.
        """
        check_names([*self._special, *names], set(self._ordinary.values()))
        added = {name: i for i, name in enumerate(names, start=self._vocab_size)}
        self._set_vocabulary(self._ordinary, self._special | added)
        return added

    def save(self, path: Path | str) -> None:
        """Write one JSON file with everything needed to load it again."""
        write_state(path, self._state())

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read what `save` wrote.

        Raises:
            TokenizerError: the file is missing, damaged, of another version or another kind of tokenizer.
        """
        state = read_state(path, kind=cls.kind)
        with naming(path):
            return cls._restore(state)
