# mypy: disable-error-code="no-any-return, no-untyped-call"
"""What a model promises to those who train it. Each check takes the model as it was built and works on a copy of it."""

import copy
import math
from collections.abc import Callable, Iterable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from legollm.contract.samples import loud, some_tokens, vocab_size_of
from legollm.contract.verdict import Outcome, difference, within

RATES = (1e-2, 0.1, 0.3)
"""Learning rates at which one batch may be learned by heart; a table of counts wants the largest."""


LEARNED = 0.1
"""The loss, in nats per token, at which a batch is known by heart."""
MAX_STEPS = 200
STEP = 1e-6
"""How far weights are moved to see by how much the logits move."""


def loss_of(model: nn.Module, tokens: Tensor) -> Tensor:
    """Mean cross entropy of every next token, in nats."""
    return F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())


def gradients_reach_every_weight(model: nn.Module) -> Outcome:
    """All but the biases of keys, which shift all scores of a query alike and so change nothing."""
    model = loud(model, torch.float32).train()
    loss_of(model, torch.cat([some_tokens(model, 4, seed) for seed in range(4)])).backward()
    unmoved = [
        name
        for name, p in model.named_parameters()
        if (p.grad is None or not p.grad.any()) and not name.endswith("k_proj.bias")
    ]
    if unmoved:
        return Outcome(
            False, f"none reaches {', '.join(unmoved[:3])}" + f" and {len(unmoved) - 3} more" * (len(unmoved) > 3)
        )
    return Outcome(True, f"{sum(1 for _ in model.parameters())} tensors")


def gradients_are_derivatives(model: nn.Module) -> Outcome:
    """Autograd agrees with differences of the logits in float64, along a random direction of every tensor."""
    model = loud(model)
    tokens = some_tokens(model, 2)[:, :5]
    generator = torch.Generator().manual_seed(0)
    onto = torch.randn(model(tokens).shape, generator=generator, dtype=torch.float64)

    def value() -> Tensor:
        return (model(tokens) * onto).sum()

    value().backward()
    errors = {}
    for name, weight in model.named_parameters():
        way = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
        promised = (weight.grad * way).sum().item() if weight.grad is not None else 0.0
        with torch.no_grad():
            start = weight.clone()
            ahead, behind = (value_at(weight, start + sign * STEP * way, value) for sign in (1, -1))
            weight.copy_(start)
        found = (ahead - behind) / (2 * STEP)
        errors[name] = abs(found - promised) / max(abs(found), abs(promised), 1.0)
    worst = max(errors, key=errors.__getitem__)
    return within(errors[worst], 1e-5, f"{len(errors)} tensors, {worst} off by")


def value_at(weight: Tensor, there: Tensor, value: Callable[[], Tensor]) -> float:
    """`value` with the weight moved."""
    weight.copy_(there)
    return value().item()


def recomputing_changes_no_gradient(model: nn.Module) -> Outcome:
    """Activation checkpointing of each block (Chen et al. 2016, arXiv:1604.06174), dropout included."""
    plain, frugal = loud(model).train(), loud(model).train()
    blocks: Iterable[nn.Module] = getattr(frugal, "blocks", [])  # a foreign model may be one piece
    for block in [*blocks] or [frugal]:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    tokens = some_tokens(model, 2)
    worst = 0.0
    for one in (plain, frugal):
        torch.manual_seed(0)
        loss_of(one, tokens).backward()
    for a, b in zip(plain.parameters(), frugal.parameters(), strict=True):
        if a.grad is not None and b.grad is not None:
            worst = max(worst, difference(a.grad, b.grad))
    return within(worst, 1e-12)


def padding_gives_finite_gradients(model: nn.Module) -> Outcome:
    """A row that is mostly padding: no gradient is NaN."""
    model = loud(model, torch.float32).train()
    tokens = some_tokens(model, 1)
    positions = torch.arange(tokens.size(1))[None] - tokens.size(1) + 2
    model(tokens, positions.clamp(min=-1))[:, -2:].sum().backward()
    bad = [name for name, p in model.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
    return Outcome(not bad, f"not finite in {bad[0]}" if bad else "finite")


def nothing_is_known_at_first(model: nn.Module) -> Outcome:
    """The loss before the first step is that of guessing, ln V; 0.3 nats more or less are allowed."""
    model = copy.deepcopy(model).eval()
    V = vocab_size_of(model)
    with torch.no_grad():
        loss = loss_of(model, torch.cat([some_tokens(model, 16, seed) for seed in range(4)])).item()
    return Outcome(abs(loss - math.log(V)) <= 0.3, f"loss {loss:.3f}, ln {V} = {math.log(V):.3f}, allowed 0.3 apart")


def one_batch_is_learned_by_heart(model: nn.Module) -> Outcome:
    """Below 0.1 nats within 200 steps, at one of RATES. Dropout is off: what is asked is whether it can."""
    V, T = vocab_size_of(model), some_tokens(model, 1).size(1)
    order = torch.randperm(V, generator=torch.Generator().manual_seed(0))
    n_rows = max(1, min(2, V // T))
    tokens = order[: n_rows * T].view(n_rows, -1)  # no token twice, so that a table of pairs can do it, too
    best = math.inf
    for rate in RATES:
        n_steps, loss = steps_to_learn(copy.deepcopy(model).eval(), tokens, rate)
        if loss < LEARNED:
            return Outcome(True, f"loss {loss:.3f} after {n_steps} steps at a learning rate of {rate}")
        best = min(best, loss)
    return Outcome(False, f"loss {best:.3f} after {MAX_STEPS} steps at the best learning rate, allowed {LEARNED}")


def steps_to_learn(model: nn.Module, tokens: Tensor, rate: float) -> tuple[int, float]:
    """Steps of AdamW on nothing but `tokens` until it knows them, and the loss then."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    n_steps = 0
    while (loss := loss_of(model, tokens)).item() >= LEARNED and n_steps < MAX_STEPS:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        n_steps += 1
    return n_steps, loss.item()


LEARNING_CHECKS = (
    gradients_reach_every_weight,
    gradients_are_derivatives,
    recomputing_changes_no_gradient,
    padding_gives_finite_gradients,
    nothing_is_known_at_first,
    one_batch_is_learned_by_heart,
)
