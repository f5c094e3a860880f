"""The sides of a comparison: a base, and variants of which each is the base but for what its swap says."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from legollm.commands.run_folder import flat
from legollm.commands.train import PRESETS, TrainRun
from legollm.config import read, resolve, to_tree
from legollm.config.kinds import hints_of, paths_of
from legollm.config.tree import merge, tree_of
from legollm.errors import ConfigError

BASE = "base"
FIXED = ("run", "resume", "seed", "size", "start_from")
"""Keys that a swap does not change: folders and seeds are given out here, sizes have to be written down."""
PART = re.compile(r",(?=[A-Za-z_][\w.]*[:=])")
"""Between two parts of a swap; a comma within a list has no key after it."""


@dataclass(frozen=True)
class Side:
    """One way of training, whatever the seed."""

    name: str
    """Also of its folder."""
    run: TrainRun
    swapped: Mapping[str, str] = field(default_factory=dict)
    """Key -> what was written, where it differs from the base; empty for the base."""


def variant(base: TrainRun, swap: str) -> Side:
    """`ffn:swiglu` or `model.norm:rmsnorm,ffn:swiglu` -> the base with these bricks.

    Raises:
        ConfigError: no key and value, a key that is not there or stands for several, or a value that cannot be.
    """
    swapped = {}
    for part in PART.split(swap):
        found = re.fullmatch(r"\s*([A-Za-z_][\w.]*)[:=](.*)", part, re.DOTALL)
        if not found:
            raise ConfigError(f"swap: {part!r} is no key:value, such as ffn:swiglu or optim.lr:1e-3")
        swapped[key_of(base, found[1])] = found[2].strip()
    words = [f"{key}={value}" for key, value in swapped.items()]
    tree = merge(tree_of(base, "base of the comparison"), read(None, words))
    return Side(name_of(swap), resolve(TrainRun, tree, presets=PRESETS).value, swapped)


def key_of(base: TrainRun, key: str) -> str:
    """The dotted path of a key, or of the last part of one where no other ends so."""
    top = (*hints_of(TrainRun), "preset")
    if key.partition(".")[0] in FIXED:
        raise ConfigError(f"swap: {key} is the same for all sides; give {key}=... besides")
    if "." in key or key in top:
        return key
    for paths in (flat(to_tree(base)), paths_of(TrainRun)):
        meant = [path for path in dict.fromkeys(paths) if path.endswith(f".{key}")]
        if len(meant) > 1:
            raise ConfigError(f"swap: {key} may be {' or '.join(meant)}; write one of them")
        if meant:
            return meant[0]
    raise ConfigError(f"swap: {key} is no setting of a run; legollm config train shows them")


def name_of(swap: str) -> str:
    """What a folder can be called: ffn:swiglu is ffn-swiglu."""
    return re.sub(r"[^\w.+]+", "-", swap).strip("-.")


def sides_of(base: TrainRun, swaps: Sequence[str]) -> Iterator[Side]:
    """The base, and a side for each swap.

    Raises:
        ConfigError: no swap, one twice, or one that changes nothing that can be named.
    """
    if not swaps:
        raise ConfigError("swap: says what shall differ, such as swap=ffn:swiglu or swap=[optim.lr:1e-3,optim.lr:3e-3]")
    yield Side(BASE, base)
    names = {BASE}
    for swap in swaps:
        side = variant(base, swap)
        if side.name in names or not side.name:
            raise ConfigError(f"swap: {swap!r} occurs twice; each variant once")
        names.add(side.name)
        yield side
