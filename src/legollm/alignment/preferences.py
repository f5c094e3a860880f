"""What is minimised over pairs of answers, or answers that were judged one by one, so that good ones become likelier.

Of the answers of a pair only log-probabilities enter. `log_ratio` is that of an answer under the model less that under
the reference, the model that training started from: by how much it became likelier.

| loss  | compares                                       | reference | log-probability of an answer |
| ----- | ---------------------------------------------- | --------- | ---------------------------- |
| dpo   | log-ratios, by a logistic loss                 | yes       | sum over its tokens          |
| ipo   | log-ratios, by a squared distance              | yes       | sum                          |
| kto   | each log-ratio with that of unrelated answers  | yes       | sum                          |
| orpo  | odds; and the preferred answer is learned      | no        | mean                         |
| simpo | log-probabilities, by a logistic loss          | no        | mean                         |

KTO alone needs no pairs.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from legollm.alignment.pairs import JudgedBatch, PairBatch
from legollm.errors import ConfigError
from legollm.training.balance import routing_loss
from legollm.training.objective import IGNORED

LossName = Literal["dpo", "ipo", "kto", "orpo", "simpo"]
BETA: Mapping[LossName, float] = {"dpo": 0.1, "ipo": 0.1, "kto": 0.1, "orpo": 0.1, "simpo": 2.0}
"""What the papers start from."""
WITH_REFERENCE: tuple[LossName, ...] = ("dpo", "ipo", "kto")
MEANS: tuple[LossName, ...] = ("orpo", "simpo")
"""Losses whose paper divides an answer's log-probability by its length."""


