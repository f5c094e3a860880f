"""When to compile a model that trains: at once, never, or as soon as its first steps show that it pays."""

import logging
import statistics
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from legollm.components.moe import MoE
from legollm.errors import ConfigError
from legollm.team import Team
from legollm.transforms.compiled import Compile, compile_blocks
from legollm.transforms.recompute import blocks

log = logging.getLogger(__name__)

WARM_UP = 60.0
"""Seconds that compiling takes, with room: 17 for a block of GPT-2 on two cores that do nothing else, 3 from its
cache."""
GAIN = 0.15
"""Share of a step's time that it saves at least: 0.28 for GPT-2 124M in bfloat16 on a CPU."""
LOOKS = 4
"""Steps that are timed before that is decided; the first one, which is slower, does not count."""


@dataclass
class Compilation:
    """What `train.compile` says, carried out between the steps of a run."""

    model: nn.Module
    wish: Compile
    n_steps: int
    """Of the whole run."""
    team: Team
    seconds: list[float] = field(default_factory=list)
    """Of the steps so far."""
    shapes: set[Any] = field(default_factory=set)
    """Of their batches: each further one is compiled anew."""

    def start(self, decided: bool | None) -> bool | None:
        """Before the first step. decided: what an earlier process did, or None -> what this one does, None for later.

        Raises:
            ConfigError: a model without blocks is to be compiled.
        """
        if self.wish == "never":
            return False
        has_blocks = any(True for _ in blocks(self.model))
        if self.wish == "always" and not has_blocks:
            raise ConfigError("train.compile: this model has no blocks that could be compiled; use never")
        if self.wish == "always" or decided:
            return compile_blocks(self.model)
        can_pay = has_blocks and not any(isinstance(module, MoE) for module in self.model.modules())
        return decided if can_pay else False

    def after_step(self, step: int, seconds: float, shape: Any) -> bool | None:
        """The same, once a few steps of that many seconds and batches of that shape have shown what it is worth."""
        self.seconds.append(seconds)
        self.shapes.add(shape)
        if len(self.seconds) < LOOKS:
            return None
        left = (self.n_steps - step) * statistics.median(self.seconds[1:])
        pays = len(self.shapes) == 1 and left * GAIN > WARM_UP
        if not self.team.tell(lambda: "it pays" if pays else ""):  # the leader's clock decides for all
            return False
        log.info("the blocks are compiled now: about %.0f s of training are left", left)
        return compile_blocks(self.model)
