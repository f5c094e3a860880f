"""`legollm train`: text -> tokenizer -> token files -> model -> the training loop -> a checkpoint folder."""

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, cast

from torch import nn

from legollm.architectures import ARCHITECTURES, architecture
from legollm.architectures.qwen3 import Qwen3Config
from legollm.architectures.sizes import parse_size, sized
from legollm.checkpoints.huggingface import BRICKS
from legollm.checkpoints.loading import Loaded, load
from legollm.commands.count import count
from legollm.commands.fit import Job, fit, team_of
from legollm.commands.material import (
    Material,
    TokenizerConfig,
    TrainData,
    gather,
    is_prepared,
    refuse_unused_size,
    warn_of_repetition,
)
from legollm.commands.run_folder import Resume, open_run, save_config
from legollm.commands.run_presets import RUNS
from legollm.commands.start_from import prepare
from legollm.components.outside import names_outside
from legollm.config import Resolved
from legollm.data import world
from legollm.data.loader import Chained, TextBatches
from legollm.data.prefetch import Prefetched
from legollm.data.prepare import END_OF_TEXT
from legollm.data.sources import open_source
from legollm.device import seed_of, without_memory
from legollm.errors import ConfigError
from legollm.finetuning.sft import Example, ExampleBatches
from legollm.generation.cache import GenerativeModel
from legollm.generation.complete import Decoding
from legollm.generation.sampling import Sampling
from legollm.generation.text import generate_text
from legollm.interfaces import Tokenizer
from legollm.team import ALONE, Team
from legollm.tokenizers import TOKENIZERS, load_tokenizer
from legollm.training.objective import NextToken
from legollm.training.optim import OptimConfig
from legollm.training.train import TrainConfig, TrainState
from legollm.transforms.lora import LoraConfig

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    ModelConfig: TypeAlias = Any
else:  # a row of the table is a choice on the command line; the usual one comes first
    of_text = [row.config for row in ARCHITECTURES.values() if row.learns != "pairs"]
    ModelConfig = reduce(or_, sorted(of_text, key=lambda config: config is not Qwen3Config))


@dataclass(frozen=True, kw_only=True)
class TrainRun:
    """A whole pretraining run. `preset=tiny|small|base|...` is a starting point; any single key overrides it."""

    ELSEWHERE: ClassVar[Mapping[str, str]] = {
        name: f"learns from pairs, not from text alone; use legollm {verb} train"
        for arch, verb in {"transformer": "seq2seq", "t5": "seq2seq", "encoder_classifier": "classify"}.items()
        for name in (arch, *ARCHITECTURES[arch].presets)
    }

    run: Path = Path("runs/train")
    """The run's folder: config.yaml, metrics.jsonl, tokenizer.json, data/, checkpoints/."""
    seed: int = 1337
    """Decides everything that is random: the first weights, the order of the data, dropout, samples."""
    resume: Resume = "auto"
    """auto continues where the run stopped, never refuses a folder that holds a run, a number continues that step."""
    data: TrainData = field(default_factory=TrainData)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    size: str | None = None
    """About how many parameters the model shall have, such as 25M: decides width, depth, heads, optim.lr and
    train.max_steps (20 tokens per parameter), where those are not given."""
    model: ModelConfig = field(default_factory=Qwen3Config)
    start_from: Path | None = None
    """Go on from the weights of this model, a checkpoint, run or Hugging Face folder, with its tokenizer and its sizes;
    null begins with random weights."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    freeze: tuple[str, ...] = ()
    """Parts of the model that stand still, by name, such as embed,blocks.0; all_but_last_2 is all blocks but two."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    echo_steps: int = 0
    """First this many steps of lines of words, each said twice: a small model learns from them to look back, and then
    reads the text with it. They count as steps of train.max_steps."""
    prompt: str | None = None
    """The samples shown while training continue this; null takes the start of the validation text."""

    def __post_init__(self) -> None:
        if self.echo_steps < 0:
            raise ConfigError(f"echo_steps: must not be negative, found {self.echo_steps}")


PRESETS: Mapping[type, Mapping[str, Any]] = {row.config: row.presets for row in ARCHITECTURES.values()} | {
    TrainRun: RUNS
}


