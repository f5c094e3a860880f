"""All that is to be seen of one model on one text, as figures."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from legollm.components.decoder import Decoder
from legollm.evaluation.experts import Mixture, kind_of, mixtures_of
from legollm.evaluation.heads import Head, by_chance, heads_of
from legollm.evaluation.lens import Depth, Expectation, expectations, logit_lens, mean_loss_of
from legollm.evaluation.looking import look

N_GUESSES = 5


@dataclass(frozen=True)
class XRay:
    """A text of T tokens, and what a model made of it."""

    ids: tuple[int, ...]
    kinds: tuple[str, ...]
    """Of each token: digit, capital, letter, punctuation, space, other."""
    after: list[Expectation]
    """What is expected after each token."""
    depths: list[Depth]
    """The same, if the model ended sooner; the last is the model. Empty for one without blocks of ours."""
    heads: list[Head]
    by_chance: dict[int, Head]
    """By block, what a head that looks alike at everything it can see would have for figures."""
    mixtures: list[Mixture]
    attention: dict[int, Tensor]
    """By block, (H, T, T): the weights behind the heads' figures."""
    chosen: dict[int, tuple[Tensor, Tensor]]
    """By block, the experts (T, k) of each token and their weights (T, k)."""

    @property
    def loss(self) -> float:
        """Nats per token, the first one not counted."""
        return mean_loss_of(self.after)

    def figures(self) -> dict[str, Any]:
        """All but the maps, JSON-ready."""
        rows = {name: [asdict(one) for one in getattr(self, name)] for name in ("after", "depths", "heads", "mixtures")}
        chance = [asdict(head) | {"head": None} for head in self.by_chance.values()]
        return {"ids": self.ids, "kinds": self.kinds, "loss": self.loss, "by_chance": chance} | rows


def xray(model: nn.Module, ids: Sequence[int], token_bytes: Callable[[int], bytes], n_sinks: int = 1) -> XRay:
    """Let a model read a text of more than n_sinks tokens, at least two, and look into it."""
    row = torch.tensor(ids, device=next(model.parameters()).device)
    seen = look(model, row)
    kinds = tuple(kind_of(token_bytes(token)) for token in ids)
    return XRay(
        ids=tuple(ids),
        kinds=kinds,
        after=expectations(seen.logits, row, N_GUESSES),
        depths=logit_lens(model, seen.states, row) if isinstance(model, Decoder) else [],
        heads=list(heads_of(seen.attention, row, n_sinks)),
        by_chance=by_chance(seen.attention, row, n_sinks),
        mixtures=list(mixtures_of(seen.routing, ids, kinds)),
        attention=seen.attention,
        chosen={block: (decided.experts, decided.weights) for block, decided in seen.routing.items()},
    )
