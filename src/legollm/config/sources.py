"""What the user wrote, before it has a type: YAML files, `key=value` words and presets as trees of `Given` leaves."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from legollm.errors import ConfigError

MAX_FILE_BYTES = 1_000_000
MAX_DEPTH = 32
MAX_NODES = 10_000  # counted with aliases expanded: a few hundred bytes of nested aliases can ask for 10^9 nodes


@dataclass(frozen=True)
class Given:
    """A value as it was written, and where."""

    value: Any
    origin: str
    """`run.yaml:7`, `command line`, `preset small`."""
    is_text: bool = False
    """Came from the command line: still text, to be read as the type that is wanted."""
    is_soft: bool = False
    """Came from a preset: gives way without a complaint where the user chose another architecture."""


Tree: TypeAlias = dict[str, "Tree | Given"]


def read(path: Path | None, words: Sequence[str]) -> Tree:
    """One tree out of an optional YAML file and `key=value` words; the words win.

    Raises:
        ConfigError: the file is missing or no YAML mapping, a key occurs twice, a word has no `=`.
    """
    tree = read_yaml(path) if path else {}
    for word in words:
        key, eq, text = word.partition("=")
        if not eq or not key:
            raise ConfigError(f"{word!r}: expected key=value")
        *parents, leaf = key.split(".")
        node = tree
        for parent in parents:
            child = node.setdefault(parent, {})
            if isinstance(child, Given):  # `tokenizer=bpe` and later `tokenizer.vocab_size=512`: see Resolver.mapping
                child = node[parent] = {"": child}
            node = child
        here = node.get(leaf)
        if isinstance(here, dict):
            here[""] = Given(text, "command line", is_text=True)
        else:
            node[leaf] = Given(text, "command line", is_text=True)
    return tree


def read_yaml(path: Path) -> Tree:
    """The mapping in a YAML file, each leaf with its line.

    Raises:
        ConfigError: not a file, not YAML, not a mapping, too large, too deep, or a key that occurs twice.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give the path of a YAML file") from error
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"{path}: {len(data):,} bytes; a configuration has at most {MAX_FILE_BYTES:,}")
    loader = None
    try:
        loader = yaml.SafeLoader(data.decode("utf-8"))
        root = loader.get_single_node()
        if root is None:
            return {}
        if not isinstance(root, yaml.MappingNode):
            raise ConfigError(f"{path}:{root.start_mark.line + 1}: expected a mapping of settings, `key: value`")
        return YamlTree(path, loader).mapping(root, depth=1)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start})") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{line}: not valid YAML: {getattr(error, 'problem', None) or error}") from error
    except RecursionError as error:
        raise ConfigError(f"{path}: nested too deeply; at most {MAX_DEPTH} levels") from error
    finally:
        if loader:
            loader.dispose()


class YamlTree:
    """Walks the nodes of one document; keys keep their spelling, so that `no: 1` is the key "no" and not False."""

    def __init__(self, path: Path, loader: yaml.SafeLoader) -> None:
        self.path, self.loader, self.n_nodes = path, loader, 0

    def mapping(self, node: yaml.MappingNode, depth: int) -> Tree:
        tree: Tree = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConfigError(f"{self.path}:{line}: a key must be a word")
            if key_node.value in tree:
                raise ConfigError(f"{self.path}:{line}: {key_node.value!r} is given twice; keep one of them")
            tree[key_node.value] = self.value(value_node, line, depth + 1)
        return tree

    def value(self, node: yaml.Node, line: int, depth: int) -> "Tree | Given":
        self.check(node, line, depth)
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, depth)
        return Given(self.loader.construct_object(node, deep=True), f"{self.path}:{line}")

    def check(self, node: yaml.Node, line: int, depth: int) -> None:
        """Count every node below, aliases as often as they are used, before anything is built from them."""
        self.n_nodes += 1
        if depth > MAX_DEPTH or self.n_nodes > MAX_NODES:
            raise ConfigError(f"{self.path}:{line}: more than {MAX_DEPTH} levels or {MAX_NODES:,} values")
        if isinstance(node, yaml.SequenceNode):
            for item in node.value:
                self.check(item, line, depth + 1)
        elif isinstance(node, yaml.MappingNode):
            for _, item in node.value:
                self.check(item, line, depth + 1)


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
    """`above` wins leaf by leaf; a bare value meets a mapping as the mapping's shorthand, the key ""."""
    merged = dict(below)
    for key, item in above.items():
        under = merged.get(key)
        if isinstance(under, dict):
            merged[key] = merge(under, item if isinstance(item, dict) else {"": item})
        else:
            merged[key] = item
    return merged


def is_soft(node: "Tree | Given") -> bool:
    """Whether all of it comes from presets."""
    return node.is_soft if isinstance(node, Given) else all(is_soft(child) for child in node.values())


def normalise_words(
    words: Sequence[str], *, positional: Sequence[str], is_switch: Mapping[str, bool]
) -> tuple[Path | None, list[str]]:
    """Command-line words as an optional YAML path and `key=value` pairs.

    `--lr 1e-3`, `--lr=1e-3` and `lr=1e-3` are the same; `--json` alone is `json=true` where `is_switch` says that the
    key is a switch; a word ending in .yaml or .yml is the configuration; other bare words fill `positional` in order.

    Raises:
        ConfigError: a word that fits nowhere.
    """
    path: Path | None = None
    pairs: list[str] = []
    free = list(positional)
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word.startswith("--"):
            key, eq, text = word[2:].partition("=")
            key = key.replace("-", "_")
            if not eq:
                text = "true" if is_switch.get(key) or not rest else rest.pop(0)
            pairs.append(f"{key}={text}")
        elif "=" in word and word.partition("=")[0].replace(".", "_").isidentifier():
            pairs.append(word)
        elif word.endswith((".yaml", ".yml")) and path is None:
            path = Path(word)
        elif free:
            pairs.append(f"{free.pop(0)}={word}")
        else:
            raise ConfigError(f"{word!r}: expected key=value, --key value or the path of a .yaml file")
    return path, pairs
