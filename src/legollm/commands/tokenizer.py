"""`legollm tokenizer train | encode | decode`."""

import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import ClassVar

from legollm.commands.material import (
    DataConfig,
    TokenizerConfig,
    refuse_unused_size,
    size_of,
    train_tokenizer,
    training_texts,
)
from legollm.commands.tokenizer_progress import bars
from legollm.commands.tokenizer_view import print_pieces
from legollm.config import Resolved
from legollm.data.sources import open_source
from legollm.errors import ConfigError
from legollm.tokenizers import TOKENIZERS, load_tokenizer


@dataclass(frozen=True, kw_only=True)
class TrainRun:
    """What to train, on what, and where it goes."""

    POSITIONAL: ClassVar[tuple[str, ...]] = ("data",)

    data: DataConfig = field(default_factory=DataConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    out: Path = Path("tokenizer.json")
    """The file to write."""


def train(run: Resolved[TrainRun]) -> None:
    """Train a tokenizer on a source and save it as one file."""
    cfg = run.value
    if cfg.tokenizer.kind not in TOKENIZERS:
        raise ConfigError(f"tokenizer.kind: to train is one of {', '.join(TOKENIZERS)}; found {cfg.tokenizer.kind!r}")
    refuse_unused_size(run)
    source = open_source(cfg.data.source, cfg.data.read)
    texts = training_texts(source, cfg.tokenizer)
    total = min(size_of(source), cfg.tokenizer.train_bytes)
    with bars() as show:
        counted = with_sizes(texts, lambda done: show("reading", done, total))
        tokenizer = train_tokenizer(cfg.tokenizer, counted, progress=partial(show, "learning"))
    tokenizer.save(cfg.out)
    specials = ", ".join(tokenizer.special_tokens) or "none"
    print(f"{cfg.out}: {tokenizer.kind}, {tokenizer.vocab_size:,} ids, special tokens: {specials}")
    if size_of(source) > cfg.tokenizer.train_bytes:
        n_bytes = f"{cfg.tokenizer.train_bytes:,} of {size_of(source):,} bytes"
        print(f"  learned from the first {n_bytes}; tokenizer.train_bytes=N for more")


def with_sizes(texts: Iterable[str], show: Callable[[int], None]) -> Iterator[str]:
    """The texts; tells how many bytes have gone by."""
    done = 0
    for text in texts:
        yield text
        done += len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
        show(done)


@dataclass(frozen=True, kw_only=True)
class EncodeRun:
    """A tokenizer and a text."""

    POSITIONAL: ClassVar[tuple[str, ...]] = ("tokenizer", "text")

    tokenizer: Path
    """A tokenizer file, or a folder such as a checkpoint."""
    text: str | None = None
    """What to encode; null reads standard input."""
    allow_special: bool = False
    """Let special tokens written in the text become their ids."""
    json: bool = False
    """Print the ids as a JSON list and nothing else."""


def encode(run: Resolved[EncodeRun]) -> None:
    """Show how a tokenizer cuts a text: its ids, and the pieces in colour."""
    cfg = run.value
    tokenizer = load_tokenizer(cfg.tokenizer)
    text = sys.stdin.read() if cfg.text is None else cfg.text
    try:
        text.encode()
    except UnicodeEncodeError as error:
        where = "standard input" if cfg.text is None else "text"
        raise ConfigError(f"{where}: character {error.start} is no UTF-8; convert the text first") from error
    ids = tokenizer.encode(text, allowed_special="all" if cfg.allow_special else ())
    if cfg.json:
        print(json.dumps(ids))
        return
    print_pieces([tokenizer.token_bytes(token_id) for token_id in ids])
    print(" ".join(map(str, ids)))
    n_bytes = len(text.encode("utf-8", "surrogatepass"))
    print(f"{len(ids)} tokens, {n_bytes} bytes, {n_bytes / max(1, len(ids)):.2f} bytes/token")


@dataclass(frozen=True, kw_only=True)
class DecodeRun:
    """A tokenizer and ids."""

    POSITIONAL: ClassVar[tuple[str, ...]] = ("tokenizer",)
    REST: ClassVar[str] = "ids"

    tokenizer: Path
    """A tokenizer file, or a folder such as a checkpoint."""
    ids: tuple[int, ...] = ()
    """Such as 15 2 7 or [15, 2, 7]; an empty list reads numbers from standard input."""
    skip_special: bool = False
    """Leave special tokens out of the text."""


def decode(run: Resolved[DecodeRun]) -> None:
    """Turn ids back into text; in a pipe or a file, into exactly the bytes they stand for.

    legollm tokenizer decode tok.json 15 2 7 > text.txt
    """
    cfg = run.value
    words = [] if cfg.ids else sys.stdin.read().replace(",", " ").strip("[] \n").split()
    if not all(word.isdecimal() for word in words):
        raise ConfigError(f"standard input: expected ids, found {next(w for w in words if not w.isdecimal())!r}")
    tokenizer, ids = load_tokenizer(cfg.tokenizer), cfg.ids or map(int, words)
    data = tokenizer.decode_bytes(ids, skip_special=cfg.skip_special)
    if not sys.stdout.isatty() and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.buffer.write(data)
    else:
        print(data.decode("utf-8", "replace"))
