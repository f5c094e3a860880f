"""`legollm VERB [config.yaml] [key=value ...]`: finds the verb, reads its configuration, runs it.

A verb is a function of one frozen dataclass; its module is imported only when it runs, so that `legollm --help` is
there at once.
"""

import dataclasses
import difflib
import gc
import importlib
import inspect
import json
import logging
import os
import sys
import textwrap
import typing
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from legollm import __version__, config
from legollm.config.convert import Presets
from legollm.config.describe import WIDTH, docs_of, summary_of
from legollm.config.kinds import classes_in, default_of, has_default, hints_of, kind_at, paths_of, tag_of
from legollm.errors import ConfigError, LegoLLMError


class Verb(NamedTuple):
    """Where a verb lives and what it does, in one line."""

    module: str
    function: str
    summary: str


VERBS = {
    "demo": Verb("demo", "demo", "the whole walk on the built-in corpus, from text to a model that answers"),
    "demo verifiers": Verb(
        "demo_verifiers", "demo_verifiers", "errors found, tried again, and missed by verifiers that err"
    ),
    "demo post": Verb("demo_post", "post", "small models through all of post-training, with what every stage brings"),
    "demo sinks": Verb("demo_sinks", "sinks", "a text without end, and what has to be kept of it, in a minute"),
    "tokenizer train": Verb("tokenizer", "train", "train a tokenizer on a source of text"),
    "tokenizer encode": Verb("tokenizer", "encode", "show how a tokenizer cuts a text"),
    "tokenizer decode": Verb("tokenizer", "decode", "turn ids back into text"),
    "tokenizer compare": Verb(
        "tokenizer_compare", "compare", "bytes per token, fertility, speed and unknown words, side by side"
    ),
    "tokenizer sizes": Verb("tokenizer_compare", "sizes", "how long a text is in vocabularies from small to large"),
    "tokenizer inspect": Verb("tokenizer_inspect", "inspect", "the merges that made each token, in colour and as HTML"),
    "data list": Verb("data", "list_sources", "the sources of text and the data sets that can be fetched"),
    "data get": Verb("data", "get", "fetch a public data set, checked against its hash"),
    "data prepare": Verb("data", "prepare", "text to token files: train.bin, val.bin, meta.json"),
    "data summary": Verb("data", "summary", "sizes, lengths, duplicates, scripts and tokens of a source"),
    "data show": Verb("data_show", "show", "conversations as a model reads them, and what of them it learns"),
    "train": Verb("train", "train", "train a language model from nothing, or go on where it stopped"),
    "sft": Verb("sft", "sft", "fine-tune a model on questions and answers"),
    "grpo": Verb("grpo", "grpo", "learn from answers that a program checks, in groups (GRPO, RLOO, ...)"),
    "ppo": Verb("ppo", "ppo", "the same, with a value for each token (PPO)"),
    "dpo": Verb("dpo", "dpo", "prefer the better of two answers: DPO, IPO, KTO, ORPO, SimPO"),
    "reward": Verb("reward", "reward", "train a model that scores answers, from which of two is preferred"),
    "seq2seq train": Verb("seq2seq", "train", "train an encoder-decoder on pairs of a source and a target"),
    "seq2seq write": Verb("seq2seq", "write", "write the target of each source"),
    "classify train": Verb("classify", "train", "train a model to give texts labels or numbers, or words tags"),
    "classify label": Verb("classify", "label", "give texts labels or numbers, or their words tags"),
    "compare": Verb("compare", "compare", "a base against variants: same seeds, equal cost, and what differs for sure"),
    "ladder": Verb("ladder", "ladder", "from counted pairs to a modern decoder: every rung trained, one table"),
    "runs": Verb("runs", "runs", "what was trained: a list of runs, or some of them compared"),
    "eval": Verb("evaluate", "evaluate", "loss and bits per byte of a text, or right answers of a published test"),
    "lm-eval": Verb("harness", "lm_eval", "the tasks of lm-evaluation-harness, through its own interface"),
    "generate": Verb("generate", "generate", "continue a prompt"),
    "chat": Verb("chat", "chat", "talk to a model in the terminal"),
    "import": Verb("import_folder", "import_folder", "check a Hugging Face folder and write it as a checkpoint"),
    "export": Verb("export", "export", "write a model for other programs, as a Hugging Face folder or GGUF"),
    "merge": Verb("merge", "merge_folder", "write an adapter and its base as one model"),
    "quantize": Verb("quantize", "quantize_folder", "write a model with weights of 8 or 4 bits"),
    "check": Verb("check", "check", "run everything a brick or a model promises, also on one of your own"),
    "solve": Verb("solve", "solve_questions", "answer questions, check the answers, try again or take the best"),
    "verifier train": Verb("train_verifier", "train_verifier", "train a model to tell right answers from wrong ones"),
    "grade": Verb("grade", "grade", "judge answers in a file"),
    "doctor sandbox": Verb("doctor", "sandbox", "what this machine can fence in code with that a model wrote"),
    "plan": Verb("plan", "plan", "what a model and its training cost: parameters, FLOPs, memory"),
    "bench generate": Verb(
        "bench_generate", "bench_generate", "tokens per second, latency and memory of writing, by engine and precision"
    ),
    "bench speedrun": Verb(
        "bench_speedrun", "speedrun", "time from a command to a given loss on Tiny Shakespeare, also against nanoGPT"
    ),
    "inspect": Verb("inspect_model", "inspect", "the parts of a model, or what it does with a text as a page"),
    "eject": Verb("eject", "eject", "write an architecture as one self-contained file"),
}

