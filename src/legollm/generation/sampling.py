"""From logits to the next token, in this order: bias, penalties, temperature, sets to choose among, a draw.

The penalties are those of repetition, of presence and frequency, of repeated sequences (dry, no_repeat_ngram); the sets
top-k, top-p, min-p, typical, eta, each of what the ones before it have left. Greedy ends after the penalties.

Each step is a pure function from logits (B, V) to logits (B, V) that treats every row by itself; what it rules out
becomes -inf. Ties are broken towards the lower id, so that results do not depend on the machine.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from legollm.device import generator
from legollm.errors import ConfigError, DivergedError

TOP_P_HEAD = 1024
"""top-p ranks this many tokens first: 0.4 ms of 50,257 where ranking all takes 3.5 ms; it is enough almost always."""

LONGEST_REPEAT = 64
"""Tokens of a repeated sequence that DRY compares at most; by then its penalty is beyond any logit."""
BIAS = re.compile(r"\s*\d+\s*=\s*[-+]?(\d+\.?\d*|\.\d+)\s*")
"""A token and what is added to its logit."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is chosen, and when to stop."""

    temperature: float = 1.0
    """Below 1 sharpens the model's distribution, above 1 flattens it; 0 is greedy: the likeliest token each time."""
    top_k: int | None = None
    """Only the k likeliest tokens may be drawn; null is all of them."""
    top_p: float = 1.0
    """Only the fewest tokens whose probabilities reach this sum (Holtzman et al. 2019, arXiv:1904.09751); 1 is all."""
    min_p: float = 0.0
    """Only tokens this fraction as likely as the likeliest or more (Nguyen et al. 2024, arXiv:2407.01082); 0 is all."""
    typical_p: float = 1.0
    """Only the tokens whose information is nearest to that expected of the next one, until their probabilities reach
    this sum (Meister et al. 2022, arXiv:2202.00666); 1 is all. The likeliest token need not be among them."""
    eta_cutoff: float = 0.0
    """Only tokens likelier than this; where entropy H is high, likelier than its root times exp(-H), if that is less
    (Hewitt et al. 2022, arXiv:2210.15191, who use 0.0003 to 0.004); 0 is all."""
    logit_bias: tuple[str, ...] = ()
    """Added to the logits of these tokens, as id=number: [50256=-100, 11=2.5]. -100 rules a token out in practice."""
    repetition_penalty: float = 1.0
    """Makes tokens that occurred less likely by this factor (Keskar et al. 2019, arXiv:1909.05858); 1 does nothing."""
    presence_penalty: float = 0.0
    """Taken off the logit of each token that occurred."""
    frequency_penalty: float = 0.0
    """Taken off the logit of a token once for each time it occurred."""
    no_repeat_ngram: int | None = None
    """No sequence of so many tokens occurs twice (Paulus et al. 2017, arXiv:1705.04304); null allows all."""
    dry_multiplier: float = 0.0
    """Taken off the logit of a token that would repeat a sequence: this, times dry_base for each token by which what is
    repeated already is longer than dry_length (known as DRY, "don't repeat yourself"); 0 does nothing."""
    dry_base: float = 1.75
    """See dry_multiplier."""
    dry_length: int = 2
    """Repeated sequences of fewer tokens cost nothing."""
    penalty_window: int | None = None
    """Penalties look at the latest so many tokens; null is all of them."""
    penalty_includes_prompt: bool = True
    """Whether the tokens of the prompt have occurred, too."""
    max_new_tokens: int = 128
    """Tokens to generate at most."""
    seed: int = 0
    """Row i of a batch draws from a generator of its own, seeded with seed + i: its neighbours do not matter."""
    stop: tuple[str, ...] = ()
    """Text that ends the answer and is not part of it."""
    stop_ids: tuple[int, ...] = ()
    """Token ids that end the answer."""

    def __post_init__(self) -> None:
        possible = {
            "temperature": (0 <= self.temperature < math.inf, "0 (greedy) or a positive number"),
            "top_k": (self.top_k is None or self.top_k >= 1, "1 or more, or null for no limit"),
            "top_p": (0 < self.top_p <= 1, "more than 0, up to 1 for no limit"),
            "min_p": (0 <= self.min_p <= 1, "0 for no limit, up to 1"),
            "typical_p": (0 < self.typical_p <= 1, "more than 0, up to 1 for no limit"),
            "eta_cutoff": (0 <= self.eta_cutoff < 1, "0 for no limit, below 1"),
            "no_repeat_ngram": (self.no_repeat_ngram is None or self.no_repeat_ngram >= 1, "1 or more, or null"),
            "dry_multiplier": (0 <= self.dry_multiplier < math.inf, "0 for none, or a positive number"),
            "dry_base": (1 <= self.dry_base < math.inf, "1 or more"),
            "dry_length": (self.dry_length >= 1, "1 or more"),
            "logit_bias": (all(BIAS.fullmatch(one) for one in self.logit_bias), "a list such as [50256=-100, 11=2.5]"),
            "repetition_penalty": (0 < self.repetition_penalty < math.inf, "a positive number, 1 for none"),
            "presence_penalty": (math.isfinite(self.presence_penalty), "a number, 0 for none"),
            "frequency_penalty": (math.isfinite(self.frequency_penalty), "a number, 0 for none"),
            "penalty_window": (self.penalty_window is None or self.penalty_window >= 1, "1 or more, or null for all"),
            "max_new_tokens": (self.max_new_tokens >= 1, "1 or more"),
            "seed": (0 <= self.seed < 2**63, "0 to 2**63 - 1"),
            "stop": (not isinstance(self.stop, str) and all(self.stop), "a list of texts that are not empty"),
            "stop_ids": (all(token >= 0 for token in self.stop_ids), "a list of ids from 0 on"),
        }
        for name, (holds, wanted) in possible.items():
            if not holds:
                raise ConfigError(f"{name}: found {getattr(self, name)!r}; possible: {wanted}")

    @property
    def penalises(self) -> bool:
        """Whether earlier tokens matter at all."""
        penalties = (self.repetition_penalty, self.presence_penalty, self.frequency_penalty, self.dry_multiplier)
        return penalties != (1, 0, 0, 0) or self.no_repeat_ngram is not None


