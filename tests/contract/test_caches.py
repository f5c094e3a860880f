"""Every cache: a model that reads through it computes what it computes when it reads everything at once."""

import random
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from legollm.architectures import build
from legollm.errors import ContextError
from legollm.generation.cache import FullCache, kv_bytes_per_token
from legollm.generation.generate import left_padded
from legollm.generation.paged_cache import PagedCache
from legollm.generation.ring_cache import RingCache
from legollm.interfaces import Cache

V, N = 50, 24
SHAPES = {
    "gpt2": {"n_heads": 4},
    "llama3": {"n_heads": 4, "n_kv_heads": 2},
    "qwen3": {"n_heads": 4, "n_kv_heads": 1},
    "qwen3 with a local layer": {"n_heads": 4, "n_kv_heads": 1, "local_layers": (0,), "window": 3},
}
MakeCache = Callable[[Any, int, int], Any]
CACHES: dict[str, MakeCache] = {
    "full": FullCache.for_model,
    "ring": RingCache.for_model,
    "paged": PagedCache.for_model,
    "small blocks": partial(PagedCache.for_model, block_size=3),
}


@pytest.fixture(scope="module", params=SHAPES)
def model(request: pytest.FixtureRequest) -> nn.Module:
    """A tiny model in float64 whose weights are large enough for every token to matter."""
    shape: dict[str, Any] = SHAPES[request.param]
    model = build(request.param.split()[0], vocab_size=V, n_layers=2, d_model=32, max_seq_len=N, **shape)
    rng = torch.Generator().manual_seed(1)
    for weight in model.parameters():
        weight.data.add_(torch.randn(weight.shape, generator=rng) * 0.2)
    return model.double().eval().requires_grad_(False)


@pytest.fixture(params=CACHES)
def make_cache(request: pytest.FixtureRequest) -> MakeCache:
    return CACHES[request.param]


def tokens(n_rows: int, seed: int = 0) -> Tensor:
    return torch.randint(V, (n_rows, N), generator=torch.Generator().manual_seed(seed))


def splits(n: int) -> Iterator[list[int]]:
    """Ways to cut n tokens into pieces: all at once, one by one, a prompt and single tokens, and random ones."""
    yield from ([n], [1] * n, [n - 3, 1, 1, 1])
    rng = random.Random(0)
    for _ in range(12):
        cuts = sorted(rng.sample(range(1, n), rng.randrange(1, n - 1)))
        yield [b - a for a, b in zip([0, *cuts], [*cuts, n], strict=True)]


def read(model: nn.Module, pieces: list[Tensor], cache: Cache) -> Tensor:
    return torch.cat([model(piece, cache=cache) for piece in pieces], 1)


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, atol=1e-10, rtol=0)


def test_any_split_of_the_input_gives_the_uncached_logits(model: nn.Module, make_cache: MakeCache) -> None:
    x = tokens(2)
    expected = model(x)
    for split in splits(N):
        cache = make_cache(model, 2, N)
        close(read(model, list(x.split(split, 1)), cache), expected)
        assert cache.length == N


def test_truncation_takes_tokens_back(model: nn.Module, make_cache: MakeCache) -> None:
    x, wrong = tokens(2), tokens(2, seed=1)
    cache = make_cache(model, 2, N)
    for length in (5, 11, 12, 20):
        model(x[:, cache.length : length], cache=cache)
        model(wrong[:, length:], cache=cache)  # a draft that turns out to be wrong
        cache.truncate(length)
        assert cache.length == length
    cache.truncate(N)  # there is nothing behind that
    assert cache.length == 20
    close(model(x[:, 20:], cache=cache), model(x)[:, 20:])
    cache.truncate(0)
    close(model(x, cache=cache), model(x))


def test_reset_forgets_everything_padding_included(model: nn.Module, make_cache: MakeCache) -> None:
    cache, x = make_cache(model, 3, N), tokens(3)
    padded, positions = left_padded([[1], [1, 2, 3], [4, 5]])
    model(padded, positions, cache)
    cache.select([1])
    cache.reset()
    assert cache.length == 0
    close(read(model, [x[:, :5], x[:, 5:]], cache), model(x))
    cache.reset()
    model(x[:, :5], cache=cache)
    close(model(x[:, 5:], torch.arange(5, N).expand(3, -1), cache), model(x)[:, 5:])


def test_a_ragged_row_is_what_it_is_alone(model: nn.Module, make_cache: MakeCache) -> None:
    """Prompts of unequal length, read in two pieces, then single tokens, at explicit or the cache's own positions."""
    lengths, n_new = [7, 1, 12, 4], 5
    rows = [tokens(1, seed=i)[0, : n + n_new] for i, n in enumerate(lengths)]
    expected = [model(row[None])[0] for row in rows]
    padded, positions = left_padded([row[:n].tolist() for row, n in zip(rows, lengths, strict=True)])
    assert positions is not None
    for explicit in (False, True):
        cache = make_cache(model, 4, 12 + n_new)
        model(padded[:, :5], positions[:, :5], cache)
        logits = [model(padded[:, 5:], positions[:, 5:], cache)[:, -1:]]
        for step in range(n_new):
            x = torch.stack([row[n + step : n + step + 1] for row, n in zip(rows, lengths, strict=True)])
            place = torch.tensor([[n + step] for n in lengths]) if explicit else None
            logits.append(model(x, place, cache))
        for i, n in enumerate(lengths):
            close(torch.cat(logits, 1)[i], expected[i][n - 1 :])


