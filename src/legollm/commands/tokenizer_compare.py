"""`legollm tokenizer compare | sizes`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from legollm.commands.material import DataConfig, TokenizerConfig, first_bytes, train_tokenizer
from legollm.commands.tokenizer_pictures import bars
from legollm.config import Resolved
from legollm.data.sources import documents, open_source
from legollm.errors import ConfigError
from legollm.interfaces import Tokenizer
from legollm.tokenizers import TOKENIZERS, RegexBPETokenizer, load_tokenizer
from legollm.tokenizers.byte import BYTES
from legollm.tokenizers.compare import ALL, Row, SizeRow, at_sizes, n_bytes_of
from legollm.tokenizers.compare import compare as compare_tokenizers
from legollm.tokenizers.inspect_merges import readable
from legollm.whole_file import write_whole


@dataclass(frozen=True, kw_only=True)
class CompareRun:
    """Tokenizers side by side on the same texts."""

    REST: ClassVar[str] = "texts"

    texts: tuple[str, ...] = ()
    """Files to compare on, one per language for example; none: data.source."""
    tokenizers: tuple[str, ...] = ("byte", "char", "word", "bpe")
    """Kinds to train on these texts, or files and folders of trained ones."""
    data: DataConfig = field(default_factory=DataConfig)
    vocab_size: int = 2048
    """For the kinds that are trained here."""
    n_bytes: int = 1_000_000
    """Of each text, from its start; the kinds trained here learn from all of that."""
    json: bool = False
    """Print JSON."""
    svg: Path | None = None
    """A picture to write: bytes per token of each tokenizer on each text."""


def compare(run: Resolved[CompareRun]) -> None:
    """Bytes per token, tokens per word, vocabulary used, speed and unknown words of tokenizers on the same texts.

    Tokenizers trained here have seen the texts; trained ones, given as files, may not have.
    """
    cfg = run.value
    if not cfg.tokenizers:
        raise ConfigError("tokenizers: found none; name at least one, as in tokenizers=[byte,bpe]")
    texts = read_texts(cfg.texts or (cfg.data.source,), cfg.data, cfg.n_bytes)
    everything = [document for some in texts.values() for document in some]
    tokenizers = {readable_name(name): get_tokenizer(name, cfg.vocab_size, everything) for name in cfg.tokenizers}
    rows = compare_tokenizers(tokenizers, texts)
    if cfg.json:
        print(json.dumps([figures_of(row) for row in rows], indent=1))
    else:
        print_rows(rows)
    if cfg.svg is not None:
        write_whole(cfg.svg, picture(rows))


def picture(rows: Sequence[Row]) -> str:
    """Bytes per token as bars; who loses words looks good there, so the legend says what is lost."""
    series: dict[str, list[float]] = {}
    lost = {row.name: row.oov_rate for row in rows}  # the last row of each is the one over all texts
    for row in rows:
        label = f"{row.name} ({lost[row.name]:.1%} unknown)" if lost[row.name] else row.name
        series.setdefault(label, []).append(row.bytes_per_token)
    groups = list(dict.fromkeys(row.text for row in rows))
    return bars("Bytes per token: how much text a token holds", "text", "bytes per token", groups, series)


def read_texts(sources: Sequence[str], data: DataConfig, n_bytes: int) -> dict[str, list[str]]:
    """The first n_bytes of each source, as documents, under names that tell them apart.

    Raises:
        ConfigError: n_bytes is no amount of text, or a source is given twice.
    """
    if n_bytes < 1:
        raise ConfigError(f"n_bytes: {n_bytes} bytes are no text; give at least 1")
    if len(set(sources)) < len(sources):
        twice = next(source for source in sources if sources.count(source) > 1)
        raise ConfigError(f"texts: {twice} is given twice; give each text once")
    names = [Path(source).stem or source for source in sources]
    names = names if len({*names, ALL}) == len(names) + 1 else list(sources)
    return {
        readable_name(name): list(
            first_bytes((document.text for document in documents(open_source(source, data.read))), n_bytes)
        )
        for name, source in zip(names, sources, strict=True)
    }


def readable_name(name: str) -> str:
    """A file's name without anything that would break a line or a picture."""
    return readable(name.encode("utf-8", "surrogatepass"))


def get_tokenizer(name: str, vocab_size: int, texts: Sequence[str]) -> Tokenizer:
    """The kind of this name, trained on the texts, or the tokenizer at this path."""
    if name not in TOKENIZERS:
        return load_tokenizer(Path(name))
    cfg = TokenizerConfig(kind=name, vocab_size=vocab_size, train_bytes=max(1, n_bytes_of(texts)))
    return train_tokenizer(cfg, texts)


