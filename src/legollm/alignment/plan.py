"""How answers are drawn, how many make a rollout, and in which pieces it is served."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from legollm.errors import ConfigError

Advantage = Callable[[Tensor], Tensor]
"""Rewards of groups (P, G) -> advantages (P, G)."""


@dataclass(frozen=True, kw_only=True)
class SamplerConfig:
    """How answers are drawn. No top_k, top_p and the like: the gradient is that of the distribution drawn from."""

    temperature: float = 1.0
    """Above 1 explores more."""
    max_new_tokens: int = 32
    """Tokens of an answer at most."""
    stop: tuple[str, ...] | None = None
    """Text that ends an answer, beside the tokens that end a text or a turn; null is the end of the line for a model
    that was not fine-tuned to chat, and nothing for one that was."""

    def __post_init__(self) -> None:
        if not 0 < self.temperature < 100:
            raise ConfigError(f"temperature: must be above 0 and below 100, found {self.temperature}")
        if self.max_new_tokens < 1:
            raise ConfigError(f"max_new_tokens: must be at least 1, found {self.max_new_tokens}")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How large a rollout is, what is made of its rewards, and in which pieces it is served."""

    n_prompts: int
    group_size: int
    epochs: int
    batch_size: int
    """Answers of one micro-batch."""
    grad_accum: int
    """Micro-batches of one optimizer step."""
    advantage: Advantage | None = None
    """None: by the values of a value head, token by token."""
    kl_in_reward: bool = False
    extra_rounds: int = 0
    """How often more prompts are drawn in place of those whose answers are all alike."""
    mask_overlong: bool = False
    """Answers that were cut off teach nothing."""
    overlong_buffer: int = 0
    """Over so many last tokens before max_new_tokens the reward falls by 1 in all, as in DAPO."""
    gamma: float = 1.0
    lam: float = 0.95

    @property
    def n_rows(self) -> int:
        return self.n_prompts * self.group_size

    @property
    def n_batches(self) -> int:
        """Micro-batches of a rollout."""
        return self.epochs * (self.n_rows // self.batch_size)

    def __post_init__(self) -> None:
        step = self.batch_size * self.grad_accum
        if self.n_rows % step:
            raise ConfigError(
                f"train.batch_size: {self.batch_size} times train.grad_accum = {self.grad_accum} answers a step do not "
                f"divide the {self.n_rows} of a rollout (n_prompts = {self.n_prompts} times group_size = "
                f"{self.group_size}); use train.batch_size={self.n_rows}, or a divisor of it"
            )
