"""What the numbers of a run say before it fails: each alarm is one line that names what to do."""

import logging
import math
from collections.abc import Sequence
from statistics import median

log = logging.getLogger(__name__)

WINDOW = 100
"""Steps whose losses and gradient norms are remembered."""
LEAST = 20
"""Steps before their median says what is usual."""
SPIKE = 10.0
"""Times the usual gradient norm that is worth a word."""
STALE_LOOKS = 5
"""Looks at the validation set without a better one that are worth a word."""


def usual(norms: Sequence[float]) -> float:
    """The median of the last gradient norms; infinite while there are too few to say."""
    return median(norms) if len(norms) >= LEAST else math.inf


def warn_of_spike(step: int, norm: float, norms: Sequence[float]) -> None:
    """Of a gradient much larger than usual; once for those that follow each other."""
    if norm > SPIKE * usual(norms) and norms[-1] <= SPIKE * usual(norms):
        log.warning(
            "step %d: the gradient's norm is %.3g, %.0f times the usual %.3g; if the loss follows, lower optim.lr or "
            "give train.spike_factor=%.0f, which leaves such steps out",
            *(step, norm, norm / usual(norms), usual(norms), SPIKE),
        )


def warn_of_first_loss(loss: float, vocab_size: int) -> None:
    """Of a model that starts worse than one that knows nothing. loss: of the first step, in nats."""
    if loss > math.log(vocab_size) + 1:
        log.warning(
            "step 1: the loss is %.2f, guessing among %d ids costs ln %d = %.2f: the first logits are too large; make "
            "the initial weights of the head smaller, or see whether this tokenizer is the model's",
            *(loss, vocab_size, vocab_size, math.log(vocab_size)),
        )


def warn_of_plateau(step: int, best_step: int | None, best_loss: float | None, eval_every: int) -> None:
    """Of a validation loss that does not fall any more; once, at the look where that becomes clear."""
    if best_step is not None and eval_every and step - best_step == STALE_LOOKS * eval_every:
        log.warning(
            "step %d: no better validation loss in %d looks than %.4f at step %d, which is kept; stop here, lower "
            "optim.lr, or give more text",
            *(step, STALE_LOOKS, best_loss, best_step),
        )
