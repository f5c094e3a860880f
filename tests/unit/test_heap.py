"""The heap that grows as glibc's does, against one that looks at every byte."""

import random

import pytest

from legollm.evaluation import heap as module
from legollm.evaluation.heap import SLACK, Heap


def places_of(heap: Heap) -> list[tuple[int, int]]:
    """(where, bytes) of all that is neither free nor beyond the end."""
    small = [(at, SLACK) for at in heap.small]
    return sorted([*heap.blocks.values(), *small])


def test_free_places_are_the_gaps_between_blocks() -> None:
    heap, rng, alive = Heap(), random.Random(1), []
    for number in range(2000):
        if alive and rng.random() < 0.48:
            heap.give_back(alive.pop(rng.randrange(len(alive))))
        else:
            heap.take(number, rng.choice([8, 100, 4096, 5000, 70_000]))
            alive.append(number)
        if number % 100 == 99:
            heap.step_ends()
        at, gaps = 0, []
        for start, size in places_of(heap):
            assert start >= at  # nothing lies on anything else
            gaps += [(start - at, at)] if start > at else []
            at = start + size
        assert heap.end == at
        assert heap.free == sorted(gaps)
    for number in alive:
        heap.give_back(number)
    heap.step_ends()
    assert (heap.end, heap.free) == (0, [])


def test_the_smallest_place_that_is_large_enough_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TAKEN", 0.0)
    heap = Heap()
    for number, n_bytes in enumerate((5000, 8, 3000, 8, 4000, 8)):
        heap.take(number, n_bytes)
    reached = heap.most
    places = {number: at for number, (at, _) in heap.blocks.items()}
    for number in (0, 2, 4):
        heap.give_back(number)
    heap.take(6, 3500)
    assert heap.blocks[6][0] == places[4]
    assert heap.most == reached


@pytest.mark.parametrize(("n_bytes", "reached"), [(10_000, 3), (10_000 - SLACK, 2)])
def test_a_place_is_too_small_for_a_block_of_its_own_size(n_bytes: int, reached: int) -> None:
    heap = Heap()
    heap.take(0, 10_000)
    heap.take(1, 10_000)
    heap.give_back(0)
    heap.take(2, n_bytes)
    assert heap.most == pytest.approx(reached * 10_000, rel=0.02)


def test_what_something_small_has_taken_comes_back_with_the_end_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TAKEN", 1.0)
    heap = Heap()
    heap.take(0, 10_000)
    heap.give_back(0)
    assert heap.end > 10_000
    heap.step_ends()
    assert heap.end == 0
