"""`legollm classify train` and `label`: texts and their labels, numbers or tags -> a model that gives them."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import ClassVar, cast

from legollm.architectures import ARCHITECTURES
from legollm.architectures.encoder_classifier import EncoderClassifierConfig
from legollm.architectures.scored import REWARD, ScoredConfig
from legollm.checkpoints.loading import load
from legollm.commands.fit import Job, fit, team_of
from legollm.commands.label_tasks import TASKS, TaskName, example_of, ids_of, labels_of, measured, outputs, tagged
from legollm.commands.material import TokenizerConfig, refuse_unused_size
from legollm.commands.pairs import pair_tokenizer
from legollm.commands.run_folder import Resume, open_run
from legollm.commands.scored_base import padding_of
from legollm.commands.start_from import Start, prepare
from legollm.components.encoder import EncoderClassifier
from legollm.config import Resolved
from legollm.data.pairs import Labelled, ShuffledBatches, in_order, split_pairs
from legollm.data.prepare import END_OF_TEXT
from legollm.device import seed_of
from legollm.errors import CheckpointError, ConfigError
from legollm.interfaces import Tokenizer
from legollm.team import ALONE, Team
from legollm.training.optim import OptimConfig
from legollm.training.train import TrainConfig, TrainState
from legollm.transforms.lora import LoraConfig


@dataclass(frozen=True, kw_only=True)
class LabelledTextConfig:
    """Where the texts and their labels come from."""

    SHORTHAND: ClassVar[str] = "source"

    source: Path
    """A .jsonl file whose rows have a text and a label: text, or with task=regression a number; or with task=tags a
    list of words and a list of as many tags."""
    text_field: str | None = None
    """The field of a row that is read; null is text, for tags tokens."""
    label_field: str | None = None
    """The field of a row that says what it is; null is label, for tags tags."""
    val_fraction: float = 0.1
    """Share of the texts that is kept for validation; none of them is trained on."""

    def __post_init__(self) -> None:
        if not 0 < self.val_fraction < 1:
            raise ConfigError(f"val_fraction: a share between 0 and 1, found {self.val_fraction}")


@dataclass(frozen=True, kw_only=True)
class ClassifyRun:
    """A whole training run over labelled texts."""

    data: LabelledTextConfig
    task: TaskName = "classes"
    """classes: one of some labels for each text. regression: a number for each text, learned by its squared distance;
    numbers of about 0 to 1 are learned best. tags: a label for each word, by a decoder (`base`)."""
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
    """Train an encoder, or a decoder that has learned a language, to label texts, to give them a number or their words
    tags; and measure that on unseen texts.

    legollm classify train data.source=reviews.jsonl run=runs/reviews
    legollm classify train data.source=reviews.jsonl base=runs/train optim.lr=1e-4 run=runs/reviews
    legollm classify train data.source=stars.jsonl task=regression run=runs/stars
    legollm classify train data.source=words.jsonl task=tags base=runs/train run=runs/tags
    """
    cfg = run.value
    with team_of(cfg) as team:
        if cfg.base is None:
            refuse_unused_size(run)
        elif (cfg.model, cfg.tokenizer) != (EncoderClassifierConfig(), TokenizerConfig()):
            raise ConfigError(f"base: {cfg.base} brings its model and tokenizer; leave out model.* and tokenizer")
        if cfg.task == "tags" and cfg.base is None:
            raise ConfigError("base: task=tags gives tags with a trained decoder; name its folder, base=runs/train")
        state, lines = fit_labels(cfg, team)
        kind = "tagged words" if cfg.task == "tags" else "texts"
        print(f"{cfg.run}: {state.step} steps, {state.n_tokens:,} {kind}, {state.seconds:.0f} s of training")
        for line in lines:
            print(line)
        print(f"next: legollm classify label {cfg.run}/checkpoint")


def fit_labels(cfg: ClassifyRun, team: Team = ALONE) -> tuple[TrainState, list[str]]:
    """The whole run: its state, and what is to be said of it."""
    task = TASKS[cfg.task]
    rows = task.read(cfg.data.source, cfg.data.text_field or task.fields[0], cfg.data.label_field or task.fields[1])
    labels = labels_of(rows, cfg.data.source)
    texts = split_pairs(rows, cfg.data.val_fraction)
    open_run(cfg.run, cfg, cfg.resume, team)
    start = (
        from_base(cfg.base, cfg, labels) if cfg.base else from_nothing(cfg, [row.given for row in rows], labels, team)
    )
    tokenizer = cast(Tokenizer, start.tokenizer)
    train, val = ([example_of(row, labels, tokenizer, start.config) for row in part] for part in texts)
    job = Job(
        folder=cfg.run,
        arch=start.arch,
        model_config=start.config,
        model=start.model,
        adapter=start.adapter,
        tokenizer=tokenizer,
        objective=task.objective(),
        batches=ShuffledBatches(
            train, task.collate, cfg.train.batch_size, seed=cfg.seed, rank=team.rank, world_size=team.size
        ),
        validation=lambda n: islice(in_order(val, task.collate, cfg.train.batch_size), n),
        optim=cfg.optim,
        train=cfg.train,
        seed=cfg.seed,
        resume=cfg.resume,
        tokenizer_files={"eos": END_OF_TEXT} if END_OF_TEXT in tokenizer.special_tokens else {},
        team=team,
    )
    state = fit(job)
    if not team.leads:
        return state, []
    return state, measured(load(cfg.run).model, val, labels, cfg.train.batch_size)


def from_nothing(cfg: ClassifyRun, texts: Sequence[str], labels: tuple[str, ...], team: Team) -> Start:
    """An encoder with fresh weights, and a tokenizer that learned from the texts."""
    tokenizer = team.first(lambda: pair_tokenizer(cfg.tokenizer, texts, cfg.run / "tokenizer.json")).tokenizer
    model_config = replace(cfg.model, vocab_size=tokenizer.vocab_size, labels=labels)
    model = ARCHITECTURES[model_config.arch].build(model_config, seed=seed_of(cfg.seed, "init"))
    return Start(model, model_config.arch, model_config, tokenizer, None, cfg.run, None)


def from_base(folder: Path, cfg: ClassifyRun, labels: tuple[str, ...]) -> Start:
    """A trained decoder with a fresh head over the labels, and its tokenizer."""
    base = load(folder)
    base.refuse_pairs()
    pad_id = padding_of(base.text_side(), None)
    return prepare(
        base, cfg.lora, cfg.freeze, seed=cfg.seed, labels=labels, pad_id=pad_id, per_token=cfg.task == "tags"
    )


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
    """Label texts, a line each: the likeliest label, how likely it is, and the text; or its number; or its words, as
    white space parts them, each with its tag.

    legollm classify label runs/reviews "could not put it down"
    """
    cfg = run.value
    lm = load(cfg.model)
    is_scored = isinstance(lm.config, ScoredConfig) and lm.config.labels != REWARD
    if not isinstance(lm.model, EncoderClassifier) and not is_scored:
        raise CheckpointError(f"{lm.folder}: {lm.arch} is no classifier; give a folder of `legollm classify train`")
    texts = [text for text in cfg.texts or sys.stdin.read().splitlines() if text.strip()]
    if not texts:
        raise ConfigError("texts: none given; name texts, or write them to standard input, a line each")
    tokenizer, labels = lm.text_side(), lm.config.labels
    is_tagger = isinstance(lm.config, ScoredConfig) and lm.config.per_token
    examples = [
        tagged(text.split(), tokenizer, lm.config.max_seq_len)
        if is_tagger
        else Labelled(ids_of(text, tokenizer, lm.config), 0)
        for text in texts
    ]
    for text, row in zip(texts, outputs(lm.model, examples, cfg.batch_size), strict=True):
        if is_tagger:
            tags = [labels[number] for number in row.argmax(-1).tolist()]
            print(" ".join(f"{word}/{tag}" for word, tag in zip(text.split(), tags, strict=True)))
        elif len(labels) == 1:
            print(f"{float(row):.4g}  {text}")
        else:
            chances = row.softmax(-1)
            print(f"{labels[int(chances.argmax())]}  {float(chances.max()):.2f}  {text}")
