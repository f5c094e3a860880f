"""Text and a tokenizer -> token files -> batches: what every verb that trains needs first."""

import difflib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from legollm.config import Resolved
from legollm.data.chat import SPECIAL_TOKENS
from legollm.data.cutting import cut_pieces, cut_rule_of
from legollm.data.documents import BadRows
from legollm.data.loader import RowBatches, Rows, TokenFile, Windows, validation_batches
from legollm.data.mixture import Mixture, Turns
from legollm.data.packing import Packed
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
    """byte, char, word, bpe, char_bpe, unigram, naive_bpe, or the path of a tokenizer file or of a
    folder with one, such as a run."""
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


def refuse_unused_size(run: Resolved[Any]) -> None:
    """
    Raises:
        ConfigError: tokenizer.vocab_size was given, and the tokenizer that was asked for decides its size itself.
    """
    cfg: TokenizerConfig = run.value.tokenizer
    origin = run.origins.get("tokenizer.vocab_size", "default")
    is_said = origin == "command line" or cfg.vocab_size != TokenizerConfig().vocab_size  # a run's file says it all
    if origin == "default" or origin.startswith("preset ") or not is_said:
        return
    if cfg.kind in (ByteTokenizer.kind, CharTokenizer.kind):
        why = f"tokenizer={cfg.kind} has an id for each {cfg.kind}, however many that are"
    elif cfg.kind in TOKENIZERS or (n_ids := load_tokenizer(Path(cfg.kind)).vocab_size) == cfg.vocab_size:
        return
    else:
        why = f"tokenizer={cfg.kind} is trained already and has {n_ids:,} ids"
    raise ConfigError(f"tokenizer.vocab_size: {cfg.vocab_size} cannot be: {why}; leave it out")


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


