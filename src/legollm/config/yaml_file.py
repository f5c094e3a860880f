"""YAML gives the structure, the dataclasses give the types: every value stays the text it is until its field is known.

So `source: no` is the text "no" where text is wanted and `tie_embeddings: no` is false; `lr: 1e-3` is a number, which
YAML 1.1 takes for text; and nothing is ever built from what a tag such as !!python/object asks for.
"""

from pathlib import Path
from typing import Any

import yaml

from legollm.config.tree import Given, Section, Tree
from legollm.errors import ConfigError

MAX_FILE_BYTES = 100_000  # seconds of parsing; the longest of our own has 5,000
MAX_DEPTH = 32
MAX_NODES = 10_000  # counted with aliases expanded: a few hundred bytes of nested aliases can ask for 10^9 nodes
NULLS = ("", "~", "null", "Null", "NULL")
PLAIN_TAGS = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:seq", "tag:yaml.org,2002:map")
"""What BaseLoader gives to everything that has no tag of its own."""


def read_yaml(path: Path) -> Tree:
    """The mapping in a YAML file, each leaf with its line.

    Raises:
        ConfigError: not a file, not YAML, not a mapping, too large, too deep, or a key that occurs twice.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give the path of a YAML file") from error
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_FILE_BYTES:,} bytes, the most a configuration may have")
    try:
        root = compose(data.decode("utf-8"))
        if root is None:
            return {}
        if not isinstance(root, yaml.MappingNode):
            raise ConfigError(f"{path}:{root.start_mark.line + 1}: expected a mapping of settings, `key: value`")
        return Walk(str(path)).mapping(root, Section(str(path)), depth=1)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}:{line}: not UTF-8 text (byte {error.start}); save the file as UTF-8") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{path}:{line}: not valid YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:  # a character that may not occur at all
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise ConfigError(f"{path}: nested too deeply; at most {MAX_DEPTH} levels") from error


def read_list(text: str) -> list[Any] | None:
    """The items of a list such as `[0.9, 0.95]`; None if the text is no list."""
    if not text.lstrip().startswith("["):
        return None
    try:
        root = compose(text)
        return Walk("command line").items(root, 1, depth=1) if isinstance(root, yaml.SequenceNode) else None
    except (yaml.YAMLError, RecursionError):
        return None


def compose(text: str) -> yaml.Node | None:
    """The nodes of the one document in `text`: structure and places, nothing constructed."""
    loader = yaml.BaseLoader(text)
    try:
        return loader.get_single_node()
    finally:
        loader.dispose()


class Walk:
    """Through the nodes of one document, counting: aliases as often as they are used."""

    def __init__(self, name: str) -> None:
        self.name, self.n_nodes = name, 0

    def mapping(self, node: yaml.MappingNode, tree: Tree, depth: int) -> Tree:
        """The keys below `node`, put into `tree`."""
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            origin = f"{self.name}:{line}"
            if not isinstance(key_node, yaml.ScalarNode) or not key_node.value:
                raise ConfigError(f"{self.name}:{line}: a key must be a word")
            if key_node.value in tree:
                raise ConfigError(f"{self.name}:{line}: {key_node.value!r} is given twice; keep one of them")
            self.check(value_node, line, depth)
            if isinstance(value_node, yaml.MappingNode):
                tree[key_node.value] = self.mapping(value_node, Section(origin), depth + 1)
            else:
                tree[key_node.value] = Given(self.value(value_node, line, depth), origin)
        return tree

    def value(self, node: yaml.Node, line: int, depth: int) -> Any:
        """Text, None for a null without quotes, or a list of those."""
        if isinstance(node, yaml.ScalarNode):
            return None if node.style is None and node.value in NULLS else node.value
        if isinstance(node, yaml.SequenceNode):
            return self.items(node, line, depth + 1)
        raise ConfigError(f"{self.name}:{line}: a list holds values, not settings")

    def items(self, node: yaml.SequenceNode, line: int, depth: int) -> list[Any]:
        values = []
        for item in node.value:
            self.check(item, line, depth)
            values.append(self.value(item, line, depth))
        return values

    def check(self, node: yaml.Node, line: int, depth: int) -> None:
        self.n_nodes += 1
        if depth > MAX_DEPTH or self.n_nodes > MAX_NODES:
            raise ConfigError(f"{self.name}:{line}: more than {MAX_DEPTH} levels or {MAX_NODES:,} values")
        if node.tag not in PLAIN_TAGS:
            raise ConfigError(f"{self.name}:{line}: a tag, {node.tag!r}; the setting decides the type, leave it out")
