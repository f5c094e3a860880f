"""What the annotations of a configuration say: its paths, the type at each, the members of a union."""

import dataclasses
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from legollm.config.tree import join


def paths_of(cls: type, at: str = "") -> Iterator[str]:
    """Every dotted path below `cls`, in the order of the fields; a union's members one after the other."""
    for name, kind in hints_of(cls).items():
        yield join(at, name)
        for member in classes_in(kind):
            yield from paths_of(member, join(at, name))


def kind_at(cls: type, path: str) -> Any:
    """The annotation at a dotted path, or None."""
    head, _, rest = path.partition(".")
    kind = hints_of(cls).get(head)
    if kind is None or not rest:
        return kind
    found = (kind_at(member, rest) for member in classes_in(kind))
    return next((k for k in found if k is not None), None)


def hints_of(cls: type) -> dict[str, Any]:
    """The fields of a dataclass in order, each with its type."""
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def members_of(kind: Any) -> list[Any]:
    """The members of a union but None, or the type itself."""
    return [k for k in get_args(kind) if k is not type(None)] if is_union(kind) else [kind]


def classes_in(kind: Any) -> list[type]:
    """The dataclasses among the members of a type."""
    return [k for k in members_of(kind) if dataclasses.is_dataclass(k) and isinstance(k, type)]


def is_union(kind: Any) -> bool:
    return get_origin(kind) in (typing.Union, types.UnionType)


def is_optional(kind: Any) -> bool:
    return is_union(kind) and type(None) in get_args(kind)


def tag_of(cls: type) -> str:
    """The field that tells the members of a union apart: the first one that is a Literal."""
    return next(name for name, kind in hints_of(cls).items() if get_origin(kind) is Literal)


def has_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def default_of(field: dataclasses.Field[Any]) -> Any:
    """What a field is when nothing is said; None where it must be given."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default


def all_have_defaults(kind: Any) -> bool:
    """Whether a dataclass (or the first of a union of them) can be built from nothing."""
    classes = classes_in(kind)
    return bool(classes) and all(
        has_default(field) or all_have_defaults(hints_of(classes[0])[field.name])
        for field in dataclasses.fields(classes[0])
    )


def name_of(kind: Any) -> str:
    """A type in words."""
    plain = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}
    if is_union(kind):
        return " or ".join(name_of(k) for k in members_of(kind))
    if get_origin(kind) is tuple:
        return "a list"
    if get_origin(kind) is Literal:
        return " or ".join(map(str, get_args(kind)))
    return plain.get(kind, getattr(kind, "__name__", str(kind)))
