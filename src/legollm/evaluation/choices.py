"""Multiple choice: the answer is the choice that the model finds likeliest, not one that it has to write.

acc        by log p of the whole choice, which favours short ones
acc_norm   by log p for each character of the choice
acc_bytes  by log p for each of its bytes; the same as acc_norm in plain English

The three names and definitions are those of lm-evaluation-harness.
"""

import logging
from collections.abc import Sequence
from typing import NamedTuple

from legollm.data.benchmarks import Item
from legollm.evaluation.likelihood import Likelihood, fitted, log_likelihoods
from legollm.evaluation.prompts import Prompts
from legollm.generation.cache import GenerativeModel

log = logging.getLogger(__name__)

N_BATCHES = 16
"""So many batches of questions are tokenised at once."""
METRICS = ("acc", "acc_norm", "acc_bytes")


class Judged(NamedTuple):
    """An item, what the model says of each choice, and how much of the context it had no room for."""

    item: Item
    said: tuple[Likelihood, ...]
    n_cut: int

    def picked(self, metric: str) -> int:
        """The choice that is likeliest by a metric; of equals the first."""
        sizes = {
            "acc": [1] * len(self.said),
            "acc_norm": [max(1, len(choice)) for choice in self.item.choices],
            "acc_bytes": [max(1, len(choice.encode())) for choice in self.item.choices],
        }[metric]
        scores = [one.log_prob / size for one, size in zip(self.said, sizes, strict=True)]
        return scores.index(max(scores))

    def is_right(self, metric: str) -> bool:
        return self.picked(metric) == self.item.right


def judge_all(
    model: GenerativeModel,
    prompts: Prompts,
    items: Sequence[Item],
    before: Sequence[str],
    *,
    window: int | None,
    batch_size: int,
) -> list[Judged]:
    """What the model says of the choices of each item, in order.

    before: what each item's prompt stands after: instructions and worked examples. Where a context has more tokens
    than the window leaves room for, it loses the first ones.
    """
    found: list[Judged] = []
    n_at_once = N_BATCHES * batch_size  # the ids of all contexts of a large test are gigabytes
    for first in range(0, len(items), n_at_once):
        some = items[first : first + n_at_once]
        fits = [
            [fitted(pair, window) for pair in prompts.pairs(head + item.prompt, [f" {one}" for one in item.choices])]
            for item, head in zip(some, before[first : first + n_at_once], strict=True)
        ]
        asked = [one for own in fits for one, _ in own]
        said = iter(log_likelihoods(model, asked, batch_size=batch_size))
        for item, own in zip(some, fits, strict=True):
            found.append(Judged(item, tuple(next(said) for _ in own), max(n_cut for _, n_cut in own)))
        log.info("%d of %d questions", len(found), len(items))
    return found