def train(run: Resolved[TrainRun]) -> None:
    """Train a language model from nothing, or go on where the run in that folder stopped.

    legollm train data.source=book.txt tokenizer=char preset=tiny run=runs/book
    """
    unused = sorted(key for key in given(run) if key.startswith("optim.") or key == "train.max_steps")
    if unused and ARCHITECTURES[run.value.model.arch].learns == "counts":
        log.warning("%s: not used, this model counts its text in one pass", ", ".join(unused))
    with team_of(run.value) as team:
        refuse_unused_size(run)
        state = pretrain(run.value, given=given(run), team=team)
        best = f", best validation loss {state.best_loss:.4f} at step {state.best_step}" if state.best_step else ""
        print(
            f"{run.value.run}: {state.step} steps, {state.n_tokens:,} tokens, {state.seconds:.0f} s of training{best}"
        )
        print(f"curves: legollm runs {run.value.run} html={run.value.run}/report.html")
        bricks = ",".join(names_outside(run.value.model).values())
        trusting = f"{BRICKS}={bricks} " if bricks else ""  # what the folder names is not imported unasked
        print(f"next: {trusting}legollm generate {run.value.run}/checkpoint")


def given(run: Resolved[Any]) -> set[str]:
    """The keys somebody wrote down."""
    return {path for path, origin in run.origins.items() if origin != "default" and not origin.startswith("preset ")}


def pretrain(cfg: TrainRun, *, given: Collection[str] = (), team: Team = ALONE, **view: Any) -> TrainState:
    """The whole run; the demo calls it, too.

    given: the keys somebody wrote down, which no rule changes. team: the processes that call this together.
    view: what the screen shows besides (title, lines).
    """
    base = start_of(cfg)
    if base:
        cfg = as_started(cfg, base, given)
    seq_len = cfg.train.seq_len or cfg.model.max_seq_len
    if seq_len > cfg.model.max_seq_len:
        raise ConfigError(f"train.seq_len: {seq_len} is more than model.max_seq_len = {cfg.model.max_seq_len}")
    check_text(cfg)
    if ARCHITECTURES[cfg.model.arch].learns == "counts" and team.size > 1:
        raise ConfigError(f"model.arch: {cfg.model.arch} counts its text in one process; start it without torchrun")
    if names_outside(cfg.model):
        with without_memory():
            ARCHITECTURES[cfg.model.arch].build(cfg.model)  # a brick that is not there or does not fit is met here
    if cfg.size:
        parse_size(cfg.size)
    if cfg.size and (cfg.run / "config.yaml").exists() and (tokenizer := known_tokenizer(cfg)):
        cfg = of_size(cfg, tokenizer, given, team.size)  # as the run was started, so that it can be told from another
    open_run(cfg.run, cfg, cfg.resume, team)
    material = team.first(lambda: gather(cfg.data, cfg.tokenizer, cfg.run))
    if cfg.size:
        cfg = of_size(cfg, material.tokenizer, given, team.size)
    model_config = cfg.model if base else fitted(cfg.model, material.tokenizer, "model.vocab_size" in given)
    if base and base.text_side().fingerprint != material.tokenizer.fingerprint:
        raise ConfigError(f"data.prepared: written by another tokenizer than that of start_from={cfg.start_from}")
    if team.leads:
        save_config(cfg.run, replace(cfg, model=model_config))  # as it is built, so that the file reproduces the run
    start = prepare(base, cfg.lora, cfg.freeze, seed=cfg.seed) if base else None
    model = start.model if start else ARCHITECTURES[model_config.arch].build(model_config, seed_of(cfg.seed, "init"))
    batches = batches_of(cfg, material, seq_len, team)
    job = Job(
        folder=cfg.run,
        arch=model_config.arch,
        model_config=model_config,
        model=model,
        adapter=start.adapter if start else None,
        tokenizer=material.tokenizer,
        objective=NextToken(),
        batches=batches,
        figures=batches.figures,
        validation=lambda n: material.validation(cfg.train.batch_size if n else rows_at_once(cfg, seq_len), seq_len, n),
        optim=cfg.optim,
        train=cfg.train,
        seed=cfg.seed,
        resume=cfg.resume,
        bytes_per_token=material.bytes_per_token,
        sample=sampler(material, cfg.prompt, seq_len),
        tokenizer_files=(
            ({"eos": END_OF_TEXT} if END_OF_TEXT in material.tokenizer.special_tokens else {})
            | ({"chat_template": base.chat_template} if base and base.chat_template else {})
        ),
        team=team,
        **view,
    )
    if ARCHITECTURES[model_config.arch].learns == "counts":
        return count(job, material.train.ids[:])
    return fit(job)


