"""The decode loop: read what is new, choose the next token of every row, repeat."""

from collections.abc import Collection, Iterator, Sequence

import torch
from torch import Tensor

from legollm.generation.cache import GenerativeModel
from legollm.generation.sampling import Sampling, next_tokens, row_generators
from legollm.interfaces import Cache


@torch.inference_mode()
def generate(
    model: GenerativeModel,
    prompt: Tensor,
    sampling: Sampling,
    *,
    cache: Cache | None,
    stop_ids: Collection[int] = (),
    positions: Tensor | None = None,
    prefill_chunk: int | None = None,
    rngs: Sequence[torch.Generator] | None = None,
    history: Tensor | None = None,
    n_ids: int | None = None,
) -> Iterator[Tensor]:
    """Yield the next token of every row, (B,), until each row has met a stop id or max_new_tokens are out.

    A row that has met a stop id repeats it while others go on. The tokens yielded last are not in the cache yet: they
    are the prompt of the call that goes on from here. Stop texts are not seen here but in text.py.

    prompt: (B, T) token ids, continuing what `cache` already holds.
    cache: None reads everything again for each token: slow, and the same tokens.
    stop_ids: beside those of `sampling`.
    positions: (B, T), -1 at padding, for rows of unequal length; `left_padded` makes both.
    prefill_chunk: read the prompt in pieces of so many tokens, which bounds memory; None reads it at once.
    rngs: one generator per row; None makes them from the seed.
    history: (B, L) tokens that count for penalties, -1 where a row has none; None takes the prompt, if it counts.
    n_ids: only ids below this are chosen: a head may have rows for which the tokenizer has no text; None is all.

    Raises:
        ContextError: the cache or the model cannot hold one more token.
        DivergedError: logits that are not numbers.
    """
    rngs = row_generators(sampling.seed, prompt.size(0)) if rngs is None else rngs
    stops = torch.tensor(sorted({*stop_ids, *sampling.stop_ids}), dtype=torch.int64, device=prompt.device)
    done = torch.zeros(prompt.size(0), dtype=torch.bool, device=prompt.device)
    if history is None and sampling.penalises:
        history = counted(prompt, positions, sampling)
    tokens = prompt
    if cache is not None:
        tokens, positions = prefill(model, prompt, positions, cache, prefill_chunk or prompt.size(1))
    for _ in range(sampling.max_new_tokens):
        logits = model.lm_head(model.hidden(tokens, positions, cache)[:, -1])  # (B, V)
        if n_ids is not None:
            logits[:, n_ids:] = -torch.inf
        chosen = next_tokens(logits, sampling, rngs, history)
        chosen = torch.where(done, tokens[:, -1], chosen)
        yield chosen
        done |= torch.isin(chosen, stops)
        if done.all():
            return
        if history is not None:
            history = torch.cat([history, chosen[:, None]], 1)
        tokens, positions = advanced(tokens, positions, chosen, done, cache)


def prefill(
    model: GenerativeModel, prompt: Tensor, positions: Tensor | None, cache: Cache, chunk: int
) -> tuple[Tensor, Tensor | None]:
    """Read all of the prompt but its last piece into the cache; returns that piece and its positions."""
    first, n = 0, prompt.size(1)
    while first + (size := cache.at_once(min(chunk, n - first))) < n:
        piece = slice(first, first + size)
        model.hidden(prompt[:, piece], None if positions is None else positions[:, piece], cache)
        first = piece.stop
    return prompt[:, first:], None if positions is None else positions[:, first:]


def advanced(
    tokens: Tensor, positions: Tensor | None, chosen: Tensor, done: Tensor, cache: Cache | None
) -> tuple[Tensor, Tensor | None]:
    """What the model reads next, and where: the chosen tokens, after all others where no cache remembers those.

    What a finished row goes on repeating is padding, so that it never runs out of positions.
    """
    following = None
    if positions is not None:
        following = (positions.amax(1) + 1).masked_fill(done, -1)[:, None]
    if cache is not None:
        return chosen[:, None], following
    tokens = torch.cat([tokens, chosen[:, None]], 1)
    if positions is not None and following is not None:
        following = torch.cat([positions, following], 1)
    return tokens, following


def counted(prompt: Tensor, positions: Tensor | None, sampling: Sampling) -> Tensor:
    """The tokens of the prompt that penalties count, (B, L), -1 at padding."""
    if not sampling.penalty_includes_prompt:
        return prompt[:, :0]
    return prompt if positions is None else prompt.masked_fill(positions < 0, -1)


def left_padded(rows: Sequence[Sequence[int]], device: torch.device | str = "cpu") -> tuple[Tensor, Tensor | None]:
    """Rows of any length as one tensor of tokens (B, T) and their positions (B, T); None if all are equally long."""
    width = max(map(len, rows))
    if all(len(row) == width for row in rows):
        return torch.tensor([list(row) for row in rows], device=device), None
    tokens = [[0] * (width - len(row)) + list(row) for row in rows]
    positions = [[-1] * (width - len(row)) + list(range(len(row))) for row in rows]
    return torch.tensor(tokens, device=device), torch.tensor(positions, device=device)
