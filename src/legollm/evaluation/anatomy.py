"""The parts of a model as a tree: what they are called, what they are, how large, and how often in a row."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby

from torch import nn

from legollm.components.quantized import QuantizedLinear

INVISIBLE = (nn.Identity, nn.Dropout)
"""Modules that stand where a brick could be, and that have no numbers of their own."""


@dataclass(frozen=True)
class Part:
    """A module of a model, or several equal ones in a row."""

    name: str
    """Where it is in its parent: attn, or blocks.0-11."""
    kind: str
    """Its class."""
    shape: str
    """Of its own weights: 768 -> 3072 for a linear map, 50257 x 768 for a table."""
    n_parameters: int
    """Of all its modules together; weights that an earlier part has are not counted again."""
    module: nn.Module
    """The first of them."""
    children: tuple["Part", ...] = ()
    times: int = 1
    shared_with: str = ""
    """The earlier part that has the same weights."""

    def walk(self, depth: int = 0) -> Iterator[tuple[int, "Part"]]:
        """This part and all below it, with how deep they lie."""
        yield depth, self
        for child in self.children:
            yield from child.walk(depth + 1)


def anatomy(model: nn.Module) -> Part:
    """The tree of a model's parts; parts that stand in a list are grouped where they are equal."""
    return part_of("", model, "", {})


def part_of(name: str, module: nn.Module, path: str, owners: dict[int, str]) -> Part:
    """owners: the place of every parameter that was counted, by its identity."""
    own = dict(module.named_parameters(recurse=False))
    elsewhere = {owners[id(parameter)] for parameter in own.values() if id(parameter) in owners}
    n_own = sum(parameter.numel() for parameter in own.values() if id(parameter) not in owners)
    owners |= {id(parameter): path for parameter in own.values() if id(parameter) not in owners}
    if isinstance(module, QuantizedLinear):
        n_own += module.in_features * module.out_features
    if isinstance(module, nn.Linear | QuantizedLinear):
        shape = f"{module.in_features} -> {module.out_features}"
    else:
        shape = ", ".join(" x ".join(map(str, parameter.shape)) for parameter in own.values())
    children: list[Part] = []
    for key, child in module.named_children():
        below = f"{path}.{key}" if path else key
        if isinstance(child, nn.ModuleList):
            children += in_a_row(key, child, below, owners)
        elif not isinstance(child, INVISIBLE):
            children.append(part_of(key, child, below, owners))
    return Part(
        name=name,
        kind=type(module).__name__,
        shape=shape,
        n_parameters=n_own + sum(child.n_parameters for child in children),
        module=module,
        children=tuple(children),
        shared_with=", ".join(sorted(elsewhere)),
    )


def in_a_row(key: str, modules: nn.ModuleList, path: str, owners: dict[int, str]) -> Iterator[Part]:
    """The members of a list, neighbours that look the same as one."""
    parts = [part_of(f"{key}.{i}", module, f"{path}.{i}", owners) for i, module in enumerate(modules)]
    for _, group in groupby(parts, key=looks):
        first, *others = group
        if not others:
            yield first
            continue
        yield replace(
            first,
            name=f"{first.name}-{others[-1].name.rpartition('.')[2]}",
            n_parameters=sum(part.n_parameters for part in (first, *others)),
            times=1 + len(others),
        )


def looks(part: Part) -> tuple[object, ...]:
    """What two parts have in common that differ in their numbers only."""
    window = getattr(part.module, "window", None)
    return part.kind, part.shape, window, tuple((child.name, *looks(child)) for child in part.children)
