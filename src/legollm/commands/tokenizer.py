"""`legollm tokenizer train | encode | decode | compare`."""

import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import ClassVar

from rich.console import Console
from rich.text import Text

from legollm.commands.material import DataConfig, TokenizerConfig, first_bytes, train_tokenizer
from legollm.config import Resolved
from legollm.data.sources import documents, open_source
from legollm.errors import ConfigError
from legollm.tokenizers import TOKENIZERS, load_tokenizer
from legollm.tokenizers.compare import compare as compare_tokenizers

COLOURS = ("on blue", "on dark_green", "on dark_magenta", "on dark_cyan")


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
    source = open_source(cfg.data.source, cfg.data.read)
    tokenizer = train_tokenizer(cfg.tokenizer, (document.text for document in documents(source)))
    cfg.out.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(cfg.out)
    specials = ", ".join(tokenizer.special_tokens) or "none"
    print(f"{cfg.out}: {tokenizer.kind}, {tokenizer.vocab_size:,} ids, special tokens: {specials}")


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
    ids = tokenizer.encode(text, allowed_special="all" if cfg.allow_special else ())
    if cfg.json:
        print(json.dumps(ids))
        return
    pieces = [tokenizer.token_bytes(token_id).decode("utf-8", "replace") for token_id in ids]
    if sys.stdout.isatty():
        coloured = [(piece, f"white {COLOURS[i % len(COLOURS)]}") for i, piece in enumerate(pieces)]
        Console(highlight=False, soft_wrap=True).print(Text.assemble(*coloured))
    else:
        print("|".join(pieces))
    print(" ".join(map(str, ids)))
    n_bytes = len(text.encode("utf-8", "surrogatepass"))
    print(f"{len(ids)} tokens, {n_bytes} bytes, {n_bytes / max(1, len(ids)):.2f} bytes/token")


@dataclass(frozen=True, kw_only=True)
class DecodeRun:
    """A tokenizer and ids."""

    POSITIONAL: ClassVar[tuple[str, ...]] = ("tokenizer", "ids")

    tokenizer: Path
    """A tokenizer file, or a folder such as a checkpoint."""
    ids: tuple[int, ...] = ()
    """Such as [15, 2, 7]; an empty list reads numbers from standard input."""
    skip_special: bool = False
    """Leave special tokens out of the text."""


def decode(run: Resolved[DecodeRun]) -> None:
    """Turn ids back into text."""
    cfg = run.value
    words = [] if cfg.ids else sys.stdin.read().replace(",", " ").strip("[] \n").split()
    if not all(word.isdecimal() for word in words):
        raise ConfigError(f"standard input: expected ids, found {next(w for w in words if not w.isdecimal())!r}")
    print(load_tokenizer(cfg.tokenizer).decode(cfg.ids or map(int, words), skip_special=cfg.skip_special))


@dataclass(frozen=True, kw_only=True)
class CompareRun:
    """Tokenizers side by side on the same text."""

    tokenizers: tuple[str, ...] = ("byte", "char", "word", "bpe")
    """Kinds to train on the source, or files and folders of trained ones."""
    data: DataConfig = field(default_factory=DataConfig)
    vocab_size: int = 2048
    """For the kinds that are trained here."""
    n_bytes: int = 1_000_000
    """Text to compare on; the kinds trained here learn from as much."""
    json: bool = False
    """Print JSON."""


def compare(run: Resolved[CompareRun]) -> None:
    """Bytes per token, tokens per word, speed and unknown words of several tokenizers on the same text."""
    cfg = run.value
    source = open_source(cfg.data.source, cfg.data.read)
    texts = list(first_bytes((document.text for document in documents(source)), cfg.n_bytes))
    rows = compare_tokenizers(
        {
            name: train_tokenizer(TokenizerConfig(kind=name, vocab_size=cfg.vocab_size, train_bytes=cfg.n_bytes), texts)
            if name in TOKENIZERS
            else load_tokenizer(Path(name))
            for name in cfg.tokenizers
        },
        texts,
    )
    if cfg.json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
        return
    print(f"{'tokenizer':<20}{'vocabulary':>11}{'bytes/token':>13}{'tokens/word':>13}{'MB/s':>9}{'unknown':>9}")
    for row in rows:
        print(
            f"{row.name:<20}{row.vocab_size:>11,}{row.bytes_per_token:>13.2f}{row.tokens_per_word:>13.2f}"
            f"{row.megabytes_per_s:>9.2f}{row.oov_rate:>9.2%}"
        )
