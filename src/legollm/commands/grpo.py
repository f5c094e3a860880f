"""`legollm grpo`: a model and prompts whose answers can be checked -> a model that answers more of them right."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from legollm.alignment.advantages import RunningBaseline
from legollm.alignment.kinds import KINDS, advantage_of
from legollm.alignment.plan import Plan
from legollm.alignment.policy import ObjectiveConfig
from legollm.commands.reinforce import Algorithm, ReinforceRun, loop, reinforce
from legollm.config import Resolved
from legollm.errors import ConfigError
from legollm.training.train import TrainConfig


@dataclass(frozen=True, kw_only=True)
class GrpoConfig(ObjectiveConfig):
    """Groups of answers to one prompt, each judged by what the others are worth."""

    kind: Literal["grpo", "dr_grpo", "dapo", "rloo", "reinforce"] = "grpo"
    """grpo; dr_grpo, without its two biases; dapo, with changes for long answers; rloo, where the others of a group are
    the baseline; reinforce, with a running baseline."""
    n_prompts: int = 32
    """Prompts of one rollout."""
    group_size: int = 8
    """Answers to each."""
    epochs: int = 1
    """How often the answers of a rollout are learned from."""
    extra_rounds: int | None = None
    """How often at most more prompts are drawn in place of those whose answers are all alike, from which nothing can be
    learned; null is 3 with dapo and 0 otherwise."""
    mask_overlong: bool | None = None
    """Whether answers that were cut off at max_new_tokens teach nothing; null is only with dapo."""
    overlong_buffer: int = 0
    """Over so many last tokens before max_new_tokens the reward falls by 1 in all; 0 is none."""
    baseline_share: float = 0.1
    """reinforce: by which share of the difference each rollout moves the baseline."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("n_prompts", "epochs"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: must be at least 1, found {getattr(self, name)}")
        least = 1 if self.kind == "reinforce" else 2
        if self.group_size < least:
            raise ConfigError(f"group_size: {self.kind} needs at least {least}, found {self.group_size}")
        for name in ("extra_rounds", "overlong_buffer"):
            if (getattr(self, name) or 0) < 0:
                raise ConfigError(f"{name}: must not be negative, found {getattr(self, name)}")
        if not 0 < self.baseline_share <= 1:
            raise ConfigError(f"baseline_share: a share above 0, up to 1, found {self.baseline_share}")


@dataclass(frozen=True, kw_only=True)
class GrpoRun(ReinforceRun):
    """A whole run of learning from groups of answers."""

    run: Path = Path("runs/grpo")
    """The run's folder."""
    grpo: GrpoConfig = field(default_factory=GrpoConfig)
    train: TrainConfig = field(default_factory=lambda: loop(batch_size=256))
    """batch_size: answers of a micro-batch; times grad_accum it divides n_prompts times group_size."""


def grpo(run: Resolved[GrpoRun]) -> None:
    """Reinforcement learning from groups of answers that a program checks (GRPO and its relatives).

    legollm grpo model=runs/sums data.source=world:add data.difficulty=2 run=runs/added
    legollm grpo model=runs/sft data.source=tasks.jsonl grpo.kind=dr_grpo grpo.group_size=16 grpo.beta=0.02
    """
    reinforce(run, algorithm_of(run.value))


def algorithm_of(cfg: GrpoRun) -> Algorithm:
    """What the name of the algorithm and the settings amount to."""
    own, kind = cfg.grpo, KINDS[cfg.grpo.kind]
    baseline = RunningBaseline(own.baseline_share)
    return Algorithm(
        name=own.kind,
        cfg=replace(own, clip_high=own.clip_high or kind.clip_high),
        plan=Plan(
            n_prompts=own.n_prompts,
            group_size=own.group_size,
            epochs=own.epochs,
            batch_size=cfg.train.batch_size,
            grad_accum=cfg.train.grad_accum,
            advantage=advantage_of(kind, baseline),
            kl_in_reward=not kind.kl_in_loss,
            extra_rounds=kind.extra_rounds if own.extra_rounds is None else own.extra_rounds,
            mask_overlong=kind.mask_overlong if own.mask_overlong is None else own.mask_overlong,
            overlong_buffer=own.overlong_buffer,
        ),
        average=kind.average,
        by_answer=kind.by_answer,
        kl_in_loss=kind.kl_in_loss,
        baseline=baseline,
    )
