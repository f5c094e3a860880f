"""The cross entropy of a large vocabulary without all of its logits: some rows at a time, loss and gradients at once.

Logits are the largest tensor of a small model: 2,048 tokens times 50,257 ids are 412 MB in float32, needed three times:
as they are, as log-probabilities, as gradients. The gradient of a sum of cross entropies is known as soon as its logits
are, so a part of the rows can be done with before the next one begins (Hsu et al. 2024, arXiv:2410.10989).
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

LOGITS_AT_ONCE = 1 << 25
"""Numbers of one part: 134 MB in float32. Fewer cost time, because the weights and their gradient are read once per
part."""
EXACT_AT_ONCE = 1 << 20
"""Of these, so many are in float32 at a time, whatever precision the products have: 4 MB."""


def linear_cross_entropy(hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
    """F.cross_entropy(F.linear(hidden, weight, bias), targets, reduction="sum"), also as autocast would compute it.

    hidden: (N, D), weight: (V, D), bias: (V,) or None, targets: (N,) int64 -> (), in float32 at least.
    """
    low = torch.is_autocast_enabled(hidden.device.type)
    dtype = torch.get_autocast_dtype(hidden.device.type) if low else hidden.dtype
    wanted = [torch.is_grad_enabled() and x is not None and x.requires_grad for x in (hidden, weight, bias)]
    loss: Tensor = LinearCrossEntropy.apply(hidden, weight, bias, targets, dtype, wanted)  # type: ignore[no-untyped-call]
    return loss


class LinearCrossEntropy(torch.autograd.Function):
    """Its gradients are computed with the loss and wait, no larger than weights and states, for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        dtype: torch.dtype,
        wanted: list[bool],
    ) -> Tensor:
        exact = torch.promote_types(hidden.dtype, torch.float32)  # sums of bfloat16 would round
        total = torch.zeros((), dtype=exact, device=hidden.device)
        of_hidden = torch.empty_like(hidden) if wanted[0] else None
        of_weight = torch.zeros_like(weight, dtype=exact) if wanted[1] else None
        of_bias = torch.zeros_like(weight[:, 0], dtype=exact) if wanted[2] else None
        with torch.autocast(hidden.device.type, enabled=False):
            states, matrix = hidden.to(dtype), weight.to(dtype)  # once, not once per part
            n_rows, n_few = rows_at_once(weight.size(0)), max(1, EXACT_AT_ONCE // weight.size(0))
            room = states.new_empty(min(n_rows, hidden.size(0)), weight.size(0))  # one, so that its place stays free
            for start in range(0, hidden.size(0), n_rows):
                rows = slice(start, start + n_rows)
                x, y = states[rows], targets[rows, None]  # (n, D), (n, 1)
                logits = torch.mm(x, matrix.t(), out=room[: x.size(0)])  # (n, V)
                if bias is not None:
                    logits += bias
                for few in range(0, logits.size(0), n_few):
                    part, goal = logits[few : few + n_few], y[few : few + n_few]
                    log_p = torch.log_softmax(part, -1, dtype=exact)
                    total -= log_p.gather(-1, goal).sum()
                    if any(wanted):  # probabilities, less one where the target is: the gradient takes the logits' place
                        grad = log_p.exp_()
                        grad.scatter_add_(-1, goal, grad.new_full((), -1.0).expand_as(goal))
                        if of_bias is not None:
                            of_bias += grad.sum(0)
                        part.copy_(grad)
                if of_hidden is not None:
                    of_hidden[rows] = torch.mm(logits, matrix)
                if of_weight is not None:
                    add_product(of_weight, logits.t(), x)
        gradients = [None if x is None else x.to(like.dtype) for x, like in [(of_hidden, hidden), (of_weight, weight)]]
        gradients.append(None if of_bias is None or bias is None else of_bias.to(bias.dtype))
        ctx.save_for_backward(*gradients)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor | None, ...]:
        gradients = [None if grad is None else grad * factor.to(grad.dtype) for grad in ctx.saved_tensors]
        return (*gradients, None, None, None)


def rows_at_once(vocab_size: int) -> int:
    """Rows of one part; whole multiples of 64 where there are as many, which suits matrix products."""
    n_rows = max(1, LOGITS_AT_ONCE // vocab_size)
    return n_rows - n_rows % 64 if n_rows >= 64 else n_rows


def add_product(total: Tensor, a: Tensor, b: Tensor, n_rows: int = 4096) -> None:
    """total += a @ b; of products in less precision than `total`, the sum over parts is in that of `total`."""
    if a.dtype == total.dtype:
        total.addmm_(a, b)
        return
    for some in range(0, total.size(0), n_rows):
        rows = slice(some, some + n_rows)
        total[rows] += torch.mm(a[rows], b)