def start_of(cfg: TrainRun) -> Loaded | None:
    """The model that a run goes on from.

    Raises:
        ConfigError: adapters or frozen parts of random weights; or a model that is not trained by steps on text.
    """
    if cfg.start_from is None:
        if cfg.lora.rank or cfg.freeze:
            key = "lora.rank" if cfg.lora.rank else "freeze"
            raise ConfigError(f"{key}: random weights have nothing to keep; give start_from=FOLDER, a trained model")
        return None
    base = load(cfg.start_from)
    if architecture(base.arch).learns != "steps":
        raise ConfigError(f"start_from: {base.folder} holds a {base.arch}, which learns in another way")
    return base


def as_started(cfg: TrainRun, base: Loaded, given: Collection[str]) -> TrainRun:
    """The run with the sizes and the tokenizer of the model it goes on from.

    Raises:
        ConfigError: others were asked for.
    """
    wanted = replace(cfg, model=base.config, tokenizer=replace(cfg.tokenizer, kind=str(base.folder)))
    keys = [key for key in sorted(given) if key.startswith("model.") and cfg.model != wanted.model]
    keys += ["tokenizer.kind"] if "tokenizer.kind" in given and cfg.tokenizer.kind != wanted.tokenizer.kind else []
    keys += ["size"] if cfg.size else []
    if keys:
        raise ConfigError(f"{keys[0]}: start_from={cfg.start_from} decides it; leave it out")
    return wanted


def check_text(cfg: TrainRun) -> None:
    """Refuse text that is not there, or that this model cannot take so, before the run has a folder.

    Raises:
        DataError: no such source.
        ConfigError: a mixture or packing for a model that counts.
    """
    mixed = [word for _, word in cfg.data.weighted_sources() if not is_prepared(word)]
    if not cfg.data.prepared:
        for word in mixed if cfg.data.mixture else [cfg.data.source]:
            open_source(word, cfg.data.read)
    if ARCHITECTURES[cfg.model.arch].learns == "counts" and (cfg.data.mixture or cfg.data.packing != "windows"):
        key = "mixture" if cfg.data.mixture else "packing"
        raise ConfigError(f"data.{key}: {cfg.model.arch} counts one text as it lies; leave data.{key} out")


def batches_of(cfg: TrainRun, material: Material, seq_len: int, team: Team = ALONE) -> TextBatches:
    """Rows of the text, after echo_steps batches of lines said twice; data.prefetch of them are read ahead.

    Of each batch of the team, this process's rows.
    """
    rows = material.batches(cfg.train.batch_size, seq_len, cfg.seed, rank=team.rank, world_size=team.size)
    n_steps = max(0, cfg.train.max_steps - cfg.echo_steps)
    if ARCHITECTURES[cfg.model.arch].learns != "counts":
        warn_of_repetition(rows.rows, n_steps * cfg.train.grad_accum * cfg.train.batch_size * team.size)
    batches = echoes_first(cfg, material, rows, team) if cfg.echo_steps else rows
    return Prefetched(batches, cfg.data.prefetch) if cfg.data.prefetch else batches


