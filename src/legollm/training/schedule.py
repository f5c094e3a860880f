"""The learning rate as a pure function of the step: nothing to save, nothing to restore."""

import math
from typing import Literal, get_args

from legollm.errors import ConfigError

Schedule = Literal["cosine", "linear", "constant", "wsd"]


def learning_rate(
    step: int,
    *,
    peak: float,
    max_steps: int,
    schedule: Schedule,
    warmup_steps: int = 0,
    min_ratio: float = 0.0,
    decay_fraction: float = 0.2,
) -> float:
    """The rate of step 0, 1, ... max_steps - 1: linear warm-up to `peak`, then down to min_ratio * peak.

    cosine: half a cosine (Loshchilov & Hutter 2017, arXiv:1608.03983); linear; constant; wsd: warm-up, stable, and a
    linear decay over the last `decay_fraction` of all steps (Hu et al. 2024, arXiv:2404.06395).
    """
    if step < warmup_steps:
        return peak * (step + 1) / (warmup_steps + 1)
    if schedule == "wsd":
        start = max(warmup_steps, max_steps - math.ceil(decay_fraction * max_steps))
    else:
        start = warmup_steps
    done = min(1.0, max(0.0, (step - start) / max(1, max_steps - start)))  # 0 at the start of the decay, 1 at its end
    if schedule == "cosine":
        share = 0.5 * (1 + math.cos(math.pi * done))
    elif schedule in ("linear", "wsd"):
        share = 1 - done
    elif schedule == "constant":
        share = 1.0
    else:
        raise ConfigError(f"optim.schedule: {schedule!r} is none of {', '.join(get_args(Schedule))}")
    return peak * (min_ratio + (1 - min_ratio) * share)
