"""`legollm data show`: conversations as the model reads them, and which of their tokens it learns to write."""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import ClassVar, NamedTuple

from rich.console import Console
from rich.text import Text

from legollm.checkpoints.loading import load
from legollm.commands.sft import ConversationConfig, as_messages
from legollm.config import Resolved
from legollm.data import world
from legollm.data.chat import Message, encode_example
from legollm.data.conversations import FormatName, read_conversations
from legollm.data.templates import template_for
from legollm.errors import ConfigError
from legollm.finetuning.sft import Example
from legollm.interfaces import Tokenizer
from legollm.tokenizers.inspect_merges import readable

OPEN, CLOSE = "[[", "]]"
"""Around what is learned, where there are no colours."""
LEARNED, CONTROL, READ = "bold green", "cyan", "dim"


@dataclass(frozen=True, kw_only=True)
class ShowRun:
    """Conversations, and the model that is to learn from them."""

    POSITIONAL: ClassVar[tuple[str, ...]] = ("source",)

    source: str = "world"
    """A file of conversations, .jsonl or a .json list; or world: questions about stories."""
    model: Path = Path("runs/train/checkpoint")
    """Whose tokenizer and template are used: a checkpoint or run folder, or a Hugging Face folder."""
    n: int = 3
    """How many to show; the figures are of all."""
    format: FormatName = "auto"
    """As `data.format` of sft."""
    template: str | None = None
    """As `data.template` of sft."""
    json: bool = False
    """Print the figures as JSON, and no conversation."""

    def __post_init__(self) -> None:
        if self.n < 0:
            raise ConfigError(f"n: must not be negative, found {self.n}")


class Part(NamedTuple):
    """Neighbouring tokens of one kind."""

    text: str
    is_learned: bool
    is_control: bool


def show(run: Resolved[ShowRun]) -> None:
    """Print conversations as the model reads them: what it learns is green, control tokens are cyan, the rest is read.

    Where the output is no terminal, what is learned stands in [[ ]]. Below are the tokens of all conversations, and the
    share of them that is learned.
    """
    cfg = run.value
    lm = load(cfg.model)
    tokenizer = lm.text_side()
    template = template_for(tokenizer, cfg.template, lm.chat_template)
    max_len = lm.config.max_seq_len
    examples = [Example(*encode_example(tokenizer, messages, template)) for messages in source_of(cfg)]
    if cfg.json:
        print(json.dumps(figures_of(examples, max_len), indent=1))
        return
    in_colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    for number, example in enumerate(examples[: cfg.n], start=1):
        print(f"conversation {number}: {counted([example])}")
        parts = list(parts_of(example, tokenizer))
        if in_colour:
            Console(highlight=False, soft_wrap=True).print(coloured(parts))
        else:
            print(marked(parts))
    print(f"all {len(examples):,}: {counted(examples)}")
    too_long = sum(len(example.ids) > max_len for example in examples)
    longest = max(len(example.ids) for example in examples)
    print(
        f"longest {longest:,} tokens; the model reads {max_len:,}"
        + (f", which is too few for {too_long:,} of them" if too_long else "")
    )


def source_of(cfg: ShowRun) -> Iterator[Sequence[Message]]:
    """The conversations; of the endless world those that a run of sft is given by default."""
    if cfg.source == "world":
        default = ConversationConfig()
        asked = world.conversations(0, 0, default.n_examples, n_questions=default.n_turns, split="train")
        return map(as_messages, asked)
    return read_conversations(Path(cfg.source), cfg.format)


def figures_of(examples: Sequence[Example], max_len: int) -> dict[str, float]:
    """Of all conversations."""
    n_tokens = sum(len(example.ids) for example in examples)
    n_learned = sum(sum(example.is_target) for example in examples)
    return {
        "n_conversations": len(examples),
        "n_tokens": n_tokens,
        "n_learned": n_learned,
        "share_learned": n_learned / n_tokens,
        "longest": max(len(example.ids) for example in examples),
        "n_too_long": sum(len(example.ids) > max_len for example in examples),
    }


def counted(examples: Sequence[Example]) -> str:
    figures = figures_of(examples, 0)
    return f"{figures['n_tokens']:,} tokens, {figures['n_learned']:,} of them learned ({figures['share_learned']:.0%})"


def parts_of(example: Example, tokenizer: Tokenizer) -> Iterator[Part]:
    """The conversation in pieces that are whole texts."""
    specials = set(tokenizer.special_tokens.values())
    kinds = ((i, wanted, i in specials) for i, wanted in zip(*example, strict=True))
    for (is_learned, is_control), tokens in groupby(kinds, key=lambda kind: kind[1:]):
        lines = tokenizer.decode([i for i, *_ in tokens]).split("\n")
        text = "\n".join(readable(line.encode("utf-8", "surrogatepass")) for line in lines)
        yield Part(text, is_learned, is_control)


def coloured(parts: Sequence[Part]) -> Text:
    """For a terminal."""
    view = Text()
    for part in parts:
        colour = LEARNED if part.is_learned else CONTROL if part.is_control else READ
        view.append(part.text, f"{colour} underline" if part.is_learned and part.is_control else colour)
    return view


def marked(parts: Sequence[Part]) -> str:
    """For files and pipes."""
    view, was_learned = "", False
    for part in (*parts, Part("", False, False)):
        if part.is_learned != was_learned:
            view += OPEN if part.is_learned else CLOSE
        view, was_learned = view + part.text, part.is_learned
    return view
