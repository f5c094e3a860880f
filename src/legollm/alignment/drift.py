"""How far a tuned model went from where it began, measured on answers that it writes itself."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import NamedTuple

from torch import nn

from legollm.alignment.pairs import Pair
from legollm.alignment.reference import log_probs_of
from legollm.checkpoints.loading import Loaded
from legollm.generation.complete import decode, open_rows
from legollm.generation.sampling import Sampling
from legollm.transforms.lora import without_adapters


class Drift(NamedTuple):
    """The divergence of a model from another, estimated from its answers."""

    nats: float
    """Per answer: the mean of how much likelier its answers are to itself. No bias; may be negative by chance."""
    n_answers: int
    n_tokens: int


def drift_of(
    tuned: Loaded, start: nn.Module | None, prompts: Sequence[list[int]], *, seed: int, max_new_tokens: int
) -> Drift:
    """KL(tuned, start) over answers to the prompts, sampled at temperature 1 from all that the model finds possible.

    start: None is the tuned model without its adapters.
    """
    sampling = Sampling(temperature=1.0, max_new_tokens=max_new_tokens, seed=seed)
    _, decoding, _ = tuned.settings_of({})
    rows = open_rows(tuned.writer, prompts, sampling, decoding)
    answers: dict[int, list[int]] = {id(row): [] for row in rows}
    for row, token in decode(tuned.writer, rows, sampling, stop_ids=tuned.stop_ids(), decoding=decoding):
        answers[id(row)].append(token)
    pairs = [Pair(prompt, (answers[id(row)],)) for row, prompt in zip(rows, prompts, strict=True)]
    mine = log_probs_of(tuned.model, pairs, batch_size=16, max_len=0)
    with nullcontext() if start else without_adapters(tuned.model):
        gained = mine - log_probs_of(start or tuned.model, pairs, batch_size=16, max_len=0)
    return Drift(float(gained.sum()) / len(pairs), len(pairs), gained.numel())
