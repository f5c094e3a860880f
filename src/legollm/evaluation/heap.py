"""How large the heap of the C library grows while blocks of memory come and go, which is more than they hold at once.

As glibc does it: a block gets the smallest free place that is large enough, free neighbours become one place, and where
none is large enough the heap grows at its end. PyTorch asks for blocks that begin at a multiple of 64 bytes, for which
glibc looks for 96 bytes more and gives back what is too much. Where a neighbour or something small takes that rest, the
place is too small for the next block of the same size, so that even steps that repeat themselves need new places.
"""

import bisect
import random

OVERHEAD, SLACK = 24, 96
"""Bytes of a block's own note, rounded up; and those that are looked for beside it."""
TAKEN = 0.1
"""Of those rests, the share that something small takes for the length of a step: fitted to runs like those of
benchmarks/bench_plan.py."""


class Heap:
    """Places in one row of bytes; `most` is how far it ever reached."""

    def __init__(self) -> None:
        self.end = self.most = 0
        self.free: list[tuple[int, int]] = []
        """(bytes, where) of all free places but the one at the end, the smallest first."""
        self.starts: dict[int, int] = {}
        """Where each of them begins: its bytes."""
        self.ends: dict[int, int] = {}
        """Where each of them ends: its bytes."""
        self.blocks: dict[int, tuple[int, int]] = {}
        """By number: where, bytes."""
        self.small: list[int] = []
        """Where something small has taken a rest."""
        self.chance = random.Random(0)

    def take(self, number: int, n_bytes: int) -> None:
        """A place for a block."""
        size = (n_bytes + OVERHEAD) & ~15
        i = bisect.bisect_left(self.free, (size + SLACK, -1))
        if i < len(self.free):
            found, at = self.free[i]
            self.remove(found, at)
        else:
            found, at = size + SLACK, self.end
            self.end += found
            self.most = max(self.most, self.end)
        self.blocks[number] = at, size
        rest = at + size
        if self.chance.random() < TAKEN:
            self.small.append(rest)
            rest += SLACK
        self.add(at + found - rest, rest)

    def give_back(self, number: int) -> None:
        at, size = self.blocks.pop(number)
        self.add(size, at)

    def step_ends(self) -> None:
        """What was small goes."""
        for at in self.small:
            self.add(SLACK, at)
        self.small.clear()

    def add(self, size: int, at: int) -> None:
        """A free place, joined with its free neighbours; at the end of the heap, the heap is shorter."""
        if before := self.ends.get(at):
            self.remove(before, at - before)
            size, at = size + before, at - before
        if after := self.starts.get(at + size):
            self.remove(after, at + size)
            size += after
        if at + size == self.end:
            self.end = at
        elif size:
            bisect.insort(self.free, (size, at))
            self.starts[at] = self.ends[at + size] = size

    def remove(self, size: int, at: int) -> None:
        del self.free[bisect.bisect_left(self.free, (size, at))], self.starts[at], self.ends[at + size]
