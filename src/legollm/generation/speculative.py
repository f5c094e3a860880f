"""Speculative decoding (Leviathan et al. 2022, arXiv:2211.17192; Chen et al. 2023, arXiv:2302.01318).

Reading weights takes the time of a decode step, and one pass over k + 1 tokens reads them once, like one over a single
token. So k tokens are guessed cheaply, one pass gives the model's distributions after each of them, and the guesses are
kept up to the first that the model would not have made. What comes out is distributed exactly as without guessing.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from legollm.architectures.ngram import NGram
from legollm.errors import ConfigError
from legollm.generation.cache import GenerativeModel
from legollm.generation.complete import Decoding, Row, closed_up, has_room, history_of, take
from legollm.generation.drafts import Draft, Drafter, n_columns_for
from legollm.generation.lookahead import Lookahead
from legollm.generation.reader import Reader
from legollm.generation.sampling import Sampling, draw, next_token_probs, processed


@dataclass(frozen=True, kw_only=True)
class Speculation:
    """Whether somebody guesses ahead, and how far. What is written stays what the model writes alone."""

    draft: str | None = None
    """The folder of a smaller model with the same tokenizer, or of an n-gram model, whose guesses the model checks
    several at a time; or the word prompt: what followed the same tokens before is the guess. null: no guesses."""
    lookahead: int = 4
    """Tokens that are guessed at once, at most."""
    adapt: bool = True
    """Guess as far ahead as pays, by what guesses cost here and how many are right, or not at all; false: always
    `lookahead` tokens. A draft model, a temperature above 0 and adapt=true: a seed may not write the same text twice,
    because what pays depends on the clock."""

    def __post_init__(self) -> None:
        if self.lookahead < 1:
            raise ConfigError(f"lookahead: found {self.lookahead}; possible: 1 or more tokens")


class Speculator:
    """Writes like `decode_batch` of complete.py, and the same, with guesses of a drafter."""

    def __init__(self, drafter: Drafter, settings: Speculation) -> None:
        self.drafter = drafter
        self.lookahead = Lookahead(settings.lookahead, adapt=settings.adapt)

    @torch.inference_mode()
    def decode_batch(
        self,
        model: GenerativeModel,
        rows: list[Row],
        sampling: Sampling,
        stops: set[int],
        window: int | None,
        decoding: Decoding,
        n_ids: int | None = None,
    ) -> Iterator[tuple[Row, int]]:
        """Generate until every row is finished or, with re-prefill, its window is full; see `complete.decode_batch`.

        Raises:
            ConfigError: the cache is none that can take back what it has read.
        """
        decoding.require_full_cache("draft")
        if isinstance(model, NGram):
            raise ConfigError("draft: an n-gram model looks its tokens up, and nobody guesses sooner; leave draft out")
        n_new, n_most = max(row.n_left(sampling.max_new_tokens, window) for row in rows), self.lookahead.most
        reader = Reader(model, len(rows), n_columns_for(rows, n_new, n_most), decoding.prefill_chunk)
        self.drafter.open(rows, n_new, n_most)
        self.lookahead.open()
        while rows:
            n = self.lookahead.n_guesses(len(rows))
            wanted = [min(n, row.n_left(sampling.max_new_tokens, window) - 1) for row in rows]
            start = time.perf_counter()
            draft = self.drafter.guess(rows, wanted, sampling, n_ids) if any(wanted) else Draft([[] for _ in rows])
            guesses = draft.ids
            between = time.perf_counter()
            states = reader.read(rows, guesses, 1 + max(map(len, guesses)))
            runs = judged(model, states, rows, guesses, draft.probs, sampling, n_ids)
            end = time.perf_counter()
            n_right = [len(run) - 1 for run in runs]
            reader.forget([len(ids) - right for ids, right in zip(guesses, n_right, strict=True)])
            self.lookahead.saw(guesses, n_right, between - start, end - between)
            for row, run in zip(rows, runs, strict=True):
                for token in run:
                    take(row, token, sampling.max_new_tokens, stops, window, decoding)
                    yield row, token
                    if row.finish_reason is not None:
                        break
            staying = [i for i, row in enumerate(rows) if row.finish_reason is None and has_room(row, window)]
            if len(staying) < len(rows):
                order = closed_up(staying)
                reader.select(order)
                self.drafter.select(order)
                rows = [rows[i] for i in order]


def judged(
    model: GenerativeModel,
    states: Tensor,
    rows: Sequence[Row],
    guesses: Sequence[Sequence[int]],
    draft_probs: Tensor | None,
    sampling: Sampling,
    n_ids: int | None,
) -> list[list[int]]:
    """What each row goes on with: its guesses as far as they are right, and one token of the model's own.

    states: (B, T, D), the latest after all guesses of the row. draft_probs: (B, k, V), see `Draft`.
    """
    width = states.size(1)
    counts = [len(ids) + 1 for ids in guesses]
    where = [(row, column) for row, n in enumerate(counts) for column in range(width - n, width)]
    logits = model.lm_head(states[tuple(torch.tensor(where, device=states.device).T)])  # (N, V): N = sum of counts
    if n_ids is not None:
        logits[:, n_ids:] = -torch.inf
    history = histories(rows, guesses, sampling, states.device) if sampling.penalises else None
    if sampling.temperature == 0:
        choices = torch.split_with_sizes(processed(logits, sampling, history).argmax(-1), counts)
        return [agreeing(mine.tolist(), ids) for mine, ids in zip(choices, guesses, strict=True)]
    probs = torch.split_with_sizes(next_token_probs(logits, sampling, history), counts)  # of each row (k + 1, V)
    if draft_probs is None:
        return [drawn_like(p, ids, row.rng) for p, ids, row in zip(probs, guesses, rows, strict=True)]
    return [
        accepted(p, F.pad(q, (0, p.size(-1) - q.size(-1))), ids, row.rng)
        for p, q, ids, row in zip(probs, draft_probs, guesses, rows, strict=True)
    ]


def agreeing(choices: Sequence[int], guesses: Sequence[int]) -> list[int]:
    """Choices up to the first that is no guess."""
    n_right = next((i for i, guess in enumerate(guesses) if guess != choices[i]), len(guesses))
    return list(choices[: n_right + 1])


def drawn_like(probs: Tensor, guesses: Sequence[int], rng: torch.Generator) -> list[int]:
    """Draw as without guesses, as long as what is drawn was guessed: the very tokens that this seed gives anyway.

    probs: (k + 1, V). A guess is right with its own probability, which is all that a guess for certain can have.
    """
    run: list[int] = []
    for row in probs:
        run.append(int(draw(row[None], [rng])))
        if len(run) > len(guesses) or run[-1] != guesses[len(run) - 1]:
            break
    return run


def accepted(probs: Tensor, draft_probs: Tensor, guesses: Sequence[int], rng: torch.Generator) -> list[int]:
    """Keep a guess x, drawn from q, with probability min(1, p(x) / q(x)); else draw from what q left over of p.

    That makes every token x as likely as p says: q(x) min(1, p(x) / q(x)) = min(p(x), q(x)) to be kept, and what is
    missing to p, max(0, p - q), sums to the probability of a rejection.

    probs: (k + 1, V); draft_probs: (at least k, V).
    """
    run: list[int] = []
    for p, q, guess in zip(probs, draft_probs, guesses, strict=False):
        if torch.rand((), generator=rng).item() * q[guess].item() < p[guess].item():
            run.append(guess)
            continue
        rest = (p - q).clamp(min=0)
        run.append(int(draw((rest if rest.any() else p)[None], [rng])))  # none is left where rounding alone rejected
        return run
    return [*run, int(draw(probs[len(guesses)][None], [rng]))]


def histories(
    rows: Sequence[Row], guesses: Sequence[Sequence[int]], sampling: Sampling, device: torch.device
) -> Tensor:
    """What penalties count before each judged token, (N, L): the row's history, then its guesses one after another."""
    held, longest = history_of(rows, sampling, device), max(map(len, guesses))
    width = longest + held.size(1)
    parts = []
    for row, ids in zip(F.pad(held, (longest, 0), value=-1), guesses, strict=True):
        text = torch.cat([row, row.new_tensor(ids)])
        parts += [text[n : n + width] for n in range(len(ids) + 1)]
    return torch.stack(parts)
