"""Mistakes of the documents this project grew out of: each stays corrected."""

import ast
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from legollm.architectures import ARCHITECTURES, build
from legollm.architectures.gpt2 import GPT2Config
from legollm.components.attention import Attention
from legollm.components.feedforward import GLU, GatedMLP, GeGLU, ReGLU, SwiGLU, gelu_tanh
from legollm.components.masks import Causal
from legollm.components.positions import (
    LinearScaling,
    Llama3Scaling,
    NoPositions,
    NtkScaling,
    RopeScaling,
    RotaryEmbedding,
    YarnScaling,
)
from legollm.contract.studs import tiny_config
from legollm.errors import ContextError
from legollm.generation.cache import FullCache, kv_bytes_per_token
from legollm.generation.sampling import Sampling
from legollm.tokenizers import RegexBPETokenizer
from legollm.training.optim import decay_groups

PACKAGE = Path(__file__).parents[2] / "src" / "legollm"


def test_swiglu_is_not_a_sigmoid_gate_times_a_line() -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 8)
    gates = {GLU: F.sigmoid, SwiGLU: F.silu, GeGLU: F.gelu, ReGLU: F.relu}
    parts: dict[type[GatedMLP], GatedMLP] = {kind: kind(8, 12) for kind in gates}
    for kind, gate in gates.items():
        part = parts[kind]
        part.load_state_dict(parts[GLU].state_dict())
        by_hand = (gate(x @ part.gate_proj.weight.T) * (x @ part.up_proj.weight.T)) @ part.down_proj.weight.T
        torch.testing.assert_close(part(x), by_hand)
    assert not torch.allclose(parts[SwiGLU](x), parts[GLU](x), atol=1e-3)


def test_a_cache_costs_memory_and_fewer_heads_or_bits_save_it() -> None:
    def held(n_kv_heads: int, dtype: torch.dtype) -> int:
        model = build("llama3", vocab_size=9, n_heads=4, n_kv_heads=n_kv_heads).to(dtype)
        cache = FullCache(model.kv_shapes, 1, 10, dtype=dtype)
        assert cache.nbytes == 10 * kv_bytes_per_token(model.kv_shapes, dtype)
        return cache.nbytes

    full = held(4, torch.float32)
    assert full == 10 * 2 * 4 * 4 * 32 * 4 > 0  # tokens, keys and values, layers, heads, width, bytes
    assert held(2, torch.float32) == held(4, torch.bfloat16) == full // 2
    assert held(1, torch.float32) == full // 4


@pytest.mark.parametrize("cached", [False, True])
def test_a_cache_does_not_carry_learned_positions_beyond_their_last(cached: bool) -> None:
    model = build("gpt2", vocab_size=9, max_seq_len=8, d_model=16, n_layers=1)
    tokens = torch.zeros(1, 8, dtype=torch.long)
    cache = FullCache(model.kv_shapes, 1, 16) if cached else None
    model(tokens, cache=cache)
    with pytest.raises(ContextError, match="max_seq_len = 8"):
        model(tokens[:, :1], cache=cache) if cached else model(torch.zeros(1, 9, dtype=torch.long))


def test_the_promised_ways_to_sample_are_there() -> None:
    assert Sampling(temperature=1.7, top_k=5, top_p=0.9, repetition_penalty=1.2).temperature == 1.7
    assert Sampling(temperature=0).temperature == 0


def test_special_tokens_have_ids_inside_the_vocabulary() -> None:
    tokenizer = RegexBPETokenizer()
    tokenizer.train("a small text, a small text", vocab_size=270, special_tokens=["<|endoftext|>"])
    assert tokenizer.vocab_size <= 270
    assert all(0 <= i < tokenizer.vocab_size for i in tokenizer.special_tokens.values())
    assert tokenizer.special_tokens.keys() == {"<|endoftext|>"}


SCALINGS: list[RopeScaling] = [LinearScaling(), NtkScaling(), YarnScaling(), Llama3Scaling()]


