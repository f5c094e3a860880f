# mypy: disable-error-code="no-any-return"
"""Mixture of experts: many feed-forwards, of which each token passes through a few."""

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from legollm.components.routing import Router, Routing, tokens_per_expert


class MoE(nn.Module):
    """A router and its experts, any feed-forwards of one width (Shazeer et al. 2017, arXiv:1701.06538).

    Arithmetic per token follows the experts that work on it, not those that exist. `shared` works on every token
    beside them (Dai et al. 2024, arXiv:2401.06066).

    capacity: in training, an expert takes at most this many times its even share of the tokens and drops the rest,
    second choices first (Lepikhin et al. 2020, arXiv:2006.16668); None drops none. Outside training none is dropped,
    so that a row does not depend on its neighbours.
    """

    def __init__(
        self,
        *,
        router: Router,
        experts: Sequence[nn.Module],
        shared: nn.Module | None = None,
        capacity: float | None = None,
    ) -> None:
        super().__init__()
        assert len(experts) == router.n_experts
        self.router, self.experts, self.shared = router, nn.ModuleList(experts), shared
        self.capacity = capacity
        self.last: tuple[Tensor, Routing] | None = None
        self.load = [0] * len(experts)  # tokens of each expert since somebody last looked
        self.idle = [0] * len(experts)  # passes in a row in which it had none

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, T, D) -> (B, T, D). In training, what `collect` needs is kept until it is called."""
        logits, routing = self.router(x)
        self.last = (logits, routing) if self.training else None
        experts, weights = routing.experts.flatten(0, -2), routing.weights.flatten(0, -2)  # (N, k)
        limit = None
        if self.capacity is not None and self.training:
            limit = math.ceil(self.capacity * experts.numel() / len(self.experts))
        y = dispatch(x.flatten(0, -2), experts, weights, self.experts, limit).view(x.shape)
        return y if self.shared is None else y + self.shared(x)

    def collect(self, counted: Tensor) -> Tensor:
        """The losses of the last pass in training, summed over the counted tokens, which are then forgotten: ().

        counted: (B, T) bool. Counts `load` and `idle`, too.
        """
        if self.last is None:
            return torch.zeros((), device=counted.device)
        (logits, routing), self.last = self.last, None
        n_tokens = [int(n) for n in tokens_per_expert(routing, counted).sum(0).tolist()]
        self.load = [total + n for total, n in zip(self.load, n_tokens, strict=True)]
        self.idle = [0 if n else passes + 1 for passes, n in zip(self.idle, n_tokens, strict=True)]
        return self.router.loss(logits, routing, counted)

    def __getstate__(self) -> dict[str, Any]:
        """Without the last pass: a tensor in the middle of a graph can be neither copied nor pickled."""
        return {**self.__dict__, "last": None}


def dispatch(x: Tensor, chosen: Tensor, weights: Tensor, experts: nn.ModuleList, limit: int | None = None) -> Tensor:
    """Every token through its experts, the tokens of one expert together: as many products as experts, none wasted.

    x: (N, D), chosen and weights: (N, k) -> (N, D); limit: the most tokens an expert takes.
    """
    N, k = chosen.shape
    # First choices stand before second ones, so that they also come first where an expert's tokens are limited.
    expert_of, order = chosen.t().flatten().sort(stable=True)  # (k * N,)
    counts = torch.bincount(expert_of, minlength=len(experts))
    if limit is not None:
        place = torch.arange(k * N, device=x.device) - (counts.cumsum(0) - counts)[expert_of]
        order, counts = order[place < limit], counts.clamp(max=limit)
    groups = torch.split(x[order % N], counts.tolist())
    # With a gradient, idle experts see no rows rather than being left out: every process has the same gradients then.
    is_learning = torch.is_grad_enabled()
    parts = [expert(rows) for expert, rows in zip(experts, groups, strict=True) if is_learning or len(rows)]
    answers = torch.cat(parts)
    answers = answers.new_zeros(k * N, answers.size(-1)).index_copy(0, order, answers)  # dropped tokens: zero
    return (answers.view(k, N, -1) * weights.t().unsqueeze(-1)).sum(0).to(x.dtype)


def upcycle(ffn: nn.Module, router: Router) -> MoE:
    """A mixture whose experts all start as `ffn` (Komatsuzaki et al. 2022, arXiv:2212.05055).

    It computes what `ffn` does, as long as the router's weights sum to one: not with Switch or another scale.
    """
    return MoE(router=router, experts=[copy.deepcopy(ffn) for _ in range(router.n_experts)])
