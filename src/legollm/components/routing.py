# mypy: disable-error-code="no-any-return"
"""Routing: which experts work on a token, how much each of them counts, and what keeps all of them busy.

A Router gives every expert a score, and a rule turns the scores into a choice.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Routing(NamedTuple):
    """What a router decided about each token; k experts of E work on it."""

    experts: Tensor
    """(..., k) int64, the first choice first."""
    weights: Tensor
    """(..., k), what each of them counts."""
    shares: Tensor
    """(..., E), what the router would give each expert if all could work; they sum to one."""


class Rule(nn.Module):
    """What all rules have in common: `forward` takes scores (..., E) to a Routing (Shazeer et al. 2017)."""

    def correction(self, excess: Tensor) -> Tensor:
        """A term of the loss that pulls at the rule's own parameters; most have none. excess: (E,) tokens too many."""
        return excess.new_zeros(())


class TopK(Rule):
    """The n_active experts with the highest probability (Shazeer et al. 2017, arXiv:1701.06538).

    normalise: their weights sum to one, which is the same as a softmax over the chosen scores alone (Mixtral,
    Jiang et al. 2024, arXiv:2401.04088; Qwen 3); without, each counts as much as its probability among all experts.
    """

    def __init__(self, n_active: int, *, normalise: bool = True) -> None:
        super().__init__()
        self.n_active, self.normalise = n_active, normalise

    def forward(self, logits: Tensor) -> Routing:
        """logits: (..., E) -> k = n_active."""
        shares = logits.softmax(-1)
        weights, experts = shares.topk(self.n_active, dim=-1)
        return Routing(experts, weights / weights.sum(-1, keepdim=True) if self.normalise else weights, shares)


class Switch(TopK):
    """The one expert with the highest probability, times that probability (Fedus et al. 2021, arXiv:2101.03961).

    A single weight that was normalised would always be 1, and the router would have no gradient.
    """

    def __init__(self) -> None:
        super().__init__(1, normalise=False)


class Soft(Rule):
    """All experts, weighted by their probabilities (Jacobs et al. 1991): smooth, and as dear as all of them."""

    def forward(self, logits: Tensor) -> Routing:
        """logits: (..., E) -> k = E."""
        shares = logits.softmax(-1)
        return Routing(torch.arange(logits.size(-1), device=logits.device).expand(logits.shape), shares, shares)


class StraightThrough(Rule):
    """The one best expert at full weight, with the gradient of `Soft` (Bengio et al. 2013, arXiv:1308.3432).

    That gradient asks what every expert would have answered, so in training all of them run.
    """

    def forward(self, logits: Tensor) -> Routing:
        """logits: (..., E) -> k = E in training, 1 otherwise; the weighted sums of both are equal."""
        shares = logits.softmax(-1)
        best = shares.argmax(-1, keepdim=True)
        if not self.training:
            return Routing(best, torch.ones_like(best, dtype=shares.dtype), shares)
        hard = torch.zeros_like(shares).scatter(-1, best, 1.0)
        experts = torch.arange(logits.size(-1), device=logits.device).expand(logits.shape)
        return Routing(experts, hard + (shares - shares.detach()), shares)


CORRECTION_SCALE = 1e-3
"""Adam's steps do not depend on a gradient's scale; this one is small so that it does not count in the norm."""


class SigmoidTopK(Rule):
    """Experts that do not compete for probability, balanced by a bias on the choice (DeepSeek-V3, arXiv:2412.19437).

    The n_active highest of sigmoid(score) + bias are chosen; their weights are the sigmoids without the bias, scaled
    to sum to `scale`. The bias of an expert with too many tokens falls, of one with too few rises (Wang et al. 2024,
    arXiv:2408.15664). The papers move it by a fixed step against the sign of the excess; here the excess is its
    gradient, so that it is moved once per optimizer step however that was split, and is saved with the weights. Under
    Adam the step has the size of the learning rate.
    """

    def __init__(self, n_experts: int, n_active: int, *, scale: float = 1.0) -> None:
        super().__init__()
        self.n_active, self.scale = n_active, scale
        self.bias = nn.Parameter(torch.zeros(n_experts))

    def forward(self, logits: Tensor) -> Routing:
        """logits: (..., E) -> k = n_active."""
        scores = logits.sigmoid()
        experts = (scores + self.bias.detach()).topk(self.n_active, dim=-1).indices
        weights = scores.gather(-1, experts)
        shares = scores / scores.sum(-1, keepdim=True)
        return Routing(experts, self.scale * weights / weights.sum(-1, keepdim=True), shares)

    def correction(self, excess: Tensor) -> Tensor:
        """Zero, with `excess` as its gradient with respect to the bias."""
        pull = CORRECTION_SCALE * (self.bias * excess).sum()
        return pull - pull.detach()


