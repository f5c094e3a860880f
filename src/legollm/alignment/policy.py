"""What is minimised over sampled tokens, so that good answers become likelier without the model leaving what it was."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from legollm.errors import ConfigError
from legollm.training.objective import IGNORED

Estimator: TypeAlias = Literal["k1", "k2", "k3"]
"""How a divergence is estimated from samples, by Schulman's names: k1 is the log-ratio, which has no bias and may be
negative; k2 half its square; k3 the ratio less one less its logarithm, which has no bias and is never negative."""

Average: TypeAlias = Literal["answer", "constant", "token", "sum"]
"""How the terms of an answer's tokens are put together. answer: their mean (GRPO: long answers weigh no more than short
ones, so each of their tokens less). constant: their sum over a constant (Dr. GRPO). token: all tokens of all answers
weigh alike (DAPO). sum: the gradient of the probability of the answer as a whole (REINFORCE)."""


class PolicyBatch(NamedTuple):
    """Answers behind their prompts, padded on the right; what is about tokens stands where the token is predicted."""

    tokens: Tensor
    """(B, T) int64."""
    targets: Tensor
    """(B, T) int64, the sampled token that follows; IGNORED where none was sampled."""
    log_probs: Tensor
    """(B, T) under the sampler, as all below 0 where nothing was sampled."""
    reference: Tensor
    """(B, T) log-probabilities under the reference model."""
    advantages: Tensor
    """(B, T), the same for all tokens of an answer where only the answer is judged."""
    values: Tensor
    """(B, T) what a value head expected when the tokens were sampled; 0 without one."""
    returns: Tensor
    """(B, T) what it should have expected."""
    serial: Tensor
    """(B,) int64, the number of the optimizer step that this batch is for."""
    age: Tensor
    """(B,) int64, steps since the sampling; in step 0 trainer and sampler are the same model."""


@dataclass
class Meter:
    """What was last measured of a run; saved with it, so that a continued run shows the same numbers."""

    latest: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """How far a step may go, and what holds the model back."""

    clip: float = 0.2
    """A token whose probability fell by more than this share since it was sampled gives no further push downwards, one
    that rose by more no push upwards (PPO; Schulman et al. 2017, arXiv:1707.06347)."""
    clip_high: float | None = None
    """The same for rising only; null is as clip. Higher lets rare tokens rise (Yu et al. 2025, arXiv:2503.14476)."""
    beta: float = 0.0
    """Nats of divergence from the reference, which is the model at the start, cost this much reward each."""
    kl: Estimator = "k3"
    """How the divergence is estimated where it is part of the loss: k1, k2 or k3."""
    kl_target: float | None = None
    """Nats per answer that beta is to keep the divergence at, by rising above it and falling below it; null leaves beta
    as it is (Ziegler et al. 2019, arXiv:1909.08593)."""
    kl_limit: float | None = None
    """Nats per answer at which the run ends early, as a model that is no longer itself; null is never."""
    entropy: float = 0.0
    """What a nat of entropy of the next token is worth; a little keeps the model from settling too soon."""

    def __post_init__(self) -> None:
        for name in ("clip", "clip_high", "kl_target", "kl_limit"):
            if (value := getattr(self, name)) is not None and value <= 0:
                raise ConfigError(f"{name}: must be above 0, found {value}")
        for name in ("beta", "entropy"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}: must not be negative, found {getattr(self, name)}")
        if self.kl_target is not None and self.beta == 0:
            raise ConfigError("kl_target: moves beta, which starts at 0; give it a start such as beta=0.05")


class Penalty:
    """The price of divergence, which may follow what it brings (Ziegler et al. 2019, arXiv:1909.08593)."""

    GAIN = 0.1
    LARGEST_ERROR = 0.2

    def __init__(self, beta: float, target: float | None = None) -> None:
        self.beta, self.target = beta, target

    def update(self, kl: float) -> None:
        """Move beta towards where the divergence, in nats per answer, is the target."""
        if self.target is not None:
            error = max(-self.LARGEST_ERROR, min(kl / self.target - 1, self.LARGEST_ERROR))
            self.beta *= 1 + self.GAIN * error


def divergence(log_probs: Tensor, reference: Tensor, estimator: Estimator) -> Tensor:
    """KL(policy, reference), estimated from tokens that the policy sampled; one estimate for each."""
    difference = reference - log_probs
    if estimator == "k1":
        return -difference
    return difference.square() / 2 if estimator == "k2" else difference.exp() - difference - 1


def clipped_loss(log_ratio: Tensor, advantages: Tensor, low: float, high: float) -> Tensor:
    """-min(r A, clip(r, 1 - low, 1 + high) A), term by term."""
    ratio = log_ratio.exp()
    return -torch.minimum(ratio * advantages, ratio.clamp(1 - low, 1 + high) * advantages)


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, clip: float | None) -> Tensor:
    """Half the squared error, and where a value moved by more than `clip` since the sampling the larger of two."""
    error = (values - returns).square()
    if clip is not None:
        near = old_values + (values - old_values).clamp(-clip, clip)
        error = torch.maximum(error, (near - returns).square())
    return error / 2


class PolicyGradient:
    """The objective: clipped ratios times advantages, divergence, entropy, values; in nats.

    average: how tokens are put together. by_answer: the ratio is that of the whole answer, as RLOO has it. kl_in_loss:
    whether divergence is penalised here, or was taken off the rewards. n_ids: ids that could be sampled. temperature:
    of the sampling. max_new_tokens: the constant of `average`. value_head: (..., D) -> (..., 1).
    """

    def __init__(
        self,
        cfg: ObjectiveConfig,
        *,
        average: Average,
        meter: Meter,
        penalty: Penalty,
        n_ids: int,
        temperature: float = 1.0,
        max_new_tokens: int = 1,
        by_answer: bool = False,
        kl_in_loss: bool = True,
        value_head: nn.Module | None = None,
        value_weight: float = 0.0,
        value_clip: float | None = None,
    ) -> None:
        self.cfg, self.average, self.meter, self.penalty = cfg, average, meter, penalty
        self.n_ids, self.temperature, self.max_new_tokens = n_ids, temperature, max_new_tokens
        self.by_answer, self.kl_in_loss = by_answer, kl_in_loss
        self.value_head, self.value_weight, self.value_clip = value_head, value_weight, value_clip
        self.sums = Sums()

    def __call__(self, model: nn.Module, batch: PolicyBatch) -> Tensor:
        """The summed loss, ()."""
        if self.skips:
            batch = pushing(batch)
        sampled = batch.targets != IGNORED
        row = sampled.nonzero()[:, 0]  # (N,), of each sampled token its answer
        states = hidden_of(model)(batch.tokens)[sampled]  # (N, D)
        log_probs, entropy = token_log_probs(model, states, batch.targets[sampled], self.n_ids, self.temperature)
        old, advantages = batch.log_probs[sampled], batch.advantages[sampled]
        cfg, n_rows = self.cfg, batch.tokens.size(0)
        low, high = cfg.clip, cfg.clip if cfg.clip_high is None else cfg.clip_high
        log_ratio = log_probs - old

        def per_answer(terms: Tensor) -> Tensor:
            return terms.new_zeros(n_rows).index_add(0, row, terms)  # (B,)

        lengths = per_answer(torch.ones_like(log_probs))
        if self.by_answer:
            of_answer = per_answer(advantages) / lengths.clamp(min=1)  # the same for all of its tokens
            loss = clipped_loss(per_answer(log_ratio), of_answer, low, high).sum()
            terms = torch.zeros_like(log_probs)
        else:
            loss, terms = log_probs.new_zeros(()), clipped_loss(log_ratio, advantages, low, high)
        if self.kl_in_loss and self.penalty.beta:
            terms = terms + self.penalty.beta * divergence(log_probs, batch.reference[sampled], cfg.kl)
        if cfg.entropy:
            terms = terms - cfg.entropy * entropy
        if self.value_head is not None:
            values = self.value_head(states.to(torch.float32)).squeeze(-1)
            error = value_loss(values, batch.values[sampled], batch.returns[sampled], self.value_clip)
            terms = terms + self.value_weight * error
        self.note(batch, log_ratio.detach(), advantages, entropy.detach(), sampled)
        if self.average == "answer":
            terms = terms / lengths[row]
        elif self.average == "constant":
            terms = terms / self.max_new_tokens
        return loss + terms.sum()

    @property
    def skips(self) -> bool:
        """Whether answers without any advantage have no gradient, and need not be read again."""
        return not (self.cfg.entropy or self.value_head or (self.kl_in_loss and self.penalty.beta))

    def n_terms(self, batch: PolicyBatch) -> int:
        """Answers, or with average=token the tokens of them."""
        return int((batch.targets != IGNORED).sum()) if self.average == "token" else batch.tokens.size(0)

    def note(self, batch: PolicyBatch, log_ratio: Tensor, advantages: Tensor, entropy: Tensor, sampled: Tensor) -> None:
        """What this step did, for the log: over all of its micro-batches."""
        serial = int(batch.serial[0])
        if serial != self.sums.serial:
            self.sums = Sums(serial)
        sums, low = self.sums, self.cfg.clip
        high = low if self.cfg.clip_high is None else self.cfg.clip_high
        ratio = log_ratio.exp()
        clipped = ((ratio < 1 - low) & (advantages < 0)) | ((ratio > 1 + high) & (advantages > 0))
        sums.n += ratio.numel()
        sums.clipped += float(clipped.sum())
        sums.entropy += float(entropy.sum())
        fresh = (batch.age == 0)[:, None].expand_as(sampled)[sampled]
        if fresh.any():
            sums.gap = max(sums.gap, float(log_ratio[fresh].abs().max()))
            self.meter.latest["logprob_gap"] = sums.gap
        n = max(1, sums.n)
        self.meter.latest |= {"entropy": sums.entropy / n, "clip_fraction": sums.clipped / n}


def pushing(batch: PolicyBatch) -> PolicyBatch:
    """Only the answers with an advantage, at least one."""
    chosen = (batch.advantages != 0).any(1)
    chosen[0] |= not chosen.any()
    return PolicyBatch(*(part[chosen] for part in batch))


@dataclass
class Sums:
    """Of one optimizer step."""

    serial: int = -1
    n: int = 0
    clipped: float = 0.0
    entropy: float = 0.0
    gap: float = 0.0


def hidden_of(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """Tokens (B, T) -> states before the head, (B, T, D)."""
    hidden: Callable[[Tensor], Tensor] = model.hidden  # type: ignore[assignment]
    return hidden


def token_log_probs(
    model: Any, states: Tensor, targets: Tensor, n_ids: int, temperature: float
) -> tuple[Tensor, Tensor]:
    """Of tokens that follow the states (N, D) their log-probability, and the entropy of the choice; (N,) each.

    Of the distribution that was sampled from: at its temperature, among its ids.
    """
    logits = model.lm_head(states)[:, :n_ids]
    log_probs = (logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature).log_softmax(-1)
    entropy = -(log_probs.exp() * log_probs).sum(-1)
    return log_probs.gather(1, targets[:, None]).squeeze(1), entropy
