"""Back to text: a configuration with the documentation and the origin of every value, or as plain YAML to save."""

import ast
import dataclasses
import inspect
import math
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from legollm.config.convert import Resolved
from legollm.config.tree import join

WIDTH = 100
LINE_ENDS = ("\n", "\r", "\x85", "\u2028", "\u2029")


def describe(resolved: Resolved[Any]) -> str:
    """Every key as YAML that can be read again, each under its documentation, with its origin behind it."""
    return "\n".join(lines_of(resolved.value, resolved.origins, "", "")) + "\n"


def lines_of(config: Any, origins: Mapping[str, str], at: str, indent: str) -> list[str]:
    lines: list[str] = []
    docs = docs_of(type(config))
    for field in dataclasses.fields(config):
        value, path = getattr(config, field.name), join(at, field.name)
        doc = docs.get(field.name) or (summary_of(type(value)) if dataclasses.is_dataclass(value) else "")
        lines += textwrap.wrap(doc, WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")
        if dataclasses.is_dataclass(value):
            lines += [f"{indent}{field.name}:", *lines_of(value, origins, path, indent + "  ")]
        else:
            origin = origins.get(path, "default")
            lines.append(f"{indent}{field.name}: {describe_value(value)}" + f"  # {origin}" * (origin != "default"))
    return lines


def docs_of(cls: type) -> dict[str, str]:
    """The string below each field, in one line; inherited fields, too."""
    docs: dict[str, str] = {}
    for one in reversed([base for base in cls.__mro__ if dataclasses.is_dataclass(base)]):
        docs |= own_docs_of(one)
    return docs


def own_docs_of(cls: type) -> dict[str, str]:
    tree = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    assert isinstance(tree, ast.ClassDef)
    docs = {}
    for one, below in zip(tree.body, tree.body[1:], strict=False):
        if (
            isinstance(one, ast.AnnAssign)
            and isinstance(one.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
            and isinstance(below.value.value, str)
        ):
            docs[one.target.id] = " ".join(below.value.value.split())
    return docs


def summary_of(cls: type) -> str:
    """The first paragraph of a class's documentation, in one line."""
    return " ".join((inspect.getdoc(cls) or "").partition("\n\n")[0].split())


def to_tree(config: Any) -> dict[str, Any]:
    """A configuration as nested dicts of plain values."""
    return {
        field.name: to_tree(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else plain(value)
        for field in dataclasses.fields(config)
        for value in [getattr(config, field.name)]
    }


def to_yaml(config: Any) -> str:
    """The resolved configuration as YAML; reading it again gives an equal one."""
    return dump(to_tree(config), flow=False)


def plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return value.as_posix() if isinstance(value, Path) else value


def describe_value(value: Any) -> str:
    """One value as YAML writes it, in one line."""
    return dump(plain(value), flow=True).removesuffix("...\n").rstrip("\n")


def dump(value: Any, *, flow: bool) -> str:
    return yaml.dump(
        value, Dumper=OneLineDumper, default_flow_style=flow, sort_keys=False, allow_unicode=True, width=math.inf
    )


class OneLineDumper(yaml.SafeDumper):
    """Never spreads a text over lines: a value of `describe` stands between its key and its origin."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    escaped = any(end in text for end in LINE_ENDS)
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if escaped else None)


OneLineDumper.add_representer(str, represent_text)
