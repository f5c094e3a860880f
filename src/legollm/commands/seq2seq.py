"""`legollm seq2seq train` and `write`: pairs of texts -> a model that reads the one and writes the other."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import ClassVar, cast

from torch import nn

from legollm.architectures import ARCHITECTURES
from legollm.architectures.t5 import T5Config
from legollm.architectures.transformer import TransformerConfig
from legollm.checkpoints.loading import load
from legollm.commands.fit import Job, fit, team_of
from legollm.commands.material import TokenizerConfig, refuse_unused_size
from legollm.commands.pairs import PairTokenizer, pair_tokenizer
from legollm.commands.run_folder import Resume, open_run
from legollm.components.encoder_decoder import EncoderDecoder
from legollm.config import Resolved
from legollm.data.pairs import (
    ShuffledBatches,
    SourceTarget,
    TextPair,
    in_order,
    read_pairs,
    reversals,
    source_batch,
    split_pairs,
)
from legollm.data.prepare import END_OF_TEXT
from legollm.device import seed_of
from legollm.errors import CheckpointError, ConfigError
from legollm.generation.sampling import Sampling
from legollm.generation.targets import write_targets
from legollm.team import ALONE, Team
from legollm.training.optim import OptimConfig
from legollm.training.pairs import NextGivenSource
from legollm.training.train import TrainConfig, TrainState

REVERSAL = "reversal"
Seq2SeqModel = TransformerConfig | T5Config

PRESETS = {row.config: row.presets for row in ARCHITECTURES.values() if row.config in (TransformerConfig, T5Config)}


@dataclass(frozen=True, kw_only=True)
class SourceTargetConfig:
    """Where the pairs come from."""

    SHORTHAND: ClassVar[str] = "source"

    source: str = REVERSAL
    """A .jsonl file whose rows have a source and a target; or reversal: words to be written backwards."""
    source_field: str = "source"
    """The field of a row that is read."""
    target_field: str = "target"
    """The field of a row that is to be written."""
    val_fraction: float = 0.05
    """Share of the sources that is kept for validation; none of them is trained on."""
    n_examples: int = 40_000
    """reversal: how many words."""
    max_chars: int = 12
    """reversal: the longest word."""

    def __post_init__(self) -> None:
        for name in ("n_examples", "max_chars"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: must be at least 1, found {getattr(self, name)}")
        if not 0 < self.val_fraction < 1:
            raise ConfigError(f"val_fraction: a share between 0 and 1, found {self.val_fraction}")


@dataclass(frozen=True, kw_only=True)
class Seq2SeqRun:
    """A whole training run over pairs."""

    run: Path = Path("runs/seq2seq")
    """The run's folder."""
    seed: int = 1337
    """Decides everything that is random: the first weights, the order of the pairs, dropout."""
    resume: Resume = "auto"
    """auto continues where the run stopped, never refuses a folder that holds a run, a number continues that step."""
    data: SourceTargetConfig = field(default_factory=SourceTargetConfig)
    tokenizer: TokenizerConfig = field(default_factory=lambda: TokenizerConfig(kind="char"))
    model: Seq2SeqModel = field(default_factory=lambda: TransformerConfig(pre_norm=True))
    """transformer or t5; vocab_size and start_id are those of the tokenizer, whatever is said here."""
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=2e-3))
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(max_steps=1000, batch_size=64, precision="float32")  # it is that small
    )


def train(run: Resolved[Seq2SeqRun]) -> None:
    """Train an encoder-decoder on pairs of texts, and count how many unseen sources it gets right to the last token.

    legollm seq2seq train data.source=pairs.jsonl run=runs/pairs
    """
    cfg = run.value
    with team_of(cfg) as team:
        refuse_unused_size(run)
        state, right, n_val = fit_pairs(cfg, team)
        print(f"{cfg.run}: {state.step} steps, {state.n_tokens:,} target tokens, {state.seconds:.0f} s of training")
        print(f"exact match on unseen sources, greedy: {right} of {n_val} ({right / n_val:.2%})")
        print(f"next: legollm seq2seq write {cfg.run}/checkpoint")


