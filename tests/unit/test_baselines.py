"""The models to beat, against slow and obvious ones."""

import lzma
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import pytest

from legollm.evaluation.baselines import lzma_bits_per_byte, ngram_loss, uniform_bits_per_byte


def counted(train: Sequence[int], vocab_size: int, discount: float) -> Callable[[tuple[int, ...], int], float]:
    """p(word | context) by absolute discounting, straight from the formula."""
    after: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
    for n in range(len(train)):
        for i in range(n + 1):
            after[tuple(train[i:n])][train[n]] += 1

    def probability(context: tuple[int, ...], word: int) -> float:
        shorter = probability(context[1:], word) if context else 1 / vocab_size
        if context not in after:
            return shorter
        counts = after[context]
        total = counts.total()
        return max(counts[word] - discount, 0) / total + discount * len(counts) / total * shorter

    return probability


def sequences(seed: int, vocab_size: int, n_train: int, n_val: int) -> tuple[list[int], list[int]]:
    """Text with repetitions; the last id is never in the training half."""
    rng = np.random.RandomState(seed)
    train = (rng.randint(vocab_size - 1, size=n_train) * rng.randint(2, size=n_train)).tolist()
    return train, rng.randint(vocab_size, size=n_val).tolist()


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize(("vocab_size", "discount"), [(4, 0.75), (9, 0.5), (100_000, 0.75)])
def test_ngrams_equal_the_formula(order: int, vocab_size: int, discount: float) -> None:
    """Also where four ids of a large vocabulary do not fit one 64-bit number."""
    train, val = sequences(order, min(vocab_size, 9), 60, 40)
    train, val = ([vocab_size - 1 - i for i in ids] for ids in (train, val))
    probability = counted(train, vocab_size, discount)
    nats = [-math.log(probability(tuple(val[i - order + 1 : i]), val[i])) for i in range(order - 1, len(val))]
    found = ngram_loss(np.array(train), np.array(val), vocab_size=vocab_size, order=order, discount=discount)
    assert found == pytest.approx(sum(nats) / len(nats), rel=1e-12)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_probabilities_sum_to_one(order: int) -> None:
    vocab_size = 7
    train, val = sequences(0, vocab_size, 80, 30)
    for i in range(order - 1, len(val)):
        context = val[i - order + 1 : i]
        losses = [
            ngram_loss(np.array(train), np.array([*context, word]), vocab_size=vocab_size, order=order)
            for word in range(vocab_size)
        ]
        assert sum(math.exp(-loss) for loss in losses) == pytest.approx(1)


def test_longer_contexts_help_where_there_is_something_to_count() -> None:
    ids = np.array([0, 1, 2, 0, 2, 1] * 200)
    losses = [ngram_loss(ids[:900], ids[900:], vocab_size=3, order=order) for order in (1, 2, 3, 4)]
    assert all(a > b for a, b in pairwise(losses[:3]))
    assert losses[0] == pytest.approx(math.log(3), abs=1e-3)
    assert losses[3] < 0.02


def test_uniform_and_repetition() -> None:
    assert uniform_bits_per_byte(256, 10, 10) == 8
    assert uniform_bits_per_byte(1024, 10, 40) == 2.5
    text = b"abc" * 1000
    assert lzma_bits_per_byte(text) == 8 * len(lzma.compress(text, preset=9)) / 3000 < 0.3
    assert 8 < lzma_bits_per_byte(np.random.RandomState(0).bytes(10_000)) < 8.2
    assert math.isfinite(lzma_bits_per_byte(b""))
