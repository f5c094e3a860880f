"""`legollm classify train` and `label`: texts and their labels -> a model that labels texts."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from legollm.architectures import ARCHITECTURES
from legollm.architectures.encoder_classifier import EncoderClassifierConfig
from legollm.architectures.scored import ScoredConfig
from legollm.checkpoints.loading import load
from legollm.commands.fit import Job, fit, team_of
from legollm.commands.material import TokenizerConfig, refuse_unused_size
from legollm.commands.pairs import PairTokenizer, pair_tokenizer
from legollm.commands.run_folder import Resume, open_run
from legollm.commands.scored_base import padding_of
from legollm.commands.start_from import Start, prepare
from legollm.components.encoder import EncoderClassifier
from legollm.config import Resolved
from legollm.data.pairs import Labelled, ShuffledBatches, TextPair, in_order, label_batch, read_pairs, split_pairs
from legollm.data.prepare import END_OF_TEXT
from legollm.device import seed_of
from legollm.errors import CheckpointError, ConfigError, DataError
from legollm.interfaces import Tokenizer
from legollm.team import ALONE, Team
from legollm.training.optim import OptimConfig
from legollm.training.pairs import LabelOfText, label_logits
from legollm.training.train import TrainConfig, TrainState
from legollm.transforms.lora import LoraConfig


@dataclass(frozen=True, kw_only=True)
class LabelledTextConfig:
    """Where the texts and their labels come from."""

    SHORTHAND: ClassVar[str] = "source"

    source: Path
    """A .jsonl file whose rows have a text and a label, both text."""
    text_field: str = "text"
    """The field of a row that is read."""
    label_field: str = "label"
    """The field of a row that says what it is."""
    val_fraction: float = 0.1
    """Share of the texts that is kept for validation; none of them is trained on."""

    def __post_init__(self) -> None:
        if not 0 < self.val_fraction < 1:
            raise ConfigError(f"val_fraction: a share between 0 and 1, found {self.val_fraction}")


@dataclass(frozen=True, kw_only=True)
class ClassifyRun:
    """A whole training run over labelled texts."""

    data: LabelledTextConfig
    run: Path = Path("runs/classify")
    """The run's folder."""
    seed: int = 1337
    """Decides everything that is random: the first weights, the order of the texts, dropout."""
    resume: Resume = "auto"
    """auto continues where the run stopped, never refuses a folder that holds a run, a number continues that step."""
    base: Path | None = None
    """A trained decoder to start from, a checkpoint, run or Hugging Face folder, with its tokenizer: its head makes way
    for one over the labels. null trains an encoder from nothing, out of `tokenizer` and `model`."""
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    model: EncoderClassifierConfig = field(default_factory=EncoderClassifierConfig)
    """vocab_size is that of the tokenizer and labels are those of the file, whatever is said here."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    freeze: tuple[str, ...] = ()
    """Parts of the base that stand still, such as embed,blocks.0; or all_but_last_2 for all blocks but two."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=lambda: TrainConfig(max_steps=500, batch_size=32))


def train(run: Resolved[ClassifyRun]) -> None:
    """Train an encoder, or a decoder that has learned a language, to label texts; and count how many unseen texts it
    labels right.

    legollm classify train data.source=reviews.jsonl run=runs/reviews
    legollm classify train data.source=reviews.jsonl base=runs/train optim.lr=1e-4 run=runs/reviews
    """
    cfg = run.value
    with team_of(cfg) as team:
        if cfg.base is None:
            refuse_unused_size(run)
        elif (cfg.model, cfg.tokenizer) != (EncoderClassifierConfig(), TokenizerConfig()):
            raise ConfigError(f"base: {cfg.base} brings its model and tokenizer; leave out model.* and tokenizer")
        state, right, n_val = fit_labels(cfg, team)
        print(f"{cfg.run}: {state.step} steps, {state.n_tokens:,} texts, {state.seconds:.0f} s of training")
        print(f"right on unseen texts: {right} of {n_val} ({right / n_val:.2%})")
        print(f"next: legollm classify label {cfg.run}/checkpoint")