@pytest.mark.parametrize("scaling", SCALINGS, ids=lambda scaling: type(scaling).__name__)
def test_rotary_positions_are_stretched_for_texts_longer_than_trained_on(scaling: RopeScaling) -> None:
    """Plain ones do not extrapolate: each scaling turns its slowest channels by no more than `factor` times less."""
    plain = RotaryEmbedding(64, theta=10_000.0).inv_freq
    stretched = RotaryEmbedding(64, theta=10_000.0, scaling=scaling).inv_freq
    assert (stretched <= plain * (1 + 1e-6)).all()
    torch.testing.assert_close(stretched[-1] * scaling.factor, plain[-1])


def test_kept_keys_can_be_turned_to_a_new_place() -> None:
    """What a cache that slides needs, for slicing it leaves keys at positions they no longer have."""
    rope = RotaryEmbedding(8, theta=100.0)
    q, k = torch.randn(2, 1, 1, 5, 8, dtype=torch.float64)
    here, there = torch.arange(3, 8), torch.arange(5)
    _, kept = rope(q, k, here)
    _, turned = rope(q, kept, torch.full((5,), -3))
    torch.testing.assert_close(turned, rope(q, k, there)[1], rtol=0, atol=1e-9)


def test_parameter_counts_are_those_of_the_code_not_of_the_prose() -> None:
    """About 10K and 850K, it said."""
    assert sum(p.numel() for p in build("bigram", vocab_size=65).parameters()) == 65**2 == 4225
    assert sum(p.numel() for p in build("vanilla", preset="decoder", vocab_size=65).parameters()) == 618_817


@pytest.mark.parametrize("n_heads", [1, 4, 8])
def test_scores_are_scaled_by_the_head_s_width_not_the_model_s(n_heads: int) -> None:
    torch.manual_seed(0)
    attention = Attention(32, n_heads=n_heads, n_kv_heads=n_heads, d_head=32 // n_heads, rope=NoPositions())
    x = torch.randn(2, 6, 32)

    def heads(projection: nn.Linear) -> Tensor:
        return projection(x).view(2, 6, n_heads, -1).transpose(1, 2)

    q, k, v = heads(attention.q_proj), heads(attention.k_proj), heads(attention.v_proj)
    y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(-2)
    torch.testing.assert_close(attention(x, torch.arange(6), Causal()), attention.o_proj(y))


@pytest.mark.parametrize("name", [name for name, row in ARCHITECTURES.items() if row.learns != "counts"])
def test_what_decays_is_told_by_dimensions_and_each_weight_is_in_one_group(name: str) -> None:
    row = ARCHITECTURES[name]
    model = row.build(tiny_config(row.config))
    groups = decay_groups(model, 0.1)
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())
    assert all((p.ndim >= 2) == (group["weight_decay"] > 0) for group in groups for p in group["params"])


def test_gpt2_computes_gelu_as_it_was_trained() -> None:
    model = build("gpt2", vocab_size=9, d_model=16, n_layers=1)
    assert model.blocks[0].ffn.activation is gelu_tanh
    x = torch.linspace(-4, 4, 101)
    assert (gelu_tanh(x) - F.gelu(x)).abs().max() > 1e-4


def test_a_new_model_has_small_weights_and_a_tied_head_as_well() -> None:
    tokens = torch.arange(64)[None]
    logits = build("gpt2", vocab_size=512, d_model=64)(tokens)
    assert GPT2Config().tie_embeddings
    assert F.cross_entropy(logits[0, :-1], tokens[0, 1:]).item() < 6.24 + 0.3  # ln 512


def test_a_name_exists_only_when_it_works() -> None:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not (isinstance(node, ast.Name) and node.id == "NotImplementedError"), f"{path}:{node.lineno}"


def test_there_is_one_implementation_of_each_brick() -> None:
    homes: dict[str, Path] = {}
    for folder in ("components", "architectures"):
        for path in (PACKAGE / folder).glob("*.py"):
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.ClassDef):
                    assert node.name not in homes, f"{node.name} is in {path} and in {homes[node.name]}"
                    homes[node.name] = path