@dataclass(frozen=True, kw_only=True)
class TrainData(DataConfig):
    """Which text, how it is divided, and how batches are made of it."""

    mixture: tuple[str, ...] = ()
    """Several sources instead of one, each with its weight: [3 books.txt, 1 data/stories]. A weight is a share of the
    rows that are learned from; a folder that `legollm data prepare` wrote is taken as it is."""
    packing: Literal["windows", "best_fit"] = "windows"
    """windows: rows are cut anywhere from the text as one long line; best_fit: rows hold whole documents, put together
    so that they fill it, and attention stays within each."""
    prefetch: int = 2
    """Batches that are read ahead while a step is computed; 0 reads each when it is needed. The order is the same."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prefetch < 0:
            raise ConfigError(f"prefetch: must not be negative, found {self.prefetch}")
        if self.mixture and (self.prepared or self.source != type(self).source):
            other = "prepared" if self.prepared else "source"
            raise ConfigError(f"mixture: names all the text, and {other} names another; leave one of them out")
        self.weighted_sources()

    def weighted_sources(self) -> list[tuple[Fraction, str]]:
        """The mixture as weights and sources.

        Raises:
            ConfigError: an entry that is not a positive number, a blank and a source; or a source that occurs twice.
        """
        pairs = []
        for entry in self.mixture:
            weight, _, source = entry.strip().partition(" ")
            try:
                pairs.append((Fraction(weight), source.strip()))
            except (ValueError, ZeroDivisionError):
                pairs.append((Fraction(0), ""))
            if pairs[-1][0] <= 0 or not pairs[-1][1]:
                raise ConfigError(f"mixture: {entry!r} is no weight and source; write [3 books.txt, 1 stories.jsonl]")
        sources = [source for _, source in pairs]
        if twice := [source for source in sources if sources.count(source) > 1]:
            raise ConfigError(f"mixture: {twice[0]} occurs twice; give it one weight")
        return pairs


@dataclass(frozen=True)
class Part:
    """The token files of one source, its name in the log, and its weight in the mixture."""

    name: str
    weight: Fraction
    train: TokenFile
    val: TokenFile


@dataclass(frozen=True)
class Material:
    """A tokenizer and the token files it wrote: of one source, or of each source of a mixture."""

    tokenizer: Tokenizer
    parts: tuple[Part, ...]
    packing: Literal["windows", "best_fit"] = "windows"

    @property
    def train(self) -> TokenFile:
        """Of the first source, which mostly is the only one."""
        return self.parts[0].train

    @property
    def val(self) -> TokenFile:
        """Of the first source."""
        return self.parts[0].val

    @property
    def bytes_per_token(self) -> float:
        """Of the validation splits: turns nats per token into bits per byte."""
        vals = [part.val for part in self.parts]
        return sum(val.n_bytes for val in vals) / max(1, sum(len(val) - 1 for val in vals))

    def rows(self, seq_len: int, seed: int) -> Rows:
        """The order in which the text is learned from: a function of the seed alone."""
        orders = {part.name: self._rows_of(part, seq_len, seed_of(seed, "data")) for part in self.parts}
        if len(orders) == 1:
            return next(iter(orders.values()))
        return Mixture(orders, [part.weight for part in self.parts])

    def _rows_of(self, part: Part, seq_len: int, seed: int) -> Rows:
        if self.packing == "windows":
            return Windows(part.train.ids, seq_len=seq_len, seed=seed)
        packed = Packed(part.train.ids, part.train.document_starts, seq_len=seq_len, seed=seed)
        of = f" of {part.name}" if len(self.parts) > 1 else ""
        log.info("rows%s: whole documents, %.1f %% of their columns filled", of, 100 * packed.share_filled)
        return packed

    def batches(self, batch_size: int, seq_len: int, seed: int, *, rank: int = 0, world_size: int = 1) -> RowBatches:
        rows = self.rows(seq_len, seed)
        return RowBatches(rows, batch_size=batch_size, rank=rank, world_size=world_size)

    def validation(self, batch_size: int, seq_len: int, n_batches: int | None = None) -> Iterator[Batch]:
        """The whole validation split in order, or its first n batches; of a mixture, all splits one after the other, or
        so many batches of each as its weight asks for, at least one. Always windows, so that runs can be compared."""
        if len(self.parts) == 1 or n_batches is None:
            shares: list[int | None] = [n_batches] * len(self.parts)
        else:
            turns = Turns([part.weight for part in self.parts]).take(n_batches)
            shares = [max(1, turns.count(i)) for i in range(len(self.parts))]
        for part, share in zip(self.parts, shares, strict=True):
            yield from islice(validation_batches(part.val.ids, batch_size=batch_size, seq_len=seq_len), share)


def gather(data: TrainData, tokenizer: TokenizerConfig, folder: Path) -> Material:
    """Train the tokenizer and write the token files, unless `folder` has them already from the same inputs."""
    if data.mixture:
        return gather_mixture(data, tokenizer, folder)
    if data.prepared:
        done = data.prepared
        tok: Tokenizer = load_tokenizer(done)
    else:
        source = open_source(data.source, data.read)
        tok = get_tokenizer(tokenizer, [(source, Fraction(1))], folder / "tokenizer.json")
        done = folder / "data"
        prepare(source, tok, done, options=prepare_options(data, source))
    part = Part("text", Fraction(1), TokenFile(done, "train"), TokenFile(done, "val"))
    return Material(tok, (part,), data.packing)


def gather_mixture(data: TrainData, tokenizer: TokenizerConfig, folder: Path) -> Material:
    """The same for several sources; those that are not prepared get a folder each in `folder`/data.

    Raises:
        ConfigError: prepared folders that two tokenizers wrote.
    """
    pairs = data.weighted_sources()
    ready = [Path(word) for _, word in pairs if is_prepared(word)]
    sources = {word: open_source(word, data.read) for _, word in pairs if not is_prepared(word)}
    if ready:
        tok: Tokenizer = load_tokenizer(ready[0])
    else:
        tok = get_tokenizer(tokenizer, [(sources[word], weight) for weight, word in pairs], folder / "tokenizer.json")
    parts = []
    for name, (weight, word) in zip(short_names([word for _, word in pairs]), pairs, strict=True):
        done = folder / "data" / name if word in sources else Path(word)
        if word in sources:
            prepare(sources[word], tok, done, options=prepare_options(data, sources[word]))
        parts.append(Part(name, weight, TokenFile(done, "train"), TokenFile(done, "val")))
        if parts[-1].train.meta["tokenizer"]["fingerprint"] != tok.fingerprint:
            raise ConfigError(
                f"data.mixture: {word} was written by another tokenizer than {ready[0]}; prepare both with the same one"
            )
    return Material(tok, tuple(parts), data.packing)


def is_prepared(word: str) -> bool:
    """Whether a source is a folder that `legollm data prepare` wrote."""
    return (Path(word) / "meta.json").is_file()


def short_names(words: Sequence[str]) -> list[str]:
    """A name for each source of a mixture: the last part of its path; where two would be the same, numbered."""
    names = [Path(word).stem for word in words]
    return [name if names.count(name) == 1 else f"{name}-{i}" for i, name in enumerate(names, start=1)]


MANY_EPOCHS = 4
"""So often a text may be read and teach nearly as much as new text (Muennighoff et al. 2023, arXiv:2305.16264)."""


def warn_of_repetition(rows: Rows, n_rows: int) -> None:
    """Say which source a run of so many rows reads too often."""
    for key, epochs in rows.figures_after(n_rows).items():
        if epochs > MANY_EPOCHS:
            log.warning(
                "%s will be read %.1f times, and more than %d teaches little; give more text, or fewer steps%s",
                key.removeprefix("epochs_") if "_" in key else "the text",
                epochs,
                MANY_EPOCHS,
                " or a smaller weight" if "_" in key else "",
            )


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


def get_tokenizer(cfg: TokenizerConfig, sources: Sequence[tuple[Source, Fraction]], path: Path) -> Tokenizer:
    """The tokenizer at `path` if an earlier call trained it, else one trained on all `sources` and saved there.

    It learns from so much of each source as its weight says.
    """
    if cfg.kind not in TOKENIZERS or path.exists():
        return load_tokenizer(path if cfg.kind in TOKENIZERS else Path(cfg.kind))
    total = sum(weight for _, weight in sources)
    shares = [(source, max(1, int(cfg.train_bytes * weight / total))) for source, weight in sources]
    texts = (
        first_bytes(training_texts(source, cfg, "train" if source.splits else None), n_bytes)
        for source, n_bytes in shares
    )
    trained = train_tokenizer(cfg, chain.from_iterable(texts))
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