def figures_of(row: Row) -> dict[str, Any]:
    """A row for JSON."""
    return {
        "text": row.text,
        "name": row.name,
        "kind": row.kind,
        "vocab_size": row.vocab_size,
        "n_bytes": row.n_bytes,
        "n_words": row.n_words,
        "n_tokens": row.n_tokens,
        "bytes_per_token": row.bytes_per_token,
        "tokens_per_word": row.tokens_per_word,
        "vocab_used": row.vocab_used,
        "oov_rate": row.oov_rate,
        "megabytes_per_s": row.megabytes_per_s,
    }


def print_rows(rows: Sequence[Row]) -> None:
    """One aligned line per tokenizer and text."""
    wide = max(len("text"), *(len(row.text) for row in rows)) + 2
    name = max(len("tokenizer"), *(len(row.name) for row in rows)) + 2
    numbers = f"{'vocabulary':>11}{'used':>8}{'bytes/token':>13}{'tokens/word':>13}{'unknown':>9}{'MB/s':>9}"
    print(f"{'text':<{wide}}{'tokenizer':<{name}}{numbers}")
    for row in rows:
        print(
            f"{row.text:<{wide}}{row.name:<{name}}{row.vocab_size:>11,}{row.vocab_used:>8.1%}"
            f"{row.bytes_per_token:>13.2f}{row.tokens_per_word:>13.2f}{row.oov_rate:>9.2%}{row.megabytes_per_s:>9.2f}"
        )


@dataclass(frozen=True, kw_only=True)
class SizesRun:
    """Vocabulary sizes of byte-pair encoding against the length of a text."""

    POSITIONAL: ClassVar[tuple[str, ...]] = ("data",)

    data: DataConfig = field(default_factory=DataConfig)
    sizes: tuple[int, ...] = (300, 512, 1024, 2048, 4096, 8192, 16384, 32768)
    """Vocabularies to try, in ids, 256 of them bytes; larger ones than the text can fill are left out."""
    pattern: str = "gpt4"
    """How text is split before merging: gpt2, gpt4, o200k, llama3, qwen, or a regular expression."""
    n_bytes: int = 1_000_000
    """Text to learn from and measure on, from the start of the source."""
    json: bool = False
    """Print JSON."""
    svg: Path | None = None
    """A picture to write: how long the text is at each size."""


def sizes(run: Resolved[SizesRun]) -> None:
    """How long a text is in tokens of vocabularies from small to large.

    Merges are learned once, from all but the last part of the text (data.val_fraction); that part, which the merges
    have not seen, is what is measured.
    """
    cfg = run.value
    if not cfg.sizes or min(cfg.sizes) < len(BYTES):
        found = min(cfg.sizes, default="none")
        raise ConfigError(f"sizes: found {found}; give at least one, none below the {len(BYTES)} bytes")
    ((name, texts),) = read_texts((cfg.data.source,), cfg.data, cfg.n_bytes).items()
    text = "".join(texts)
    cut = round(len(text) * (1 - cfg.data.val_fraction))
    if not 0 < cut < len(text):
        raise ConfigError(f"{name}: {len(text)} characters cannot be divided into two parts; give more text")
    tokenizer = RegexBPETokenizer(pattern=cfg.pattern)
    tokenizer.train(text[:cut], vocab_size=max(cfg.sizes))
    rows = list(at_sizes(tokenizer, cfg.sizes, [text[cut:]]))
    if not rows:
        raise ConfigError(f"sizes: {name} fills {tokenizer.vocab_size} ids; give a smaller size or more text")
    if cfg.json:
        print(json.dumps([size_figures(row) for row in rows], indent=1))
    else:
        print(f"{'vocabulary':>11}{'tokens':>13}{'bytes/token':>13}{'of all bytes':>14}")
        for row in rows:
            share = row.n_tokens / row.n_bytes
            print(f"{row.vocab_size:>11,}{row.n_tokens:>13,}{row.bytes_per_token:>13.2f}{share:>14.1%}")
    if cfg.svg is not None:
        title = f"Tokens per 1,000 bytes of {name}, which the merges have not seen"
        per_1000 = [1000 * row.n_tokens / row.n_bytes for row in rows]
        groups = [f"{row.vocab_size:,}" for row in rows]
        write_whole(cfg.svg, bars(title, "vocabulary size", "tokens", groups, {"bpe": per_1000}))


def size_figures(row: SizeRow) -> dict[str, Any]:
    """A row for JSON."""
    return {
        "vocab_size": row.vocab_size,
        "n_bytes": row.n_bytes,
        "n_tokens": row.n_tokens,
        "bytes_per_token": row.bytes_per_token,
    }
