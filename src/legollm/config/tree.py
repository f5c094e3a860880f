"""What was written, before it has a type: trees of `Given` leaves, and how one lies over another.

In a tree the key "" holds a bare value where settings are possible, too: `tokenizer=char` and
`tokenizer.vocab_size=512` make {"tokenizer": {"": char, "vocab_size": 512}}. The order of the keys is the order of
writing: the last one wins.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias


@dataclass(frozen=True)
class Given:
    """A value as it was written, and where."""

    value: Any
    """From YAML: text, None, or a list of those; from the command line: text; from a preset: anything."""
    origin: str
    """`run.yaml:7`, `command line`, `preset small`, `default`."""
    is_text: bool = False
    """Came from the command line, where lists and null are text, too."""
    is_soft: bool = False
    """Came from a preset: gives way without a complaint where the user chose another architecture."""


Tree: TypeAlias = dict[str, "Tree | Given"]


class Section(Tree):
    """Settings below a key of a YAML file, and the place of that key."""

    def __init__(self, origin: str) -> None:
        super().__init__()
        self.origin = origin


def tree_of(value: Any, origin: str) -> Tree:
    """A preset, given as a dataclass or as nested mappings, as a soft tree."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    tree: Tree = {}
    for key, item in value.items():
        nested = isinstance(item, Mapping) or (dataclasses.is_dataclass(item) and not isinstance(item, type))
        tree[key] = tree_of(item, origin) if nested else Given(item, origin, is_soft=True)
    return tree


def merge(below: Tree, above: Tree) -> Tree:
    """`above` wins leaf by leaf; where a bare value meets settings, both are kept, in the order of writing."""
    merged = dict(below)
    for key, item in above.items():
        under = merged.pop(key, None)  # and to the end: it was written last
        if under is None or (isinstance(under, Given) and isinstance(item, Given)):
            merged[key] = item
        else:
            merged[key] = merge(as_settings(under), as_settings(item))
    return merged


def as_settings(node: "Tree | Given") -> Tree:
    return {"": node} if isinstance(node, Given) else node


def without_soft(tree: Tree) -> Tree:
    """What the user wrote."""
    return {
        key: node if isinstance(node, Given) else without_soft(node) for key, node in tree.items() if not is_soft(node)
    }


def is_soft(node: "Tree | Given") -> bool:
    """Whether all of it comes from presets."""
    return node.is_soft if isinstance(node, Given) else bool(node) and all(is_soft(child) for child in node.values())


def origin_of(node: "Tree | Given") -> str | None:
    """Where a value or some settings were written; of settings on a command line, where the first of them was."""
    if isinstance(node, Given | Section):
        return node.origin
    return next((origin for child in node.values() if (origin := origin_of(child))), None)


def join(at: str, key: str) -> str:
    """The dotted path of a key."""
    return f"{at}.{key}" if at else key
