"""One number for the size of a model: "25M" becomes width, depth, heads, a learning rate and how much to read.

Width is 64 times depth, as in GPT-2 (768 and 12): at a given number of parameters the loss hardly depends on the shape
(Kaplan et al. 2020, arXiv:2001.08361, section 3.1), and this one keeps to the middle of what they tried. Heads are as
wide as is usual for the width. What is left to the number asked for goes into the feed-forward.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import nn

from legollm.device import without_memory
from legollm.errors import ConfigError

ASPECT = 64
"""d_model / n_layers."""
WIDTHS = [16, *range(32, 512, 32), *range(512, 2048, 64), *range(2048, 16_385, 128)]
TOKENS_PER_PARAMETER = 20
"""What a parameter is best shown if the next token costs as much as the next parameter (Hoffmann et al. 2022,
arXiv:2203.15556, table 3)."""
TOLERANCE = 0.05
UNITS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}

Build = Callable[[Any], nn.Module]


class Sized(NamedTuple):
    """What follows from a size."""

    config: Any
    n_parameters: int
    """All of them, the embeddings included; within 5 % of what was asked for."""

    @property
    def lr(self) -> float:
        """Peak learning rate."""
        return usual_lr(self.n_parameters)

    @property
    def n_tokens(self) -> int:
        """How many tokens to train on."""
        return TOKENS_PER_PARAMETER * self.n_parameters


def usual_lr(n_parameters: int) -> float:
    """Peak learning rate of Adam, 0.003239 - 0.0001395 ln N (Kaplan et al. 2020, equation D.1), for N to 10^10."""
    return round(0.003239 - 0.0001395 * math.log(min(n_parameters, 10**10)), 6)


def parse_size(text: str) -> int:
    """Parameters: 25M, 1.5B, 300k or 25_000_000.

    Raises:
        ConfigError: no such number.
    """
    match = re.fullmatch(r"(\d[\d_]*(?:\.\d+)?)\s*([kmb]?)", text.strip().lower())
    if not match or not float(match[1]):
        raise ConfigError(f"size: expected a number of parameters such as 25M, 1.5B or 300k, found {text!r}")
    return round(float(match[1]) * UNITS[match[2]])


def sized(cfg: Any, build: Build, size: str, fixed: Mapping[str, Any] | None = None) -> Sized:
    """`cfg` with the shape that has about as many parameters as `size` says.

    fixed: fields that stay as they are given here, whatever the rule says.

    Raises:
        ConfigError: not a size; an architecture without depth or width; a size that its vocabulary or what is fixed
            does not allow.
    """
    target, fixed = parse_size(size), fixed or {}
    fitting = Fitting(cfg, build, fixed)
    if not {"n_layers", "n_heads", "d_model"} <= fitting.usual.keys():
        raise ConfigError(f"size: {cfg.arch} has no depth and width to choose; leave size out")
    width = nearest(WIDTHS, fitting.count, target)
    shape = fitting.shape(width)
    if "d_ff" in shape and "d_ff" not in fixed:
        shape = fitting.tuned(shape, "d_ff", 8, target, within=1.5)
    if not is_near(fitting.count_of(shape), target) and "d_model" not in fixed:
        pairs = 2 if "rope_theta" in fitting.usual else 1  # rotary positions turn pairs of channels
        shape = fitting.shape(width)
        shape = fitting.tuned(shape, "d_model", pairs * fitting.replaced(shape).n_heads, target, within=2.0)
    n = fitting.count_of(shape)
    if not is_near(n, target):
        raise ConfigError(
            f"size: the nearest {cfg.arch} with {cfg.vocab_size:,} ids has {n:,} parameters; ask for that, or change "
            f"{', '.join(sorted(fixed)) or 'the vocabulary'}"
        )
    return Sized(fitting.replaced(shape), n)


class Fitting:
    """Shapes of one architecture and what they weigh; models are built without memory, to be counted."""

    def __init__(self, cfg: Any, build: Build, fixed: Mapping[str, Any]) -> None:
        self.cfg, self.build, self.fixed = cfg, build, fixed
        self.usual = {field.name: getattr(cfg, field.name) for field in dataclasses.fields(cfg)}

    def shape(self, width: int) -> dict[str, int]:
        """The rule: everything that follows from the width, of what the architecture leaves open."""
        d_head = min(width, 32) if width < 512 else 64
        n_heads = self.fixed.get("n_heads", width // d_head)
        rule = {"n_layers": max(2, round(width / ASPECT)), "d_model": width, "n_heads": n_heads, "d_head": d_head}
        if "n_kv_heads" in self.usual:  # grouped where they usually are, if heads go in pairs
            is_paired = self.usual["n_kv_heads"] < self.usual["n_heads"] and n_heads % 2 == 0
            rule["n_kv_heads"] = n_heads // 2 if is_paired else n_heads
        if "d_ff" in self.usual:
            rule["d_ff"] = round(width * self.usual["d_ff"] / self.usual["d_model"] / 8) * 8
        return {name: value for name, value in rule.items() if name in self.usual.keys() - self.fixed.keys()}

    def replaced(self, shape: Mapping[str, Any]) -> Any:
        return dataclasses.replace(self.cfg, **{**shape, **self.fixed})

    def count_of(self, shape: Mapping[str, Any]) -> int:
        with without_memory():
            return sum(p.numel() for p in self.build(self.replaced(shape)).parameters())

    def count(self, width: int) -> int:
        return self.count_of(self.shape(width))

    def tuned(self, shape: dict[str, int], name: str, step: int, target: int, *, within: float) -> dict[str, int]:
        """`shape` with one of its numbers, a multiple of `step`, moved to where the count is nearest to the target."""
        low = max(1, math.ceil(shape[name] / within / step))
        high = max(low, math.floor(shape[name] * within / step))
        choices = range(low * step, high * step + 1, step)
        best = nearest(choices, lambda value: self.count_of({**shape, name: value}), target)
        return {**shape, name: best}


def nearest(choices: Sequence[int], count: Callable[[int], int], target: int) -> int:
    """The choice whose count, which grows along the choices, is nearest to the target."""
    low, high = 0, len(choices) - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(choices[middle]) <= target else (low, middle)
    return min(choices[low], choices[high], key=lambda choice: abs(count(choice) - target))


def is_near(n: int, target: int) -> bool:
    return abs(n - target) <= TOLERANCE * target
