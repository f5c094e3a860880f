"""Which text is for training and which for validation.

hash: each document by its content, so that it stays where it is when others are added, and copies stay together.
tail: the last characters of the corpus, cut exactly, as is usual for a single book.
own:  as the corpus itself comes divided.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from legollm.data.decoding import count_text
from legollm.data.documents import BadRows, Piece, n_characters, place_of_character
from legollm.data.sources import Source, Split
from legollm.errors import DataError

SplitRule = Literal["auto", "hash", "tail"]

ENOUGH_DOCUMENTS = 10
"""`auto` divides by document when at least this many can be expected in the smaller split."""


@dataclass(frozen=True)
class SplitPlan:
    """A rule with what it needs to know about the corpus, found in one pass over it."""

    rule: Literal["own", "hash", "tail"]
    in_val: bytes = b""
    """hash: one byte per document, 1 if it is for validation."""
    n_train_chars: int = 0
    """tail: how many characters come before the cut."""
    n_bytes: int | None = None
    """Bytes of text in all; unknown where nothing had to be read."""


def plan_split(
    source: Source, rule: SplitRule, *, val_fraction: float, seed: int, progress: Callable[[int], None] | None = None
) -> SplitPlan:
    """Read the corpus once and decide for each document; val_fraction is from 0 up to below 1.

    progress: called with the bytes of text read so far, where documents have to be found.

    Raises:
        DataError: no document for one of the splits.
    """
    if source.splits:
        return SplitPlan("own")
    if source.plain is not None and rule == "auto" and not _enough(len(source.plain), val_fraction):
        rule = "tail"
    if source.plain is not None and rule == "tail":
        counts = [count_text(name, path) for name, path in source.plain.items()]
        return _plan_tail(sum(n for n, _ in counts), sum(n for _, n in counts), val_fraction)
    n_bytes, n_chars, in_val = 0, 0, bytearray()
    salt = f"{seed}:".encode()
    digest = hashlib.sha256(salt)
    for piece in source.pieces(BadRows(source.on_bad_row)):
        n_bytes += len(piece.data)
        n_chars += n_characters(piece.data)
        if progress is not None:
            progress(n_bytes)
        if rule != "tail":  # which asks only where the text ends
            digest.update(piece.data)
        if piece.ends:
            in_val.append(int.from_bytes(digest.digest()[:8], "big") < val_fraction * 2**64)
            digest = hashlib.sha256(salt)
    if rule == "auto":
        rule = "hash" if _enough(len(in_val), val_fraction) else "tail"
    if rule == "tail":
        return _plan_tail(n_bytes, n_chars, val_fraction)
    if val_fraction > 0 and not 0 < sum(in_val) < len(in_val):
        empty = "validation" if not any(in_val) else "training"
        hint = "use split=tail, or another val_fraction or seed"
        raise DataError(f"{source.name}: by content hash none of {len(in_val)} documents is for {empty}; {hint}")
    return SplitPlan("hash", in_val=bytes(in_val), n_bytes=n_bytes)


def _plan_tail(n_bytes: int, n_chars: int, val_fraction: float) -> SplitPlan:
    return SplitPlan("tail", n_train_chars=int(n_chars * (1 - val_fraction)), n_bytes=n_bytes)


def _enough(n_documents: int, val_fraction: float) -> bool:
    return n_documents * val_fraction >= ENOUGH_DOCUMENTS


def split_pieces(source: Source, plan: SplitPlan, bad_rows: BadRows) -> Iterator[tuple[Split, Piece]]:
    """The pieces of the corpus, each with the split it belongs to.

    A document through which a tail is cut is a document of both splits; it ends in the second only.
    """
    if plan.rule == "own":
        for split in source.splits:
            yield from ((split, piece) for piece in source.pieces(bad_rows, split))
    elif plan.rule == "hash":
        number = 0
        for piece in source.pieces(bad_rows):
            yield "val" if plan.in_val[number] else "train", piece
            number += piece.ends
    else:
        yield from _tail_pieces(source.pieces(bad_rows), plan.n_train_chars)


def _tail_pieces(pieces: Iterator[Piece], n_train_chars: int) -> Iterator[tuple[Split, Piece]]:
    left = n_train_chars
    for piece in pieces:
        n_chars = n_characters(piece.data)
        if left >= n_chars:
            yield "train", piece
        elif left <= 0:
            yield "val", piece
        else:
            first, second = piece.halves(place_of_character(piece.data, left))
            yield "train", first
            yield "val", second
        left -= n_chars