def next_token_probs(logits: Tensor, sampling: Sampling, history: Tensor | None = None) -> Tensor:
    """logits: (B, V) -> the probabilities (B, V) that `sampling` draws from; greedy is all mass on one token.

    history: (B, L) the tokens that count for penalties, the latest last, -1 where a row has none; None if no row has.

    Raises:
        DivergedError: logits that are not numbers.
    """
    logits = processed(logits, sampling, history)
    if sampling.temperature == 0:
        return torch.zeros_like(logits).scatter_(-1, logits.argmax(-1, keepdim=True), 1.0)
    return logits.softmax(-1)


def next_tokens(
    logits: Tensor, sampling: Sampling, rngs: Sequence[torch.Generator], history: Tensor | None = None
) -> Tensor:
    """Choose one token per row, row i by rngs[i]: logits (B, V) -> ids (B,). See `next_token_probs`."""
    if sampling.temperature == 0:
        return processed(logits, sampling, history).argmax(-1)
    return draw(next_token_probs(logits, sampling, history), rngs)


def draw(probs: Tensor, rngs: Sequence[torch.Generator]) -> Tensor:
    """One token per row by inverting the cumulative distribution: probs (B, V) -> ids (B,).

    One uniform number per row, from the row's own generator, hence the same alone and in any batch.
    """
    cdf = probs.cumsum(-1)
    cdf = cdf / cdf[:, -1:]  # ends with exactly 1, which no uniform number reaches: ids of probability 0 stay out
    uniform = torch.stack([torch.rand(1, generator=rng, dtype=probs.dtype, device=rng.device) for rng in rngs])
    return torch.searchsorted(cdf, uniform.to(cdf.device), right=True).squeeze(-1)


def row_generators(seed: int, n_rows: int) -> list[torch.Generator]:
    """The generators of rows 0 .. n_rows - 1; on the CPU, so that a seed draws the same numbers on every device."""
    return [generator(seed + row, "sampling") for row in range(n_rows)]


