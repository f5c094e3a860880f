"""Beam search: the likeliest answer as a whole, not the likeliest token each time.

Sutskever et al. 2014, arXiv:1409.3215, section 3.2.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from legollm.errors import ConfigError
from legollm.generation.cache import FullCache, GenerativeModel
from legollm.generation.complete import Decoding, Row, history_of, take
from legollm.generation.generate import left_padded, prefill
from legollm.generation.sampling import Sampling, processed


@dataclass(frozen=True, kw_only=True)
class Beams:
    """Whether the likeliest answer is searched for."""

    beams: int = 1
    """Beginnings of an answer that are kept and continued at the same time; nothing is drawn, and the likeliest answer
    found is written at the end. 1: no search, tokens are chosen one after the other."""
    length_penalty: float = 1.0
    """beams: answers compare by the logarithm of their probability, over their number of tokens to this power: 0
    compares probabilities, which are higher for short answers, 1 the average token."""

    def __post_init__(self) -> None:
        if self.beams < 1:
            raise ConfigError(f"beams: found {self.beams}; possible: 1 for no search, or more")
        if not math.isfinite(self.length_penalty):
            raise ConfigError(f"length_penalty: found {self.length_penalty}; possible: a number, 0 for none")


class BeamSearch:
    """Writes like `decode_batch` of complete.py, only the likeliest answer, and that when it is found.

    Bias and penalties count, by the tokens of each beam; temperature and the sets to choose among do not. Every beam's
    end is a possible answer, so that a row is finished once no beam can become better than the best one that ended.
    """

    def __init__(self, settings: Beams) -> None:
        self.n_beams, self.length_penalty = settings.beams, settings.length_penalty

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
        """Yields the tokens of a row's answer once it is found.

        Raises:
            ConfigError: the cache is none whose rows can be copied at any length.
        """
        decoding.require_full_cache("beams")
        greedy = replace(sampling, temperature=0)
        device = next(model.parameters()).device
        n_left = [row.n_left(sampling.max_new_tokens, window) for row in rows]
        cache = FullCache.for_model(model, len(rows) * self.n_beams, max(row.n_seen for row in rows) + max(n_left) - 1)
        cache.select(range(len(rows)))  # the prompts are read once, and then copied for the beams
        tokens, positions = left_padded([row.ids[row.first :] for row in rows], device)
        tokens, positions = prefill(model, tokens, positions, cache, decoding.prefill_chunk or tokens.size(1))
        states = model.hidden(tokens, positions, cache)[:, -1]
        cache.select([row for row in range(len(rows)) for _ in range(self.n_beams)])
        states = states.repeat_interleave(self.n_beams, 0)  # (B * beams, D)
        sums = torch.full((len(rows), self.n_beams), -math.inf, device=device)
        sums[:, 0] = 0  # one beginning is as good as many that are equal
        said = torch.empty(len(rows), self.n_beams, 0, dtype=torch.int64, device=device)
        best: list[tuple[float, list[int]]] = [(-math.inf, []) for _ in rows]
        while rows:
            logits = model.lm_head(states)
            if n_ids is not None:
                logits[:, n_ids:] = -math.inf
            history = None
            if sampling.penalises:
                held = history_of(rows, sampling, device).repeat_interleave(self.n_beams, 0)
                history = torch.cat([held, said.flatten(0, 1)], 1)
            log_probs = processed(logits, greedy, history).log_softmax(-1).view(len(rows), self.n_beams, -1)
            totals = sums[..., None] + log_probs  # (B, beams, V)
            length = said.size(2) + 1
            ends = torch.zeros_like(totals, dtype=torch.bool)
            ends[..., sorted(stops)] = True
            ends[[i for i, n in enumerate(n_left) if n == length]] = True
            best = [
                max(mine, self.ended(total, end, text, length), key=lambda answer: answer[0])
                for mine, total, end, text in zip(best, totals, ends, said, strict=True)
            ]
            sums, places = totals.masked_fill(ends, -math.inf).flatten(1).topk(self.n_beams)
            parents, tokens = places // totals.size(-1), places % totals.size(-1)  # (B, beams)
            said = torch.cat([said.gather(1, parents[..., None].expand(-1, -1, length - 1)), tokens[..., None]], -1)
            going_on = []
            for i, row in enumerate(rows):
                if self.reachable(sums[i].amax().item(), length, n_left[i]) > best[i][0]:
                    going_on.append(i)
                    continue
                for token in best[i][1]:
                    take(row, token, sampling.max_new_tokens, stops, window, decoding)
                    yield row, token
                    if row.finish_reason is not None:
                        break
            cache.select([i * self.n_beams + parent for i in going_on for parent in parents[i].tolist()])
            rows, n_left, best = [rows[i] for i in going_on], [n_left[i] for i in going_on], [best[i] for i in going_on]
            sums, said = sums[going_on], said[going_on]
            if rows:
                states = model.hidden(tokens[going_on].flatten()[:, None], None, cache)[:, -1]

    def ended(self, totals: Tensor, ends: Tensor, said: Tensor, length: int) -> tuple[float, list[int]]:
        """The best of the answers of one row that end now, and its score: totals, ends (beams, V), said (beams, t)."""
        total, place = totals.masked_fill(~ends, -math.inf).flatten().max(0)
        beam, token = divmod(int(place), totals.size(-1))
        return self.score(total.item(), length), [*said[beam].tolist(), token]

    def score(self, total: float, length: int) -> float:
        """Of an answer: nats, over its tokens to the power of the length penalty."""
        return total / math.pow(length, self.length_penalty)

    def reachable(self, total: float, length: int, longest: int) -> float:
        """A bound for answers that begin with a beam: at best it goes on for certain, to the better of both ends."""
        return max(self.score(total, n) for n in (length + 1, max(longest, length + 1)))
