import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from legollm.components.attention import Attention, attend, faster_backend
from legollm.components.masks import Causal, Near, Ragged
from legollm.components.positions import NoPositions, RotaryEmbedding
from legollm.interfaces import Mask

RAGGED = torch.tensor([[-1, -1, 0, 1, 2], [0, 1, 2, 3, 4]])
CASES: dict[str, tuple[int, int, Mask]] = {
    "whole": (5, 5, Causal()),
    "chunk": (3, 5, Causal()),
    "single": (1, 5, Causal()),
    "first": (1, 1, Causal()),
    "ragged": (5, 5, Ragged(RAGGED, RAGGED)),
    "ragged chunk": (2, 5, Ragged(RAGGED[:, -2:], RAGGED)),
}


def qkv(n_heads: int, n_kv_heads: int, T: int, S: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, n_heads, T, 8), (2, n_kv_heads, S, 8), (2, n_kv_heads, S, 8)]
    return tuple(torch.randn(s, generator=generator, dtype=torch.float64).to(dtype) for s in shapes)


def slow_attention(q: Tensor, k: Tensor, v: Tensor, visible: Any) -> Tensor:
    """One query and one key at a time, as the paper's formula reads."""
    out = torch.zeros_like(q)
    B, H, T, Dh = q.shape
    group = H // k.size(1)
    for b in range(B):
        for h in range(H):
            for t in range(T):
                keys = [s for s in range(k.size(2)) if visible(b, t, s)]
                scores = [float(q[b, h, t] @ k[b, h // group, s]) / math.sqrt(Dh) for s in keys]
                total = sum(math.exp(score) for score in scores)
                for s, score in zip(keys, scores, strict=True):
                    out[b, h, t] += math.exp(score) / total * v[b, h // group, s]
    return out


@pytest.mark.parametrize("backend", ["naive", "sdpa"])
@pytest.mark.parametrize("n_kv_heads", [4, 2, 1])
@pytest.mark.parametrize("case", CASES)
def test_every_backend_computes_the_formula(case: str, n_kv_heads: int, backend: Any) -> None:
    T, S, mask = CASES[case]
    q, k, v = qkv(4, n_kv_heads, T, S)
    if isinstance(mask, Causal):
        expected = slow_attention(q, k, v, lambda b, t, s: s <= t + S - T)
    else:
        place = RAGGED[:, -T:]
        expected = slow_attention(
            q, k, v, lambda b, t, s: RAGGED[b, s] <= place[b, t] and (RAGGED[b, s] >= 0) == (place[b, t] >= 0)
        )
    torch.testing.assert_close(attend(q, k, v, mask, backend=backend), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("backend", ["naive", "sdpa"])
def test_gradients_agree_with_pytorchs(backend: Any) -> None:
    inputs = [t.requires_grad_() for t in qkv(4, 2, 5, 5)]
    got = torch.autograd.grad(attend(*inputs, Causal(), backend=backend).square().sum(), inputs)
    q, k, v = inputs
    theirs = F.scaled_dot_product_attention(q, k.repeat_interleave(2, 1), v.repeat_interleave(2, 1), is_causal=True)
    torch.testing.assert_close(got, torch.autograd.grad(theirs.square().sum(), inputs), rtol=0, atol=1e-9)


def test_backends_agree_in_bfloat16() -> None:
    q, k, v = qkv(4, 2, 5, 5, torch.bfloat16)
    assert faster_backend(q, k) == "naive"
    exact = attend(q.double(), k.double(), v.double(), Causal())
    torch.testing.assert_close(attend(q, k, v, Causal()).double(), exact, rtol=0, atol=0.02)


def test_padding_leaves_no_nan_and_no_gradient_in_the_text() -> None:
    q, k, v = (t.requires_grad_() for t in qkv(4, 2, 5, 5))
    for backend in ("naive", "sdpa"):
        y = attend(q, k, v, Ragged(RAGGED, RAGGED), backend=backend)
        assert y.isfinite().all()
        (grad,) = torch.autograd.grad(y[0, :, 2:].sum(), v)
        assert grad[0, :, :2].abs().max() == 0
        assert grad[0, :, 2:].abs().max() > 0


@pytest.mark.parametrize("backend", ["naive", "sdpa"])
def test_dropout_drops_attention_and_keeps_its_mean(backend: Any) -> None:
    torch.manual_seed(0)
    q, k, _ = qkv(4, 4, 64, 64)
    y = attend(q, k, torch.ones_like(k), Causal(), dropout=0.5, backend=backend)
    assert y.std() > 0.1
    assert y.mean() == pytest.approx(1.0, abs=0.1)


def attention(n_kv_heads: int, **changes: Any) -> Attention:
    options = {"n_heads": 4, "d_head": 6, "rope": RotaryEmbedding(6, theta=100.0)} | changes
    return Attention(16, n_kv_heads=n_kv_heads, **options).double().eval()


def test_grouped_queries_are_multi_head_attention_with_shared_heads() -> None:
    grouped, full = attention(2), attention(4)
    state = grouped.state_dict()
    for name in ("k_proj.weight", "v_proj.weight"):
        state[name] = state[name].view(2, 1, 6, 16).expand(2, 2, 6, 16).reshape(24, 16)
    full.load_state_dict(state)
    x = torch.randn(2, 5, 16, dtype=torch.float64)
    here = torch.arange(5)
    torch.testing.assert_close(grouped(x, here, Causal()), full(x, here, Causal()), rtol=0, atol=1e-12)
    assert grouped.kv_shape == (2, 6)
    assert full.kv_shape == (4, 6)


def test_biases_and_dropout_are_where_they_were_asked_for() -> None:
    assert {name for name, _ in attention(4).named_parameters()} == {f"{p}_proj.weight" for p in "qkvo"}
    biased = attention(4, bias=True, dropout=0.5, rope=NoPositions())
    assert {name for name, _ in biased.named_parameters() if "bias" in name} == {f"{p}_proj.bias" for p in "qkvo"}
    x, here = torch.randn(1, 5, 16, dtype=torch.float64), torch.arange(5)
    assert torch.equal(biased(x, here, Causal()), biased(x, here, Causal()))
    biased.train()
    assert not torch.equal(biased(x, here, Causal()), biased(x, here, Causal()))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("window", [1, 2, 4, 9])
def test_a_window_hides_all_but_the_nearest_keys(case: str, window: int) -> None:
    T, S, mask = CASES[case]
    allowed = Near(mask, window, torch.device("cpu")).allowed(T, S)
    base = mask.allowed(T, S)
    base = torch.ones(T, S, dtype=torch.bool).tril(S - T) if base is None else base
    for b in range(2):
        q, k = (mask.query_positions[b], mask.key_positions[b]) if isinstance(mask, Ragged) else (None, None)
        for t in range(T):
            for s in range(S):
                away = S - T + t - s if q is None or k is None else int(q[t] - k[s])
                place = (b, 0, t, s) if base.dim() == 4 else (t, s)
                assert bool(allowed[place]) == (bool(base[place]) and away < window)
