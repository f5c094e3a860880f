"""A model that says how good an answer is, learned from which of two is preferred."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from legollm.alignment.pairs import ScoredPairBatch
from legollm.alignment.preferences import Figures
from legollm.architectures.scored import last_scores
from legollm.training.balance import routing_loss


def bradley_terry_loss(chosen: Tensor, rejected: Tensor, margin: float = 0.0, centring: float = 0.0) -> Tensor:
    """-log P(chosen beats rejected) where P is a logistic function of the difference of rewards (Bradley and Terry
    1952; as a reward model Ouyang et al. 2022, arXiv:2203.02155), for each pair.

    margin: by how much the reward of the preferred answer is to be larger (Touvron et al. 2023, arXiv:2307.09288).
    centring: weight of a penalty for sums of rewards away from zero, which the loss alone leaves free (Eisenstein et
    al. 2023, arXiv:2312.09244).
    """
    return -F.logsigmoid(chosen - rejected - margin) + centring * (chosen + rejected).square()


class RewardLoss:
    """The objective over pairs of scored answers: one term for each, in nats."""

    def __init__(self, margin: float, centring: float, n_pairs: int) -> None:
        self.margin, self.centring = margin, centring
        self.figures, self.val_figures = Figures(n_pairs), Figures()

    def __call__(self, model: nn.Module, batch: ScoredPairBatch) -> Tensor:
        """The summed loss, ()."""
        rewards = rewards_of(model, batch)  # (P, 2)
        counts = torch.arange(batch.tokens.size(-1), device=batch.tokens.device) < batch.lengths[..., None]
        routed = routing_loss(model, counts.flatten(0, 1))
        chosen, rejected = rewards.unbind(1)
        loss = bradley_terry_loss(chosen, rejected, self.margin, self.centring)
        figures = self.figures if model.training else self.val_figures
        found = {"margin": chosen - rejected, "chosen_reward": chosen, "rejected_reward": rejected}
        figures.add({"accuracy": (chosen > rejected).float()} | found)
        return loss.sum() + routed * (loss.numel() / batch.lengths.sum())

    def n_terms(self, batch: ScoredPairBatch) -> int:
        return batch.tokens.size(0)


def rewards_of(model: nn.Module, batch: ScoredPairBatch) -> Tensor:
    """The score of each answer, (P, 2), in float32 at least."""
    scores = last_scores(model, batch.tokens.flatten(0, 1), batch.lengths.flatten())  # (2P, 1)
    return scores.to(torch.promote_types(scores.dtype, torch.float32)).view(batch.lengths.shape)
