"""Where pairs of answers, and judged answers, come from, for every verb that learns from them."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import ClassVar, TypeVar

from legollm.data.preferences import (
    Judgement,
    Preference,
    has_judgements,
    read_judgements,
    read_preferences,
    world_preferences,
)
from legollm.errors import ConfigError

Said = TypeVar("Said", Preference, Judgement)


@dataclass(frozen=True, kw_only=True)
class PairConfig:
    """Where the pairs come from."""

    SHORTHAND: ClassVar[str] = "source"

    source: str = "world"
    """A .jsonl file or .json list whose rows have `prompt`, `chosen` and `rejected`, for kto also `completion`
    and `label`, true or false; or world: questions about stories, each with the right answer and a wrong one."""
    template: str | None = None
    """How they are laid out: chatml, qwen, llama3, alpaca, plain, or a file with a chat template. Null takes the
    template that the base model came with, or chatml."""
    n_examples: int = 4000
    """world: how many pairs to learn from, about."""
    val_fraction: float = 0.05
    """Share of a file's pairs that is kept for validation; no prompt is in both."""
    n_val: int = 200
    """Pairs to validate on at most."""

    def __post_init__(self) -> None:
        for name in ("n_examples", "n_val"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: must be at least 1, found {getattr(self, name)}")
        if not 0 < self.val_fraction < 1:
            raise ConfigError(f"val_fraction: a share between 0 and 1, found {self.val_fraction}")


def preferences_of(cfg: PairConfig) -> tuple[list[Preference], list[Preference]]:
    """Those to learn from and those to validate on.

    Raises:
        DataError: a row that is no pair; names file and line.
        ConfigError: not enough prompts for the two.
    """
    if cfg.source == "world":
        train = world_preferences(0, 0, cfg.n_examples, split="train")
        val = world_preferences(0, 0, 100 * cfg.n_val, split="val")
        return list(train), list(islice(val, cfg.n_val))
    return parted(read_preferences(Path(cfg.source)), cfg)


def judgements_of(cfg: PairConfig) -> tuple[list[Judgement], list[Judgement]] | None:
    """Judged answers to learn from and to validate on; None where the source has pairs only.

    Raises:
        DataError: a row that is neither; names file and line.
        ConfigError: not enough prompts for the two.
    """
    if cfg.source == "world" or not has_judgements(Path(cfg.source)):
        return None
    return parted(read_judgements(Path(cfg.source)), cfg)


def parted(found: Iterable[Said], cfg: PairConfig) -> tuple[list[Said], list[Said]]:
    """Rows of a file in two, by their prompts, whatever their order was."""
    every = sorted(found, key=lambda one: digest(one.prompt))
    n_val = max(1, min(cfg.n_val, int(cfg.val_fraction * len(every))))
    while 0 < n_val < len(every) and every[n_val].prompt == every[n_val - 1].prompt:
        n_val += 1
    if n_val >= len(every):
        raise ConfigError(
            f"data.source: {cfg.source} has {len(every)} rows, too few different prompts to learn from some and check "
            "with others"
        )
    return every[n_val:], every[:n_val]


def digest(prompt: Sequence[object]) -> bytes:
    return hashlib.sha256(repr(prompt).encode()).digest()
