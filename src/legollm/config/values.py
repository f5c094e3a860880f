"""One value as the type of its field: text from YAML or the command line, or what a preset holds."""

import dataclasses
import math
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from legollm.config.kinds import is_optional, is_union, members_of, name_of
from legollm.config.spelling import none_of, shown
from legollm.config.tree import Given
from legollm.config.yaml_file import read_list

BOOLS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def is_null(node: Given) -> bool:
    """Whether it says that there is no value; on the command line that is written null, none or ~."""
    return node.value is None or (node.is_text and str(node.value).lower() in ("null", "none", "~"))


def convert_plain(kind: Any, node: Given) -> Any:
    """The value of `node` as `kind`. Raises ValueError with the reason."""
    value = node.value
    if is_union(kind):
        return convert_union(kind, node)
    if get_origin(kind) is Literal:
        for choice in get_args(kind):
            if not isinstance(value, list) and str(value) == str(choice):
                return choice
        raise ValueError(none_of(value, get_args(kind)))
    if get_origin(kind) is tuple:
        return convert_tuple(kind, node)
    if kind is bool and str(value).lower() in BOOLS:
        return BOOLS[str(value).lower()]
    if kind in (int, float) and isinstance(value, str | int | float) and not isinstance(value, bool):
        return convert_number(kind, value)
    if kind is str and isinstance(value, str):
        return value
    if kind is Path and isinstance(value, str | Path) and str(value):
        return Path(value)
    raise ValueError(f"expected {name_of(kind)}, found {shown(value)}")


def convert_number(kind: type, value: str | int | float) -> int | float:
    """All that people write for a number: 1000, 1_000, 2e3 steps, 1e-3, .inf."""
    text = str(value).strip().replace(".inf", "inf")
    try:
        if kind is int and text.lstrip("+-").replace("_", "").isdecimal():
            return int(text)  # not by way of a float, which has 53 bits
        number = float(text)
    except ValueError:
        number = math.nan
    if math.isnan(number) or (kind is int and not number.is_integer()):
        raise ValueError(f"expected {name_of(kind)}, found {shown(value)}")
    return int(number) if kind is int else number


def convert_tuple(kind: Any, node: Given) -> tuple[Any, ...]:
    """A list; one item needs no brackets."""
    items = read_list(node.value) if node.is_text and isinstance(node.value, str) else node.value
    if not isinstance(items, list | tuple):
        items = [node.value]
    return tuple(convert_plain(get_args(kind)[0], dataclasses.replace(node, value=item)) for item in items)


def convert_union(kind: Any, node: Given) -> Any:
    """The first member of the union that takes the value."""
    if is_optional(kind) and is_null(node):
        return None
    reasons = []
    for member in members_of(kind):
        try:
            return convert_plain(member, node)
        except ValueError as error:
            reasons.append(str(error))
    raise ValueError("; ".join(dict.fromkeys(reasons)))
