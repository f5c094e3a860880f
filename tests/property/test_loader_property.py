"""Whatever the sizes: each token is learned once per epoch, and stopping, batch size and ranks leave no trace."""

import json
from collections import Counter
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from legollm.data.loader import IGNORED, RowBatches, Rows, WindowBatches, Windows, validation_batches
from legollm.data.mixture import Mixture
from legollm.data.packing import Packed

seq_lens = st.integers(1, 20)
seeds = st.integers(0, 2**63)


def stream(loaders: list[WindowBatches], n_windows: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The next windows of all ranks together, each as its tokens and targets."""
    rows: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    while len(rows) < n_windows:
        for batch in [next(loader) for loader in loaders]:
            pairs = zip(batch.tokens.tolist(), batch.targets.tolist(), strict=True)
            rows += [(tuple(tokens), tuple(targets)) for tokens, targets in pairs]
    return rows


@given(seq_len=seq_lens, extra=st.integers(1, 150), seed=seeds, n_epochs=st.integers(1, 3))
def test_every_token_is_a_target_once_per_epoch(seq_len: int, extra: int, seed: int, n_epochs: int) -> None:
    n_tokens = seq_len + extra
    loader = WindowBatches(np.arange(n_tokens), batch_size=1, seq_len=seq_len, seed=seed)
    for _ in range(n_epochs):
        found: list[int] = []
        while not found or loader.rows.cursor < len(loader.rows.order):
            targets = next(loader).targets
            found += targets[targets != IGNORED].tolist()
        assert sorted(found) == list(range(1, n_tokens))


@settings(max_examples=60, deadline=None)
@given(
    seq_len=seq_lens,
    extra=st.integers(1, 150),
    seed=seeds,
    first=st.sampled_from([(1, 8), (2, 4), (4, 2), (1, 2), (2, 1), (3, 1)]),
    second=st.sampled_from([(1, 8), (2, 4), (4, 2), (1, 3), (2, 3), (3, 2)]),
    n_before=st.integers(0, 60),
)
def test_stopped_and_resumed_with_other_ranks_continues_the_one_order(
    seq_len: int, extra: int, seed: int, first: tuple[int, int], second: tuple[int, int], n_before: int
) -> None:
    ids = np.arange(seq_len + extra)

    def ranks(world_size: int, batch_size: int) -> list[WindowBatches]:
        return [
            WindowBatches(ids, batch_size=batch_size, seq_len=seq_len, seed=seed, rank=rank, world_size=world_size)
            for rank in range(world_size)
        ]

    before = ranks(*first)
    rows = stream(before, n_before) if n_before else []
    states = [json.dumps(loader.state_dict()) for loader in before]
    assert len(set(states)) == 1  # any rank's state is everybody's
    after = ranks(*second)
    for loader in after:
        loader.load_state_dict(json.loads(states[0]))
    rows += stream(after, 40)
    assert rows == stream(ranks(1, 1), len(rows))


@given(seq_len=seq_lens, n_tokens=st.integers(2, 200), batch_size=st.integers(1, 9))
def test_validation_counts_every_target_once(seq_len: int, n_tokens: int, batch_size: int) -> None:
    found: list[int] = []
    for batch in validation_batches(np.arange(n_tokens), batch_size=batch_size, seq_len=seq_len):
        assert batch.tokens.shape[0] <= batch_size
        found += batch.targets[batch.targets != IGNORED].tolist()
    assert found == list(range(1, n_tokens))


def documents(lengths: list[int], first: int = 0) -> tuple[Any, Any]:
    """Ids that tell their place, and where each document of so many begins."""
    return first + np.arange(sum(lengths)), np.cumsum(lengths) - lengths


lengths_of_documents = st.lists(st.integers(1, 40), min_size=1, max_size=40).filter(lambda lengths: max(lengths) > 1)


@settings(max_examples=40, deadline=None)
@given(lengths=lengths_of_documents, seq_len=seq_lens, seed=seeds, look_ahead=st.integers(1, 50))
def test_packing_conserves_tokens(lengths: list[int], seq_len: int, seed: int, look_ahead: int) -> None:
    """In every epoch each token but the first of a document is a target once, after the token that stands before it."""
    ids, starts = documents(lengths)
    packed = Packed(ids, starts, seq_len=seq_len, seed=seed, look_ahead=look_ahead)
    wanted = [i for start, n in zip(starts.tolist(), lengths, strict=True) for i in range(start + 1, start + n)]
    for epoch in range(2):
        found: list[int] = []
        while len(found) < len(wanted):
            batch = packed.build(packed.take(1))
            counts = batch.targets != IGNORED
            assert (batch.tokens[counts] + 1 == batch.targets[counts]).all()
            assert (counts == (batch.documents >= 0)).all()
            new = (batch.documents.diff(dim=1) != 0)[counts[:, 1:]]  # where another document begins
            assert ((batch.positions[:, 1:][counts[:, 1:]] == 0) == new).all()
            assert (batch.positions.diff(dim=1)[counts[:, 1:]][~new] == 1).all()
            found += batch.targets[counts].tolist()
        assert sorted(found) == wanted, epoch


Kind = Literal["windows", "packed", "mixture"]


def rows_of(kind: Kind, seed: int) -> Rows:
    ids, starts = documents([9, 4, 30, 7, 5, 12, 3, 8])
    if kind == "windows":
        return Windows(ids, seq_len=6, seed=seed)
    packed = Packed(ids, starts, seq_len=6, seed=seed, look_ahead=5)
    if kind == "packed":
        return packed
    return Mixture({"a": packed, "b": Packed(ids + 1000, starts, seq_len=6, seed=seed)}, [Fraction(3), Fraction(2)])


Division = tuple[int, int, int]
"""Ranks, rows of a micro-batch, micro-batches of a step."""
EIGHT: list[Division] = [(1, 8, 1), (2, 4, 1), (1, 4, 2), (2, 2, 2), (4, 1, 2), (1, 1, 8), (8, 1, 1), (2, 1, 4)]


def steps(kind: Kind, seed: int, division: Division, state: str | None, n: int) -> tuple[list[Any], str]:
    """The rows of the next n steps, all ranks and micro-batches together, and the state after them."""
    world_size, batch_size, grad_accum = division
    ranks = [
        RowBatches(rows_of(kind, seed), batch_size=batch_size, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    for loader in ranks:
        if state:
            loader.load_state_dict(json.loads(state))
    done = []
    for _ in range(n):
        batches = [next(loader) for _ in range(grad_accum) for loader in ranks]
        done.append(Counter(tuple(row) for batch in batches for row in batch.targets.tolist()))
    states = {json.dumps(loader.state_dict()) for loader in ranks}
    assert len(states) == 1  # any rank's state is everybody's
    return done, states.pop()


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(["windows", "packed", "mixture"]),
    seed=seeds,
    before=st.sampled_from(EIGHT),
    after=st.sampled_from(EIGHT),
    n_before=st.integers(0, 9),
)
def test_each_step_learns_from_the_same_rows_however_it_is_divided(
    kind: Kind, seed: int, before: Division, after: Division, n_before: int
) -> None:
    """Killed and continued with other ranks, batch sizes and micro-batches of the same product, among them 1 -> 2
    ranks and 8 -> 4 rows."""
    first, state = steps(kind, seed, before, None, n_before)
    second, _ = steps(kind, seed, after, state, 8)
    whole, _ = steps(kind, seed, (1, 8, 1), None, n_before + 8)
    assert first + second == whole