def processed(logits: Tensor, sampling: Sampling, history: Tensor | None) -> Tensor:
    """All steps before the softmax; half precision is widened to float32 first."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if not logits.amax(-1).isfinite().all():
        raise DivergedError("the model's logits are not finite numbers; its weights are damaged or training diverged")
    if sampling.logit_bias:
        logits = add_bias(logits, sampling.logit_bias)
    if sampling.penalises and history is not None:
        history = history[:, -(sampling.penalty_window or history.size(1)) :]
        counts = token_counts(history, logits.size(-1))
        logits = penalise_repetition(logits, counts, sampling.repetition_penalty)
        logits = penalise_counts(logits, counts, sampling.presence_penalty, sampling.frequency_penalty)
        if sampling.dry_multiplier > 0:
            lengths = repeated_lengths(history, logits.size(-1))
            logits = penalise_repeats(logits, lengths, sampling.dry_multiplier, sampling.dry_base, sampling.dry_length)
        if sampling.no_repeat_ngram is not None:
            logits = rule_out_ngrams(logits, history, sampling.no_repeat_ngram)
    if sampling.temperature == 0:
        return logits  # the other steps keep the likeliest token where it is
    logits = divide_by_temperature(logits, sampling.temperature)
    if sampling.top_k is not None:
        logits = keep_top_k(logits, sampling.top_k)
    if sampling.top_p < 1:
        logits = keep_top_p(logits, sampling.top_p)
    if sampling.min_p > 0:
        logits = keep_min_p(logits, sampling.min_p)
    if sampling.typical_p < 1:
        logits = keep_typical(logits, sampling.typical_p)
    if sampling.eta_cutoff > 0:
        logits = cut_eta(logits, sampling.eta_cutoff)
    return logits


def add_bias(logits: Tensor, biases: Sequence[str]) -> Tensor:
    """Add to each token what its bias says.

    Raises:
        ConfigError: a token that the model does not have.
    """
    pairs = [one.split("=") for one in biases]
    ids = [int(token) for token, _ in pairs]
    if max(ids) >= logits.size(-1):
        raise ConfigError(f"logit_bias: token {max(ids)} does not exist; there are 0 to {logits.size(-1) - 1}")
    bias = torch.zeros_like(logits[0])
    bias[ids] = bias.new_tensor([float(number) for _, number in pairs])
    return logits + bias


def token_counts(history: Tensor, vocab_size: int) -> Tensor:
    """How often each token occurs: history (B, L), -1 is not counted -> (B, V)."""
    counts = torch.zeros(history.size(0), vocab_size, dtype=torch.int64, device=history.device)
    return counts.scatter_add_(1, history.clamp_min(0), (history >= 0).long())


def penalise_repetition(logits: Tensor, counts: Tensor, penalty: float) -> Tensor:
    """Divide positive logits of tokens that occurred by `penalty` and multiply negative ones: both become smaller."""
    return torch.where(counts > 0, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def penalise_counts(logits: Tensor, counts: Tensor, presence: float, frequency: float) -> Tensor:
    """Take `presence` off what occurred, and `frequency` for each time it did."""
    return logits - presence * (counts > 0) - frequency * counts


def repeated_lengths(history: Tensor, vocab_size: int) -> Tensor:
    """How long the sequence is that each token would repeat, itself not counted: history (B, L) -> (B, V).

    The longest end of the history that occurred before, followed by this token; LONGEST_REPEAT at most.
    """
    n_rows, length = history.shape
    before, following = history[:, :-1], history[:, 1:]  # where a sequence may have ended, and what followed
    goes_on = torch.ones_like(before, dtype=torch.bool)
    lengths = torch.zeros_like(before)
    for back in range(min(length - 1, LONGEST_REPEAT)):  # compare with one more token of the end, from its last back
        same = before[:, : length - 1 - back] == history[:, length - 1 - back, None]
        goes_on[:, back:] &= same & (before[:, : length - 1 - back] >= 0)
        goes_on[:, :back] = False
        if not goes_on.any():
            break
        lengths += goes_on
    return history.new_zeros(n_rows, vocab_size).scatter_reduce_(1, following.clamp_min(0), lengths, "amax")


def penalise_repeats(logits: Tensor, lengths: Tensor, multiplier: float, base: float, shortest: int) -> Tensor:
    """Take multiplier * base ** (length - shortest) off what would repeat `shortest` tokens or more."""
    return logits - torch.where(lengths >= shortest, multiplier * base ** (lengths - shortest).to(logits.dtype), 0.0)


def rule_out_ngrams(logits: Tensor, history: Tensor, n: int) -> Tensor:
    """Without the tokens that would complete a sequence of n that occurred; a row with no other token keeps them."""
    if history.size(1) < n:
        return logits
    grams = history.unfold(1, n, 1)  # (B, L - n + 1, n)
    end = history[:, None, history.size(1) - n + 1 :]  # (B, 1, n - 1)
    repeats = (grams[..., :-1] == end).all(-1) & (grams >= 0).all(-1)
    banned = torch.zeros_like(logits).scatter_add_(1, grams[..., -1].clamp_min(0), repeats.to(logits.dtype)) > 0
    nothing_left = (banned | (logits == -torch.inf)).all(-1, keepdim=True)
    return logits.masked_fill(banned & ~nothing_left, -torch.inf)


def divide_by_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Logits relative to the largest, over the temperature; so no temperature overflows, however small."""
    return (logits - logits.amax(-1, keepdim=True)) / max(temperature, torch.finfo(logits.dtype).tiny)


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """The k largest logits of each row, exactly k where there are ties."""
    k = min(k, logits.size(-1))
    last = logits.topk(k).values[:, -1:]
    return logits.masked_fill(~largest(logits, last, torch.full_like(last, k)), -torch.inf)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """The fewest largest probabilities of each row whose sum reaches p: at least one, the one that crosses included."""
    total = logits.logsumexp(-1, keepdim=True)  # (B, 1)
    ranked = logits.topk(min(TOP_P_HEAD, logits.size(-1))).values  # largest first
    if ((ranked - total).exp().sum(-1) < p).any():
        ranked = logits.sort(descending=True).values
    n_short = ((ranked - total).exp().cumsum(-1) < p).sum(-1, keepdim=True)  # so many do not reach p, one more does
    n_kept = (n_short + 1).clamp_max(ranked.size(-1))  # unless rounding leaves even the sum of all below p
    return logits.masked_fill(~largest(logits, ranked.gather(-1, n_kept - 1), n_kept), -torch.inf)


