"""What every configuration is checked for; each message starts with the name of the field to change."""

import difflib
from collections.abc import Iterable
from typing import Any

from legollm.errors import ConfigError


def check_positive(cfg: Any, *names: str) -> None:
    """Counts, widths and bounds: whole numbers from 1.

    Raises:
        ConfigError: one of them is not.
    """
    for name in names:
        value = getattr(cfg, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ConfigError(f"{name}: expected a whole number from 1, found {value!r}")


def check_divides(cfg: Any, part: str, whole: str) -> None:
    """`cfg.part` divides `cfg.whole`.

    Raises:
        ConfigError: it does not; lists what would.
    """
    n, total = getattr(cfg, part), getattr(cfg, whole)
    if total % n:
        *others, last = [str(d) for d in range(1, total + 1) if total % d == 0]
        raise ConfigError(f"{part}: {n} does not divide {whole} = {total}; use {', '.join(others)} or {last}")


def check_brick(cfg: Any, name: str, possible: Iterable[str]) -> None:
    """`cfg.name` names a brick: one of this package, or module:Name of one that is not.

    Raises:
        ConfigError: it does not.
    """
    value, names = getattr(cfg, name), list(possible)
    if value not in names and ":" not in value:
        near = difflib.get_close_matches(value, names, n=1)
        hint = f"did you mean {near[0]}?" if near else "for one of your own write module:Name"
        raise ConfigError(f"{name}: {value!r} is none of {', '.join(names)}; {hint}")


def check_dropout(cfg: Any) -> None:
    """A share of numbers set to zero.

    Raises:
        ConfigError: it is not from 0 to below 1.
    """
    if not 0 <= cfg.dropout < 1:
        raise ConfigError(f"dropout: expected a share from 0 to below 1, found {cfg.dropout!r}")


def check_rotary(name: str, d_head: int) -> None:
    """Rotary positions turn pairs of channels.

    Raises:
        ConfigError: a head has an odd number of them; `name` is the field that decides it.
    """
    if d_head % 2:
        raise ConfigError(f"{name}: makes heads of {d_head} channels; rotary positions need an even number")


def check_experts(cfg: Any) -> None:
    """A mixture of experts.

    Raises:
        ConfigError: more of them work on a token than there are, or balance would be punished.
    """
    if cfg.n_active > cfg.n_experts:
        raise ConfigError(
            f"n_active: {cfg.n_active} of n_experts = {cfg.n_experts} cannot be; use 1 to {cfg.n_experts}"
        )
    for name in ("balance_loss", "z_loss"):
        if getattr(cfg, name) < 0:
            raise ConfigError(f"{name}: must not be negative, found {getattr(cfg, name)}")
