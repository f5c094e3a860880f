"""From a tree of what was written to a frozen dataclass, every value checked against its annotation."""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TypeAlias, TypeVar, get_args, get_origin

import yaml

from legollm.config.sources import Given, Tree, is_soft, merge, tree_of
from legollm.errors import ConfigError

T = TypeVar("T")

SYNONYMS = {
    "learning_rate": "lr", "max_lr": "lr", "min_learning_rate": "min_lr",
    "n_layer": "n_layers", "num_layers": "n_layers", "num_hidden_layers": "n_layers", "depth": "n_layers",
    "n_head": "n_heads", "num_heads": "n_heads", "num_attention_heads": "n_heads",
    "n_kv_head": "n_kv_heads", "num_key_value_heads": "n_kv_heads",
    "n_embd": "d_model", "hidden_size": "d_model", "dim": "d_model", "width": "d_model",
    "intermediate_size": "d_ff", "head_dim": "d_head", "block_size": "max_seq_len", "context": "max_seq_len",
    "context_length": "max_seq_len", "n_ctx": "max_seq_len", "max_position_embeddings": "max_seq_len",
    "max_iters": "max_steps", "steps": "max_steps", "iterations": "max_steps", "n_steps": "max_steps",
    "batch": "batch_size", "micro_batch_size": "batch_size", "bs": "batch_size",
    "gradient_accumulation_steps": "grad_accum", "accumulate": "grad_accum",
    "max_grad_norm": "grad_clip", "clip": "grad_clip", "dtype": "precision", "warmup": "warmup_steps",
    "warmup_iters": "warmup_steps", "log_interval": "log_every", "eval_interval": "eval_every",
    "save_interval": "save_every", "max_length": "max_new_tokens", "max_tokens": "max_new_tokens",
    "architecture": "arch", "model_type": "arch", "out_dir": "run", "output_dir": "run", "dataset": "source",
    "file": "source", "input": "source", "random_seed": "seed",
}  # fmt: skip


@dataclass(frozen=True)
class Resolved(Generic[T]):
    """A configuration and where each of its values comes from."""

    value: T
    origins: Mapping[str, str] = field(default_factory=dict)
    """Dotted path -> `default`, `preset small`, `run.yaml:7`, `command line`."""


Presets: TypeAlias = Mapping[type, Mapping[str, Any]]


def resolve(cls: type[T], tree: Tree, *, presets: Presets | None = None) -> Resolved[T]:
    """Build a `cls` from what was written; everything is checked before anything is done.

    presets: for each dataclass, what its key `preset` may name, as instances or nested mappings.

    Raises:
        ConfigError: an unknown key, a value of the wrong type, or one that its dataclass refuses.
    """
    resolver = Resolver(cls, presets or {})
    return Resolved(resolver.dataclass(cls, tree, ""), resolver.origins)