def fit_pairs(cfg: Seq2SeqRun, team: Team = ALONE) -> tuple[TrainState, int, int]:
    """The whole run: its state, how many held-out targets greedy decoding writes exactly, and out of how many."""
    pairs = pairs_of(cfg.data, cfg.seed)
    texts = split_pairs(pairs, cfg.data.val_fraction)
    open_run(cfg.run, cfg, cfg.resume, team)
    every = [text for pair in pairs for text in pair]
    words = team.first(lambda: pair_tokenizer(cfg.tokenizer, every, cfg.run / "tokenizer.json"))
    tokenizer = words.tokenizer
    model_config = replace(cfg.model, vocab_size=tokenizer.vocab_size, start_id=words.end_id)
    train, val = ([encoded(pair, words, model_config.max_seq_len) for pair in part] for part in texts)
    collate = partial(source_batch, start_id=words.end_id)

    def sample(model: nn.Module) -> str:
        (ids,) = greedy(cast(EncoderDecoder, model), val[:1], words.end_id)
        return f"{texts[1][0].given} -> {tokenizer.decode(ids)}"

    job = Job(
        folder=cfg.run,
        arch=model_config.arch,
        model_config=model_config,
        model=ARCHITECTURES[model_config.arch].build(model_config, seed=seed_of(cfg.seed, "init")),
        tokenizer=tokenizer,
        objective=NextGivenSource(),
        batches=ShuffledBatches(
            train, collate, cfg.train.batch_size, seed=cfg.seed, rank=team.rank, world_size=team.size
        ),
        validation=lambda n: islice(in_order(val, collate, cfg.train.batch_size), n),
        optim=cfg.optim,
        train=cfg.train,
        seed=cfg.seed,
        resume=cfg.resume,
        sample=sample,
        tokenizer_files={"eos": END_OF_TEXT},
        team=team,
    )
    state = fit(job)
    if not team.leads:
        return state, 0, len(val)
    written = greedy(cast(EncoderDecoder, load(cfg.run).model), val, words.end_id)
    right = sum([*ids, words.end_id] == pair.target for ids, pair in zip(written, val, strict=True))
    return state, right, len(val)


def pairs_of(cfg: SourceTargetConfig, seed: int) -> list[TextPair]:
    """All pairs, of the file or made up."""
    if cfg.source == REVERSAL:
        return reversals(seed, cfg.n_examples, cfg.max_chars)
    return read_pairs(Path(cfg.source), cfg.source_field, cfg.target_field)


def encoded(pair: TextPair, words: PairTokenizer, max_len: int) -> SourceTarget:
    """A pair as ids, both texts ended."""
    return SourceTarget(words.ids(pair.given, max_len), words.ids(pair.wanted, max_len))


def greedy(model: EncoderDecoder, pairs: Sequence[SourceTarget], end_id: int) -> list[list[int]]:
    """What the model writes for each source, up to the length of the longest target."""
    longest = max(len(pair.target) for pair in pairs)
    sampling = Sampling(temperature=0, max_new_tokens=longest)
    return write_targets(model, [pair.source for pair in pairs], end_id, sampling, stop_ids=[end_id], batch_size=256)


@dataclass(frozen=True, kw_only=True)
class WriteRun(Sampling):
    """An encoder-decoder, sources, and how the next token is chosen."""

    POSITIONAL: ClassVar[tuple[str, ...]] = ("model",)
    REST: ClassVar[str] = "sources"

    model: Path = Path("runs/seq2seq/checkpoint")
    """A checkpoint or run folder, or a Hugging Face folder."""
    sources: tuple[str, ...] = ()
    """Texts to read; none: each line of standard input is one."""
    temperature: float = 0.0
    """0 writes the likeliest token each time; above, it is drawn, more freely the higher."""
    batch_size: int = 32
    """Sources that are read together."""


def write(run: Resolved[WriteRun]) -> None:
    """Write the target of each source, a line each.

    legollm seq2seq write runs/seq2seq legollm transformer
    """
    cfg = run.value
    lm = load(cfg.model)
    if not isinstance(lm.model, EncoderDecoder):
        raise CheckpointError(
            f"{lm.folder}: {lm.arch} is no encoder-decoder; `legollm generate` continues texts with it"
        )
    words = PairTokenizer(tokenizer=lm.text_side())
    sources = [words.ids(text, lm.config.max_seq_len) for text in cfg.sources or sys.stdin.read().splitlines() if text]
    if not sources:
        raise ConfigError("sources: none given; name texts, or write them to standard input, a line each")
    sampling = Sampling(**{one.name: getattr(cfg, one.name) for one in fields(Sampling)})
    if sampling.stop:
        raise ConfigError("stop: targets end with their own token, not with a text; leave it out, or use stop_ids")
    targets = write_targets(
        lm.model, sources, lm.config.start_id, sampling, stop_ids=lm.stop_ids(), batch_size=cfg.batch_size
    )
    for ids in targets:
        print(words.tokenizer.decode(ids))
