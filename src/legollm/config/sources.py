"""What the user wrote: an optional YAML file and the words of a command line, as one tree."""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from legollm.config.tree import Given, Tree, as_settings
from legollm.config.yaml_file import read_yaml
from legollm.errors import ConfigError

KEY = re.compile(r"[A-Za-z_][\w-]*(\.[\w-]+)*")
HOW = "expected key=value, --key value or the path of a .yaml file"


def read(path: Path | None, words: Sequence[str]) -> Tree:
    """One tree out of an optional YAML file and `key=value` words; the words win, the last one over all.

    Raises:
        ConfigError: the file is missing or no YAML mapping, a key occurs twice in it, a word has no `=`.
    """
    tree = read_yaml(path) if path else {}
    for word in words:
        key, eq, text = word.partition("=")
        *parents, leaf = key.split(".")
        if not eq or not leaf or not all(parents):
            raise ConfigError(f"{word!r}: expected key=value")
        node = tree
        for parent in parents:
            child = as_settings(node.pop(parent, {}))
            node[parent] = child
            node = child
        if isinstance(node.get(leaf), dict):
            node = as_settings(node[leaf])
            leaf = ""
        node.pop(leaf, None)  # to the end: it was written last
        node[leaf] = Given(text, "command line", is_text=True)
    return tree


def normalise_words(
    words: Sequence[str], *, positional: Sequence[str], is_switch: Mapping[str, bool]
) -> tuple[Path | None, list[str]]:
    """Command-line words as an optional YAML path and `key=value` pairs.

    `--lr 1e-3`, `--lr=1e-3` and `lr=1e-3` are the same, and so are `max-steps` and `max_steps`; `--json` alone is
    `json=true` where `is_switch` says that the key is a switch; a word ending in .yaml or .yml is the configuration;
    other bare words are the `positional` settings in order, those left out that are given by name; after `--`, every
    word is bare.

    Raises:
        ConfigError: a word that fits nowhere.
    """
    path: Path | None = None
    pairs: list[str] = []
    bare: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        key, eq, text = word.removeprefix("--").partition("=")
        key = key.replace("-", "_")
        if word == "--":
            bare += rest
            break
        if word.startswith("--"):
            pairs.append(f"{key}={text if eq else value_of(word, rest, is_switch.get(key, False))}")
        elif word[0:1] == "-" and word[1:2].isalpha():
            raise ConfigError(f"{word!r}: {HOW}; text that starts with - goes behind --")
        elif eq and KEY.fullmatch(word.partition("=")[0]):
            pairs.append(f"{key}={text}")
        elif word.endswith((".yaml", ".yml")) and path is None:
            path = Path(word)
        else:
            bare.append(word)
    return path, pairs + named(bare, positional, {pair.partition("=")[0] for pair in pairs})


def value_of(option: str, rest: list[str], is_switch: bool) -> str:
    """What follows an option that has no `=`; taken off `rest`."""
    if is_switch:
        return "true"
    if not rest or rest[0].startswith("--"):
        name = option if option.isprintable() else repr(option)  # a message is one line
        raise ConfigError(f"{name}: needs a value; write {name}=VALUE")
    return rest.pop(0)


def named(bare: Sequence[str], positional: Sequence[str], taken: Collection[str]) -> list[str]:
    """Bare words with the names of the positional settings that are not given by name."""
    free = [name for name in positional if name not in taken]
    if len(bare) > len(free):
        word = bare[len(free)]
        raise ConfigError(f"{word!r}: {HOW}")
    return [f"{name}={word}" for name, word in zip(free, bare, strict=False)]