def dpo_loss(margin: Tensor, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """Direct preference optimisation (Rafailov et al. 2023, arXiv:2305.18290, equation 7), for each pair.

    margin: log-ratio of the preferred answer less that of the other. label_smoothing: how likely it is that the two
    were swapped by mistake (conservative DPO, in the same authors' note).
    """
    agree, swapped = F.logsigmoid(beta * margin), F.logsigmoid(-beta * margin)
    return -(1 - label_smoothing) * agree - label_smoothing * swapped


def ipo_loss(margin: Tensor, beta: float) -> Tensor:
    """Identity preference optimisation (Azar et al. 2023, arXiv:2310.12036, equation 17), for each pair.

    The margin is to be 1 / (2 beta) and no larger: preferences that are certain do not drive it without end. beta: tau
    in the paper.
    """
    return (margin - 1 / (2 * beta)).square()


def kto_loss(
    ratios: Tensor, is_good: Tensor, kl: Tensor, beta: float, desirable: float = 1.0, undesirable: float = 1.0
) -> Tensor:
    """Kahneman-Tversky optimisation (Ethayarajh et al. 2024, arXiv:2402.01306, equation 8), for each answer, which is
    good or bad by itself.

    ratios: log-ratios. kl: the log-ratio that any answer has by now, the point where loss turns into gain. desirable,
    undesirable: the weights of good and of bad answers.
    """
    gained = torch.where(is_good, ratios - kl, kl - ratios)
    weights = desirable * is_good.to(gained) + undesirable * (~is_good).to(gained)
    return weights * (1 - torch.sigmoid(beta * gained))


def orpo_loss(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """Odds ratio preference optimisation (Hong et al. 2024, arXiv:2403.07691, equations 6 and 7): the preferred answer
    is learned as in fine-tuning, and its odds are to be higher than the other's.

    chosen, rejected: mean log-probabilities. beta: lambda in the paper.
    """
    log_odds_ratio = (chosen - log_one_minus_exp(chosen)) - (rejected - log_one_minus_exp(rejected))
    return -chosen - beta * F.logsigmoid(log_odds_ratio)


def simpo_loss(chosen: Tensor, rejected: Tensor, beta: float, gamma: float) -> Tensor:
    """Simple preference optimisation (Meng et al. 2024, arXiv:2405.14734, equation 6).

    chosen, rejected: mean log-probabilities. gamma: by how much beta times the one is to exceed beta times the other.
    """
    return -F.logsigmoid(beta * (chosen - rejected) - gamma)


def log_one_minus_exp(x: Tensor) -> Tensor:
    """log(1 - exp(x)) for x < 0, also where exp(x) is nearly 0 or nearly 1."""
    x = x.clamp(max=-1e-7)  # an answer that is certain has no finite odds
    near_zero = x > -0.69
    return torch.where(near_zero, torch.log(-torch.expm1(x)), torch.log1p(-torch.exp(x)))


@dataclass(frozen=True, kw_only=True)
class PreferenceConfig:
    """Which loss over pairs, and its settings."""

    loss: LossName = "dpo"
    """dpo, ipo, kto (these compare with the model at the start), orpo or simpo (these do not)."""
    beta: float | None = None
    """How strongly log-ratios count: the larger, the closer the model stays to where it began. tau of ipo, lambda of
    orpo. null takes 0.1, for simpo 2."""
    label_smoothing: float = 0.0
    """dpo: the share of pairs that may be swapped."""
    gamma: float = 1.0
    """simpo: the margin that is asked for."""
    desirable: float = 1.0
    """kto: the weight of preferred answers."""
    undesirable: float = 1.0
    """kto: the weight of the others."""
    per_token: bool | None = None
    """Whether an answer's log-probability is divided by its length; null is as the paper of the loss has it."""
    sft: float = 0.0
    """Weight of learning the preferred answer besides, as in fine-tuning, which keeps it from becoming unlikely
    together with the other (Pang et al. 2024, arXiv:2404.19733)."""

    def __post_init__(self) -> None:
        if self.beta is not None and self.beta <= 0:
            raise ConfigError(f"beta: must be above 0, found {self.beta}")
        if not 0 <= self.label_smoothing < 0.5:
            raise ConfigError(f"label_smoothing: a share from 0 to below 0.5, found {self.label_smoothing}")
        for name in ("gamma", "desirable", "undesirable", "sft"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}: must not be negative, found {getattr(self, name)}")
        for name, owner in {
            "label_smoothing": "dpo",
            "gamma": "simpo",
            "desirable": "kto",
            "undesirable": "kto",
        }.items():
            if self.loss != owner and getattr(self, name) != type(self).__dataclass_fields__[name].default:
                raise ConfigError(f"{name}: is a setting of loss={owner}, and the loss is {self.loss}; leave it out")

    @property
    def strength(self) -> float:
        """The beta that counts."""
        return BETA[self.loss] if self.beta is None else self.beta

    @property
    def has_reference(self) -> bool:
        return self.loss in WITH_REFERENCE

    @property
    def divides(self) -> bool:
        """Whether an answer's log-probability is divided by its length."""
        return self.loss in MEANS if self.per_token is None else self.per_token


class PreferenceLoss:
    """The objective over pairs: one term for each, in nats. n_pairs: of a whole step, for the figures of the log."""

    def __init__(self, cfg: PreferenceConfig, n_pairs: int) -> None:
        self.cfg, self.figures, self.val_figures = cfg, Figures(n_pairs), Figures()

    def __call__(self, model: nn.Module, batch: PairBatch) -> Tensor:
        """The summed loss, ()."""
        tokens, targets = batch.tokens[:, :2], batch.targets[:, :2]
        counts = targets != IGNORED  # (P, 2, T)
        log_probs = token_log_probs(model, tokens.flatten(0, 1), targets.flatten(0, 1)).view(targets.shape)
        routed = routing_loss(model, counts.flatten(0, 1))
        lengths = counts.sum(-1)  # (P, 2)
        scale = lengths if self.cfg.divides else torch.ones_like(lengths)
        answers = log_probs.sum(-1) / scale  # (P, 2)
        ratios = (log_probs - batch.reference[:, :2]).sum(-1) / scale
        kl = unasked(model, batch, self.cfg.divides) if self.cfg.loss == "kto" else ratios.new_zeros(())
        loss = self.loss(answers, ratios, kl)
        if self.cfg.sft:
            loss = loss - self.cfg.sft * log_probs[:, 0].sum(-1) / lengths[:, 0]
        with torch.no_grad():
            figures = self.figures if model.training else self.val_figures
            figures.add(self.measured(log_probs, ratios if self.cfg.has_reference else answers, batch, counts))
        return loss.sum() + routed * (loss.numel() / lengths.sum())  # of one term's weight, not of one for each token

    def n_terms(self, batch: PairBatch) -> int:
        return batch.tokens.size(0)

    def loss(self, answers: Tensor, ratios: Tensor, kl: Tensor) -> Tensor:
        """answers, ratios: (P, 2) log-probabilities and log-ratios -> (P,)."""
        cfg, beta = self.cfg, self.cfg.strength
        chosen, rejected = (ratios if cfg.has_reference else answers).unbind(1)
        match cfg.loss:
            case "dpo":
                return dpo_loss(chosen - rejected, beta, cfg.label_smoothing)
            case "ipo":
                return ipo_loss(chosen - rejected, beta)
            case "kto":
                is_good = torch.tensor([True, False], device=ratios.device)
                return kto_loss(ratios, is_good, kl, beta, cfg.desirable, cfg.undesirable).mean(1)
            case "orpo":
                return orpo_loss(chosen, rejected, beta)
            case "simpo":
                return simpo_loss(chosen, rejected, beta, cfg.gamma)

    def measured(self, log_probs: Tensor, scores: Tensor, batch: PairBatch, counts: Tensor) -> dict[str, Tensor]:
        """Of each pair, (P,), what the log shows; scores: (P, 2) what the loss compares."""
        rewards = self.cfg.strength * scores
        margin = rewards[:, 0] - rewards[:, 1]
        sums = log_probs.sum(-1)
        found = {
            "accuracy": (margin > 0).float(),
            "margin": margin,
            "chosen_reward": rewards[:, 0],
            "rejected_reward": rewards[:, 1],
            "chosen_logp": sums[:, 0],
            "rejected_logp": sums[:, 1],
        }
        if self.cfg.has_reference:
            # Half the squared log-ratio: of the estimators of a divergence the one that stands tokens which the model
            # would not have written itself; the unbiased ones explode at a single rejected token.
            found["kl"] = ((log_probs - batch.reference[:, :2]) * counts).square().sum((1, 2)) / 2 / counts.sum((1, 2))
        return found


class Figures:
    """Means over the pairs that were last seen: those of one step, or, with 0, all since they were last read."""

    def __init__(self, n_pairs: int = 0) -> None:
        self.n_pairs = n_pairs
        self.seen: deque[dict[str, Tensor]] = deque()

    def add(self, of_pairs: Mapping[str, Tensor]) -> None:
        """Each figure (P,), of the pairs of one call; all but the first may be of some of them only."""
        self.seen.append({name: values.detach().float().cpu() for name, values in of_pairs.items()})
        while self.n_pairs and sum(map(size_of, self.seen)) - size_of(self.seen[0]) >= self.n_pairs:
            self.seen.popleft()

    def read(self) -> dict[str, float]:
        """The means; nothing before the first call."""
        if not self.seen:
            return {}
        values = {name: torch.cat([one[name] for one in self.seen]) for name in self.seen[0]}
        self.seen.clear()
        return {name: float(all_of.mean()) for name, all_of in values.items() if all_of.numel()}


def size_of(figures: Mapping[str, Tensor]) -> int:
    return next(iter(figures.values())).numel()


class JudgedLoss:
    """The objective over judged answers (KTO): one term for each. n_answers: of a whole step, for the figures."""

    def __init__(self, cfg: PreferenceConfig, n_answers: int) -> None:
        self.cfg, self.figures, self.val_figures = cfg, Figures(n_answers), Figures()

    def __call__(self, model: nn.Module, batch: JudgedBatch) -> Tensor:
        """The summed loss, ()."""
        cfg, is_good = self.cfg, batch.is_good
        tokens, targets = batch.tokens[:, 0], batch.targets[:, 0]
        counts = targets != IGNORED  # (P, T)
        log_probs = token_log_probs(model, tokens, targets)
        routed = routing_loss(model, counts)
        lengths, changes = counts.sum(-1), log_probs - batch.reference[:, 0]
        ratios = changes.sum(-1) / (lengths if cfg.divides else 1)  # (P,)
        kl = unasked(model, batch, cfg.divides)
        loss = kto_loss(ratios, is_good, kl, cfg.strength, cfg.desirable, cfg.undesirable)
        if cfg.sft:
            loss = loss - cfg.sft * is_good * log_probs.sum(-1) / lengths
        with torch.no_grad():
            rewards, sums = cfg.strength * ratios, log_probs.sum(-1)
            found = {
                "accuracy": ((ratios > kl) == is_good).float(),
                "chosen_reward": rewards[is_good],
                "rejected_reward": rewards[~is_good],
                "chosen_logp": sums[is_good],
                "rejected_logp": sums[~is_good],
                "kl": (changes * counts).square().sum(-1) / 2 / lengths,
            }
            (self.figures if model.training else self.val_figures).add(found)
        return loss.sum() + routed * (loss.numel() / lengths.sum())

    def n_terms(self, batch: JudgedBatch) -> int:
        return batch.tokens.size(0)


@torch.no_grad()
def unasked(model: nn.Module, batch: PairBatch | JudgedBatch, divides: bool) -> Tensor:
    """By how much answers to other prompts became likelier, at least 0: the point of comparison of KTO, ()."""
    tokens, targets = batch.tokens[:, -1], batch.targets[:, -1]
    ratios = (token_log_probs(model, tokens, targets) - batch.reference[:, -1]).sum(-1)
    if divides:
        ratios = ratios / (targets != IGNORED).sum(-1)
    return ratios.mean().clamp(min=0)


def token_log_probs(model: nn.Module, tokens: Tensor, targets: Tensor) -> Tensor:
    """tokens, targets: (B, T) -> the log-probability of each target, (B, T), in float32 at least; 0 where IGNORED."""
    counts = targets != IGNORED
    logits: Tensor = model(tokens, at=counts)  # (N, V)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    found = -F.cross_entropy(logits, targets[counts], reduction="none")  # (N,)
    return found.new_zeros(targets.shape).masked_scatter(counts, found)
