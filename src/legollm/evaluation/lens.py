"""What a model expects next, at its end and on the way there."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from legollm.components.decoder import Decoder


@dataclass(frozen=True)
class Guess:
    """A token that may come next."""

    id: int
    probability: float


@dataclass(frozen=True)
class Expectation:
    """What is expected after one token, and what came."""

    guesses: tuple[Guess, ...]
    """The likeliest tokens, the first choice first."""
    loss: float | None
    """-ln of the probability of what came, in nats; None after the last token, as all that is about what came."""
    rank: int | None
    """Tokens that were held at least as likely as what came, itself included: 1 if it was the first choice."""

    @property
    def is_right(self) -> bool:
        return self.rank == 1


def expectations(logits: Tensor, ids: Tensor, n_guesses: int = 1) -> list[Expectation]:
    """What logits (T, V) say about the token after each of ids (T,)."""
    log_probs = logits.double().log_softmax(-1)
    best, places = log_probs.exp().topk(min(n_guesses, logits.size(-1)), dim=-1)
    came = log_probs[:-1].gather(1, ids[1:, None])  # (T - 1, 1)
    losses: list[float | None] = [*(-came[:, 0]).tolist(), None]
    ranks: list[int | None] = [*(log_probs[:-1] > came).sum(1).add(1).tolist(), None]
    guesses = [
        tuple(Guess(*pair) for pair in zip(ids_of_one, probabilities, strict=True))
        for ids_of_one, probabilities in zip(places.tolist(), best.tolist(), strict=True)
    ]
    return [Expectation(*row) for row in zip(guesses, losses, ranks, strict=True)]


@dataclass(frozen=True)
class Depth:
    """What the model would say if it ended here."""

    name: str
    """embedding, or block 0, block 1, ..."""
    loss: float
    """Mean over the text, in nats per token."""
    after: list[Expectation]


@torch.inference_mode()
def logit_lens(model: Decoder, states: Sequence[Tensor], ids: Tensor) -> list[Depth]:
    """The final norm and head on what every block made (the logit lens; nostalgebraist 2020).

    The last row is what the model says. States that are not as wide as the last have no row: the head cannot read them.
    """
    rows = []
    for i, state in enumerate(states):
        if state.size(-1) == states[-1].size(-1):
            after = expectations(model.lm_head(model.norm(state[None]))[0], ids)
            name = f"block {i - 1}" if i else "embedding"
            rows.append(Depth(name, mean_loss_of(after), after))
    return rows


def mean_loss_of(after: Sequence[Expectation]) -> float:
    """In nats per token that was foretold."""
    losses = [one.loss for one in after if one.loss is not None]
    return sum(losses) / len(losses)
