"""The algorithms by name: each is an advantage, a ratio, and a way to put the tokens of an answer together."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import Tensor

from legollm.alignment.advantages import RunningBaseline, group_centred, group_normalised, leave_one_out
from legollm.alignment.policy import Average


class Kind(NamedTuple):
    """One algorithm that needs no value head."""

    average: Average
    advantage: Callable[[Tensor], Tensor] | None
    """(P, G) -> (P, G); None: what is above a baseline that the run keeps."""
    by_answer: bool = False
    """Whether the ratio is that of whole answers."""
    kl_in_loss: bool = True
    """Otherwise divergence is taken off the rewards."""
    clip_high: float | None = None
    """Where nothing else is said; None is as clip."""
    extra_rounds: int = 0
    """Where nothing else is said."""
    mask_overlong: bool = False
    """Where nothing else is said."""


KINDS: Mapping[str, Kind] = {
    "grpo": Kind("answer", group_normalised),
    "dr_grpo": Kind("constant", group_centred),
    "dapo": Kind("token", group_normalised, clip_high=0.28, extra_rounds=3, mask_overlong=True),
    "rloo": Kind("sum", leave_one_out, by_answer=True, kl_in_loss=False),
    "reinforce": Kind("sum", None, kl_in_loss=False),
}


def advantage_of(kind: Kind, baseline: RunningBaseline) -> Callable[[Tensor], Tensor]:
    """Rewards (P, G) -> advantages (P, G)."""
    return kind.advantage or baseline.advantages
