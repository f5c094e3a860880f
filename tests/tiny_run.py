"""A whole training run that takes a tenth of a second, for tests of what is around it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from legollm.architectures import ARCHITECTURES
from legollm.architectures.gpt2 import GPT2Config
from legollm.commands.fit import Job, fit
from legollm.commands.run_folder import Resume, open_run
from legollm.data.loader import WindowBatches, validation_batches
from legollm.team import ALONE, Team
from legollm.tokenizers import ByteTokenizer
from legollm.training.objective import NextToken
from legollm.training.optim import OptimConfig
from legollm.training.train import TrainConfig, TrainState

MODEL = GPT2Config(vocab_size=256, max_seq_len=8, n_layers=1, n_heads=2, d_model=8, dropout=0.1)
LOOP = {"max_steps": 12, "batch_size": 2, "log_every": 1, "eval_every": 5, "eval_batches": 2, "save_every": 5}


@dataclass(frozen=True, kw_only=True)
class TinyRun:
    """What the run folder's config.yaml holds."""

    run: Path
    """Its folder."""
    seed: int = 7
    """Of everything."""
    resume: Resume = "auto"
    """As in every training verb."""
    model: GPT2Config = MODEL
    train: TrainConfig = field(default_factory=TrainConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)


def tiny_run(folder: Path, *, seed: int = 7, resume: Resume = "auto", **loop: Any) -> TinyRun:
    train = TrainConfig(**({"precision": "float32"} | LOOP | loop))
    return TinyRun(run=folder, seed=seed, resume=resume, train=train, optim=OptimConfig(lr=1e-2, warmup_steps=3))


def open_job(cfg: TinyRun, team: Team = ALONE, **more: Any) -> Job:
    """The job, its folder opened; `more` replaces parts of it."""
    open_run(cfg.run, cfg, cfg.resume, team)
    ids = np.random.RandomState(0).randint(97, 110, 400).astype(np.uint16)
    train, val = ids[:300], ids[300:]
    parts: dict[str, Any] = {
        "folder": cfg.run,
        "arch": "gpt2",
        "model_config": cfg.model,
        "model": ARCHITECTURES["gpt2"].build(cfg.model, seed=cfg.seed),
        "tokenizer": ByteTokenizer(),
        "objective": NextToken(),
        "batches": WindowBatches(
            train,
            batch_size=cfg.train.batch_size,
            seq_len=8,
            seed=cfg.seed,
            rank=team.rank,
            world_size=team.size,
        ),
        "validation": lambda n: list(validation_batches(val, batch_size=cfg.train.batch_size, seq_len=8))[:n],
        "optim": cfg.optim,
        "train": cfg.train,
        "seed": cfg.seed,
        "resume": cfg.resume,
        "bytes_per_token": 1.0,
        "team": team,
    }
    return Job(**(parts | more))


def go(folder: Path, *, job: dict[str, Any] | None = None, **settings: Any) -> TrainState:
    """Start or continue the run in `folder`, as another process would: nothing is left of an earlier one."""
    torch.manual_seed(torch.initial_seed() + 1)
    return fit(open_job(tiny_run(folder, **settings), **(job or {})))
