"""Which text is for training and which for validation.

hash: each document by its content, so that it stays where it is when others are added, and copies stay together.
tail: the last characters of the corpus, cut exactly, as is usual for a single book.
own:  as the corpus itself comes divided.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from legollm.data.documents import BadRows, Piece
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


def plan_split(source: Source, rule: SplitRule, *, val_fraction: float, seed: int) -> SplitPlan:
    """Read the corpus once and decide for each document; val_fraction is from 0 up to below 1.

    Raises:
        DataError: no document for one of the splits.
    """
    if source.splits:
        return SplitPlan("own")
    n_chars, in_val = 0, bytearray()
    salt = f"{seed}:".encode()
    digest = hashlib.sha256(salt)
    for piece in source.pieces(BadRows(source.on_bad_row)):
        n_chars += len(piece.text)
        if rule != "tail":  # which asks only where the text ends
            digest.update(piece.text.encode("utf-8"))
        if piece.ends:
            in_val.append(int.from_bytes(digest.digest()[:8], "big") < val_fraction * 2**64)
            digest = hashlib.sha256(salt)
    if rule == "auto":
        rule = "hash" if len(in_val) * val_fraction >= ENOUGH_DOCUMENTS else "tail"
    if rule == "tail":
        return SplitPlan("tail", n_train_chars=int(n_chars * (1 - val_fraction)))
    if val_fraction > 0 and not 0 < sum(in_val) < len(in_val):
        empty = "validation" if not any(in_val) else "training"
        hint = "use split=tail, or another val_fraction or seed"
        raise DataError(f"{source.name}: by content hash none of {len(in_val)} documents is for {empty}; {hint}")
    return SplitPlan("hash", in_val=bytes(in_val))


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
        if left >= len(piece.text):
            yield "train", piece
        elif left <= 0:
            yield "val", piece
        else:
            first, second = piece.halves(left)
            yield "train", first
            yield "val", second
        left -= len(piece.text)
