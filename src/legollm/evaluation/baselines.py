"""What a loss is worth: the same text under models that know nothing, repeat, or count."""

import lzma
import math

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]


def uniform_bits_per_byte(vocab_size: int, n_tokens: int, n_bytes: int) -> float:
    """Every token equally likely: where an untrained model starts."""
    return math.log2(vocab_size) * n_tokens / n_bytes


def lzma_bits_per_byte(text: bytes) -> float:
    """A general compressor that finds repetitions; it learns from this text alone."""
    return 8 * len(lzma.compress(text, preset=9)) / max(1, len(text))


def ngram_loss(train: Ids, val: Ids, *, vocab_size: int, order: int = 4, discount: float = 0.75) -> float:
    """Nats per token of `val` under an n-gram model counted on `train`, absolute discounting (Ney et al. 1994).

    p(w | h) = max(c(h w) - d, 0) / c(h) + d * types(h) / c(h) * p(w | shorter h), down to the uniform distribution:
    what the discount takes from the words seen after h is shared out by the next shorter context. Contexts that were
    never seen pass everything on. The first order - 1 tokens of `val` have no full context and are not counted.
    """
    probability = np.full(len(val), 1 / vocab_size)
    context, context_val = np.zeros(len(train), np.int64), np.zeros(len(val), np.int64)
    for n in range(1, order + 1):
        grams = context * vocab_size + train[n - 1 :]
        pairs, pair_counts = np.unique(grams, return_counts=True)
        contexts, first = np.unique(pairs // vocab_size, return_index=True)  # pairs are sorted, so are contexts
        totals = np.add.reduceat(pair_counts, first)
        types = np.diff(np.append(first, len(pairs)))
        at_context = places(contexts, context_val)
        at_pair = places(pairs, context_val * vocab_size + val[n - 1 :])
        seen, total = at_context >= 0, totals[at_context]
        count = np.where(at_pair >= 0, pair_counts[at_pair], 0)
        kept = np.where(seen, np.maximum(count - discount, 0) / total, 0.0)
        passed_on = np.where(seen, discount * types[at_context] / total, 1.0)
        probability[n - 1 :] = kept + passed_on * probability[n - 1 :]
        if n < order:  # the next context: this one and its word, as their place among the pairs, -1 where they are new
            context, context_val = places(pairs, grams)[:-1], at_pair[:-1]
    return float(-np.log(probability[order - 1 :]).mean())


def places(keys: Ids, wanted: Ids) -> Ids:
    """The index of each number among the sorted keys, -1 where it is none of them."""
    found = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[found] == wanted, found, -1)