def echoes_first(cfg: TrainRun, material: Material, rows: TextBatches, team: Team) -> TextBatches:
    """echo_steps batches of lines said twice, of which the second time is learned, then the text."""
    tokenizer, examples = material.tokenizer, []
    n_batches = cfg.echo_steps * cfg.train.grad_accum
    for asked, line in world.echoes(cfg.seed, 0, n_batches * cfg.train.batch_size * team.size):
        first, second = tokenizer.encode(f"{asked} Again:"), tokenizer.encode(f" {line}.\n")
        ids = [*first, *second][: cfg.model.max_seq_len]
        examples.append(Example(ids, [i >= len(first) for i in range(len(ids))]))
    echoes = ExampleBatches(
        examples,
        cfg.train.batch_size,
        seed=cfg.seed,
        max_len=cfg.model.max_seq_len,
        rank=team.rank,
        world_size=team.size,
    )
    return Chained(echoes, n_batches, rows)


def rows_at_once(cfg: TrainRun, seq_len: int) -> int:
    """Rows of a batch that reads the whole split: more than in training where they are short and the logits few."""
    n_tokens = min(4096, (1 << 21) // int(cfg.model.vocab_size))
    return max(cfg.train.batch_size, n_tokens // seq_len)


def fitted(model: ModelConfig, tokenizer: Tokenizer, vocab_given: bool) -> ModelConfig:
    """The model with as many ids as the tokenizer has, unless another size than the usual one was asked for.

    Raises:
        ConfigError: fewer ids than the tokenizer has.
    """
    if not vocab_given or model.vocab_size == type(model)().vocab_size:
        return replace(model, vocab_size=tokenizer.vocab_size)
    if model.vocab_size < tokenizer.vocab_size:
        raise ConfigError(
            f"model.vocab_size: {model.vocab_size} is less than the tokenizer's {tokenizer.vocab_size}; leave it out"
        )
    return model


def of_size(cfg: TrainRun, tokenizer: Tokenizer, given: Collection[str], n_processes: int = 1) -> TrainRun:
    """The run that cfg.size asks for, with every number it decides; what was given stays."""
    assert cfg.size is not None
    model = fitted(cfg.model, tokenizer, "model.vocab_size" in given)
    fixed = {key: getattr(model, key) for key in vars(model) if f"model.{key}" in given and key not in KEPT}
    chosen = sized(model, ARCHITECTURES[model.arch].build, cfg.size, fixed)
    optim, loop = cfg.optim, cfg.train
    if "optim.lr" not in given:
        optim = replace(optim, lr=chosen.lr)
    if "train.max_steps" not in given:
        per_step = n_processes * loop.batch_size * loop.grad_accum * (loop.seq_len or model.max_seq_len)
        loop = replace(loop, max_steps=max(1, round(chosen.n_tokens / per_step)))
    print(
        f"size {cfg.size}: {chosen.n_parameters:,} parameters, {chosen.config.n_layers} layers of "
        f"{chosen.config.d_model}, lr {optim.lr:.2e}, {loop.max_steps:,} steps"
    )
    return replace(cfg, size=None, model=chosen.config, optim=optim, train=loop)


KEPT = ("arch", "vocab_size")
"""Fields that a size never decides."""


def known_tokenizer(cfg: TrainRun) -> Tokenizer | None:
    """The tokenizer of a run that was started before, if it is there already."""
    ready = [word for _, word in cfg.data.weighted_sources() if is_prepared(word)]
    if cfg.data.prepared or ready:
        return load_tokenizer(cfg.data.prepared or Path(ready[0]))
    place = cfg.run / "tokenizer.json" if cfg.tokenizer.kind in TOKENIZERS else Path(cfg.tokenizer.kind)
    return load_tokenizer(place) if place.exists() else None


def sampler(material: Material, prompt: str | None, seq_len: int) -> Callable[[nn.Module], str]:
    """A function from the model as it is to a short text by it; always the same prompt and the same luck."""
    tokenizer = material.tokenizer
    start = tokenizer.encode(prompt) if prompt else [int(i) for i in material.val.ids[: min(8, seq_len // 2)]]
    sampling = Sampling(temperature=0.8, max_new_tokens=min(60, seq_len - len(start)))

    def sample(model: nn.Module) -> str:
        decoding = Decoding(window=seq_len, on_overflow="crop")
        text = generate_text(cast(GenerativeModel, model), tokenizer, start, sampling, decoding=decoding).text
        return tokenizer.decode(start) + text

    return sample