def keep_min_p(logits: Tensor, min_p: float) -> Tensor:
    """Tokens at least min_p times as likely as the likeliest of their row."""
    return logits.masked_fill(logits < logits.amax(-1, keepdim=True) + math.log(min_p), -torch.inf)


def keep_typical(logits: Tensor, p: float) -> Tensor:
    """The fewest tokens whose sum reaches p, those first whose information -log p is nearest to the entropy."""
    log_probs = logits.log_softmax(-1)
    probs = log_probs.exp()
    entropy = -(probs * log_probs).nansum(-1, keepdim=True)  # what is impossible adds nothing to it
    order = (log_probs + entropy).abs().sort(stable=True).indices  # the lower id first among equals
    n_short = (probs.gather(-1, order).cumsum(-1) < p).sum(-1, keepdim=True)
    rank = torch.empty_like(order).scatter_(
        -1, order, torch.arange(order.size(-1), device=order.device).expand_as(order)
    )
    return logits.masked_fill(rank > n_short, -torch.inf)


def cut_eta(logits: Tensor, epsilon: float) -> Tensor:
    """Without tokens less likely than min(epsilon, sqrt(epsilon) exp(-entropy)); the likeliest stays in any case."""
    log_probs = logits.log_softmax(-1)
    entropy = -(log_probs.exp() * log_probs).nansum(-1, keepdim=True)
    least = (0.5 * math.log(epsilon) - entropy).clamp(max=math.log(epsilon))
    return logits.masked_fill((log_probs < least) & (log_probs < log_probs.amax(-1, keepdim=True)), -torch.inf)


def largest(logits: Tensor, last: Tensor, n: Tensor) -> Tensor:
    """Whether each logit is one of its row's n largest, `last` (B, 1) being the nth; among equals the lower ids are."""
    above, equal = logits > last, logits == last
    room = n - above.sum(-1, keepdim=True)
    return above | (equal & (equal.cumsum(-1) <= room))
