"""How much better an answer was than expected: what each algorithm multiplies the gradient of its tokens with.

Rewards of groups are (P, G): G answers to each of P prompts. Those of tokens are (B, T), with a mask of the tokens that
were sampled, which follow each other.
"""

import torch
from torch import Tensor

EPSILON = 1e-4
"""Added to a standard deviation before it divides."""


def group_normalised(rewards: Tensor) -> Tensor:
    """Standard scores within each group, (P, G), as in GRPO (Shao et al. 2024, arXiv:2402.03300)."""
    return group_centred(rewards) / (spread(rewards) + EPSILON)


def group_centred(rewards: Tensor) -> Tensor:
    """What is above the mean of its group, (P, G), as in Dr. GRPO (Liu et al. 2025, arXiv:2503.20783).

    Without the division prompts that are nearly always or never answered weigh no more than others.
    """
    return rewards - rewards.mean(1, keepdim=True)


def leave_one_out(rewards: Tensor) -> Tensor:
    """What is above the mean of the others in its group, (P, G): RLOO (Ahmadian et al. 2024, arXiv:2402.14740).

    An answer is no part of its own baseline, so the gradient has no bias.
    """
    n = rewards.size(1)
    return (rewards - rewards.mean(1, keepdim=True)) * n / (n - 1)


def spread(rewards: Tensor) -> Tensor:
    """The standard deviation of each group, of a sample: (P, G) -> (P, 1)."""
    return rewards.std(1, keepdim=True)


def is_dead(rewards: Tensor) -> Tensor:
    """The groups whose answers are all equally good, (P,): nothing can be learned from them."""
    return (rewards == rewards[:, :1]).all(1)


class RunningBaseline:
    """The mean of past rewards, as in REINFORCE with a baseline (Williams 1992): the reward to be expected.

    It starts with the mean of the first rewards; after that each batch moves it by a share of the difference.
    """

    def __init__(self, share: float = 0.1) -> None:
        self.share = share
        self.value: float | None = None

    def advantages(self, rewards: Tensor) -> Tensor:
        """Rewards of any shape less the baseline of before; the baseline then knows them, too."""
        mean = float(rewards.mean())
        value = mean if self.value is None else self.value
        self.value = value + self.share * (mean - value)
        return rewards - value


def generalised(
    rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float = 1.0, lam: float = 0.95
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (Schulman et al. 2015, arXiv:1506.02438) -> advantages, returns, both (B, T).

    rewards: what each token earned. values: what was expected before each token. gamma: a reward one token later counts
    this much. lam: 0 trusts the values, 1 only the rewards. Returns are what the values should have been.
    """
    counts = mask.to(rewards.dtype)
    values = values * counts
    advantages = torch.zeros_like(rewards)
    ahead = next_value = rewards.new_zeros(rewards.size(0))
    for t in reversed(range(rewards.size(1))):
        surprise = rewards[:, t] + gamma * next_value - values[:, t]
        ahead = (surprise + gamma * lam * ahead) * counts[:, t]
        advantages[:, t], next_value = ahead, values[:, t]
    return advantages, advantages + values


def whitened(x: Tensor, mask: Tensor) -> Tensor:
    """With mean 0 and standard deviation 1 over the tokens of the mask, 0 elsewhere: (B, T) -> (B, T)."""
    chosen = x[mask]
    scale = chosen.std() if chosen.numel() > 1 else chosen.new_zeros(())
    return torch.where(mask, (x - chosen.mean()) / (scale + 1e-8), torch.zeros_like(x))
