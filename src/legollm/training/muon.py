"""Muon: momentum whose every matrix is turned into the nearest orthogonal one before it is applied.

A gradient's matrix is dominated by few directions; orthogonalising it lets all directions learn at one rate.
Embeddings, heads and vectors stay with AdamW; tables of n-grams, of which a step touches few rows, go to Adagrad.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from legollm.components.ngram_embedding import NgramEmbedding
from legollm.parts import as_part_of, own_part, rows_of, whole
from legollm.training.adamw import AdamW
from legollm.training.optimizer import own_grad

QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients of x -> a x + b x^3 + c x^5, chosen to blow small singular values up fast (Jordan et al. 2024)."""
NEAR_ZERO = 1e-12
"""Added to roots, so that a gradient whose square is too small for a number does not move a table by a mile."""
TABLE_RATE = 20
"""How much faster tables learn than all else; from 10 to 40 makes no difference (docs/log.md)."""


class Muon(AdamW):
    """Muon for the groups marked `is_matrix`, Adagrad for those marked `is_table`, AdamW for others.

    Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks".

    Updates are scaled to the size that AdamW's have (Liu et al. 2025, arXiv:2502.16982), so that both share one
    learning rate and one weight decay.
    """

    def __init__(self, params: Iterable[Any], *, momentum: float = 0.95, n_iterations: int = 5, **adamw: Any) -> None:
        super().__init__(params, **adamw)
        self.momentum, self.n_iterations = momentum, n_iterations

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter that has a gradient."""
        for group in self.param_groups:
            moving = [parameter for parameter in group["params"] if parameter.grad is not None]
            if group.get("is_matrix"):
                self.move_matrices(moving, group)
            elif group.get("is_table"):
                for parameter in moving:
                    move_table(parameter, self.state[parameter], TABLE_RATE * group["lr"])
            else:
                for parameter in moving:
                    self.move(own_part(parameter), own_grad(parameter), self.state[parameter], group)

    def move_matrices(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """Matrices of one shape are orthogonalised together: a few large products instead of many small ones.

        Of a divided matrix each process remembers its rows; to orthogonalise it, each has to see all of them.
        """
        by_shape: dict[tuple[int, ...], list[tuple[Tensor, Tensor]]] = {}
        for parameter in parameters:
            assert parameter.grad is not None
            state, grad = self.state[parameter], own_part(parameter.grad)
            if not state:
                state["mean"] = torch.zeros_like(grad)
            state["mean"].lerp_(grad, 1 - self.momentum)
            ahead = grad.lerp(state["mean"], self.momentum)  # Nesterov: where the mean is going
            ahead = whole(as_part_of(ahead, parameter))
            wide = ahead if ahead.size(0) <= ahead.size(1) else ahead.mT
            by_shape.setdefault(tuple(wide.shape), []).append((parameter, wide))
        for shape, members in by_shape.items():
            updates = orthogonalised(torch.stack([wide for _, wide in members]), self.n_iterations)
            scale = 0.2 * max(shape) ** 0.5  # the root mean square of an AdamW update is about 0.2
            for (parameter, _), update in zip(members, updates, strict=True):
                update = rows_of(update if parameter.shape == update.shape else update.mT, parameter)
                part = own_part(parameter)
                part.mul_(1 - group["lr"] * group["weight_decay"])
                part.add_(update.to(part.dtype), alpha=-group["lr"] * scale)


def move_table(parameter: Tensor, state: dict[str, Any], lr: float) -> None:
    """Adagrad (Duchi et al. 2011): what was seldom moved is moved far, and what has no gradient stays.

    A step is as long as the number of rows that were looked up, however many the table has.
    """
    part, grad = own_part(parameter), parameter.grad
    assert grad is not None
    if not state:
        state["square"] = torch.zeros_like(part)
    if grad.is_sparse:
        grad = grad.coalesce()
        rows, grad = grad.indices()[0], grad.values()
        square = state["square"].index_add_(0, rows, grad.square()).index_select(0, rows)
        part.index_add_(0, rows, grad / square.sqrt_().add_(NEAR_ZERO), alpha=-lr)
        return
    grad = own_part(grad)
    square = state["square"].addcmul_(grad, grad)
    part.addcdiv_(grad, square.sqrt().add_(NEAR_ZERO), value=-lr)


def orthogonalised(x: Tensor, n_iterations: int = 5) -> Tensor:
    """U V^T of each matrix U S V^T, approximately: singular values end between about 0.7 and 1.2.

    x: (N, m, n) with m <= n -> the same, in bfloat16, which is exact enough for a direction and twice as fast.
    """
    x = x.bfloat16()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)  # singular values are at most 1 now
    a, b, c = QUINTIC
    for _ in range(n_iterations):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x


def matrix_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Groups that hold every trainable parameter once: matrices inside blocks, other matrices, tables, vectors.

    A head or an embedding is a matrix of one row per token, of which a batch touches few: those rows are vectors.
    """
    heads = [one for name, one in model.named_children() if name in ("lm_head", "head")]
    head = {id(p) for one in heads for p in one.parameters()}
    linear = {id(m.weight) for m in model.modules() if isinstance(m, nn.Linear) and id(m.weight) not in head}
    tables = {id(p) for m in model.modules() if isinstance(m, NgramEmbedding) for p in m.ngrams.parameters()}
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    parts = [
        (weight_decay, "matrix", [n for n in named if id(n[1]) in linear]),
        (weight_decay, "", [n for n in named if id(n[1]) not in linear | tables and n[1].ndim >= 2]),
        (0.0, "table", [n for n in named if id(n[1]) in tables]),
        (0.0, "", [n for n in named if n[1].ndim < 2]),
    ]
    return [
        {
            "params": [p for _, p in chosen],
            "names": [name for name, _ in chosen],
            "weight_decay": decay,
            "is_matrix": kind == "matrix",
            "is_table": kind == "table",
        }
        for decay, kind, chosen in parts
        if chosen
    ]
