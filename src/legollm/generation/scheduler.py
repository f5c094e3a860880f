"""Many requests at once, each joining and leaving when it likes (continuous batching; Yu et al. 2022, OSDI, Orca).

One step is two passes of the model: the next token of every request that is writing, and the next piece of one prompt.
So a long prompt delays the others by no more than a piece of it, and it cannot wait for ever, because each step reads
one. Requests are admitted in the order in which they came. When memory is out, the one that came last loses its blocks
and waits, its tokens kept, to read them again later. What a request gets depends on none of this: its logits are its
own, and it draws from a generator of its own.
"""

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from legollm.errors import ConfigError, ContextError
from legollm.generation.cache import GenerativeModel
from legollm.generation.complete import Decoding, Row, history_of, take
from legollm.generation.paged_cache import PagedCache, Text
from legollm.generation.sampling import Sampling, next_tokens, row_generators

ENDS_IN_ERROR = Decoding()
"""A request that meets the end of the model's positions has ended."""


@dataclass(frozen=True, kw_only=True)
class Scheduling:
    """How requests share the model and the memory."""

    max_rows: int = 16
    """Requests that write at the same time; others wait."""
    n_blocks: int = 1024
    """Blocks of memory for keys and values."""
    block_size: int = 16
    """Tokens of a block."""
    prefill_chunk: int = 128
    """Tokens of a prompt that are read between two tokens of the others."""
    max_waiting: int | None = None
    """Requests that may wait; one more is refused. null is any number."""

    def __post_init__(self) -> None:
        for name in ("max_rows", "n_blocks", "block_size", "prefill_chunk", "max_waiting"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name}: must be at least 1, found {value}")


@dataclass(eq=False)
class Request(Row):
    """A prompt and how it is to be continued, on its way to a completion."""

    sampling: Sampling = field(default_factory=Sampling)
    stops: set[int] = field(default_factory=set)
    text: Text | None = None
    """Its place in the cache, while it has one."""

    @property
    def n_unread(self) -> int:
        """Tokens that the model has to read before the next one can be chosen; 1 is writing."""
        return len(self.ids) - (self.text.length if self.text else 0)


