"""The cache of constant size, against attention that keeps all keys as they came and turns those in sight each time."""

import copy
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from legollm.components.attention import attend
from legollm.components.decoder import Decoder
from legollm.components.masks import Causal
from legollm.components.positions import YarnScaling
from legollm.errors import ConfigError, ContextError
from legollm.generation import ring_cache
from legollm.generation.generate import left_padded
from legollm.generation.ring_cache import RingCache
from tiny_models import some_tokens, tiny_model

EXACT = 1e-9
N = 26
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in ("bigram", "llama3", "qwen3", "moe", "mixtral", "qwen3_moe")},
    "local layers": ("qwen3", {"local_layers": (0,), "window": 3}),
    "yarn": ("llama3", {"rope_scaling": YarnScaling(original_max_seq_len=16)}),
    "rope, sinks, post": ("vanilla", {"positions": "rope", "sinks": True, "norm_placement": "post", "norm": "rmsnorm"}),
    "alibi, parallel": ("vanilla", {"positions": "alibi", "norm_placement": "parallel", "n_kv_heads": 2}),
    "t5, sandwich": ("vanilla", {"positions": "t5", "norm_placement": "sandwich"}),
    "no positions": ("vanilla", {"positions": "none", "window": 5}),
    "n-grams": ("vanilla", {"positions": "rope", "ngram_rows": (31, 17)}),
}
FIXED = ("gpt2", {}), ("vanilla", {"positions": "sinusoidal"})
WINDOWED = {
    **{f"windowed {positions}": ("vanilla", {"positions": positions, "window": 5}) for positions in ("rope", "alibi")},
    "windowed learned": ("vanilla", {"positions": "learned", "window": 5}),
    "windowed sinusoidal": ("vanilla", {"positions": "sinusoidal", "window": 4, "ngram_rows": (31,)}),
    "windowed t5": ("vanilla", {"positions": "t5", "window": 3}),
    "windowed, many layers": ("qwen3", {"local_layers": (0, 1), "window": 5}),
    "windowed moe": ("vanilla", {"positions": "rope", "window": 5, "ffn": "moe"}),
}


class SlowAttention(nn.Module):
    """Attention for one token at a time that recomputes what a stream sees: the first keys and the last ones."""

    def __init__(self, attn: Any, window: int, n_sinks: int) -> None:
        super().__init__()
        self.attn, self.n_last, self.n_sinks = attn, window - n_sinks, n_sinks
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def forward(self, x: Tensor, positions: Tensor, mask: Any, cache: Any) -> Tensor:
        attn = self.attn
        q, k, v = (
            p(x).unflatten(-1, (-1, attn.d_head)).transpose(1, 2) for p in (attn.q_proj, attn.k_proj, attn.v_proj)
        )
        self.keys.append(attn.k_norm(k))
        self.values.append(v)
        n = len(self.keys)
        seen = [i for i in range(n) if i < self.n_sinks or i >= n - self.n_last]
        k, v = (torch.cat([kept[i] for i in seen], 2) for kept in (self.keys, self.values))
        places = torch.arange(len(seen))
        q, _ = attn.rope(attn.q_norm(q), q, places[-1:])
        _, k = attn.rope(k, k, places)
        near = places > len(seen) - 1 - (attn.window or len(seen))
        bias = None if attn.position_bias is None else attn.position_bias(places[-1:], places)[:, :, near]
        y = attend(q, k[:, :, near], v[:, :, near], Causal(), bias=bias, sinks=attn.sinks, scale=attn.scale)
        out: Tensor = attn.o_proj(y.transpose(1, 2).flatten(-2))
        return out


def slowly(model: Decoder, tokens: Tensor, window: int, n_sinks: int) -> Tensor:
    """The logits of a stream, (B, T, V), one token after the other."""
    model = copy.deepcopy(model)
    blocks: Any = model.blocks
    for block in blocks:
        block.attn = SlowAttention(block.attn, window, n_sinks)
    padded = torch.cat([tokens.new_zeros(len(tokens), model.n_before), tokens], 1)
    logits = []
    for p in range(tokens.size(1)):
        at = torch.tensor([p])
        x = model.embed(padded[:, p : p + model.n_before + 1], at)
        for block in blocks:
            x = block(x, at, Causal(), None)
        logits.append(model.lm_head(model.norm(x)))
    return torch.cat(logits, 1)


