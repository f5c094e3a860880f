"""What a loss is worth: the same text under models that know nothing, repeat, or count."""

import lzma
import math

import numpy as np
import torch
from numpy.typing import NDArray

from legollm.architectures.ngram import NGramConfig, counted

Ids = NDArray[np.int64]


def uniform_bits_per_byte(vocab_size: int, n_tokens: int, n_bytes: int) -> float:
    """Every token equally likely: where an untrained model starts."""
    return math.log2(vocab_size) * n_tokens / n_bytes


def lzma_bits_per_byte(text: bytes) -> float:
    """A general compressor that finds repetitions; it learns from this text alone."""
    return 8 * len(lzma.compress(text, preset=9)) / max(1, len(text))


def ngram_loss(train: Ids, val: Ids, *, vocab_size: int, order: int = 4, discount: float = 0.75) -> float:
    """Nats per token of `val` under an n-gram model counted on `train`, absolute discounting (Ney et al. 1994).

    p(w | h) = max(c(h w) - d, 0) / c(h) + d * types(h) / c(h) * p(w | shorter h), down to the uniform distribution.
    The first order - 1 tokens of `val` have no full context and are not counted.
    """
    cfg = NGramConfig(vocab_size=vocab_size, order=order, smoothing="absolute", discount=discount)
    _, model = counted(cfg, torch.tensor(train.astype(np.int64)))
    return -float(model.log_probs(torch.tensor(val.astype(np.int64))[None])[0, order - 1 :].mean())
