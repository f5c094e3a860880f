"""Text repeats its words: the ids of each are found once and remembered."""

from collections.abc import Callable, Iterable

MAX_CACHED_PIECES = 1 << 17
MAX_CACHED_LENGTH = 32
"""Longer pieces rarely come back; with both bounds a cache stays below some 40 MB."""


class WordCache:
    """The ids of pieces of text, by `encode_piece` the first time and from memory after that."""

    def __init__(self, encode_piece: Callable[[str], list[int]]) -> None:
        self.encode_piece = encode_piece
        self.known: dict[str, list[int]] = {}

    def encode(self, pieces: Iterable[str]) -> list[int]:
        """The ids of all pieces in order."""
        known = self.known
        ids: list[int] = []
        for piece in pieces:
            found = known.get(piece)
            if found is None:
                found = self.encode_piece(piece)
                if len(piece) <= MAX_CACHED_LENGTH:
                    if len(known) >= MAX_CACHED_PIECES:
                        known.clear()
                    known[piece] = found
            ids += found
        return ids
