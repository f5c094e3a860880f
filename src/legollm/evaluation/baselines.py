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
    for n in range(1, order + 1):
        context_train, word_train = grams(train, n, vocab_size)
        context, word = grams(val, n, vocab_size)
        pairs, pair_counts = np.unique(context_train * vocab_size + word_train, return_counts=True)
        contexts, first = np.unique(pairs // vocab_size, return_index=True)  # pairs are sorted, so are contexts
        totals = np.add.reduceat(pair_counts, first)
        types = np.diff(np.append(first, len(pairs)))
        total = looked_up(contexts, totals, context)
        seen = total > 0
        count = looked_up(pairs, pair_counts, context * vocab_size + word)
        kept = np.maximum(count - discount, 0) / np.maximum(total, 1)
        passed_on = np.where(seen, discount * looked_up(contexts, types, context) / np.maximum(total, 1), 1.0)
        probability[n - 1 :] = kept + passed_on * probability[n - 1 :]
    return float(-np.log(probability[order - 1 :]).mean())


def grams(ids: Ids, n: int, vocab_size: int) -> tuple[Ids, Ids]:
    """For each place with n - 1 tokens before it, those tokens as one number, and the token itself."""
    assert vocab_size**n < 2**63, "contexts of this order do not fit a 64-bit number"
    wide = ids.astype(np.int64)
    context = np.zeros(len(wide) - n + 1, np.int64)
    for i in range(n - 1):
        context = context * vocab_size + wide[i : len(wide) - n + 1 + i]
    return context, wide[n - 1 :]


def looked_up(keys: Ids, values: Ids, wanted: Ids) -> Ids:
    """values[i] where keys[i] == wanted, else 0; keys are sorted."""
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, values[place], 0)
