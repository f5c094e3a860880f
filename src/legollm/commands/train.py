"""`legollm train`: text -> tokenizer -> token files -> model -> the training loop -> a checkpoint folder."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from torch import nn

from legollm.architectures import ARCHITECTURES
from legollm.architectures.bigram import BigramConfig
from legollm.architectures.gpt2 import GPT2Config
from legollm.architectures.llama3 import Llama3Config
from legollm.architectures.qwen3 import Qwen3Config
from legollm.commands.fit import Job, Resume, fit, open_run, save_config
from legollm.commands.material import DataConfig, Material, TokenizerConfig, gather
from legollm.config import Resolved
from legollm.data import world
from legollm.data.loader import Chained
from legollm.data.prepare import END_OF_TEXT
from legollm.data.sources import open_source
from legollm.device import seed_of
from legollm.errors import ConfigError
from legollm.finetuning.sft import Example, ExampleBatches
from legollm.generation.cache import GenerativeModel
from legollm.generation.complete import Decoding
from legollm.generation.sampling import Sampling
from legollm.generation.text import generate_text
from legollm.interfaces import BatchSource, Tokenizer
from legollm.training.objective import NextToken
from legollm.training.optim import OptimConfig
from legollm.training.train import TrainConfig, TrainState

ModelConfig = Qwen3Config | Llama3Config | GPT2Config | BigramConfig

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {
        "model": {"n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "d_model": 64, "d_head": 16, "d_ff": 176}
        | {"max_seq_len": 64},
        "train": {"max_steps": 300, "batch_size": 16},
        "optim": {"lr": 3e-3, "warmup_steps": 30},
    },
    "small": {
        "model": {"n_layers": 4, "n_heads": 6, "n_kv_heads": 2, "d_model": 192, "d_head": 32, "d_ff": 512}
        | {"max_seq_len": 256},
        "train": {"max_steps": 1000, "batch_size": 16},
        "optim": {"lr": 2e-3, "warmup_steps": 50},
    },
    "base": {
        "model": {"n_layers": 12, "n_heads": 12, "n_kv_heads": 4, "d_model": 768, "d_head": 64, "d_ff": 2048}
        | {"max_seq_len": 1024},
        "train": {"max_steps": 20_000, "batch_size": 8, "grad_accum": 8},
        "optim": {"lr": 6e-4, "warmup_steps": 500},
    },
}
"""Whole runs by size: seconds, minutes, and days on two cores."""


@dataclass(frozen=True, kw_only=True)
class TrainRun:
    """A whole pretraining run. `preset=tiny|small|base` sets sizes; any single key overrides it."""

    run: Path = Path("runs/train")
    """The run's folder: config.yaml, metrics.jsonl, tokenizer.json, data/, checkpoints/."""
    seed: int = 1337
    """Decides everything that is random: the first weights, the order of the data, dropout, samples."""
    resume: Resume = "auto"
    """auto continues where the run stopped, never refuses a folder that holds a run, a number continues that step."""
    data: DataConfig = field(default_factory=DataConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    model: ModelConfig = field(default_factory=Qwen3Config)
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
    TrainRun: SIZES
}


def train(run: Resolved[TrainRun]) -> None:
    """Train a language model from nothing, or go on where the run in that folder stopped.

    legollm train data.source=book.txt tokenizer=char preset=tiny run=runs/book
    """
    state = pretrain(run.value, vocab_given="model.vocab_size" in given(run))
    best = (
        f", best validation loss {state.best_loss:.4f} at step {state.best_step}" if state.best_loss is not None else ""
    )
    print(f"{run.value.run}: {state.step} steps, {state.n_tokens:,} tokens, {state.seconds:.0f} s of training{best}")
    print(f"next: legollm generate {run.value.run}/checkpoint")


def given(run: Resolved[Any]) -> set[str]:
    """The keys somebody wrote down."""
    return {path for path, origin in run.origins.items() if origin != "default" and not origin.startswith("preset ")}


def pretrain(cfg: TrainRun, *, vocab_given: bool = False, **view: Any) -> TrainState:
    """The whole run; the demo calls it, too. view: what the screen shows besides (title, lines)."""
    seq_len = cfg.train.seq_len or cfg.model.max_seq_len
    if seq_len > cfg.model.max_seq_len:
        raise ConfigError(f"train.seq_len: {seq_len} is more than model.max_seq_len = {cfg.model.max_seq_len}")
    if not cfg.data.prepared:
        open_source(cfg.data.source, cfg.data.read)  # refuses what is not there before the run has a folder
    open_run(cfg.run, cfg, cfg.resume)
    material = gather(cfg.data, cfg.tokenizer, cfg.run)
    model_config = fitted(cfg.model, material.tokenizer, vocab_given)
    save_config(cfg.run, replace(cfg, model=model_config))  # as it is built, so that the file reproduces the run
    model = ARCHITECTURES[model_config.arch].build(model_config, seed=seed_of(cfg.seed, "init"))
    job = Job(
        folder=cfg.run,
        arch=model_config.arch,
        model_config=model_config,
        model=model,
        tokenizer=material.tokenizer,
        objective=NextToken(),
        batches=batches_of(cfg, material, seq_len),
        validation=lambda n: material.validation(cfg.train.batch_size, seq_len, n),
        optim=cfg.optim,
        train=cfg.train,
        seed=cfg.seed,
        resume=cfg.resume,
        bytes_per_token=material.bytes_per_token,
        sample=sampler(material, cfg.prompt, seq_len),
        tokenizer_files={"eos": END_OF_TEXT} if END_OF_TEXT in material.tokenizer.special_tokens else {},
        **view,
    )
    return fit(job)


def batches_of(cfg: TrainRun, material: Material, seq_len: int) -> BatchSource:
    """Windows of the text, after echo_steps batches of lines said twice, of which the second time is learned."""
    windows = material.batches(cfg.train.batch_size, seq_len, cfg.seed)
    if not cfg.echo_steps:
        return windows
    tokenizer, examples = material.tokenizer, []
    n_batches = cfg.echo_steps * cfg.train.grad_accum
    for asked, line in world.echoes(cfg.seed, 0, n_batches * cfg.train.batch_size):
        first, second = tokenizer.encode(f"{asked} Again:"), tokenizer.encode(f" {line}.\n")
        ids = [*first, *second][: cfg.model.max_seq_len]
        examples.append(Example(ids, [i >= len(first) for i in range(len(ids))]))
    echoes = ExampleBatches(examples, cfg.train.batch_size, seed=cfg.seed, max_len=cfg.model.max_seq_len)
    return Chained(echoes, n_batches, windows)


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
