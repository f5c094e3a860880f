"""Text and a tokenizer -> token files -> batches: what every verb that trains needs first."""

import difflib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

from legollm.data.chat import SPECIAL_TOKENS
from legollm.data.cutting import cut_pieces, cut_rule_of
from legollm.data.documents import BadRows
from legollm.data.loader import TokenFile, WindowBatches, validation_batches
from legollm.data.prepare import PrepareOptions, prepare
from legollm.data.readers import SourceOptions
from legollm.data.sources import FileSource, Source, Split, WorldSource, open_source
from legollm.data.split import SplitRule
from legollm.device import seed_of
from legollm.errors import ConfigError
from legollm.interfaces import Batch, Tokenizer
from legollm.tokenizers import (
    TOKENIZERS,
    ByteTokenizer,
    CharBPETokenizer,
    CharTokenizer,
    RegexBPETokenizer,
    TrainableTokenizer,
    UnigramTokenizer,
    load_tokenizer,
)
from legollm.tokenizers.fast import cores

log = logging.getLogger(__name__)

CUT_BY_PATTERN: Mapping[str, Callable[[str], TrainableTokenizer]] = MappingProxyType(
    {kind.kind: kind for kind in (RegexBPETokenizer, CharBPETokenizer, UnigramTokenizer)}
)


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """Which tokenizer, and how it is trained."""

    SHORTHAND: ClassVar[str] = "kind"

    kind: str = "bpe"
    """byte, char, word, bpe, char_bpe, unigram, naive_bpe, or the path of a tokenizer file or of a folder with one."""
    vocab_size: int = 2048
    """Ids in all, special tokens included (all kinds but byte and char, whose number of ids follows from the text)."""
    pattern: str = "gpt4"
    """bpe, char_bpe, unigram: where text is cut first: gpt2, gpt4, o200k, llama3, qwen, or a regular expression."""
    train_bytes: int = 20_000_000
    """Text it learns from at most, taken from the start of the source."""

    def __post_init__(self) -> None:
        if self.kind not in TOKENIZERS and not Path(self.kind).exists():
            near = difflib.get_close_matches(self.kind, TOKENIZERS, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(f"kind: {self.kind!r} is none of {', '.join(TOKENIZERS)}, nor a file or folder{hint}")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which text, and how it is divided."""

    SHORTHAND: ClassVar[str] = "source"

    source: str = "world"
    """A .txt, .md, .jsonl or .parquet file, a folder of them, world, stdlib, or a data set that was fetched."""
    prepared: Path | None = None
    """A folder that `legollm data prepare` wrote; null prepares the source inside the run folder."""
    split: SplitRule = "auto"
    """hash: documents by content; tail: the last characters; auto: hash where there are enough documents."""
    val_fraction: float = 0.1
    """Share of the corpus that is kept for validation."""
    n_workers: int | None = None
    """Processes or threads that tokenise; null takes one per core where the text is large."""
    shard_bytes: int = PrepareOptions.shard_bytes
    """A split whose ids take more than this lies in several files: train-00000.bin, train-00001.bin, ..."""
    read: SourceOptions = field(default_factory=SourceOptions)

    def __post_init__(self) -> None:
        if not 0 < self.val_fraction < 1:
            raise ConfigError(f"val_fraction: a share between 0 and 1, found {self.val_fraction}")
        if self.shard_bytes < 4:
            raise ConfigError(f"shard_bytes: {self.shard_bytes} bytes hold no id; give 4 or more")


@dataclass(frozen=True)
class Material:
    """A tokenizer and the token files it wrote."""

    tokenizer: Tokenizer
    train: TokenFile
    val: TokenFile

    @property
    def bytes_per_token(self) -> float:
        """Of the validation split: turns nats per token into bits per byte."""
        return self.val.n_bytes / max(1, len(self.val) - 1)

    def batches(self, batch_size: int, seq_len: int, seed: int) -> WindowBatches:
        return WindowBatches(self.train.ids, batch_size=batch_size, seq_len=seq_len, seed=seed_of(seed, "data"))

    def validation(self, batch_size: int, seq_len: int, n_batches: int | None = None) -> Iterator[Batch]:
        """The whole validation split in order, or its first n batches."""
        return islice(validation_batches(self.val.ids, batch_size=batch_size, seq_len=seq_len), n_batches)


def gather(data: DataConfig, tokenizer: TokenizerConfig, folder: Path) -> Material:
    """Train the tokenizer and write the token files, unless `folder` has them already from the same inputs."""
    if data.prepared:
        done = data.prepared
        tok: Tokenizer = load_tokenizer(done)
    else:
        source = open_source(data.source, data.read)
        tok = get_tokenizer(tokenizer, source, folder / "tokenizer.json")
        done = folder / "data"
        prepare(source, tok, done, options=prepare_options(data, source))
    return Material(tok, TokenFile(done, "train"), TokenFile(done, "val"))


def prepare_options(data: DataConfig, source: Source) -> PrepareOptions:
    return PrepareOptions(
        split=data.split,
        val_fraction=data.val_fraction,
        n_workers=workers(data, source),
        shard_bytes=data.shard_bytes,
    )


def workers(data: DataConfig, source: Source) -> int:
    """Starting processes costs seconds: worth it for large files only."""
    if data.n_workers:
        return data.n_workers
    return cores() if size_of(source) > 50_000_000 else 1


def size_of(source: Source) -> int:
    """The bytes of a source, about: those of its files, or what is to be generated."""
    if isinstance(source, FileSource):
        return sum(path.stat().st_size for path in source.files.values())
    return source.options.world_bytes if isinstance(source, WorldSource) else 0


def get_tokenizer(cfg: TokenizerConfig, source: Source, path: Path) -> Tokenizer:
    """The tokenizer at `path` if an earlier call trained it, else one trained on `source` and saved there."""
    if cfg.kind not in TOKENIZERS:
        return load_tokenizer(Path(cfg.kind))
    if path.exists():
        return load_tokenizer(path)
    trained = train_tokenizer(cfg, training_texts(source, cfg, "train" if source.splits else None))
    path.parent.mkdir(parents=True, exist_ok=True)
    trained.save(path)
    return trained


def training_texts(source: Source, cfg: TokenizerConfig, split: Split | None = None) -> Iterator[str]:
    """The text of a source, or of one of its own splits, in pieces that a tokenizer learns the same from as from all.

    Where nothing tells how text may be cut, as with a pattern of one's own, each piece is a whole document.
    """
    pieces = source.pieces(BadRows(source.on_bad_row), split)
    rule = cut_rule_of(cfg.kind, None if cfg.kind == "naive_bpe" else cfg.pattern)
    whole: Split = "train"  # pieces are cut the same way in either split
    return (piece.text for _, piece in cut_pieces(((whole, piece) for piece in pieces), rule))


def train_tokenizer(
    cfg: TokenizerConfig, texts: Iterable[str], *, progress: Callable[[int, int], None] | None = None
) -> Tokenizer:
    """A new tokenizer of `cfg.kind` that has learned from the first train_bytes of `texts`.

    progress: called while it learns, after all texts are read, with what is done and what there is to do.
    """
    some = first_bytes(texts, cfg.train_bytes)
    tokenizer: TrainableTokenizer = (
        CUT_BY_PATTERN[cfg.kind](cfg.pattern) if cfg.kind in CUT_BY_PATTERN else TOKENIZERS[cfg.kind]()
    )
    if isinstance(tokenizer, ByteTokenizer | CharTokenizer):  # one id per byte or character, neither more nor fewer
        tokenizer.train(some)
    else:
        tokenizer.train(some, vocab_size=cfg.vocab_size, special_tokens=list(SPECIAL_TOKENS), progress=progress)
    return tokenizer


def first_bytes(texts: Iterable[str], n_bytes: int) -> Iterator[str]:
    """Texts until they make n_bytes; the last one is cut."""
    left = n_bytes
    for text in texts:
        size = len(text.encode("utf-8", "surrogatepass"))
        if size >= left:
            log.info("the tokenizer learns from the first %d bytes", n_bytes)
            yield text[: max(1, left * len(text) // max(size, 1))]
            return
        left -= size
        yield text