class Resolver:
    """One resolution: the presets that may be named, and the origins found on the way."""

    def __init__(self, root: type, presets: Presets) -> None:
        self.root, self.presets = root, presets
        self.origins: dict[str, str] = {}

    def convert(self, kind: Any, node: "Tree | Given", at: str) -> Any:
        """`node` as the annotated type `kind`; `at` is the dotted path."""
        members = [k for k in get_args(kind) if k is not type(None)] if is_union(kind) else [kind]
        if all(dataclasses.is_dataclass(k) for k in members):
            if isinstance(node, Given) and node.value is None and is_optional(kind):
                return None
            return self.mapping(members, node, at)
        if isinstance(node, dict):
            first = next(leaves(node), None)
            raise self.refuse(at, f"expected {name_of(kind)}, found settings below it", first)
        try:
            value = convert_plain(kind, node)
        except ValueError as error:
            raise self.refuse(at, str(error), node) from error
        self.origins[at] = node.origin
        return value

    def mapping(self, classes: Sequence[type], node: "Tree | Given", at: str) -> Any:
        """A dataclass out of a mapping, or out of a bare value where the class names a SHORTHAND field."""
        tree: Tree = {"": node} if isinstance(node, Given) else dict(node)
        if "" in tree:
            short = tree.pop("")
            shorthand = getattr(classes[0], "SHORTHAND", None) if len(classes) == 1 else tag_of(classes[0])
            if not shorthand:
                leaf = short if isinstance(short, Given) else None
                raise self.refuse(at, f"expected settings below it, such as {at}.{first_field(classes[0])}=...", leaf)
            tree = merge(tree, {shorthand: short})
        if len(classes) == 1:
            return self.dataclass(classes[0], tree, at)
        tag = tag_of(classes[0])
        by_tag = {get_args(hints_of(cls)[tag])[0]: cls for cls in classes}
        wanted = tree.get(tag)
        if wanted is None and isinstance(preset := tree.get("preset"), Given):  # a preset's name tells its class
            owner = [t for t, cls in by_tag.items() if preset.value in self.presets.get(cls, {})]
            wanted = Given(owner[0], preset.origin) if owner else None
        if wanted is None:
            wanted = Given(next(iter(by_tag)), "default")
        if not isinstance(wanted, Given) or wanted.value not in by_tag:
            chosen = wanted if isinstance(wanted, Given) else None
            found = chosen.value if chosen else "a mapping"
            raise self.refuse(f"{at}.{tag}", none_of(found, by_tag), chosen)
        return self.dataclass(by_tag[wanted.value], {**tree, tag: wanted}, at)

    def dataclass(self, cls: type, tree: Tree, at: str) -> Any:
        """A `cls` from the settings of `tree`; the key `preset` names the starting point where the class has any."""
        presets = self.presets.get(cls, {})
        if presets and "preset" in tree:
            tree = dict(tree)
            chosen = tree.pop("preset")
            if not isinstance(chosen, Given) or chosen.value not in presets:
                leaf = chosen if isinstance(chosen, Given) else None
                raise self.refuse(join(at, "preset"), none_of(leaf.value if leaf else "a mapping", presets), leaf)
            tree = merge(tree_of(presets[chosen.value], f"preset {chosen.value}"), tree)
        hints = hints_of(cls)
        fields = {f.name: f for f in dataclasses.fields(cls)}
        changes: dict[str, Any] = {}
        for key, node in tree.items():
            if key in fields:
                changes[key] = self.convert(hints[key], node, join(at, key))
            elif not is_soft(node):
                raise self.unknown(cls, key, node, at)
        for name, one in fields.items():
            if name in changes:
                continue
            if one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING:
                if all_have_defaults(hints[name]):
                    changes[name] = self.convert(hints[name], {}, join(at, name))
                    continue
                raise ConfigError(f"{join(at, name)}: needed, and not given; add {join(at, name)}=...")
            self.origins[join(at, name)] = "default"
        try:
            return cls(**changes)
        except ValueError as error:  # __post_init__ refuses a combination; its message starts with a field's name
            culprit = str(error).partition(":")[0]
            blamed = tree.get(culprit)
            where = blamed.origin if isinstance(blamed, Given) else None
            prefix = f"{where}: " if where and where != "command line" else ""
            raise ConfigError(f"{prefix}{at}.{error}" if at else f"{prefix}{error}") from error

    def unknown(self, cls: type, key: str, node: "Tree | Given", at: str) -> ConfigError:
        near = near_miss(cls, self.root, key, at)
        hint = (
            f"; did you mean {near}?" if near else f"; possible: {', '.join(f.name for f in dataclasses.fields(cls))}"
        )
        return self.refuse(join(at, key), f"no such setting{hint}", next(leaves(node), None))

    def refuse(self, at: str, why: str, leaf: Given | None) -> ConfigError:
        where = f"{leaf.origin}: " if leaf and leaf.origin not in ("command line", "default") else ""
        return ConfigError(f"{where}{at}: {why}")


def convert_plain(kind: Any, node: Given) -> Any:
    """One value as `kind`: what YAML gave, or text still to be read. Raises ValueError with the reason."""
    value = node.value
    if is_union(kind):
        return convert_union(kind, node)
    if get_origin(kind) is Literal:
        for choice in get_args(kind):
            if value == choice or (node.is_text and value == str(choice)):
                return choice
        raise ValueError(none_of(value, get_args(kind)))
    if get_origin(kind) is tuple:
        items = yaml_value(value) if node.is_text else value
        if isinstance(items, str | int | float) and not isinstance(items, bool):
            items = [items]  # one item needs no brackets
        if not isinstance(items, list | tuple):
            raise ValueError(f"expected a list such as [a, b], found {value!r}")
        return tuple(convert_plain(get_args(kind)[0], dataclasses.replace(node, value=item)) for item in items)
    if kind is str:
        if not isinstance(value, str):
            raise ValueError(f"expected text, found {value!r}; put it in quotes")
        return value
    if kind is Path:
        if not isinstance(value, str | Path) or not str(value):
            raise ValueError(f"expected a path, found {value!r}")
        return Path(value)
    if node.is_text and isinstance(value, str):
        value = yaml_value(value)
    if kind is bool and isinstance(value, bool):
        return value
    if kind in (int, float) and not isinstance(value, bool):
        return convert_number(kind, value)
    raise ValueError(f"expected {name_of(kind)}, found {node.value!r}")


def convert_number(kind: type, value: Any) -> int | float:
    """YAML reads 1e-3 as text and 1 as an integer; people write 2e3 steps. All of it is meant as a number."""
    number: int | float
    if isinstance(value, str):
        try:
            number = float(value.replace("_", ""))
        except ValueError:
            raise ValueError(f"expected {name_of(kind)}, found {value!r}") from None
    elif isinstance(value, int | float):
        number = value
    else:
        raise ValueError(f"expected {name_of(kind)}, found {value!r}")
    if math.isnan(number):
        raise ValueError(f"expected {name_of(kind)}, found {value!r}")
    if kind is float:
        return float(number)
    if number != number // 1 or math.isinf(number):
        raise ValueError(f"expected a whole number, found {value!r}")
    return int(number)


