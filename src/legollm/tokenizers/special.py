"""Control tokens such as <|endoftext|>: ids that stand for no text and that text can never produce by itself."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Literal

from legollm.errors import TokenizerError


def cut_at_special(text: str, names: Collection[str]) -> Iterator[tuple[str, bool]]:
    """The parts of `text` in order, each with whether it is one of `names`; where two begin, the longer one counts."""
    if not names:
        if text:
            yield text, False
        return
    longest_first = sorted(names, key=len, reverse=True)
    for i, part in enumerate(re.split("(" + "|".join(map(re.escape, longest_first)) + ")", text)):
        if part:
            yield part, i % 2 == 1


def without_special(texts: str | Iterable[str], names: Collection[str]) -> Iterator[str]:
    """The ordinary text of a training corpus; a control token written in it shall not teach the vocabulary.

    Raises:
        TokenizerError: a name that no special token can have.
    """
    check_names(names, ())
    for text in [texts] if isinstance(texts, str) else texts:
        for part, is_special in cut_at_special(text, names):
            if not is_special:
                yield part


def select(special: Mapping[str, int], wanted: Collection[str] | Literal["all"]) -> set[str]:
    """The names `wanted` means.

    Raises:
        TokenizerError: a name that is no special token of this tokenizer.
    """
    if wanted == "all":
        return set(special)
    names = {wanted} if isinstance(wanted, str) else set(wanted)
    for name in names - special.keys():
        raise TokenizerError(f"no special token {name!r}; this tokenizer has {', '.join(special) or 'none'}")
    return names


def check_names(names: Collection[str], ordinary: Collection[bytes]) -> None:
    """Refuse names that could not be told from text.

    Raises:
        TokenizerError: a name that is empty, no text, given twice, or that an ordinary token spells already.
    """
    for name in names:
        if not name or any("\ud800" <= character <= "\udfff" for character in name):
            raise TokenizerError(f"special token {name!r}: a name needs at least one character and no lone surrogates")
        if name.encode() in ordinary:
            raise TokenizerError(f"special token {name!r} is an ordinary token already; mark it, as in <|{name}|>")
    if len(set(names)) < len(names):
        raise TokenizerError(f"special tokens must differ; found {list(names)}")
