"""`legollm ppo`: the same with a value head, which tells for each token how much better it was than expected."""

from dataclasses import dataclass, field
from pathlib import Path

from legollm.alignment.plan import Plan
from legollm.alignment.policy import ObjectiveConfig
from legollm.commands.reinforce import Algorithm, ReinforceRun, loop, reinforce
from legollm.config import Resolved
from legollm.errors import ConfigError
from legollm.training.train import TrainConfig


@dataclass(frozen=True, kw_only=True)
class PpoConfig(ObjectiveConfig):
    """Proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347)."""

    n_prompts: int = 256
    """Prompts of one rollout."""
    group_size: int = 1
    """Answers to each; no answer needs others beside it."""
    epochs: int = 2
    """How often the answers of a rollout are learned from."""
    beta: float = 0.02
    """Nats of divergence from the reference, which is the model at the start, cost this much reward each."""
    gamma: float = 1.0
    """A reward one token later counts this much."""
    lam: float = 0.95
    """Whom generalised advantages believe: 0 the values, 1 only what came after."""
    value_weight: float = 0.1
    """Of the loss of the value head, which shares the model's layers."""
    value_clip: float | None = 0.2
    """A value that moved by more than this since the sampling gives no further push; null is no limit."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("n_prompts", "group_size", "epochs"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: must be at least 1, found {getattr(self, name)}")
        for name in ("gamma", "lam"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name}: a share from 0 to 1, found {getattr(self, name)}")
        if self.value_weight < 0 or (self.value_clip is not None and self.value_clip <= 0):
            raise ConfigError(
                f"value_weight: not negative, and value_clip above 0 or null, found {self.value_weight}, "
                f"{self.value_clip}"
            )


@dataclass(frozen=True, kw_only=True)
class PpoRun(ReinforceRun):
    """A whole run of learning with a value head."""

    run: Path = Path("runs/ppo")
    """The run's folder."""
    ppo: PpoConfig = field(default_factory=PpoConfig)
    train: TrainConfig = field(default_factory=lambda: loop(batch_size=128))
    """batch_size: answers of a micro-batch; times grad_accum it divides n_prompts times group_size."""


def ppo(run: Resolved[PpoRun]) -> None:
    """Reinforcement learning with a value for each token (PPO).

    legollm ppo model=runs/sums data.source=world:add data.difficulty=2 run=runs/added
    """
    reinforce(run, algorithm_of(run.value))


def algorithm_of(cfg: PpoRun) -> Algorithm:
    """The settings as what `reinforce` takes."""
    own = cfg.ppo
    return Algorithm(
        name="ppo",
        cfg=own,
        plan=Plan(
            n_prompts=own.n_prompts,
            group_size=own.group_size,
            epochs=own.epochs,
            batch_size=cfg.train.batch_size,
            grad_accum=cfg.train.grad_accum,
            kl_in_reward=True,
            gamma=own.gamma,
            lam=own.lam,
        ),
        average="token",
        value_weight=own.value_weight,
        value_clip=own.value_clip,
    )