log = logging.getLogger(__name__)

HELP = ("-h", "--help")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit status (DESIGN: 0 done, 2 wrong input, 3 interrupted and saved, ...)."""
    # oneDNN keeps 1,024 prepared kernels, one per shape; batches of many widths would fill gigabytes with them.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        logging.basicConfig(format="%(levelname)s: %(message)s", level=log_level())
        status = run(words)
        sys.stdout.flush()  # here, where a closed pipe is expected
        return status
    except LegoLLMError as error:
        print(f"legollm: {' '.join(str(error).splitlines())}", file=sys.stderr)
        return error.exit_status
    except BrokenPipeError:  # `legollm config train | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # a folder that may not be written, a file that is not there
        if error.filename is None:
            raise
        log.debug("where it happened:", exc_info=True)
        print(f"legollm: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("legollm: interrupted", file=sys.stderr)
        return 130


def log_level() -> str:
    """From LEGOLLM_LOG; warnings and worse by default.

    Raises:
        ConfigError: no such level.
    """
    level = os.environ.get("LEGOLLM_LOG", "warning").upper()
    if level not in logging.getLevelNamesMapping():
        raise ConfigError(f"LEGOLLM_LOG: {level.lower()!r} is none of debug, info, warning, error, critical")
    return level


def run(words: list[str]) -> int:
    """The verb, its family, or one of the words that are no verbs: help, --version, config."""
    if words[:1] == ["help"]:
        words = [*words[1:], "--help"]
    if not words or words[0] in HELP:
        print(overview(VERBS))
        return 0
    if words[0] in ("--version", "-V"):
        print(f"legollm {__version__}")
        return 0
    if words[0] == "config":
        return show_config(words[1:])
    if words[0] not in VERBS and words[1:2] and words[1] in HELP and (family := family_of(words[0])):
        print(overview(family))
        return 0
    name, rest = find_verb(words)
    if not asks_for_help(rest):
        check_processes(name)
    function = load_verb(name)
    if asks_for_help(rest):
        print(help_of(name, function))
        return 0
    return function(resolve_verb(function, rest)) or 0


SHARING = ("train", "sft", "dpo", "reward", "seq2seq train", "classify train")
"""Verbs whose work several processes can share."""


def check_processes(name: str) -> None:
    """Refuse what torchrun would start many times over.

    Raises:
        ConfigError: a verb that is for one process.
    """
    size = os.environ.get("WORLD_SIZE", "1")
    if name not in SHARING and size != "1":
        raise ConfigError(
            f"{name}: runs in one process, and WORLD_SIZE is {size}; start it without torchrun, which is for "
            f"{', '.join(SHARING)}"
        )


def asks_for_help(words: Sequence[str]) -> bool:
    """Whether one of the words is -h or --help; behind `--` they are text."""
    options = words[: words.index("--")] if "--" in words else words
    return any(word in HELP for word in options)


def show_config(words: list[str]) -> int:
    """`legollm config VERB ...`: what a command line means, before anything is done; YAML to copy and edit."""
    if not words or asks_for_help(words):
        print("usage: legollm config VERB [config.yaml] [key=value ...]\n")
        print("Prints every key of a verb with its documentation, its value and its origin: YAML to copy and edit.\n")
        print("\n".join(wrapped(f"verbs: {', '.join(VERBS)}")))
        return 0
    name, rest = find_verb(words)
    print(config.describe(resolve_verb(load_verb(name), rest)), end="")
    return 0


def family_of(word: str) -> dict[str, Verb]:
    """The verbs of two words that start with this one."""
    return {name: verb for name, verb in VERBS.items() if name.startswith(f"{word} ")}


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
    family = family_of(words[0])
    if family and len(words) == 1:
        raise ConfigError(f"{words[0]!r} needs one more word: {', '.join(family)}")
    if family:
        close = difflib.get_close_matches(words[1], [name.split()[1] for name in family], n=1)
        hint = f"did you mean '{words[0]} {close[0]}'?" if close else f"possible: {', '.join(family)}"
        raise ConfigError(f"{two!r} is not a verb of legollm; {hint}")
    meant = [name for name in VERBS if words[0] in name.split()]
    meant = meant or difflib.get_close_matches(words[0], [*VERBS, "config", "help"], n=1)
    families = {name.partition(" ")[0] for name in VERBS if " " in name}
    if not meant and (near := difflib.get_close_matches(words[0], families, n=1)):
        meant = list(family_of(near[0]))
    hint = f"did you mean {' or '.join(map(repr, meant))}?" if meant else "see legollm --help"
    raise ConfigError(f"{words[0]!r} is not a verb of legollm; {hint}")


def load_verb(name: str) -> Callable[[Any], int | None]:
    verb = VERBS[name]
    gc.disable()  # imports make no garbage: looking for some among all that they make takes a fifth of the start
    try:
        module = importlib.import_module(f"legollm.commands.{verb.module}")
    finally:
        gc.enable()
    gc.freeze()
    return typing.cast(Callable[[Any], int | None], getattr(module, verb.function))


def config_class(function: Callable[..., Any]) -> type:
    """The dataclass C of a verb `def verb(run: Resolved[C])`."""
    parameter = next(iter(inspect.signature(function).parameters))
    return typing.cast(type, typing.get_args(typing.get_type_hints(function)[parameter])[0])


def resolve_verb(function: Callable[..., Any], words: Sequence[str]) -> config.Resolved[Any]:
    """The configuration of a verb out of its command-line words."""
    cls = config_class(function)
    switches = {path: kind_at(cls, path) is bool for path in paths_of(cls)}
    positional, rest = getattr(cls, "POSITIONAL", ()), getattr(cls, "REST", None)
    if rest is not None:
        positional = (*positional, *[rest] * len(words))
    path, pairs = config.normalise_words(words, positional=positional, is_switch=switches)
    if rest is not None:
        pairs = as_one_list(pairs, rest)
    return config.resolve(cls, config.read(path, pairs), presets=presets_of(function))


def as_one_list(pairs: Sequence[str], name: str) -> list[str]:
    """`texts=a texts=b` as `texts=["a", "b"]`: what the bare words become where a setting takes any number of them."""
    values = [pair.removeprefix(f"{name}=") for pair in pairs if pair.startswith(f"{name}=")]
    if len(values) < 2:
        return list(pairs)
    return [*(pair for pair in pairs if not pair.startswith(f"{name}=")), f"{name}={json.dumps(values)}"]


def presets_of(function: Callable[..., Any]) -> Presets:
    """The table PRESETS of a verb's module; most have none."""
    module = importlib.import_module(function.__module__)
    return typing.cast(Presets, getattr(module, "PRESETS", {}))