def read(model: Any, tokens: Tensor, cache: RingCache, cuts: range | tuple[int, ...]) -> Tensor:
    """The logits, read in these pieces as far as the cache takes them at once."""
    logits = []
    for first, last in pairwise(cuts):
        while first < last:
            n = cache.at_once(last - first)
            logits.append(model(tokens[:, first : first + n], cache=cache))
            first += n
    return torch.cat(logits, 1)


def close(found: Tensor, wanted: Tensor, within: float = EXACT) -> None:
    torch.testing.assert_close(found, wanted, atol=within, rtol=0)


def chunkings(n: int) -> tuple[range | tuple[int, ...], ...]:
    return range(n + 1), (0, n), (0, 3, 4, 17, n)


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Places are counted anew every few tokens."""
    monkeypatch.setattr(ring_cache, "FURTHER", 1)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("window", "n_sinks"), [(7, 0), (6, 2)])
@torch.inference_mode()
def test_a_stream_is_what_recomputing_it_gives(case: str, window: int, n_sinks: int) -> None:
    name, changes = CASES[case]
    model = tiny_model(name, dtype=torch.float64, **changes)
    tokens = some_tokens(2, N)
    wanted = slowly(model, tokens, window, n_sinks)
    for cuts in chunkings(N)[n_sinks > 0 :]:
        cache = RingCache.for_model(model, 2, window, n_sinks)
        close(read(model, tokens, cache, cuts), wanted)
        assert cache.length == N


@torch.inference_mode()
def test_in_float32_it_stays_exact_over_a_long_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ring_cache, "FURTHER", 32)
    model = tiny_model("llama3", n_layers=1)
    tokens = some_tokens(1, 200)
    found = read(model, tokens, RingCache.for_model(model, 1, 9, 2), range(201))
    wanted = slowly(model.double(), tokens, 9, 2)
    assert (found - wanted).norm() / wanted.norm() < 1e-6


@pytest.mark.parametrize("case", WINDOWED)
@torch.inference_mode()
def test_a_model_with_windows_does_not_notice(case: str) -> None:
    name, changes = WINDOWED[case]
    model = tiny_model(name, dtype=torch.float64, **changes)
    tokens = some_tokens(3, N)
    wanted = model(tokens)
    for window in (5, 9):
        for cuts in chunkings(N):
            close(read(model, tokens, RingCache.for_model(model, 3, window), cuts), wanted)


@pytest.mark.parametrize(("name", "changes"), FIXED)
@torch.inference_mode()
def test_absolute_positions_go_on_without_sinks(name: str, changes: dict[str, Any]) -> None:
    model = tiny_model(name, dtype=torch.float64, **changes)
    tokens = some_tokens(1, 40)
    cache = RingCache.for_model(model, 1, 40)
    close(read(model, tokens, cache, (0, 11, 40)), model(tokens))
    with pytest.raises(ConfigError, match=r"sinks: they have to move .*absolute positions.*re-prefill"):
        RingCache.for_model(model, 1, 8, 2)
    if model.max_seq_len is not None:
        with pytest.raises(ContextError, match="position 40 does not exist"):
            model(tokens[:, :1], cache=cache)


@pytest.mark.parametrize("n_sinks", [0, 3])
@torch.inference_mode()
def test_rows_of_unequal_length_leave_and_change_places(n_sinks: int) -> None:
    model = tiny_model("qwen3", dtype=torch.float64)
    lengths = (12, 3, 25, 7)
    following = some_tokens(4, 30, seed=9)
    texts = [torch.cat([some_tokens(n, seed=n), new]) for n, new in zip(lengths, following, strict=True)]
    wanted = [slowly(model, text[None], 8, n_sinks)[0, n - 1 :] for n, text in zip(lengths, texts, strict=True)]
    tokens, positions = left_padded([text[:n].tolist() for n, text in zip(lengths, texts, strict=True)])
    assert positions is not None
    cache = RingCache.for_model(model, 4, 8, n_sinks)
    first = 0
    while first < 25:
        now = slice(first, first + cache.at_once(25 - first))
        logits = model(tokens[:, now], positions[:, now], cache)
        first = now.stop
    for i in range(4):
        close(logits[i, -1], wanted[i][0])
    rows = [0, 1, 2, 3]
    for step in range(30):
        logits = model(following[rows, step : step + 1], cache=cache)
        for place, row in enumerate(rows):
            close(logits[place, 0], wanted[row][step + 1])
        if step in (2, 11, 20):
            order = {2: [3, 1, 2], 11: [0, 1], 20: [1, 1, 0]}[step]
            cache.select(order)
            rows = [rows[i] for i in order]


@torch.inference_mode()
def test_it_takes_back_what_nothing_was_given_up_for() -> None:
    model = tiny_model("vanilla", dtype=torch.float64, positions="rope", ngram_rows=(31, 17))
    tokens, wrong = some_tokens(2, 12), some_tokens(2, 12, seed=1)
    cache = RingCache.for_model(model, 2, 12)
    for length in (5, 9):
        model(tokens[:, cache.length : length], cache=cache)
        model(wrong[:, length:], cache=cache)
        cache.truncate(length)
    close(model(tokens[:, 9:], cache=cache), model(tokens)[:, 9:])
    model(tokens[:, :1], cache=cache)
    with pytest.raises(ContextError, match="cannot take back the last 3 of 13"):
        cache.truncate(10)
    cache.truncate(0)
    close(model(tokens, cache=cache), model(tokens))


@torch.inference_mode()
def test_its_memory_stays_where_it_is() -> None:
    model = tiny_model("llama3")
    cache = RingCache.for_model(model, 2, 6, 2)
    before = [(layer.k.data_ptr(), layer.v.data_ptr()) for layer in cache.layers]
    read(model, some_tokens(2, 40), cache, range(41))
    assert [(layer.k.data_ptr(), layer.v.data_ptr()) for layer in cache.layers] == before
    assert cache.nbytes == 2 * 2 * 2 * 8 * 4 * (
        2 * 7 + 2
    )  # layers, rows, heads, numbers of 4 bytes; keys, values, sinks
    assert int(cache._next.max()) < 2 * 6 + 6


def test_what_does_not_fit_is_named() -> None:
    model = tiny_model("llama3")
    with pytest.raises(ConfigError, match="sinks: 4 leave no room in a window of 4 tokens"):
        RingCache.for_model(model, 1, 4, 4)
    cache = RingCache.for_model(model, 2, 6, 2)
    with pytest.raises(ContextError, match="holds 6 tokens and has 0 reads 6 at once, found 7"):
        model(some_tokens(2, 7), cache=cache)
    with pytest.raises(ContextError, match="holds 2 rows, found a batch of 1"):
        model(some_tokens(1, 2), cache=cache)
    with pytest.raises(ContextError, match="3 rows do not fit a cache made for 2"):
        cache.select([0, 0, 1])
    close(model(some_tokens(2, 6), cache=cache), model(some_tokens(2, 6)), 1e-5)  # as if nobody had asked


Lower = Callable[[Decoder], Any]


@pytest.mark.parametrize("case", [*CASES, *WINDOWED])
@torch.inference_mode()
def test_kernels_read_it(case: str) -> None:
    pytest.importorskip("numba")
    from legollm.lowering.decoder import LoweredDecoder

    name, changes = (CASES | WINDOWED)[case]
    model = tiny_model(name, **changes)
    lowered = LoweredDecoder(model)
    tokens = some_tokens(2, N)
    n_sinks = 2 if case in CASES else 0
    wanted = read(model, tokens, RingCache.for_model(model, 2, 7, n_sinks), (0, N))
    for cuts in chunkings(N)[1:]:
        cache = RingCache.for_model(lowered, 2, 7, n_sinks)
        found = torch.cat([lowered(tokens[:, a:b], cache=cache) for a, b in pairwise(cuts)], 1)
        assert (found - wanted).norm() / wanted.norm() < 3e-6


@torch.inference_mode()
def test_kernels_read_rows_of_unequal_length() -> None:
    pytest.importorskip("numba")
    from legollm.lowering.decoder import LoweredDecoder

    model = tiny_model("qwen3")
    lowered = LoweredDecoder(model)
    tokens, positions = left_padded([some_tokens(n, seed=n).tolist() for n in (12, 3, 7)])
    logits = []
    for one in (model, lowered):
        cache = RingCache.for_model(one, 3, 8)
        logits.append([one(tokens, positions, cache)[:, -1]])
        logits[-1] += [one(new, cache=cache)[:, -1] for new in some_tokens(20, 3, 1)]
    wanted, found = (torch.stack(one) for one in logits)
    assert (found - wanted).norm() / wanted.norm() < 3e-6