def fit_labels(cfg: ClassifyRun, team: Team = ALONE) -> tuple[TrainState, int, int]:
    """The whole run: its state, how many held-out texts get the right label, and out of how many."""
    pairs = read_pairs(cfg.data.source, cfg.data.text_field, cfg.data.label_field)
    labels = tuple(sorted({pair.wanted for pair in pairs}))
    if len(labels) < 2:
        raise DataError(f"{cfg.data.source}: {labels[0]!r} is the only label in it; a choice needs two")
    texts = split_pairs(pairs, cfg.data.val_fraction)
    open_run(cfg.run, cfg, cfg.resume, team)
    start = from_base(cfg.base, cfg, labels) if cfg.base else from_nothing(cfg, pairs, labels, team)
    tokenizer = cast(Tokenizer, start.tokenizer)
    train, val = (
        [Labelled(ids_of(pair.given, tokenizer, start.config), labels.index(pair.wanted)) for pair in part]
        for part in texts
    )
    job = Job(
        folder=cfg.run,
        arch=start.arch,
        model_config=start.config,
        model=start.model,
        adapter=start.adapter,
        tokenizer=tokenizer,
        objective=LabelOfText(),
        batches=ShuffledBatches(
            train, label_batch, cfg.train.batch_size, seed=cfg.seed, rank=team.rank, world_size=team.size
        ),
        validation=lambda n: islice(in_order(val, label_batch, cfg.train.batch_size), n),
        optim=cfg.optim,
        train=cfg.train,
        seed=cfg.seed,
        resume=cfg.resume,
        tokenizer_files={"eos": END_OF_TEXT} if END_OF_TEXT in tokenizer.special_tokens else {},
        team=team,
    )
    state = fit(job)
    if not team.leads:
        return state, 0, len(val)
    found = chances(load(cfg.run).model, [example.ids for example in val], cfg.train.batch_size)
    right = sum(int(row.argmax()) == example.label for row, example in zip(found, val, strict=True))
    return state, right, len(val)


def from_nothing(cfg: ClassifyRun, pairs: Sequence[TextPair], labels: tuple[str, ...], team: Team) -> Start:
    """An encoder with fresh weights, and a tokenizer that learned from the texts."""
    texts = [pair.given for pair in pairs]
    tokenizer = team.first(lambda: pair_tokenizer(cfg.tokenizer, texts, cfg.run / "tokenizer.json")).tokenizer
    model_config = replace(cfg.model, vocab_size=tokenizer.vocab_size, labels=labels)
    model = ARCHITECTURES[model_config.arch].build(model_config, seed=seed_of(cfg.seed, "init"))
    return Start(model, model_config.arch, model_config, tokenizer, None, cfg.run, None)


def from_base(folder: Path, cfg: ClassifyRun, labels: tuple[str, ...]) -> Start:
    """A trained decoder with a fresh head over the labels, and its tokenizer."""
    base = load(folder)
    base.refuse_pairs()
    pad_id = padding_of(base.text_side(), None)
    return prepare(base, cfg.lora, cfg.freeze, seed=cfg.seed, labels=labels, pad_id=pad_id)


def ids_of(text: str, tokenizer: Tokenizer, cfg: EncoderClassifierConfig | ScoredConfig) -> list[int]:
    """A text as the classifier reads it; an encoder after a token that is no part of it: in its place stands the state
    that decides. A decoder decides at the last token.

    Raises:
        DataError: more ids than the model is built for.
    """
    if isinstance(cfg, EncoderClassifierConfig):
        words = PairTokenizer(tokenizer=tokenizer)
        return [words.end_id, *words.ids(text, cfg.max_seq_len - 1)]
    ids = tokenizer.encode(text)
    if len(ids) > cfg.max_seq_len:
        raise DataError(
            f"the text that starts with {text[:40]!r} has {len(ids)} tokens, the model reads {cfg.max_seq_len}; "
            "shorten it, or take a base model with a larger model.max_seq_len"
        )
    return ids


@torch.inference_mode()
def chances(model: nn.Module, texts: Sequence[list[int]], batch_size: int) -> list[Tensor]:
    """How likely each label is, (C,), for each text."""
    rows: list[Tensor] = []
    for batch in in_order([Labelled(ids, 0) for ids in texts], label_batch, batch_size):
        rows += label_logits(model, batch).float().softmax(-1)
    return rows


@dataclass(frozen=True, kw_only=True)
class LabelRun:
    """A classifier and texts."""

    POSITIONAL: ClassVar[tuple[str, ...]] = ("model",)
    REST: ClassVar[str] = "texts"

    model: Path = Path("runs/classify/checkpoint")
    """A checkpoint or run folder that `legollm classify train` wrote."""
    texts: tuple[str, ...] = ()
    """Texts to label; none: each line of standard input is one."""
    batch_size: int = 32
    """Texts that are read together."""


def label(run: Resolved[LabelRun]) -> None:
    """Label texts, a line each: the likeliest label, how likely it is, and the text.

    legollm classify label runs/reviews "could not put it down"
    """
    cfg = run.value
    lm = load(cfg.model)
    is_scored = isinstance(lm.config, ScoredConfig) and len(lm.config.labels) > 1
    if not isinstance(lm.model, EncoderClassifier) and not is_scored:
        raise CheckpointError(f"{lm.folder}: {lm.arch} is no classifier; give a folder of `legollm classify train`")
    texts = [text for text in cfg.texts or sys.stdin.read().splitlines() if text]
    if not texts:
        raise ConfigError("texts: none given; name texts, or write them to standard input, a line each")
    ids = [ids_of(text, lm.text_side(), lm.config) for text in texts]
    for text, row in zip(texts, chances(lm.model, ids, cfg.batch_size), strict=True):
        print(f"{lm.config.labels[int(row.argmax())]}  {float(row.max()):.2f}  {text}")
