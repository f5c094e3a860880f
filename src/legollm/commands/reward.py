"""`legollm reward`: a model and pairs of answers -> a model that gives every answer a score."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import torch

from legollm.alignment.pairs import Pair, by_length, encode_pair, scored_batch
from legollm.alignment.reward import RewardLoss, rewards_of
from legollm.checkpoints.loading import load
from legollm.commands.fit import Job, fit, team_of
from legollm.commands.preference_data import PairConfig, preferences_of
from legollm.commands.run_folder import Resume, open_run
from legollm.commands.scored_base import padding_of
from legollm.commands.start_from import prepare
from legollm.config import Resolved
from legollm.data.chat import end_of_turn
from legollm.data.pairs import ShuffledBatches, in_order
from legollm.data.templates import template_for
from legollm.device import pick_device
from legollm.errors import ConfigError
from legollm.team import ALONE, Team
from legollm.training.optim import OptimConfig
from legollm.training.train import TrainConfig, TrainState, on_device
from legollm.transforms.lora import LoraConfig


@dataclass(frozen=True, kw_only=True)
class RewardConfig:
    """The loss of a reward model besides which answer is preferred."""

    margin: float = 0.0
    """By how much the preferred answer's score is to be larger."""
    centring: float = 0.0
    """Weight of a penalty that keeps scores around zero; 0.01 is usual."""

    def __post_init__(self) -> None:
        for name in ("margin", "centring"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}: must not be negative, found {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class RewardRun:
    """A whole run that makes a reward model."""

    model: Path = Path("runs/sft/checkpoint")
    """The model to start from, best one that was fine-tuned: a checkpoint or run folder, or a Hugging Face folder."""
    run: Path = Path("runs/reward")
    """The run's folder."""
    seed: int = 1337
    """Decides the first weights of the head, the order of the pairs and dropout."""
    resume: Resume = "auto"
    """auto continues where the run stopped, never refuses a folder that holds a run, a number continues that step."""
    data: PairConfig = field(default_factory=PairConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    freeze: tuple[str, ...] = ()
    """Parts of the model that stand still, such as embed,blocks.0; or all_but_last_2 for all blocks but two."""
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=1e-4, warmup_steps=10))
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(max_steps=200, batch_size=8, eval_every=50, save_every=50)
    )


def reward(run: Resolved[RewardRun]) -> None:
    """Train a model that scores answers so that the preferred of two gets more (Bradley-Terry).

    legollm reward model=runs/sft data.source=pairs.jsonl run=runs/reward
    """
    cfg = run.value
    with team_of(cfg) as team:
        state, val = fit_reward(cfg, team)
        if team.leads:
            print(f"{cfg.run}: {state.step} steps, {state.n_tokens:,} pairs, {state.seconds:.0f} s of training")
            right = preferred_right(cfg, val)
            print(f"held-out pairs: the preferred answer gets more in {right} of {len(val)} ({right / len(val):.1%})")


def fit_reward(cfg: RewardRun, team: Team = ALONE) -> tuple[TrainState, list[Pair]]:
    """The whole run: its state, and the held-out pairs."""
    open_run(cfg.run, cfg, cfg.resume, team)
    base = load(cfg.model)
    base.refuse_pairs()
    tokenizer, max_len = base.text_side(), base.config.max_seq_len
    template = template_for(tokenizer, cfg.data.template, base.chat_template)
    train, val = (
        [encode_pair(pair, tokenizer, template, max_len) for pair in part] for part in preferences_of(cfg.data)
    )
    end = end_of_turn(tokenizer, template)
    start = prepare(base, cfg.lora, cfg.freeze, seed=cfg.seed, labels=("reward",), pad_id=padding_of(tokenizer, end))
    objective = RewardLoss(cfg.reward.margin, cfg.reward.centring, n_pairs=cfg.train.batch_size * cfg.train.grad_accum)

    def batch_of(pairs: Sequence[Pair]) -> object:
        return scored_batch(pairs, max_len)

    job = Job(
        folder=cfg.run,
        arch=start.arch,
        model_config=start.config,
        model=start.model,
        adapter=start.adapter,
        tokenizer=tokenizer,
        objective=objective,
        batches=ShuffledBatches(
            train, batch_of, cfg.train.batch_size, seed=cfg.seed, rank=team.rank, world_size=team.size
        ),
        validation=lambda n: islice(in_order(by_length(val), batch_of, cfg.train.batch_size), n),
        optim=cfg.optim,
        train=cfg.train,
        seed=cfg.seed,
        resume=cfg.resume,
        figures=objective.figures.read,
        val_figures=objective.val_figures.read,
        counts_tokens=False,
        tokenizer_files={"chat_template": template, "eos": tokenizer.decode([end])},
        team=team,
    )
    return fit(job), val


@torch.inference_mode()
def preferred_right(cfg: RewardRun, val: Sequence[Pair]) -> int:
    """How many held-out pairs the finished model puts in the right order."""
    device = pick_device(cfg.train.device)
    lm = load(cfg.run)
    model, right = lm.model.to(device), 0
    for start in range(0, len(val), cfg.train.batch_size):
        batch = scored_batch(val[start : start + cfg.train.batch_size], lm.config.max_seq_len)
        chosen, rejected = rewards_of(model, on_device(batch, device)).unbind(1)
        right += int((chosen > rejected).sum())
    return right
