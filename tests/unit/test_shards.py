"""Several arrays as one: equal to the array they were cut from."""

import random

import numpy as np
import pytest

from legollm.data.shards import Shards, joined


@pytest.mark.parametrize("cuts", [(), (5,), (1, 2, 3), (4, 4, 9), (0, 10)])
def test_slices_and_gathers_are_those_of_the_whole(cuts: tuple[int, ...]) -> None:
    whole = np.arange(100, 110, dtype=np.uint16)
    shards = Shards(np.split(whole, cuts))
    assert len(shards) == 10
    for start in (None, 0, 3, 5, 10, -4, 99):
        for stop in (None, 0, 4, 5, 9, -1, 99):
            assert shards[start:stop].tolist() == whole[start:stop].tolist()
    rng = random.Random(0)
    places = np.array([[rng.randrange(10) for _ in range(7)] for _ in range(20)])
    assert np.array_equal(shards[places], whole[places])
    assert shards[places].dtype == np.uint16


def test_one_part_is_itself() -> None:
    part = np.arange(3)
    assert joined([part]) is part
    assert isinstance(joined([part, part]), Shards)
