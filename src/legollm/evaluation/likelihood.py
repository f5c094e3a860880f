"""How likely a model finds a continuation: log p(continuation | context), the same whatever it is batched with.

Loss, perplexity and multiple choice all come down to this one question, asked about parts of a text or about answers.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from legollm.errors import ContextError
from legollm.generation.cache import FullCache, GenerativeModel
from legollm.generation.generate import left_padded

MAX_LOGITS = 1 << 25
"""So many logits are held at once, 128 MB."""


class Continuation(NamedTuple):
    """What is asked about: ids, and the ids before them, at least one of each."""

    context: Sequence[int]
    ids: Sequence[int]


class Likelihood(NamedTuple):
    """What the model says of a continuation."""

    log_prob: float
    """In nats, over all of its ids."""
    is_greedy: bool
    """Whether each of its ids is the likeliest one, or one of several that are: what greedy decoding would write."""


class Row(NamedTuple):
    """What is read once, for all continuations that differ in their last id only."""

    context: tuple[int, ...]
    read: tuple[int, ...]
    """The ids of the continuation that others follow."""


def fitted(asked: Continuation, window: int | None) -> tuple[Continuation, int]:
    """A continuation as a model of so many positions can read it, its context cut from the left; and by how much.

    Raises:
        ContextError: the continuation alone is too long.
    """
    n_room = len(asked.context) if window is None else window + 1 - len(asked.ids)
    if n_room < 1:
        raise ContextError(
            f"a continuation has {len(asked.ids)} tokens, and the model reads at most {window}; shorten it"
        )
    n_cut = max(0, len(asked.context) - n_room)
    return Continuation(asked.context[n_cut:], asked.ids), n_cut


@torch.inference_mode()
def log_likelihoods(model: GenerativeModel, asked: Sequence[Continuation], *, batch_size: int = 16) -> list[Likelihood]:
    """The likelihood of each continuation, in order. A context that several have in common is read once a batch.

    batch_size: rows at once; does not change the result.
    """
    rows: dict[Row, list[int]] = {}
    for i, one in enumerate(asked):
        rows.setdefault(Row(tuple(one.context), tuple(one.ids[:-1])), []).append(i)
    order = sorted(rows, key=lambda row: (-len(row.context), row.context, -len(row.read)))  # little padding
    found: dict[int, Likelihood] = {}
    for first in range(0, len(order), batch_size):
        batch = order[first : first + batch_size]
        states, begin = states_of(model, batch), 0
        ends: list[tuple[int, int]] = []  # of each continuation its number, and where its states begin
        for row in batch:
            ends += [(i, begin) for i in rows[row]]
            begin += len(row.read) + 1
        judgements = judged(model, states, [(begin, asked[i].ids) for i, begin in ends])
        found |= dict(zip([i for i, _ in ends], judgements, strict=True))
    return [found[i] for i in range(len(asked))]


def in_turn(
    model: GenerativeModel, asked: Iterable[Continuation], *, batch_size: int = 16, n_ahead: int = 32
) -> Iterator[Likelihood]:
    """The same for any number of them, so many batches in memory."""
    waiting: list[Continuation] = []
    for one in asked:
        waiting.append(one)
        if len(waiting) == n_ahead * batch_size:
            yield from log_likelihoods(model, waiting, batch_size=batch_size)
            waiting = []
    yield from log_likelihoods(model, waiting, batch_size=batch_size)


def states_of(model: GenerativeModel, rows: Sequence[Row]) -> Tensor:
    """The states that the ids of the continuations are predicted from: (N, D), row after row."""
    device = next(model.parameters()).device
    contexts = {context: place for place, context in enumerate(dict.fromkeys(row.context for row in rows))}
    if 2 * len(contexts) > len(rows) or min(map(len, contexts)) == 1:
        tokens, positions = left_padded([[*row.context, *row.read] for row in rows], device)
        hidden = model.hidden(tokens, positions)
    else:
        before, positions = left_padded([context[:-1] for context in contexts], device)
        n_read = 1 + max(len(row.read) for row in rows)
        cache = FullCache.for_model(model, len(rows), before.size(1) + n_read)
        cache.select(range(len(contexts)))
        model.hidden(before, positions, cache)
        cache.select([contexts[row.context] for row in rows])
        tokens, positions = left_padded([[row.context[-1], *row.read] for row in rows], device)
        starts = torch.tensor([[len(row.context) - 1] for row in rows], device=device)
        if positions is None:
            positions = torch.arange(tokens.size(1), device=device).expand_as(tokens)
        hidden = model.hidden(tokens, torch.where(positions < 0, -1, positions + starts), cache)
    wanted = torch.tensor([len(row.read) + 1 for row in rows], device=device)[:, None]
    columns = torch.arange(hidden.size(1), device=device)
    return hidden[columns >= hidden.size(1) - wanted]


def judged(model: GenerativeModel, states: Tensor, ends: Sequence[tuple[int, Sequence[int]]]) -> list[Likelihood]:
    """states: (N, D); ends: of each continuation its ids and the first of the states that predict them."""
    sizes = [len(ids) for _, ids in ends]
    at = torch.tensor([begin + i for begin, ids in ends for i in range(len(ids))], device=states.device)  # (M,)
    wanted = torch.tensor([token for _, ids in ends for token in ids], device=states.device)  # (M,)
    log_probs = torch.zeros(len(wanted), dtype=torch.float64, device=states.device)
    likeliest = torch.zeros(len(wanted), dtype=torch.bool, device=states.device)
    n_rows = max(1, MAX_LOGITS // model.lm_head(states[:1]).size(-1))
    for first in range(0, len(states), n_rows):
        logits = model.lm_head(states[first : first + n_rows])  # (P, V)
        here = (at >= first) & (at < first + n_rows)
        said = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
        rows, ids = at[here] - first, wanted[here]
        log_probs[here] = said[rows, ids].double()
        likeliest[here] = said[rows, ids] == said.amax(-1)[rows]  # argmax takes five times as long
    parts = zip(torch.split(log_probs, sizes), torch.split(likeliest, sizes), strict=True)
    return [Likelihood(float(some.sum()), bool(best.all())) for some, best in parts]