def overview(verbs: dict[str, Verb]) -> str:
    """The verbs, a line each."""
    rows = {name: verb.summary for name, verb in verbs.items()}
    if verbs is VERBS:
        rows["config VERB"] = "every key of a verb with its default, its documentation and its origin"
    width = max(map(len, rows))
    return "\n".join(
        [
            f"legollm {__version__}: language models out of parts one can read",
            "",
            "usage: legollm VERB [config.yaml] [key=value ...]",
            "",
            *(f"  {name:<{width}}  {summary}" for name, summary in rows.items()),
            "",
            "legollm VERB --help shows a verb's settings; legollm config VERB ... shows what a command",
            "line means, before anything is done.",
        ]
    )


def help_of(name: str, function: Callable[..., Any]) -> str:
    """The documentation of a verb: what its function says, then every setting with its default."""
    cls = config_class(function)
    needed = [field.name for field in dataclasses.fields(cls) if not has_default(field)]
    bare = [word.upper() if word in needed else f"[{word}]" for word in getattr(cls, "POSITIONAL", ())]
    if rest := getattr(cls, "REST", None):
        bare.append(f"[{rest} ...]")
    said = inspect.getdoc(function) or ""
    example = " ".join(["legollm config", name, *(f"{word}=..." for word in needed)])
    return "\n".join(
        [
            " ".join(["usage: legollm", name, *bare, "[config.yaml] [key=value ...]"]),
            "",
            *(line for paragraph in said.splitlines() for line in wrapped(paragraph) or [""]),
            "",
            "settings, as key=value, --key value or in the YAML file; a dot goes down one level:",
            "",
            *settings_of(cls, presets_of(function)),
            "",
            *wrapped(f"{example} prints all of them with their values and documentation."),
        ]
    )


def settings_of(cls: type, presets: Presets) -> Iterator[str]:
    """Each setting with its default and its documentation; of groups of settings, the names."""
    docs, hints = docs_of(cls), hints_of(cls)
    if names := presets.get(cls):
        yield "  preset="
        yield from wrapped(f"A starting point; whatever else is given wins over it: {', '.join(names)}.", "      ")
    for field in dataclasses.fields(cls):
        default = default_of(field)
        if members := classes_in(hints[field.name]):
            usual = type(default) if type(default) in members else members[0]
            yield f"  {field.name}."
            yield from wrapped(docs.get(field.name) or summary_of(usual), "      ")
            yield from wrapped(", ".join(hints_of(usual)), "      ")
            if others := [getattr(member, tag_of(member)) for member in members if member is not usual]:
                tag = f"{field.name}.{tag_of(usual)}"
                yield from wrapped(f"{tag} is {getattr(usual, tag_of(usual))}, or {', '.join(others)}", "      ")
            if sizes := [name for member in members for name in presets.get(member, ())]:
                yield from wrapped(f"{field.name}.preset may be {', '.join(sizes)}", "      ")
        else:
            yield f"  {field.name}={config.describe_value(default) if has_default(field) else '...  (needed)'}"
            yield from wrapped(docs.get(field.name, ""), "      ")


def wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