class Scheduler:
    """`submit` requests at any time and call `step` as long as there is work."""

    def __init__(self, model: GenerativeModel, cfg: Scheduling | None = None, *, n_ids: int | None = None) -> None:
        """n_ids: only ids below this are chosen; None is all the model has."""
        self.model, self.cfg, self.n_ids = model, cfg or Scheduling(), n_ids
        weight = next(model.parameters())
        self.device = weight.device
        self.cache = PagedCache(
            model.kv_shapes, self.cfg.n_blocks, self.cfg.block_size, dtype=weight.dtype, device=weight.device
        )
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []  # in the order in which they came
        self.n_preempted = 0
        """How often a request had to give its memory back."""

    @property
    def has_work(self) -> bool:
        return bool(self.waiting or self.running)

    def submit(self, ids: Sequence[int], sampling: Sampling, stop_ids: Collection[int] = ()) -> Request:
        """A request at the end of the queue. It draws with its sampling's seed.

        Raises:
            ConfigError: stop texts, which ids do not show.
            ContextError: an empty prompt, one that the model or the memory cannot hold, or too many requests wait.
        """
        if sampling.stop:
            raise ConfigError(f"stop: found {sampling.stop!r}, but ids hold no text; use stop_ids")
        limit, room = self.model.max_seq_len, self.cfg.n_blocks * self.cfg.block_size
        if not ids:
            raise ContextError("an empty prompt; a model needs at least one token to go on from")
        if limit is not None and len(ids) > limit:
            raise ContextError(f"a prompt of {len(ids)} tokens, and the model knows {limit} positions; shorten it")
        if len(ids) > room:
            raise ContextError(f"a prompt of {len(ids)} tokens does not fit the cache's {room}; raise n_blocks")
        if self.cfg.max_waiting is not None and len(self.waiting) >= self.cfg.max_waiting:
            raise ContextError(f"{len(self.waiting)} requests wait already; come back later or raise max_waiting")
        (rng,) = row_generators(sampling.seed, 1)
        stops = {*stop_ids, *sampling.stop_ids}
        self.waiting.append(request := Request(list(ids), len(ids), rng, sampling=sampling, stops=stops))
        return request

    def cancel(self, request: Request) -> None:
        """Forget a request; its memory is free at once. Nothing happens if it has ended already."""
        if request in self.waiting:
            self.waiting.remove(request)
        elif request in self.running:
            self.leave(request)

    @torch.inference_mode()
    def step(self) -> list[tuple[Request, int]]:
        """One token for each request that is writing or has read all of its prompt; a finished one leaves.

        What came out, stop ids included; the last token of a request comes with its finish_reason set.
        """
        self.admit()
        writing = [one for one in self.running if one.n_unread == 1]
        reading = next((one for one in self.running if one.n_unread > 1), None)
        said = self.write(writing)
        if reading is not None and reading in self.running:
            said += self.read(reading)
        return said

    def run(self) -> Iterator[tuple[Request, int]]:
        """Steps until nothing is left to do."""
        while self.has_work:
            yield from self.step()

    # ---- who takes part -------------------------------------------------------------------------------------------

    def admit(self) -> None:
        """Let those in who came first, as long as there is a row, and memory for what they hold and a token more."""
        while self.waiting and len(self.running) < self.cfg.max_rows:
            request, pool = self.waiting[0], self.cache.pool
            request.text = self.cache.open(request.ids)
            planned = sum(self.blocks_for(one, one.n_unread) for one in self.running)
            if self.running and pool.n_free < planned + self.blocks_for(request, request.n_unread + 1):
                self.cache.close(request.text)
                request.text = None
                return
            self.running.append(self.waiting.popleft())

    def leave(self, request: Request) -> None:
        self.running.remove(request)
        if request.text is not None:
            self.cache.close(request.text)
            request.text = None

    def blocks_for(self, request: Request, n_tokens: int) -> int:
        """Blocks that the pool has to give for so many more tokens of a request; only full blocks are ever shared."""
        assert request.text is not None
        return -(-(request.text.length + n_tokens) // self.cfg.block_size) - len(request.text.blocks)

    def make_room(self, requests: list[Request], n_tokens: int) -> list[Request]:
        """Those of them that can go on; where memory is out the last ones wait, or the only one ends."""
        staying = list(requests)
        while staying and sum(self.blocks_for(one, n_tokens) for one in staying) > self.cache.pool.n_free:
            last = self.running[-1]
            if last is self.running[0]:  # it has all there is
                last.finish_reason = "context"
                self.leave(last)
            else:
                self.leave(last)
                self.waiting.appendleft(last)
                self.n_preempted += 1
            staying = [one for one in staying if one is not last]
        return staying

    # ---- passes ---------------------------------------------------------------------------------------------------

    def write(self, requests: list[Request]) -> list[tuple[Request, int]]:
        """The next token of each."""
        requests = self.make_room(requests, 1)
        if not requests:
            return []
        tokens = torch.tensor([one.ids[-1:] for one in requests], device=self.device)
        return self.choose(requests, self.states(requests, tokens))

    def read(self, request: Request) -> list[tuple[Request, int]]:
        """A piece of a prompt, and the first token if that was the last of it."""
        n = min(request.n_unread, self.cfg.prefill_chunk)
        if not self.make_room([request], n):
            return []
        start = len(request.ids) - request.n_unread
        is_last = n == request.n_unread
        states = self.states([request], torch.tensor([request.ids[start : start + n]], device=self.device))
        return self.choose([request], states) if is_last else []

    def states(self, requests: list[Request], tokens: Tensor) -> Tensor:
        """tokens (B, T) of requests -> the states (B, D) after the last of them."""
        self.cache.start([one.text for one in requests if one.text is not None])
        return self.model.hidden(tokens, None, self.cache)[:, -1]

    def choose(self, requests: list[Request], states: Tensor) -> list[tuple[Request, int]]:
        """The next token of each, drawn together where they are drawn alike."""
        logits = self.model.lm_head(states)
        if self.n_ids is not None:
            logits[:, self.n_ids :] = -torch.inf
        alike: dict[Sampling, list[int]] = {}
        for i, one in enumerate(requests):
            alike.setdefault(replace(one.sampling, seed=0, max_new_tokens=1, stop_ids=()), []).append(i)
        said = []
        for sampling, places in alike.items():
            rows = [requests[i] for i in places]
            history = history_of(rows, sampling, self.device) if sampling.penalises else None
            chosen = next_tokens(logits[places], sampling, [row.rng for row in rows], history)
            said += list(zip(rows, chosen.tolist(), strict=True))
        for row, token in said:
            take(row, token, row.sampling.max_new_tokens, row.stops, self.model.max_seq_len, ENDS_IN_ERROR)
            if row.finish_reason is not None:
                self.leave(row)
        return said
