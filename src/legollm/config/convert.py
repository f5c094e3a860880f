"""From a tree of what was written to a frozen dataclass, every value checked against its annotation."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar, get_args

from legollm.config.kinds import (
    all_have_defaults,
    classes_in,
    default_of,
    has_default,
    hints_of,
    is_optional,
    members_of,
    name_of,
    paths_of,
    tag_of,
)
from legollm.config.spelling import near_miss, none_of
from legollm.config.tree import Given, Tree, is_soft, join, merge, origin_of, tree_of, without_soft
from legollm.config.values import convert_plain, is_null
from legollm.errors import ConfigError

T = TypeVar("T")

Presets: TypeAlias = Mapping[type, Mapping[str, Any]]
"""For each dataclass, what its key `preset` may name, as instances or nested mappings."""


@dataclass(frozen=True)
class Resolved(Generic[T]):
    """A configuration and where each of its values comes from."""

    value: T
    origins: Mapping[str, str] = field(default_factory=dict)
    """Dotted path -> `default`, `preset small`, `run.yaml:7`, `command line`."""


def resolve(cls: type[T], tree: Tree, *, presets: Presets | None = None) -> Resolved[T]:
    """Build a `cls` from what was written; everything is checked before anything is done.

    Raises:
        ConfigError: an unknown key, a value of the wrong type, or one that its dataclass refuses.
    """
    resolver = Resolver(cls, presets or {})
    return Resolved(resolver.dataclass(cls, tree, "", None), resolver.origins)


class Resolver:
    """One resolution: the presets that may be named, and the origins found on the way."""

    def __init__(self, root: type, presets: Presets) -> None:
        self.root, self.presets = root, presets
        self.origins: dict[str, str] = {}

    def convert(self, kind: Any, node: "Tree | Given", at: str, default: Any) -> Any:
        """`node` as the annotated type `kind`; `at` is the dotted path, `default` what it is where nothing is said."""
        classes = classes_in(kind)
        if classes and classes == members_of(kind):
            return self.settings(classes, node, at, default, optional=is_optional(kind))
        if isinstance(node, dict):
            raise refuse(at, f"expected {name_of(kind)}, found settings below it", origin_of(node))
        try:
            value = convert_plain(kind, node)
        except ValueError as error:
            raise refuse(at, str(error), node.origin) from error
        self.origins[at] = node.origin
        return value

    def settings(self, classes: Sequence[type], node: "Tree | Given", at: str, default: Any, *, optional: bool) -> Any:
        """A dataclass out of a mapping, or out of a bare value where the class names a SHORTHAND field."""
        tree: Tree = {"": node} if isinstance(node, Given) else dict(node)
        if "" in tree:
            later = list(tree)[list(tree).index("") + 1 :]
            short = tree.pop("")
            assert isinstance(short, Given)  # read and merge put nothing else there
            if short.value is None or (optional and is_null(short)):  # nothing of what was written before it
                tree = {key: tree[key] for key in later}
                if optional and not tree:
                    self.origins[at] = short.origin
                    return None
            else:
                shorthand = getattr(classes[0], "SHORTHAND", None) if len(classes) == 1 else tag_of(classes[0])
                if not shorthand:
                    example = f"{at}.{next(iter(hints_of(classes[0])))}=..."
                    raise refuse(at, f"expected settings below it, such as {example}", short.origin)
                if shorthand not in later:
                    tree[shorthand] = short
        if len(classes) > 1:
            return self.member(classes, tree, at, default)
        return self.dataclass(classes[0], tree, at, default)

    def member(self, classes: Sequence[type], tree: Tree, at: str, default: Any) -> Any:
        """One of several dataclasses: that of the tag, else that of the preset's name, else that of the default."""
        tag = tag_of(classes[0])
        by_tag = {get_args(hints_of(cls)[tag])[0]: cls for cls in classes}
        wanted, preset = tree.get(tag), tree.get("preset")
        if (wanted is None or is_soft(wanted)) and isinstance(preset, Given):
            owners = [name for name, cls in by_tag.items() if chosen(preset, self.presets.get(cls, {}))]
            if not owners and wanted is None:
                every = {name: cls for cls in classes for name in self.presets.get(cls, {})}
                raise self.not_among(every, preset, join(at, "preset"))
            wanted = Given(owners[0], preset.origin) if owners else wanted
        if wanted is None:
            usual = next((name for name, cls in by_tag.items() if type(default) is cls), next(iter(by_tag)))
            wanted = Given(usual, "default")
        if not isinstance(wanted, Given) or not chosen(wanted, by_tag):
            raise self.not_among(by_tag, wanted, join(at, tag))
        return self.dataclass(by_tag[wanted.value], {**tree, tag: wanted}, at, default)

    def dataclass(self, cls: type, tree: Tree, at: str, default: Any) -> Any:
        """A `cls` from the settings of `tree`; the key `preset` names the starting point where the class has any."""
        tree = self.with_preset(cls, tree, at)
        hints, fields = hints_of(cls), dataclasses.fields(cls)
        before = default if type(default) is cls else None
        for key, node in tree.items():
            if key not in hints and not is_soft(node):
                raise self.unknown(cls, key, node, at)
        values: dict[str, Any] = {}
        for one in fields:
            path = join(at, one.name)
            usual = default_of(one) if before is None else getattr(before, one.name)
            if one.name in tree:
                values[one.name] = self.convert(hints[one.name], tree[one.name], path, usual)
            elif before is not None or has_default(one):
                values[one.name] = usual
                self.origins[path] = "default"
            elif all_have_defaults(hints[one.name]):
                values[one.name] = self.convert(hints[one.name], {}, path, None)
            else:
                raise ConfigError(f"{path}: needed, and not given; add {path}=...")
        try:
            return cls(**values)
        except ValueError as error:  # __post_init__ refuses a combination; its message starts with a field's name
            name, _, why = str(error).partition(": ")
            where, why = (join(at, name), why) if name in hints else (at, str(error))
            raise refuse(where, why, culprit(str(error), tree)) from error

    def with_preset(self, cls: type, tree: Tree, at: str) -> Tree:
        """`tree` over the preset it names. What the user wrote is above all; a preset that the user named is above
        what one further up says."""
        presets = self.presets.get(cls, {})
        if not presets or "preset" not in tree:
            return tree
        tree = dict(tree)
        node = tree.pop("preset")
        if not isinstance(node, Given) or not chosen(node, presets):
            raise self.not_among(presets, node, join(at, "preset"))
        preset = tree_of(presets[node.value], f"preset {node.value}")
        return merge(preset, tree) if node.is_soft else merge(merge(tree, preset), without_soft(tree))

    def unknown(self, cls: type, key: str, node: "Tree | Given", at: str) -> ConfigError:
        """A key that is no field of `cls`: what was probably meant, or else all that is possible."""
        names = [*hints_of(cls), *(["preset"] if self.presets.get(cls) else [])]
        near = near_miss(names, self.root, key, at)
        possible = f"possible: {', '.join(names)}"
        if "." in key:
            why = f"a key with a dot; in YAML, write {key.rpartition('.')[2]!r} below {key.rpartition('.')[0]!r}"
        elif join(at, key) in paths_of(self.root):  # another member of the union has it
            why = f"{cls.__name__} has no such setting; {possible}"
        else:
            why = f"no such setting; did you mean {near}?" if near else f"no such setting; {possible}"
        return refuse(join(at, key), why, origin_of(node))

    def not_among(self, possible: Mapping[str, Any], node: "Tree | Given", at: str) -> ConfigError:
        elsewhere: Mapping[str, str] = getattr(self.root, "ELSEWHERE", {})  # what other verbs take, and why
        if isinstance(node, Given) and chosen(node, elsewhere):
            return refuse(at, f"{node.value} {elsewhere[node.value]}", node.origin)
        return refuse(at, none_of(node.value if isinstance(node, Given) else "a mapping", possible), origin_of(node))


def chosen(node: Given, possible: Mapping[str, Any]) -> bool:
    """Whether a value is one of some names; a list is none."""
    return isinstance(node.value, str) and node.value in possible


def culprit(message: str, tree: Tree) -> str | None:
    """Where the value to blame was written: the first one in the message that the user gave, else one of a preset."""
    named = [node for word in re.findall(r"\w+", message) if isinstance(node := tree.get(word), Given)]
    return next((node.origin for node in named if not node.is_soft), named[0].origin if named else None)


def refuse(at: str, why: str, origin: str | None) -> ConfigError:
    """The error: where it was written, which setting, what is wrong."""
    where = "" if origin in (None, "command line", "default") else f"{origin}: "
    at = at if at.isprintable() else repr(at)  # a message is one line
    return ConfigError(f"{where}{at}: {why}" if at else f"{where}{why}")
