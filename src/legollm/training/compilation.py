"""When to compile a model that trains: at once, never, or after trying it in a run that is long enough to try."""

import logging
import statistics
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from legollm.components.moe import MoE
from legollm.errors import ConfigError
from legollm.team import Team
from legollm.transforms.compiled import Compile, compile_blocks, uncompile_blocks
from legollm.transforms.recompute import blocks

log = logging.getLogger(__name__)

WORTH = 1200.0
"""Seconds that a run must have left to be worth the trial; compiling takes 17 of them on two quiet cores."""
LOOKS = 4
"""Steps that are timed as the model is written, the first of which does not count, and then compiled."""
COMPILES = 2
"""Compiled steps that do not count: they wait for the compiler."""
SHORTER = 0.97
"""A compiled step must take less than this share of the time to be kept."""


@dataclass
class Compilation:
    """What `train.compile` says, carried out between the steps of a run."""

    model: nn.Module
    wish: Compile
    n_steps: int
    """Of the whole run."""
    team: Team
    seconds: list[float] = field(default_factory=list)
    """Of the steps so far, as the model is written."""
    compiled: list[float] | None = None
    """The same of compiled steps, once they are tried."""
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
        is_routed = any(isinstance(module, MoE) for module in self.model.modules())
        can_pay = has_blocks and not is_routed and self.team.size == 1  # others would wait while one compiles
        return decided if can_pay else False

    def after_step(self, step: int, seconds: float, shape: Any) -> bool | None:
        """The same, once steps of that many seconds, with batches of that shape, have shown which way is shorter."""
        self.shapes.add(shape)
        if self.compiled is not None:
            self.compiled.append(seconds)
            return None if len(self.compiled) < COMPILES + LOOKS else self.kept(self.compiled)
        self.seconds.append(seconds)
        if len(self.seconds) < LOOKS:
            return None
        left = (self.n_steps - step) * statistics.median(self.seconds[1:])
        if len(self.shapes) > 1 or left <= WORTH or not compile_blocks(self.model):
            return False
        self.compiled = []
        return None

    def kept(self, compiled: list[float]) -> bool:
        """Whether it is to stay compiled."""
        ratio = statistics.median(compiled[COMPILES:]) / statistics.median(self.seconds[1:])
        keeps = ratio < SHORTER
        log.info("a compiled step takes %.2f of the time: %s", ratio, "kept" if keeps else "taken back")
        if not keeps:
            uncompile_blocks(self.model)
        return keeps
