"""Where tokens lie in a text: from widths in bytes to spans of characters."""

import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Span = tuple[int, int]
"""(start, end) in characters, so that text[start:end] is what a token touches."""


def byte_spans(text: str, widths: Sequence[int]) -> list[Span]:
    """The characters that runs of `widths` bytes of the text's UTF-8 touch, one run after the other.

    A run that begins or ends inside a character has all of that character, so neighbours can share one.
    """
    data = np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8)
    ends = np.cumsum(widths, dtype=np.int64)
    if data.size == len(text):  # one byte a character
        return list(zip((ends - widths).tolist(), ends.tolist(), strict=True))
    character: NDArray[np.int64] = np.cumsum((data & 0xC0) != 0x80) - 1  # the one each byte belongs to
    return list(zip(character[ends - widths].tolist(), (character[ends - 1] + 1).tolist(), strict=True))


def nfc_spans(text: str) -> list[Span]:
    """For each character of the text's normal form C, the characters of `text` it was made from.

    A stretch that the normal form changes is taken as a whole: where two marks change places or three Hangul letters
    become a syllable, every character of the result has the span of all that went in.
    """
    spans: list[Span] = []
    start = 0
    for end in [*_nfc_cuts(text), len(text)]:
        stretch = text[start:end]
        normal = unicodedata.normalize("NFC", stretch)
        if normal == stretch:
            spans += [(i, i + 1) for i in range(start, end)]
        else:
            spans += [(start, end)] * len(normal)
        start = end
    return spans


def _nfc_cuts(text: str) -> list[int]:
    """Where the text can be cut so that the normal forms of the parts make up the normal form of the whole."""
    cuts = []
    start = 0
    for i, character in enumerate(text):
        if i == 0 or unicodedata.combining(unicodedata.normalize("NFD", character)[0]):
            continue  # a mark may change places with those before it
        before = text[start:i]
        if character > "\u02ff":  # below that, nothing joins what stands before it
            both = unicodedata.normalize("NFC", before + character)
            if both != unicodedata.normalize("NFC", before) + unicodedata.normalize("NFC", character):
                continue
        cuts.append(i)
        start = i
    return cuts
