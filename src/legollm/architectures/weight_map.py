"""Two names for each weight: ours, and the one in a Hugging Face checkpoint; and the way between, in both directions.

A row says how one of their tensors is made of ours. Names are templates: {} is a layer's number.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from legollm.errors import CheckpointError

INDEX = re.compile(r"(?<=\.)\d+(?=\.)")


@dataclass(frozen=True)
class Row:
    """Their tensor is our tensors, stacked along the outputs, and transposed if they store (inputs, outputs)."""

    theirs: str
    ours: tuple[str, ...]
    transpose: bool = False


SAME_NAMES = Row("*", ("*",))
"""For all weights that no other row names: they are called the same on both sides."""


@dataclass(frozen=True, kw_only=True)
class HuggingFace:
    """An architecture as the transformers library knows it."""

    model_type: str
    """The tag in config.json."""
    class_name: str
    """The class that AutoModelForCausalLM makes of it."""
    rows: Sequence[Row]
    config_to_hf: Callable[[Any], dict[str, Any]]
    """Our configuration -> the keys of config.json that are particular to this architecture."""
    config_from_hf: Callable[[Mapping[str, Any]], Any]
    """config.json -> our configuration; refuses what the bricks do not compute."""
    base: str = ""
    """The prefix that checkpoints of the bare model, without its head, leave out."""
    leftovers: Sequence[str] = ()
    """Tensors of old checkpoints that hold no weights, such as stored masks."""


def resolve_rows(rows: Iterable[Row], names: Iterable[str]) -> list[Row]:
    """The rows of one model with its layers' numbers filled in; `names` are its parameters, a tied head left out.

    Raises:
        CheckpointError: a parameter that no row has a place for.
    """
    names = list(names)
    by_template = {row.ours[0]: row for row in rows}
    resolved = []
    for name in names:
        if row := by_template.get(INDEX.sub("{}", name)):
            numbers = INDEX.findall(name)
            ours = tuple(one.format(*numbers) for one in row.ours)
            resolved.append(Row(row.theirs.format(*numbers), ours, row.transpose))
        elif SAME_NAMES.theirs in by_template:
            resolved.append(Row(name, (name,)))
    if homeless := sorted(set(names) - {name for row in resolved for name in row.ours}):
        raise CheckpointError(
            f"{listing(homeless)}: no place for them in this format; merge or remove what was added to the model"
        )
    return resolved


def to_theirs(rows: Iterable[Row], ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their tensors out of ours; `rows` are resolved. What needs no change is not copied."""
    theirs = {}
    for row in rows:
        parts = [ours[name] for name in row.ours]
        tensor = parts[0] if len(parts) == 1 else torch.cat(parts)
        theirs[row.theirs] = tensor.t().contiguous() if row.transpose else tensor
    return theirs


def their_shapes(rows: Iterable[Row], ours: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """The shapes of what `to_theirs` makes of tensors of such shapes."""
    theirs = {}
    for row in rows:
        shape = (sum(ours[name][0] for name in row.ours), *ours[row.ours[0]][1:])
        theirs[row.theirs] = shape[::-1] if row.transpose else shape
    return theirs


def from_theirs(rows: Iterable[Row], theirs: Mapping[str, Tensor], sizes: Mapping[str, int]) -> dict[str, Tensor]:
    """The inverse of `to_theirs`; `sizes` are the outputs (rows) of each of our tensors."""
    ours: dict[str, Tensor] = {}
    for row in rows:
        tensor = theirs[row.theirs]
        if row.transpose:
            tensor = tensor.t().contiguous()
        parts = torch.split(tensor, [sizes[name] for name in row.ours]) if len(row.ours) > 1 else [tensor]
        ours |= dict(zip(row.ours, parts, strict=True))
    return ours


def listing(names: Sequence[str]) -> str:
    """At most ten names, and how many more there are."""
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(names[:10]) + more
