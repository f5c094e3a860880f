"""Read ahead: the same batches, and a state that knows only those that were handed out."""

import json
from typing import Any

import numpy as np
import pytest
import torch

from legollm.data.loader import WindowBatches
from legollm.data.prefetch import Prefetched
from legollm.errors import DataError


def source(seed: int = 1) -> WindowBatches:
    return WindowBatches(np.arange(300), batch_size=3, seq_len=8, seed=seed)


@pytest.mark.parametrize("n_ahead", [0, 1, 2, 9])
def test_order_and_state_are_those_of_the_source(n_ahead: int) -> None:
    plain, ahead = source(), Prefetched(source(), n_ahead)
    assert ahead.state_dict() == plain.state_dict()
    for _ in range(40):
        assert torch.equal(next(ahead).tokens, next(plain).tokens)
        assert ahead.state_dict() == plain.state_dict()
        assert ahead.figures() == plain.figures()


@pytest.mark.parametrize("n_before", [0, 1, 7, 30])
def test_what_was_read_ahead_is_not_lost_when_a_run_goes_on(n_before: int) -> None:
    first = Prefetched(source(), 3)
    for _ in range(n_before):
        next(first)
    state = json.loads(json.dumps(first.state_dict()))
    expected = [next(first).tokens for _ in range(20)]
    resumed = Prefetched(source(), 3)
    for _ in range(5):
        next(resumed)  # what it has read ahead by now is of the wrong place
    resumed.load_state_dict(state)
    assert resumed.state_dict() == state
    for tokens in expected:
        assert torch.equal(next(resumed).tokens, tokens)


def test_batches_are_read_before_they_are_asked_for() -> None:
    ahead = Prefetched(source(), 4)
    next(ahead)
    for future in ahead.waiting:
        future.result(timeout=10)
    assert len(ahead.waiting) == 4
    assert ahead.batches.state_dict()["cursor"] == 15  # five batches of three
    assert ahead.state_dict()["cursor"] == 3


def test_errors_of_the_source_arrive_where_the_batch_is_asked_for() -> None:
    class Broken(WindowBatches):
        n = 0

        def __next__(self) -> Any:
            self.n += 1
            if self.n == 3:
                raise DataError("the disk is gone")
            return super().__next__()

    ahead = Prefetched(Broken(np.arange(300), batch_size=3, seq_len=8, seed=1), 4)
    next(ahead), next(ahead)
    with pytest.raises(DataError, match="the disk is gone"):
        next(ahead)
    with pytest.raises(DataError, match="seed = 2, this run 1"):
        Prefetched(source(), 1).load_state_dict(source(seed=2).state_dict())
