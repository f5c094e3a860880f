"""What the experts of a mixture work on: how evenly, and whether each has a kind of token of its own."""

import math
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from legollm.components.routing import Routing

N_SHUFFLES = 200


def kind_of(token: bytes) -> str:
    """Digit, capital, letter, punctuation, space or other, by the first character that is no space."""
    text = token.decode("utf-8", errors="replace")
    first = text.strip()[:1]
    if not first:
        return "space" if text else "other"
    if first.isnumeric():
        return "digit"
    if first.isalpha():
        return "capital" if first.isupper() else "letter"
    is_mark = unicodedata.category(first)[0] in "PS" and first != "\N{REPLACEMENT CHARACTER}"
    return "punctuation" if is_mark else "other"


@dataclass(frozen=True)
class Expert:
    """One expert of one block on one text."""

    block: int
    expert: int
    n_tokens: int
    """Tokens that were sent to it."""
    load: float
    """Its share of all that was sent, 1 / E if all are equally busy."""
    kind: str
    """The kind of token of which it has most, against what the text has."""
    share: float
    """How much of its work that kind is, by the routers' weights."""
    share_in_text: float
    specialisation: float
    """Bits that a token sent here tells about its kind, times the expert's share of the work; over a block they sum to
    the mutual information of expert and kind."""
    by_chance: float
    """What 95 of 100 experts without a kind of their own would stay below, on a text of this length."""
    favourites: tuple[tuple[int, int], ...]
    """The tokens it got most often, and how often."""


@dataclass(frozen=True)
class Mixture:
    """The experts of one block on one text."""

    block: int
    balance: float
    """Entropy of the load in bits: log2(E) if all experts are equally busy, 0 if one does all."""
    effective: float
    """2^balance: how many experts are at work, as it were."""
    experts: tuple[Expert, ...]


def mixtures_of(routing: Mapping[int, Routing], ids: Sequence[int], kinds: Sequence[str]) -> Iterator[Mixture]:
    """The experts of all blocks that have some. ids, kinds: of the T tokens, what they are and of which kind."""
    names = sorted(set(kinds))
    is_kind = torch.tensor([[kind == name for name in names] for kind in kinds], dtype=torch.float64)  # (T, C)
    in_text = is_kind.mean(0)
    for block, decided in routing.items():
        n_experts = decided.shares.size(-1)
        chosen, weights = decided.experts.cpu(), decided.weights.detach().double().cpu()  # (T, k)
        work = weights.new_zeros(len(ids), n_experts).scatter_add(1, chosen, weights)
        work = work / work.sum()
        bits = information(work, is_kind)
        chance = by_chance(work, is_kind)
        n_tokens = torch.bincount(chosen.flatten(), minlength=n_experts)
        load = n_tokens.double() / n_tokens.sum()
        balance = float(-torch.xlogy(load, load).sum()) / math.log(2)
        experts = []
        for expert in range(n_experts):
            mine = work[:, expert] @ is_kind / work[:, expert].sum().clamp(min=1e-300)  # (C,), sums to one
            most = int((mine * (mine / in_text).clamp(min=1e-300).log()).argmax())
            got = Counter(ids[t] for t in (chosen == expert).any(1).nonzero()[:, 0].tolist())
            experts.append(
                Expert(
                    block,
                    expert,
                    n_tokens=int(n_tokens[expert]),
                    load=float(load[expert]),
                    kind=names[most] if n_tokens[expert] else "-",
                    share=float(mine[most]),
                    share_in_text=float(in_text[most]),
                    specialisation=float(bits[expert]),
                    by_chance=float(chance[expert]),
                    favourites=tuple(got.most_common(5)),
                )
            )
        yield Mixture(block, balance, 2**balance, tuple(experts))


def information(work: Tensor, is_kind: Tensor) -> Tensor:
    """Each expert's part of the mutual information of expert and kind, in bits: (..., E), none below zero.

    work: (T, E), the share of all work that each token gives each expert; is_kind: (..., T, C) of zeros and ones.
    """
    joint = work.mT @ is_kind  # (..., E, C)
    alone = joint.sum(-1, keepdim=True) * joint.sum(-2, keepdim=True)
    return (joint * torch.where(joint > 0, joint / alone, 1.0).log2()).sum(-1)


def by_chance(work: Tensor, is_kind: Tensor) -> Tensor:
    """The same, (E,), of which 95 of 100 experts stay below when kinds are dealt out to the tokens at random."""
    generator = torch.Generator().manual_seed(0)
    dealt = torch.rand(N_SHUFFLES, len(work), generator=generator).argsort(1)
    return information(work, is_kind[dealt]).quantile(0.95, dim=0)


def ranked(mixtures: Sequence[Mixture]) -> list[Expert]:
    """The experts of all blocks, those that tell most about a token's kind first."""
    return sorted((e for mixture in mixtures for e in mixture.experts), key=lambda e: e.specialisation, reverse=True)