class Router(nn.Module):
    """One linear score per expert, computed in float32 whatever the model computes in (Fedus et al. 2021, section 2.4).

    temperature: above 1 makes experts more alike, below 1 the choice sharper.
    jitter: in training, what the router reads is multiplied by a number drawn from 1 - jitter to 1 + jitter.
    balance_loss, z_loss: how much `loss` counts each of the two.
    """

    def __init__(
        self,
        d_model: int,
        n_experts: int,
        rule: Rule,
        *,
        temperature: float = 1.0,
        jitter: float = 0.0,
        balance_loss: float = 0.0,
        z_loss: float = 0.0,
    ) -> None:
        super().__init__()
        self.proj, self.rule = nn.Linear(d_model, n_experts, bias=False), rule
        self.temperature, self.jitter = temperature, jitter
        self.balance_loss, self.z_loss = balance_loss, z_loss

    @property
    def n_experts(self) -> int:
        return self.proj.out_features

    def forward(self, x: Tensor) -> tuple[Tensor, Routing]:
        """x: (..., D) -> scores (..., E) and what the rule makes of them."""
        logits = self.logits(x)
        return logits, self.rule(logits)

    def logits(self, x: Tensor) -> Tensor:
        """x: (..., D) -> (..., E), float32 or wider."""
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        if self.training and self.jitter:
            x = x * torch.empty_like(x).uniform_(1 - self.jitter, 1 + self.jitter)
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(x, self.proj.weight.to(x.dtype)) / self.temperature

    def loss(self, logits: Tensor, routing: Routing, counted: Tensor) -> Tensor:
        """The weighted losses of one pass, summed over the counted tokens.

        logits: (B, T, E), routing of the same tokens, counted: (B, T) bool -> ().
        """
        total = self.rule.correction(excess(routing, counted))
        if self.balance_loss:
            total = total + self.balance_loss * balance_loss(routing, counted)
        if self.z_loss:
            total = total + self.z_loss * z_loss(logits, counted)
        return total


def tokens_per_expert(routing: Routing, counted: Tensor) -> Tensor:
    """How many counted tokens of each row every expert was chosen for: (B, E), whole numbers in the shares' dtype."""
    k = routing.experts.size(-1)
    ones = counted.repeat_interleave(k, 1).to(routing.shares.dtype)  # (B, T * k)
    empty = ones.new_zeros(counted.size(0), routing.shares.size(-1))
    return empty.scatter_add(1, routing.experts.flatten(1), ones)


def excess(routing: Routing, counted: Tensor) -> Tensor:
    """Tokens of each expert beyond an even share: (E,), summing to zero."""
    tokens = tokens_per_expert(routing, counted).sum(0)
    return tokens - tokens.mean()


def balance_loss(routing: Routing, counted: Tensor) -> Tensor:
    """The Switch loss of each row, times its counted tokens, summed over rows: () (Fedus et al. 2021, equation 4).

    A row's loss is E * sum over experts of (tokens that chose it / T) * (its mean share): k when all are equally busy.
    Taken over rows rather than over the batch (as DeepSeek-V3's, equation 17), it is a sum over rows: how a step was
    split into micro-batches leaves no trace. A balance over more text would leave experts more freedom to specialise
    (Qiu et al. 2025, arXiv:2501.11873).
    """
    tokens = tokens_per_expert(routing, counted)  # (B, E)
    mass = (routing.shares * counted.unsqueeze(-1)).sum(1)  # (B, E)
    n_tokens = counted.sum(1, keepdim=True).clamp(min=1)
    return routing.shares.size(-1) * (tokens * mass / n_tokens).sum()


def z_loss(logits: Tensor, counted: Tensor) -> Tensor:
    """The square of each token's log-sum-exp, summed: keeps scores small (Zoph et al. 2022, arXiv:2202.08906)."""
    return (logits.logsumexp(-1).square() * counted).sum()
