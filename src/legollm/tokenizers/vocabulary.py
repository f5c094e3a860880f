"""What every tokenizer here shares: a table from ids to bytes, control tokens, decoding and files.

A tokenizer adds how it finds the ids of ordinary text (`_encode_ordinary`) and what defines it (`_state`, `_restore`).
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import filterfalse
from pathlib import Path
from typing import Any, Literal, Self

from legollm.errors import TokenizerError
from legollm.tokenizers.files import fingerprint, naming, read_state, write_state
from legollm.tokenizers.special import check_names, cut_at_special, select


class VocabularyTokenizer(ABC):
    """Text <-> ids over a table of byte strings.

    Lone surrogates, which are no text, are encoded to the three bytes UTF-8 would give them: `decode_bytes` returns
    those exactly, and `decode`, whose result can always be printed and sent, shows U+FFFD.
    """

    kind: str

    _visible: Collection[str] = ()
    """Special tokens that decoding never skips; foreign vocabularies have some, such as <think>."""

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
        return fingerprint(self._state())

    def encode(
        self,
        text: str,
        *,
        allowed_special: Collection[str] | Literal["all"] = (),
        disallowed_special: Collection[str] | Literal["all"] = (),
    ) -> list[int]:
        """Token ids of `text`. What looks like a special token is plain text unless it is in `allowed_special`.

        Raises:
            TokenizerError: `text` contains a special token named in `disallowed_special` and not in `allowed_special`.
        """
        allowed = select(self._special, allowed_special)
        refused = select(self._special, disallowed_special) - allowed
        if not allowed and not refused:
            return self._encode_ordinary(text)
        ids: list[int] = []
        position = 0
        for part, is_special in cut_at_special(text, allowed | refused):
            if not is_special:
                ids += self._encode_ordinary(part)
            elif part in allowed:
                ids.append(self._special[part])
            else:
                raise TokenizerError(
                    f"the text has the special token {part!r} at character {position}; remove it, or name it in "
                    "allowed_special if the text may control the model"
                )
            position += len(part)
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text, specials never parsed."""
        return [self._encode_ordinary(text) for text in texts]

    def decode(self, ids: Iterable[int], *, skip_special: bool = False) -> str:
        """The text of `ids`; bytes that are no UTF-8 become U+FFFD.

        Raises:
            TokenizerError: an id that no token has.
        """
        return self.decode_bytes(ids, skip_special=skip_special).decode("utf-8", "replace")

    def decode_bytes(self, ids: Iterable[int], *, skip_special: bool = False) -> bytes:
        """The bytes of `ids`, exactly.

        Raises:
            TokenizerError: an id that no token has.
        """
        wanted: Iterable[int] = map(int, ids)
        if skip_special:
            hidden = {i for name, i in self._special.items() if name not in self._visible}
            wanted = filterfalse(hidden.__contains__, wanted)
        try:
            return b"".join([self._table[i] for i in wanted])
        except KeyError as error:
            raise self._no_such_id(error.args[0]) from None

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes one id stands for.

        Raises:
            TokenizerError: no such id.
        """
        try:
            return self._table[token_id]
        except KeyError:
            raise self._no_such_id(token_id) from None

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
