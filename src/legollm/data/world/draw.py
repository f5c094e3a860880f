"""Counted, portable randomness: every choice a document makes, and how many bits it took."""

import hashlib
import math
import random
from collections.abc import Sequence
from typing import Literal, TypeVar

T = TypeVar("T")

Split = Literal["train", "val"]

VAL_PERCENT = 5
_LOG2 = [0.0, *(math.log2(n) for n in range(1, 4096))]


class Draw:
    """Random choices that add up their information.

    Only `random.Random.random` is used: it is what Python promises to keep the same for a seed, in all versions and on
    all machines. The document is a function of its choices, so the entropy of the source is at most the expected
    `bits`; a choice that is thrown away and made again has been counted, which keeps it an upper bound.
    """

    __slots__ = ("_uniform", "bits")

    def __init__(self, *name: int | str) -> None:
        """name: what the choices are for, such as (seed, stream, index); equal names make equal choices."""
        digest = hashlib.sha256("/".join(map(str, name)).encode()).digest()
        self._uniform = random.Random(int.from_bytes(digest[:8], "big")).random
        self.bits = 0.0

    def below(self, n: int) -> int:
        """One of 0 .. n - 1."""
        self.bits += _LOG2[n]
        return int(self._uniform() * n)

    def pick(self, options: Sequence[T]) -> T:
        """One of `options`, all equally likely."""
        n = len(options)
        self.bits += _LOG2[n]
        return options[int(self._uniform() * n)]

    def chance(self, p: float) -> bool:
        """True with probability p, 0 < p < 1."""
        hit = self._uniform() < p
        self.bits -= math.log2(p if hit else 1.0 - p)
        return hit

    def sample(self, options: Sequence[T], k: int) -> list[T]:
        """k different positions of `options`, in random order."""
        pool = list(options)
        for i in range(k):
            j = i + self.below(len(pool) - i)
            pool[i], pool[j] = pool[j], pool[i]
        return pool[:k]


def split_of(key: str) -> Split:
    """The side a document belongs to, decided by its content: what has one key never is on both sides."""
    digest = hashlib.sha256(key.encode()).digest()
    return "val" if int.from_bytes(digest[:8], "big") % 100 < VAL_PERCENT else "train"
