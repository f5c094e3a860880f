"""What attention heads do, in a few figures each: how widely they look, and whether they look where others do."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Head:
    """One head of one block on one text; means over the tokens that could have done it."""

    block: int
    head: int
    entropy: float
    """Of where a token looks, in bits: 0 for a single place, log2(n) for n places alike."""
    effective: float
    """2^entropy of each token: at how many tokens it looks, as it were."""
    sink: float
    """Weight on the first tokens, whatever they say (Xiao et al. 2023, arXiv:2309.17453)."""
    previous: float
    """Weight on the token before."""
    copy: float | None
    """Weight on what came after earlier occurrences of the token, which an induction head copies (Olsson et al. 2022,
    arXiv:2209.11895); None where no token comes back."""
    nothing: float
    """Weight on no token at all: of a head with a learned sink."""


def heads_of(attention: Mapping[int, Tensor], ids: Tensor, n_sinks: int = 1) -> Iterator[Head]:
    """The figures of all heads. attention: block -> (H, T, T) weights, ids: (T,) with T > n_sinks."""
    T = len(ids)
    after_same = follows_the_same(ids)
    has_same = after_same.any(1)
    for block, weights in attention.items():
        w = weights.double().cpu()
        rest = (1 - w.sum(-1)).clamp(min=0)  # (H, T)
        rest = torch.where(rest < 1e-5, 0.0, rest)  # rounding, not a learned sink
        bits = -(torch.xlogy(w, w).sum(-1) + torch.xlogy(rest, rest)) / torch.log(torch.tensor(2.0, dtype=w.dtype))
        copy = (w * after_same).sum(-1)[:, has_same].mean(1) if has_same.any() else None
        previous = w.diagonal(-1, dim1=1, dim2=2).sum(1) / (T - 1)
        sink = w[:, n_sinks:, :n_sinks].sum(-1).mean(1)
        for head in range(len(w)):
            yield Head(
                block,
                head,
                entropy=float(bits[head].mean()),
                effective=float(bits[head].exp2().mean()),
                sink=float(sink[head]),
                previous=float(previous[head]),
                copy=None if copy is None else float(copy[head]),
                nothing=float(rest[head].mean()),
            )


def follows_the_same(ids: Tensor) -> Tensor:
    """(T,) -> (T, T) bool: whether the key stands right after an earlier occurrence of the query's token."""
    same = (ids[:, None] == ids[None, :]).tril(-1).cpu()
    return torch.nn.functional.pad(same, (1, 0))[:, :-1].tril(-1)  # a token that stands twice in a row shows nothing


def indifferent(ids: Tensor, n_sinks: int = 1, seen: Tensor | None = None, block: int = -1) -> Head:
    """A head that looks alike at all tokens that it can see: what each figure is by chance.

    seen: (T, T) bool, which keys a query can see; None is all up to itself.
    """
    T = len(ids)
    evenly = (torch.ones(T, T).tril() if seen is None else seen.cpu()).double()
    evenly = evenly / evenly.sum(-1, keepdim=True).clamp(min=1)
    return next(heads_of({block: evenly[None]}, ids, n_sinks))


def by_chance(attention: Mapping[int, Tensor], ids: Tensor, n_sinks: int = 1) -> dict[int, Head]:
    """Block -> an indifferent head that sees what the heads of this block see: those of a window less than others.

    attention: block -> (H, T, T) weights; 0 in all heads is out of sight.
    """
    return {block: indifferent(ids, n_sinks, (weights > 0).any(0), block) for block, weights in attention.items()}


RANKED_BY = {"copy": "copying", "previous": "looking one token back", "sink": "resting on the first token"}
"""The figures by which heads are ranked, in words."""


def ranked(heads: Sequence[Head], figure: str) -> list[Head]:
    """The heads with the highest figure first; none if it could not be measured."""
    with_figure = [head for head in heads if getattr(head, figure) is not None]
    return sorted(with_figure, key=lambda head: getattr(head, figure), reverse=True)


def told(heads: Sequence[Head], figure: str, chance: Mapping[int, Head]) -> str:
    """Heads by name with a figure, and what it would be by chance: once where that is the same for all of them."""
    expected = [f"{getattr(chance[head.block], figure):.2f}" for head in heads]
    is_same = len(set(expected)) == 1
    named = [
        f"block {head.block} head {head.head} ({getattr(head, figure):.2f}{'' if is_same else f', by chance {value}'})"
        for head, value in zip(heads, expected, strict=True)
    ]
    return ", ".join(named) + (f"; by chance {expected[0]}" if is_same else "")