def convert_union(kind: Any, node: Given) -> Any:
    """The first member of the union that takes the value; None is written null, none or ~."""
    if is_optional(kind) and (
        node.value is None or (node.is_text and str(node.value).lower() in ("null", "none", "~"))
    ):
        return None
    reasons = []
    for member in (k for k in get_args(kind) if k is not type(None)):
        try:
            return convert_plain(member, node)
        except ValueError as error:
            reasons.append(str(error))
    raise ValueError(" or ".join(dict.fromkeys(reasons)))


def yaml_value(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def near_miss(cls: type, root: type, key: str, at: str) -> str | None:
    """The setting that was probably meant: a neighbour first, then one of that name anywhere in the tree."""
    names = [f.name for f in dataclasses.fields(cls)]
    plain = key.replace("-", "_").lower()
    for wish in (plain, SYNONYMS.get(plain, "")):
        if wish in names:
            return join(at, wish)
    if close := difflib.get_close_matches(plain, names, n=1, cutoff=0.7):
        return join(at, close[0])
    everywhere = list(dict.fromkeys(paths_of(root)))
    by_leaf = {path.rpartition(".")[2]: path for path in reversed(everywhere)}
    for wish in (plain, SYNONYMS.get(plain, "")):
        if wish in by_leaf:
            return by_leaf[wish]
    if close := difflib.get_close_matches(plain, by_leaf, n=1, cutoff=0.7):
        return by_leaf[close[0]]
    if close := difflib.get_close_matches(plain, names, n=1, cutoff=0.5):
        return join(at, close[0])
    return None


def paths_of(cls: type, at: str = "") -> Iterator[str]:
    """Every dotted path below `cls`, in the order of the fields."""
    for name, kind in ((f.name, hints_of(cls)[f.name]) for f in dataclasses.fields(cls)):
        yield join(at, name)
        for member in get_args(kind) if is_union(kind) else [kind]:
            if dataclasses.is_dataclass(member) and isinstance(member, type):
                yield from paths_of(member, join(at, name))


def kind_at(cls: type, path: str) -> Any:
    """The annotation at a dotted path, or None."""
    head, _, rest = path.partition(".")
    hints = hints_of(cls)
    if head not in hints:
        return None
    if not rest:
        return hints[head]
    kind = hints[head]
    members = get_args(kind) if is_union(kind) else [kind]
    found = (kind_at(m, rest) for m in members if dataclasses.is_dataclass(m) and isinstance(m, type))
    return next((k for k in found if k is not None), None)


def hints_of(cls: type) -> dict[str, Any]:
    names = {f.name for f in dataclasses.fields(cls)}
    return {name: kind for name, kind in typing.get_type_hints(cls).items() if name in names}


def leaves(node: "Tree | Given") -> Iterator[Given]:
    if isinstance(node, Given):
        yield node
    else:
        for child in node.values():
            yield from leaves(child)


def is_union(kind: Any) -> bool:
    return get_origin(kind) in (typing.Union, types.UnionType)


def is_optional(kind: Any) -> bool:
    return is_union(kind) and type(None) in get_args(kind)


def tag_of(cls: type) -> str:
    """The field that tells the members of a union apart: the first one that is a Literal."""
    return next(name for name, kind in hints_of(cls).items() if get_origin(kind) is Literal)


def all_have_defaults(kind: Any) -> bool:
    """Whether a dataclass (or the first of a union of them) can be built from nothing."""
    member = get_args(kind)[0] if is_union(kind) else kind
    if not (dataclasses.is_dataclass(member) and isinstance(member, type)):
        return False
    hints = hints_of(member)
    return all(
        f.default is not dataclasses.MISSING
        or f.default_factory is not dataclasses.MISSING
        or all_have_defaults(hints[f.name])
        for f in dataclasses.fields(member)
    )


def first_field(cls: type) -> str:
    return dataclasses.fields(cls)[0].name


def join(at: str, key: str) -> str:
    return f"{at}.{key}" if at else key


def name_of(kind: Any) -> str:
    plain = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}
    if is_union(kind):
        return " or ".join(name_of(k) for k in get_args(kind) if k is not type(None))
    if get_origin(kind) is tuple:
        return "a list"
    return plain.get(kind, getattr(kind, "__name__", str(kind)))


def none_of(found: Any, possible: Sequence[Any] | Mapping[Any, Any]) -> str:
    names = [str(name) for name in possible]
    close = difflib.get_close_matches(str(found), names, n=1, cutoff=0.6)
    return f"{found!r} is none of {', '.join(names)}" + (f"; did you mean {close[0]}?" if close else "")
