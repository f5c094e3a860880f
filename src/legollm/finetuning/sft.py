"""Supervised fine-tuning: next-token training in which only the assistant's words are targets."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from legollm.data.loader import RowBatches
from legollm.data.packing import Packed
from legollm.device import generator
from legollm.errors import DataError
from legollm.interfaces import Batch
from legollm.training.objective import IGNORED


class Example(NamedTuple):
    """One conversation as ids."""

    ids: list[int]
    is_target: list[bool]
    """For each id whether the model is to learn to write it."""


def check(examples: Sequence[Example], max_len: int) -> None:
    """
    Raises:
        DataError: no examples, or one longer than max_len or without any target.
    """
    if not examples:
        raise DataError("no examples to fine-tune on")
    for i, example in enumerate(examples):
        if len(example.ids) > max_len:
            raise DataError(
                f"example {i + 1}: {len(example.ids)} tokens, the model reads {max_len}; shorten it, or "
                "start from a base model with a larger model.max_seq_len"
            )
        if not any(example.is_target[1:]):  # the first id follows nothing, so nothing learns to write it
            raise DataError(f"example {i + 1}: no word of it is the assistant's; nothing to learn from")


def packed(
    examples: Sequence[Example], batch_size: int, *, seed: int, max_len: int, rank: int = 0, world_size: int = 1
) -> RowBatches:
    """A BatchSource of rows of max_len that hold several conversations each, none of which sees another.

    A pass over all of them has the loss that they have in padded rows.

    Raises:
        DataError: see `check`.
    """
    check(examples, max_len)
    lengths = np.array([len(example.ids) for example in examples])
    rows = Packed(
        np.concatenate([example.ids for example in examples]),
        np.cumsum(lengths) - lengths,
        seq_len=max_len,
        seed=seed,
        is_target=np.concatenate([example.is_target for example in examples]),
    )
    return RowBatches(rows, batch_size=batch_size, rank=rank, world_size=world_size)


RUN = 12
"""Examples of about one length that follow each other."""
BUCKET = 32 * RUN
"""Shuffled examples that are sorted by length to make runs of."""


class ExampleBatches:
    """A BatchSource of conversations: shuffled epochs, each example once, rows padded to the longest of their batch.

    Padding stands to the right, where causal attention cannot see it, and its targets are ignored: the loss does not
    depend on it. The order is a pure function of the seed and the epoch, whatever the batch size. Of the next
    batch_size * world_size of them each rank gets its own consecutive batch_size.

    Raises:
        DataError: no examples, or one longer than max_len or without any target.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        batch_size: int,
        *,
        seed: int,
        max_len: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        check(examples, max_len)
        self.examples, self.batch_size, self.seed, self.max_len = examples, batch_size, seed, max_len
        self.rank, self.world_size = rank, world_size
        self.n_seen = 0  # examples handed out since the start, over all epochs and to all processes
        self.epoch, self.order = 0, self.order_of(0)

    def __next__(self) -> Batch:
        first = self.n_seen + self.rank * self.batch_size
        chosen = [self.example(first + i) for i in range(self.batch_size)]
        self.n_seen += self.batch_size * self.world_size
        return padded(chosen, self.max_len)

    def example(self, index: int) -> Example:
        epoch, place = divmod(index, len(self.examples))
        if epoch != self.epoch:
            self.epoch, self.order = epoch, self.order_of(epoch)
        return self.examples[self.order[place]]

    def order_of(self, epoch: int) -> list[int]:
        """Shuffled, but examples of about one length follow each other: less padding, the same examples."""
        rng = generator(self.seed, f"examples/{epoch}")
        shuffled: list[int] = torch.randperm(len(self.examples), generator=rng).tolist()
        runs = []
        for start in range(0, len(shuffled), BUCKET):
            bucket = sorted(shuffled[start : start + BUCKET], key=lambda i: len(self.examples[i].ids))
            runs += [bucket[first : first + RUN] for first in range(0, len(bucket), RUN)]
        return [i for place in torch.randperm(len(runs), generator=rng).tolist() for i in runs[place]]

    def state_dict(self) -> dict[str, Any]:
        return {"n_seen": self.n_seen, **self.identity()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """
        Raises:
            DataError: the state is about other examples or another order of them.
        """
        for key, mine in self.identity().items():
            if state.get(key) != mine:
                raise DataError(
                    f"the saved place in the examples has {key} = {state.get(key)}, this run {mine}; set it back"
                )
        self.n_seen = int(state["n_seen"])

    def figures(self) -> dict[str, float]:
        """How often the examples were read so far."""
        return {"epochs": self.n_seen / len(self.examples)}

    def identity(self) -> dict[str, int]:
        return {"seed": self.seed, "n_examples": len(self.examples)}


def in_order(examples: Sequence[Example], batch_size: int, *, max_len: int = 0) -> Iterator[Batch]:
    """Every example once, for validation; sorted by length so that little is padding."""
    ranked = sorted(examples, key=lambda example: len(example.ids))
    for start in range(0, len(ranked), batch_size):
        yield padded(ranked[start : start + batch_size], max_len)


WIDTHS = 32
"""Batches are as wide as a multiple of this: kernels are prepared and kept for each width that occurs."""


def padded(examples: Sequence[Example], max_len: int = 0) -> Batch:
    """Rows of unequal length as one batch: tokens (B, T), and targets shifted by one with IGNORED elsewhere.

    max_len: how far the width may be rounded up; 0 leaves it as it is.
    """
    longest = max(len(example.ids) for example in examples) - 1
    width = max(longest, min(-(-longest // WIDTHS) * WIDTHS, max_len))
    tokens = torch.zeros(len(examples), width, dtype=torch.int64)
    targets = torch.full_like(tokens, IGNORED)
    for row, (ids, is_target) in enumerate(examples):
        n = len(ids) - 1
        tokens[row, :n] = torch.tensor(ids[:-1])
        targets[row, :n] = torch.tensor(
            [i if wanted else IGNORED for i, wanted in zip(ids[1:], is_target[1:], strict=True)]
        )
    return Batch(tokens, targets)
