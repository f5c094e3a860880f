"""Many prompts of any length: in batches, within a window, each with the reason why it ended."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol, TypeAlias, get_args

import torch

from legollm.errors import ConfigError, ContextError
from legollm.generation.cache import FullCache, GenerativeModel
from legollm.generation.generate import generate, left_padded, prefill
from legollm.generation.paged_cache import PagedCache
from legollm.generation.ring_cache import RingCache
from legollm.generation.sampling import Sampling, row_generators

CacheKind: TypeAlias = Literal["full", "rolling", "sinks", "paged"]
"""What is remembered of the tokens read so far."""
CachePrecision: TypeAlias = Literal["model", "bfloat16", "int8"]
FinishReason: TypeAlias = Literal["stop", "length", "context"]
"""A stop id or stop text was met, max_new_tokens are out, or the window is full."""


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How generation is carried out. What comes out depends on `window`, `on_overflow` and a cache that forgets."""

    batch_size: int = 32
    """Prompts that are decoded together."""
    prefill_chunk: int | None = 512
    """Tokens of a prompt that are read at once, which bounds the memory for logits; null is all."""
    use_cache: bool = True
    """Remember keys and values; without, everything is read again for each token."""
    cache: CacheKind = "full"
    """full: all tokens of the window are kept. rolling: the oldest leaves for each new one, so that the text goes on
    for as long as it likes. sinks: likewise, but the first ones stay, without which most models lose the thread. paged:
    as full, in blocks that texts take as they grow and share where they begin alike: less memory for texts of unequal
    length, and what an earlier batch has read is not read again."""
    cache_precision: CachePrecision = "model"
    """What keys and values are kept in: model, as it computes them; bfloat16; or int8, bytes with a scale for each head
    of a token. The last two are for cache=full in PyTorch, and change what comes out a little."""
    sinks: int = 4
    """cache=sinks: how many of the first tokens stay; they count among those of the window."""
    window: int | None = None
    """Tokens the model sees at most; null is the model's own limit."""
    on_overflow: Literal["error", "crop", "re-prefill"] = "error"
    """What happens where tokens do not fit the window. error: a prompt that is too long is refused, and a full window
    ends the answer. crop: the prompt loses its oldest tokens, until max_new_tokens or half a window fit after it.
    re-prefill: the oldest half of a full window is forgotten and the other half read again, as often as needed. A
    cache that is rolling or has sinks makes room by itself, and with it this is about the model's own limit only."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "prefill_chunk", "window"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name}: must be at least 1, found {value}")
        policies = ("error", "crop", "re-prefill")
        if self.on_overflow not in policies:
            raise ConfigError(f"on_overflow: {self.on_overflow!r} is none of {', '.join(policies)}")
        if self.cache not in get_args(CacheKind):
            raise ConfigError(f"cache: {self.cache!r} is none of {', '.join(get_args(CacheKind))}")
        if self.cache == "sinks" and self.sinks < 1:
            raise ConfigError(f"sinks: must be at least 1, found {self.sinks}; without any, use cache=rolling")
        if self.cache_precision not in get_args(CachePrecision):
            possible = ", ".join(get_args(CachePrecision))
            raise ConfigError(f"cache_precision: {self.cache_precision!r} is none of {possible}")
        if self.cache != "full" and self.cache_precision != "model":
            raise ConfigError(f"cache_precision: {self.cache_precision} goes with cache=full, found {self.cache}")
        if self.cache != "full" and not self.use_cache:
            raise ConfigError(f"use_cache: cache={self.cache} is one; use cache=full, or leave use_cache at true")

    def require_full_cache(self, what: str) -> None:
        """
        Raises:
            ConfigError: `what` takes back or copies what was read, and this is another cache than the plain one.
        """
        if not self.use_cache or (self.cache, self.cache_precision) != ("full", "model"):
            found = f"cache={self.cache} cache_precision={self.cache_precision}" if self.use_cache else "no cache"
            raise ConfigError(f"cache: {what} needs cache=full and cache_precision=model, found {found}")

    @property
    def forgets(self) -> bool:
        """Whether the cache lets go of old tokens, so that there is no end to a text."""
        return self.cache in ("rolling", "sinks")

    def limit_of(self, model: GenerativeModel) -> int | None:
        """How many tokens of a text can be read in one go; None if there is no limit.

        Raises:
            ConfigError: see `window_of`.
        """
        window = self.window_of(model)
        return model.max_seq_len if self.forgets else window

    def cache_for(self, model: GenerativeModel, n_rows: int, n_columns: int) -> FullCache | RingCache:
        """An empty cache for n_rows texts of n_columns tokens.

        Raises:
            ConfigError: it does not go with the model, or there is no window to keep.
        """
        if not self.forgets:
            dtypes = {"model": None, "bfloat16": torch.bfloat16, "int8": torch.int8}
            return FullCache.for_model(model, n_rows, n_columns, dtypes[self.cache_precision])
        window = self.window_of(model)
        if window is None:
            raise ConfigError(
                f"window: cache={self.cache} keeps that many tokens, and this model has no limit; give one"
            )
        return RingCache.for_model(model, n_rows, window, self.sinks if self.cache == "sinks" else 0)

    def window_of(self, model: GenerativeModel) -> int | None:
        """How many tokens `model` may see; None if there is no limit.

        Raises:
            ConfigError: a window longer than the model's own limit.
        """
        if self.window is None or model.max_seq_len is None or self.window <= model.max_seq_len:
            return model.max_seq_len if self.window is None else self.window
        raise ConfigError(
            f"window: found {self.window}, but the model knows {model.max_seq_len} positions; use at most that many"
        )


DEFAULT_DECODING = Decoding()


@dataclass(frozen=True, kw_only=True)
class Completion:
    """What was generated after one prompt, and why it ended."""

    ids: list[int]
    """The new tokens, without the stop id."""
    finish_reason: FinishReason
    stop_id: int | None = None
    """The id that ended it, if one did."""


@dataclass(eq=False)
class Row:
    """One prompt on its way to a completion."""

    ids: list[int]
    """The prompt, then what was generated."""
    n_prompt: int
    rng: torch.Generator
    first: int = 0
    """The oldest token in sight; the window has left those before it behind."""
    finish_reason: FinishReason | None = None
    stop_id: int | None = None

    @property
    def new_ids(self) -> list[int]:
        """What was generated, without the stop id."""
        return self.ids[self.n_prompt : None if self.stop_id is None else -1]

    @property
    def n_seen(self) -> int:
        return len(self.ids) - self.first

    def n_left(self, max_new_tokens: int, window: int | None) -> int:
        """Tokens this row may still generate before its window is full; the last one need not be read again."""
        n_left = max_new_tokens - (len(self.ids) - self.n_prompt)
        return n_left if window is None else min(n_left, window - self.n_seen + 1)

    def completion(self) -> Completion:
        assert self.finish_reason is not None
        return Completion(ids=self.new_ids, finish_reason=self.finish_reason, stop_id=self.stop_id)


class BatchDecoder(Protocol):
    """Another way to write a batch: see `decode_batch`; speculative.py and beams.py have one."""

    def decode_batch(
        self,
        model: GenerativeModel,
        rows: list[Row],
        sampling: Sampling,
        stops: set[int],
        window: int | None,
        decoding: Decoding,
        n_ids: int | None = None,
    ) -> Iterator[tuple[Row, int]]: ...


def complete(
    model: GenerativeModel,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    stop_ids: Collection[int] = (),
    decoding: Decoding = DEFAULT_DECODING,
    decoder: BatchDecoder | None = None,
) -> list[Completion]:
    """The completion of each prompt, in their order; prompt i draws with seed + i, whatever it is batched with.

    Raises:
        ConfigError: stop texts, which need a tokenizer (see text.py), or a window the model does not have.
        ContextError: an empty prompt, or one longer than the window where `on_overflow` is error.
    """
    if sampling.stop:
        raise ConfigError(f"stop: found {sampling.stop!r}, but ids hold no text; use stop_ids or generate_texts")
    rows = open_rows(model, prompts, sampling, decoding)
    for _ in decode(model, rows, sampling, stop_ids=stop_ids, decoding=decoding, decoder=decoder):
        pass
    return [row.completion() for row in rows]


def open_rows(
    model: GenerativeModel, prompts: Sequence[Sequence[int]], sampling: Sampling, decoding: Decoding
) -> list[Row]:
    """A row per prompt, each cut to the window before any work is done.

    Raises:
        ConfigError, ContextError: see `complete`.
    """
    window = decoding.limit_of(model)
    rows = []
    for i, (prompt, rng) in enumerate(zip(prompts, row_generators(sampling.seed, len(prompts)), strict=True)):
        if not prompt:
            raise ContextError(f"prompt {i} is empty; a model needs at least one token to go on from")
        row = Row(list(prompt), len(prompt), rng)
        if window is not None and decoding.on_overflow == "crop":
            forget(row, max(window - sampling.max_new_tokens, half(window)))
        elif window is not None and row.n_seen > window:
            if decoding.on_overflow == "error":
                raise ContextError(
                    f"prompt {i} has {len(prompt)} tokens, the window holds {window}; shorten it, or set on_overflow "
                    "to crop or re-prefill"
                )
            forget(row, half(window))
        rows.append(row)
    return rows


def decode(
    model: GenerativeModel,
    rows: Sequence[Row],
    sampling: Sampling,
    *,
    stop_ids: Collection[int],
    decoding: Decoding,
    n_ids: int | None = None,
    decoder: BatchDecoder | None = None,
) -> Iterator[tuple[Row, int]]:
    """Generate until every row is finished; yields each new token with its row, stop ids included.

    n_ids: only ids below this are chosen; None is all the model has. decoder: writes in another way.
    Whoever consumes this may end a row by setting its `finish_reason`.
    """
    window = decoding.limit_of(model)
    write = decode_batch if decoder is None else decoder.decode_batch
    stops = {*stop_ids, *sampling.stop_ids}
    waiting = sorted(rows, key=lambda row: row.n_seen, reverse=True)  # like lengths together: little padding
    if decoding.cache == "paged" and decoder is None and rows:
        longest = max(row.n_seen + row.n_left(sampling.max_new_tokens, window) for row in rows)
        paged = PagedCache.for_model(model, min(len(rows), decoding.batch_size), min(longest, window or longest))
        write = partial(decode_batch, paged=paged)
    while waiting:
        batch, waiting = waiting[: decoding.batch_size], waiting[decoding.batch_size :]
        yield from write(model, batch, sampling, stops, window, decoding, n_ids)
        for row in batch:
            if row.finish_reason is None and window is not None:
                forget(row, half(window))
                waiting.append(row)


@torch.inference_mode()
def decode_batch(
    model: GenerativeModel,
    rows: list[Row],
    sampling: Sampling,
    stops: set[int],
    window: int | None,
    decoding: Decoding,
    n_ids: int | None = None,
    paged: PagedCache | None = None,
) -> Iterator[tuple[Row, int]]:
    """Generate until every row is finished or, with re-prefill, its window is full. Such rows leave at once.

    paged: a cache that also holds what earlier batches have read.
    """
    device = next(model.parameters()).device
    longest = max(row.n_seen for row in rows)
    n_new = max(row.n_left(sampling.max_new_tokens, window) for row in rows)
    one_pass = n_new == 1 and longest <= (decoding.prefill_chunk or longest)  # then there is nothing to remember
    cache: FullCache | RingCache | PagedCache | None = paged
    if paged is not None:
        paged.start([paged.open(row.ids[row.first :] if row.first else row.ids) for row in rows])
    elif decoding.forgets or (decoding.use_cache and not one_pass):
        cache = decoding.cache_for(model, len(rows), longest + n_new - 1)
    while rows:
        if isinstance(cache, FullCache) and cache.length == 0:
            read_shared(model, [row.ids[row.first :] for row in rows], cache, decoding.prefill_chunk)
        if cache is None or cache.length == 0:
            n_known = [0] * len(rows) if paged is None else [text.length for text in paged.rows]
            unread = [row.ids[row.first + n :] for row, n in zip(rows, n_known, strict=True)]
            tokens, positions = left_padded(unread, device)
        else:
            tokens, positions = torch.tensor([row.ids[-1:] for row in rows], device=device), None
        steps = generate(
            model,
            tokens,
            sampling,
            cache=cache,
            positions=positions,
            prefill_chunk=decoding.prefill_chunk,
            rngs=[row.rng for row in rows],
            history=history_of(rows, sampling, device) if sampling.penalises else None,
            n_ids=n_ids,
        )
        for chosen in steps:
            for row, token in zip(rows, chosen.tolist(), strict=True):
                take(row, token, sampling.max_new_tokens, stops, window, decoding)
                yield row, token
            staying = [i for i, row in enumerate(rows) if row.finish_reason is None and has_room(row, window)]
            if len(staying) < len(rows):
                break
        order = closed_up(staying)
        if cache is not None:
            cache.select(order)
        rows = [rows[i] for i in order]


def read_shared(model: GenerativeModel, prompts: Sequence[list[int]], cache: FullCache, chunk: int | None) -> None:
    """Where half of the rows or more repeat a prompt, read all but the last token of each prompt once, for all of them.

    Otherwise nothing is read.
    """
    distinct = {tuple(prompt): place for place, prompt in enumerate(dict.fromkeys(map(tuple, prompts)))}
    if 2 * len(distinct) > len(prompts) or min(map(len, distinct)) == 1:
        return
    device = next(model.parameters()).device
    tokens, positions = left_padded([prompt[:-1] for prompt in distinct], device)
    cache.select(range(len(distinct)))
    tokens, positions = prefill(model, tokens, positions, cache, chunk or tokens.size(1))
    model.hidden(tokens, positions, cache)
    cache.select([distinct[tuple(prompt)] for prompt in prompts])


def take(row: Row, token: int, max_new_tokens: int, stops: set[int], window: int | None, decoding: Decoding) -> None:
    """Append a token to its row, and see whether that ends it."""
    row.ids.append(token)
    if token in stops:
        row.finish_reason, row.stop_id = "stop", token
    elif len(row.ids) - row.n_prompt == max_new_tokens:
        row.finish_reason = "length"
    elif not has_room(row, window) and decoding.on_overflow != "re-prefill":
        row.finish_reason = "context"


def has_room(row: Row, window: int | None) -> bool:
    """Whether its newest token still fits the window."""
    return window is None or row.n_seen <= window


def forget(row: Row, n_kept: int) -> None:
    """Lose sight of all but the newest n_kept tokens."""
    row.first = max(row.first, len(row.ids) - n_kept)


def half(window: int) -> int:
    """What is kept of a full window; at least one token."""
    return window - window // 2


def closed_up(staying: Sequence[int]) -> list[int]:
    """An order of the rows that stay in which the last ones fill the gaps, so that the fewest move."""
    movers = [row for row in staying if row >= len(staying)]
    stay = set(staying)
    return [place if place in stay else movers.pop() for place in range(len(staying))]


def history_of(rows: Sequence[Row], sampling: Sampling, device: torch.device) -> torch.Tensor:
    """What penalties count, (B, L), the latest token last, -1 where a row is shorter."""
    said = [row.ids[0 if sampling.penalty_includes_prompt else row.n_prompt :] for row in rows]
    width = max(map(len, said))
    return torch.tensor([[-1] * (width - len(ids)) + ids for ids in said], device=device, dtype=torch.int64)