def test_ragged_rows_may_follow_equal_ones_and_an_emptied_cache(model: nn.Module, make_cache: MakeCache) -> None:
    """A second turn of a chat: equal questions, then answers of unequal length, padded in the middle."""
    x = tokens(2)
    cache = make_cache(model, 2, N)
    for _ in range(2):
        model(x[:, :6], cache=cache)
        model(x[:, 6:9], torch.tensor([[6, 7, 8], [-1, -1, 6]]), cache)
        logits = model(x[:, 9:11], cache=cache)
        close(logits[0], model(x[:1, :11])[0, -2:])
        close(logits[1], model(torch.cat([x[1:, :6], x[1:, 8:11]], 1))[0, -2:])
        cache.truncate(0)


def test_selected_rows_go_on_in_any_order_and_number(model: nn.Module, make_cache: MakeCache) -> None:
    lengths = [6, 3, 5, 1]
    rows = [tokens(1, seed=i)[0, :n].tolist() for i, n in enumerate(lengths)]
    following = tokens(4, seed=9)[:, :3]
    for ragged in (False, True):
        prompts = rows if ragged else [row[:1] * 4 for row in rows]
        for order in ([0, 1, 2], [0, 3, 2], [3, 2, 1, 0], [2], [1, 1, 1, 1]):
            cache = make_cache(model, 4, N)
            model(*left_padded(prompts), cache)
            cache.select(order)
            logits = model(following[: len(order)], cache=cache)
            for place, row in enumerate(order):
                alone = torch.cat([torch.tensor([prompts[row]]), following[place : place + 1]], 1)
                close(logits[place], model(alone)[0, -3:])


def test_the_memory_is_allocated_once(model: nn.Module) -> None:
    cache, x = FullCache.for_model(model, 2, N), tokens(2)
    before = [(layer.k.data_ptr(), layer.v.data_ptr()) for layer in cache.layers]
    for step in range(N):
        model(x[:, step : step + 1], cache=cache)
        cache.select([1, 0])
    assert [(layer.k.data_ptr(), layer.v.data_ptr()) for layer in cache.layers] == before
    k, v = cache.layers[0].k[:, :, :1], cache.layers[0].v[:, :, :1]
    cache.reset()
    cache.place(1, None)
    all_k, all_v = cache.layers[0].append(k, v)
    assert (all_k.data_ptr(), all_v.data_ptr()) == before[0], "attention is given views, not copies"


def test_bytes_follow_the_formula(model: nn.Module) -> None:
    cache = FullCache.for_model(model, 3, N)
    allocated = {t.untyped_storage().data_ptr(): t for layer in cache.layers for t in (layer.k, layer.v)}
    measured = sum(t.untyped_storage().nbytes() for t in allocated.values())
    assert measured == cache.nbytes == 3 * N * kv_bytes_per_token(model.kv_shapes, torch.float64)


def test_a_full_cache_is_an_error_that_names_the_numbers(model: nn.Module) -> None:
    cache, x = FullCache.for_model(model, 1, 8), tokens(1)
    model(x[:, :6], cache=cache)
    with pytest.raises(ContextError, match=r"holds 8 tokens per row and has 6; 3 more do not fit.* 9 long"):
        model(x[:, 6:9], cache=cache)
    close(model(x[:, 6:8], cache=cache), model(x[:, :8])[:, 6:])  # and it goes on as if nobody had asked


def test_rows_that_do_not_fit_are_an_error(model: nn.Module, make_cache: MakeCache) -> None:
    cache = make_cache(model, 2, N)
    with pytest.raises(ContextError, match="holds 2 rows, found a batch of 1"):
        model(tokens(1), cache=cache)
    if isinstance(cache, PagedCache):
        return  # which has as many as there are blocks for
    with pytest.raises(ContextError, match="3 rows do not fit a cache made for 2"):
        cache.select([0, 0, 1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int8])
def test_fewer_bits_are_off_by_no_more_than_half_a_step(dtype: torch.dtype) -> None:
    shapes = [(3, 20), (1, 7)]
    cache = FullCache(shapes, 2, N, dtype=dtype)
    rng = torch.Generator().manual_seed(0)
    for first, last in ((0, 5), (5, 6), (6, N)):
        cache.place(last - first, None)
        for layer, (n_heads, width) in zip(cache.layers, shapes, strict=True):
            new = torch.randn(2, n_heads, last - first, width, generator=rng, dtype=torch.float64).exp()
            found = layer.append(new, -new)
            step = new.abs().amax(-1, keepdim=True) / 127 if dtype == torch.int8 else new / 128
            for sign, one in zip((1, -1), found, strict=True):
                assert one.shape == (2, n_heads, last, width)
                assert ((one[:, :, first:] - sign * new).abs() <= step * 0.501).all()
        cache.advance(last - first)
    assert cache.nbytes == 2 * N * kv_bytes_per_token(shapes, dtype)
    allocated = sum(memory.untyped_storage().nbytes() for layer in cache.layers for memory in layer.memories)
    assert allocated == cache.nbytes


@pytest.mark.parametrize(("dtype", "within"), [(torch.bfloat16, 0.01), (torch.int8, 0.02)])
def test_a_model_hardly_notices_fewer_bits(model: nn.Module, dtype: torch.dtype, within: float) -> None:
    x = tokens(3)
    padded, positions = left_padded([row[:n].tolist() for row, n in zip(x, (9, 4, 6), strict=True)])
    logits = []
    for cache in (FullCache.for_model(model, 3, N, dtype), FullCache.for_model(model, 3, N)):
        model(padded, positions, cache)
        cache.select([2, 0])
        logits.append(model(x[:2, :5], cache=cache))
    assert (logits[0] - logits[1]).norm() / logits[1].norm() < within
