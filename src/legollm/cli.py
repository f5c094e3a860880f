"""`legollm VERB [config.yaml] [key=value ...]`: finds the verb, reads its configuration, runs it.

A verb is a function of one frozen dataclass; its module is imported only when it runs, so that `legollm --help` is
there at once.
"""

import dataclasses
import difflib
import importlib
import inspect
import logging
import os
import sys
import textwrap
import typing
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from legollm import __version__, config
from legollm.config.convert import kind_at, paths_of
from legollm.config.describe import docs_of
from legollm.errors import ConfigError, LegoLLMError


class Verb(NamedTuple):
    """Where a verb lives and what it does, in one line."""

    module: str
    function: str
    summary: str


VERBS = {
    "demo": Verb("demo", "demo", "the whole walk on the built-in corpus, from text to a model that answers"),
    "tokenizer train": Verb("tokenizer", "train", "train a tokenizer on a source of text"),
    "tokenizer encode": Verb("tokenizer", "encode", "show how a tokenizer cuts a text"),
    "tokenizer decode": Verb("tokenizer", "decode", "turn ids back into text"),
    "tokenizer compare": Verb(
        "tokenizer", "compare", "bytes per token, fertility, speed and unknown words, side by side"
    ),
    "data list": Verb("data", "list_sources", "the sources of text and the data sets that can be fetched"),
    "data get": Verb("data", "get", "fetch a public data set, checked against its hash"),
    "data prepare": Verb("data", "prepare", "text to token files: train.bin, val.bin, meta.json"),
    "data summary": Verb("data", "summary", "sizes, lengths, duplicates, scripts and tokens of a source"),
    "train": Verb("train", "train", "train a language model from nothing, or go on where it stopped"),
    "sft": Verb("sft", "sft", "fine-tune a model on questions and answers"),
    "eval": Verb("eval", "evaluate", "loss, perplexity and bits per byte on a prepared or raw text"),
    "generate": Verb("generate", "generate", "continue a prompt"),
    "chat": Verb("chat", "chat", "talk to a model in the terminal"),
    "eject": Verb("eject", "eject", "write an architecture as one self-contained file"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit status (DESIGN: 0 done, 2 wrong input, 3 interrupted and saved, ...)."""
    words = list(sys.argv[1:] if argv is None else argv)
    logging.basicConfig(format="%(levelname)s: %(message)s", level=os.environ.get("LEGOLLM_LOG", "WARNING"))
    try:
        return run(words)
    except LegoLLMError as error:
        print(f"legollm: {error}", file=sys.stderr)
        return error.exit_status
    except BrokenPipeError:  # `legollm config train | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("legollm: interrupted", file=sys.stderr)
        return 130


def run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if words[0] in ("--version", "-V"):
        print(f"legollm {__version__}")
        return 0
    if words[0] == "config":
        return show_config(words[1:])
    name, rest = find_verb(words)
    function = load_verb(name)
    if any(word in ("-h", "--help") for word in rest):
        print(help_of(name, function))
        return 0
    resolved = resolve_verb(function, rest)
    return function(resolved) or 0


def show_config(words: list[str]) -> int:
    """`legollm config VERB ...`: what a command line means, before anything is done; YAML to copy and edit."""
    if not words or words[0] in ("-h", "--help"):
        print("usage: legollm config VERB [config.yaml] [key=value ...]\n")
        print(f"prints every key of a verb with its documentation, value and origin; verbs: {', '.join(VERBS)}")
        return 0
    name, rest = find_verb(words)
    print(config.describe(resolve_verb(load_verb(name), rest)), end="")
    return 0


def find_verb(words: Sequence[str]) -> tuple[str, list[str]]:
    """The verb at the start of the words, one word or two, and what follows it.

    Raises:
        ConfigError: no such verb.
    """
    two = " ".join(words[:2])
    if two in VERBS:
        return two, list(words[2:])
    if words[0] in VERBS:
        return words[0], list(words[1:])
    members = [name for name in VERBS if name.startswith(words[0] + " ")]
    if members:
        raise ConfigError(f"{words[0]!r} needs one more word: {', '.join(members)}")
    close = difflib.get_close_matches(words[0], VERBS, n=1)
    hint = f"did you mean {close[0]!r}?" if close else "see legollm --help"
    raise ConfigError(f"{words[0]!r} is not a verb of legollm; {hint}")


def load_verb(name: str) -> Callable[[Any], int | None]:
    verb = VERBS[name]
    module = importlib.import_module(f"legollm.commands.{verb.module}")
    return typing.cast(Callable[[Any], int | None], getattr(module, verb.function))


def config_class(function: Callable[..., Any]) -> type:
    """The dataclass C of a verb `def verb(run: Resolved[C])`."""
    parameter = next(iter(inspect.signature(function).parameters))
    return typing.cast(type, typing.get_args(typing.get_type_hints(function)[parameter])[0])


def resolve_verb(function: Callable[..., Any], words: Sequence[str]) -> config.Resolved[Any]:
    """The configuration of a verb out of its command-line words."""
    cls = config_class(function)
    switches = {path: kind_at(cls, path) is bool for path in paths_of(cls)}
    positional = getattr(cls, "POSITIONAL", ())
    path, pairs = config.normalise_words(words, positional=positional, is_switch=switches)
    presets = getattr(importlib.import_module(function.__module__), "PRESETS", {})
    return config.resolve(cls, config.read(path, pairs), presets=presets)


def overview() -> str:
    rows = {name: verb.summary for name, verb in VERBS.items()}
    rows["config VERB"] = "every key of a verb with its default, its documentation and its origin"
    width = max(map(len, rows))
    lines = [f"  {name:<{width}}  {summary}" for name, summary in rows.items()]
    return "\n".join(
        [
            f"legollm {__version__}: language models out of parts one can read",
            "",
            "usage: legollm VERB [config.yaml] [key=value ...]",
            "",
            *lines,
            "",
            "legollm VERB --help shows a verb's settings; legollm config VERB ... shows what a command line means.",
        ]
    )


def help_of(name: str, function: Callable[..., Any]) -> str:
    """The documentation of a verb: what its function says, then every setting with its default."""
    cls = config_class(function)
    words = " ".join(f"[{word}]" for word in getattr(cls, "POSITIONAL", ()))
    lines = [f"usage: legollm {name} {words} [config.yaml] [key=value ...]".replace("  ", " "), ""]
    lines += [inspect.getdoc(function) or VERBS[name].summary, "", "settings (more below those that end in a dot):", ""]
    docs, hints = docs_of(cls), typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        kind = hints[field.name]
        members = [k for k in (typing.get_args(kind) or [kind]) if dataclasses.is_dataclass(k)]
        default = "" if field.default is dataclasses.MISSING else config.describe_value(field.default)
        head = f"{field.name}." if members else f"{field.name}={default}"
        lines += [f"  {head}"]
        if docs.get(field.name):
            lines += textwrap.wrap(docs[field.name], 110, initial_indent="      ", subsequent_indent="      ")
    lines += ["", f"legollm config {name} prints all of them, nested ones included, with defaults and documentation."]
    return "\n".join(lines)
