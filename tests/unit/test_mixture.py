"""Sources by turns: the proportions hold all along, each source is read as it would be alone, and it all continues."""

import json
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch

from legollm.data.loader import IGNORED, RowBatches, Rows, Windows
from legollm.data.mixture import Mixture, Turns
from legollm.data.packing import Packed
from legollm.errors import DataError

WEIGHTS = [
    ("3", "1"),
    ("13", "3", "13"),
    ("50", "50", "1"),
    ("1", "1"),
    ("1", "1", "1"),
    ("7", "2", "1"),
    ("0.55", "1/3", "0.1", "5"),
    ("1", "97"),
    ("2",),
]


@pytest.mark.parametrize("weights", WEIGHTS)
def test_every_share_is_exact_all_along(weights: tuple[str, ...]) -> None:
    """After any number of turns to less than one; between any two places to one for two sources, below two for more."""
    shares = [Fraction(weight) for weight in weights]
    total = sum(shares)
    n = 400
    turns = Turns(shares).take(n)
    for number, share in enumerate(shares):
        had = [0]
        for turn in turns:
            had.append(had[-1] + (turn == number))
        off = [count - Fraction(place) * share / total for place, count in enumerate(had)]
        k = len(weights)
        assert max(map(abs, off)) <= 1 - Fraction(1, max(2 * k - 2, 1))
        spread = max(off) - min(off)  # the worst window of any length
        assert spread <= 1 if k <= 2 else spread < 2


def test_equal_weights_take_turns_and_the_rarest_is_spread_out() -> None:
    assert Turns([Fraction(1)] * 3).take(6) in ([0, 1, 2] * 2, [0, 2, 1] * 2, [1, 2, 0] * 2)
    turns = Turns([Fraction(4), Fraction(1)]).take(50)
    rare = [place for place, turn in enumerate(turns) if turn == 1]
    assert {b - a for a, b in pairwise(rare)} == {5}


def windows(first: int, n: int, seed: int = 1) -> Windows:
    return Windows(np.arange(first, first + n), seq_len=8, seed=seed)


def mixture() -> Mixture:
    return Mixture({"a": windows(0, 100), "b": windows(1000, 60)}, [Fraction(3), Fraction(1)])


def test_each_source_is_read_as_if_alone_without_replacement() -> None:
    source = RowBatches(mixture(), batch_size=5)
    rows = torch.cat([next(source).tokens for _ in range(40)])
    for mine, alone in ((rows[rows[:, 0] < 1000], windows(0, 100)), (rows[rows[:, 0] >= 1000], windows(1000, 60))):
        assert torch.equal(mine, next(RowBatches(alone, batch_size=len(mine))).tokens)
    assert len(rows[rows[:, 0] < 1000]) == 150


def test_rows_come_in_the_order_of_the_turns_whatever_the_batch() -> None:
    one, other = RowBatches(mixture(), batch_size=1), RowBatches(mixture(), batch_size=7)
    for _ in range(20):
        batch = next(other)
        single = [next(one) for _ in range(7)]
        assert torch.equal(batch.tokens, torch.cat([row.tokens for row in single]))
        assert torch.equal(batch.targets, torch.cat([row.targets for row in single]))
    starts = batch.tokens[:, 0].tolist()
    assert [int(start >= 1000) for start in starts] == Turns([Fraction(3), Fraction(1)]).take(140)[-7:]


@pytest.mark.parametrize("n_before", [0, 1, 13, 50])
def test_resumed_in_the_middle_gives_the_same_batches(n_before: int) -> None:
    whole = RowBatches(mixture(), batch_size=3)
    for _ in range(n_before):
        next(whole)
    resumed = RowBatches(mixture(), batch_size=3)
    next(resumed)
    resumed.load_state_dict(json.loads(json.dumps(whole.state_dict())))
    for _ in range(30):
        assert torch.equal(next(resumed).tokens, next(whole).tokens)


def test_packed_sources_mix_as_well() -> None:
    ids, starts = np.arange(60), np.arange(0, 60, 6)

    def packed(add: int) -> Rows:
        return Packed(ids + add, starts, seq_len=8, seed=1)

    batch = next(RowBatches(Mixture({"a": packed(0), "b": packed(100)}, [Fraction(1), Fraction(1)]), batch_size=6))
    assert ((batch.tokens >= 100).any(1)).sum() == 3
    counts = batch.targets != IGNORED
    assert torch.equal(batch.targets[counts], batch.tokens[counts] + 1)
    assert torch.equal(counts, batch.documents >= 0)


def test_epochs_are_told_per_source_and_foreseen() -> None:
    mixed = mixture()
    assert mixed.figures() == {"epochs_a": 0, "epochs_b": 0}
    mixed.take(80)
    now, foreseen = mixed.figures(), mixture().figures_after(80)
    assert now == pytest.approx(foreseen, rel=0.1)
    assert foreseen == {"epochs_a": pytest.approx(60 * 8 / 99), "epochs_b": pytest.approx(20 * 8 / 59)}


def test_state_of_other_weights_is_refused() -> None:
    other = Mixture({"a": windows(0, 100), "b": windows(1000, 60)}, [Fraction(2), Fraction(1)])
    with pytest.raises(DataError, match=r"weights = \['3', '1'\], this run \['2', '1'\]"):
        other.load_state_dict(mixture().state_dict())
