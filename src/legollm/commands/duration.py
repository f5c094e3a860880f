"""How long a whole run takes, from the pace of its parts: steps, looks at the validation text, checkpoints."""

import math
from collections.abc import Mapping
from typing import Any

from legollm.commands.calibrate import Pace, seq_len_of
from legollm.commands.train import TrainRun

DAY_S = 86_400.0


def duration(cfg: TrainRun, pace: Pace, *, save: float, start: float, n_val_tokens: int) -> dict[str, Any]:
    """Seconds by kind and in all, `last_look` being a part of the evaluation; preparing the text is not among them.

    save: of one checkpoint. start: until the first step. n_val_tokens: 0 if nobody knows; the last look then takes as
    many batches as the others.
    """
    loop, one = cfg.train, pace.seconds
    looks, saves = events(loop.max_steps, loop.eval_every, loop.save_every)
    n_tokens = loop.batch_size * loop.grad_accum * seq_len_of(cfg)
    last = math.ceil(n_val_tokens / (loop.batch_size * seq_len_of(cfg))) or loop.eval_batches
    last_look = last * one.evaluation + one.sample
    parts = {
        "start": start,
        "training": loop.max_steps * one.step,
        "evaluation": (looks - 1) * (loop.eval_batches * one.evaluation + one.sample) + last_look,
        "saving": saves * save,
    }
    return {
        "step": one.step,
        "tokens_per_s": n_tokens / one.step,
        "measured_steps": pace.n_steps,
        "measured_part": pace.how,
        "last_look": last_look,
        **parts,
        "total": sum(parts.values()),
    }


def events(max_steps: int, eval_every: int, save_every: int) -> tuple[int, int]:
    """How often a run looks at the validation text and how often it saves; each look is taken to be the best so far,
    after which it saves, too."""
    looks = (max_steps - 1) // eval_every if eval_every else 0
    saves = (max_steps - 1) // save_every if save_every else 0
    both = (max_steps - 1) // math.lcm(eval_every, save_every) if looks and saves else 0
    return looks + 1, 1 + (saves + looks - both if save_every else 0)


def shares(time: Mapping[str, Any]) -> str:
    """What takes how much of it: 95 % training, 4 % evaluation."""
    kinds = {kind: time[kind] / time["total"] for kind in ("training", "evaluation", "saving", "start")}
    return ", ".join(f"{100 * share:.0f} % {kind}" for kind, share in kinds.items() if share >= 0.005)


def readable(seconds: float) -> str:
    """45 ms, 12.3 s, 5 min, 3.4 h, 12 days."""
    for limit, unit, factor in ((1, "ms", 1e-3), (120, "s", 1), (7200, "min", 60), (2 * DAY_S, "h", 3600)):
        if seconds < limit:
            return f"{seconds / factor:.3g} {unit}"
    return f"{seconds / DAY_S:,.3g} days" if seconds < 1000 * DAY_S else f"{seconds / DAY_S:,.0f} days"
