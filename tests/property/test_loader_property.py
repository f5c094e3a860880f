"""Whatever the sizes: each token is learned once per epoch, and stopping, batch size and ranks leave no trace."""

import json

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from legollm.data.loader import IGNORED, WindowBatches, validation_batches

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
