import math
from typing import Any

import pytest
import torch
from torch import Tensor

from legollm.components.attention import Attention
from legollm.components.masks import Causal
from legollm.components.positions import (
    Alibi,
    InterleavedRotaryEmbedding,
    LearnedPositionEmbedding,
    LinearScaling,
    Llama3Scaling,
    NoPositions,
    NtkScaling,
    RotaryEmbedding,
    ScaledTokenEmbedding,
    SinusoidalPositionEmbedding,
    T5Bias,
    TokenAndPositionEmbedding,
    TokenEmbedding,
    YarnScaling,
    half_to_interleaved,
    interleaved_to_half,
    rotate,
)
from legollm.errors import ConfigError, ContextError, TokenizerError


def turned(rope: RotaryEmbedding, x: Tensor, position: int) -> Tensor:
    """x: (Dh,) at one position."""
    q, _ = rope(x.view(1, 1, 1, -1), x.view(1, 1, 1, -1), torch.tensor([position]))
    return q.flatten()


def test_a_rotated_product_depends_only_on_the_distance() -> None:
    rope = RotaryEmbedding(16, theta=10_000.0).double()
    q, k = torch.randn(2, 16, dtype=torch.float64)
    products = [turned(rope, q, m) @ turned(rope, k, m - 5) for m in (5, 6, 100, 4321)]
    torch.testing.assert_close(torch.stack(products), products[0].expand(4), rtol=0, atol=1e-10)
    assert abs(products[0] - turned(rope, q, 5) @ turned(rope, k, 1)) > 1e-3


def test_rotation_keeps_the_norm_and_can_be_undone() -> None:
    rope = RotaryEmbedding(16, theta=10_000.0).double()
    x = torch.randn(2, 3, 5, 16, dtype=torch.float64)
    there = rotate(x, *rope.cos_sin(torch.arange(5) + 7, x.dtype))
    torch.testing.assert_close(there.norm(dim=-1), x.norm(dim=-1), rtol=0, atol=1e-12)
    back = rotate(there, *rope.cos_sin(-torch.arange(5) - 7, x.dtype))
    torch.testing.assert_close(back, x, rtol=0, atol=1e-12)


def test_rotation_is_multiplication_by_a_complex_number() -> None:
    rope = RotaryEmbedding(8, theta=100.0).double()
    x = torch.randn(8, dtype=torch.float64)
    for i, (a, b) in enumerate(zip(x[:4].tolist(), x[4:].tolist(), strict=True)):
        angle = 11 * float(rope.inv_freq[i])
        z = complex(a, b) * complex(math.cos(angle), math.sin(angle))
        assert turned(rope, x, 11)[[i, i + 4]].tolist() == pytest.approx([z.real, z.imag], abs=1e-12)
    assert rope.inv_freq.tolist() == pytest.approx([100.0 ** (-2 * i / 8) for i in range(4)], rel=1e-6)


def test_rows_may_have_their_own_positions() -> None:
    rope = RotaryEmbedding(8, theta=100.0)
    q, k = torch.randn(2, 4, 3, 8), torch.randn(2, 1, 3, 8)
    positions = torch.tensor([[-1, 0, 1], [5, 6, 7]])
    both = rope(q, k, positions)
    for row in range(2):
        alone = rope(q[row : row + 1], k[row : row + 1], positions[row])
        assert torch.equal(both[0][row], alone[0][0])
        assert torch.equal(both[1][row], alone[1][0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_frequencies_keep_their_precision(dtype: torch.dtype) -> None:
    rope = RotaryEmbedding(64, theta=10_000.0)
    exact = rope.inv_freq.clone()
    rope = rope.to(dtype)
    assert rope.inv_freq.dtype == torch.float32
    assert torch.equal(rope.inv_freq, exact)
    cos, _ = rope.cos_sin(torch.tensor([1000]), dtype)
    expected = torch.cos(1000 * exact.double())
    torch.testing.assert_close(cos.flatten()[:32].double(), expected, rtol=0, atol=max(1e-4, torch.finfo(dtype).eps))


def test_frequencies_exist_in_a_model_without_memory() -> None:
    with torch.device("meta"):
        rope = RotaryEmbedding(8, theta=100.0)
    assert torch.equal(rope.inv_freq, RotaryEmbedding(8, theta=100.0).inv_freq)
    assert rope.state_dict() == {}


def test_llama3_scaling_is_the_published_rule() -> None:
    scaling = Llama3Scaling(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_seq_len=8192)
    inv_freq = RotaryEmbedding(128, theta=500_000.0).inv_freq
    kinds = set()
    for frequency, scaled in zip(inv_freq.tolist(), scaling.apply(inv_freq).tolist(), strict=True):
        wavelength = 2 * math.pi / frequency
        if wavelength < 8192 / 4:
            expected, kind = frequency, "kept"
        elif wavelength > 8192 / 1:
            expected, kind = frequency / 8, "slowed"
        else:
            smooth = (8192 / wavelength - 1) / (4 - 1)
            expected, kind = (1 - smooth) * frequency / 8 + smooth * frequency, "blended"
        kinds.add(kind)
        assert scaled == pytest.approx(expected, rel=1e-5)
    assert kinds == {"kept", "slowed", "blended"}


def test_impossible_scaling_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"low_freq_factor: 4\.0 has to be below"):
        Llama3Scaling(low_freq_factor=4.0)


def test_the_two_layouts_of_pairs_convert() -> None:
    weight = torch.randn(3 * 8, 5, dtype=torch.float64)  # 3 heads of 8 channels
    assert torch.equal(interleaved_to_half(half_to_interleaved(weight, 8), 8), weight)
    rope = RotaryEmbedding(8, theta=100.0).double()
    head = torch.randn(8, dtype=torch.float64)  # in interleaved pairs, turned by the complex product
    angles = 9 * rope.inv_freq.double()
    pairs = torch.view_as_complex(head.view(4, 2)) * torch.polar(torch.ones_like(angles), angles)
    expected = interleaved_to_half(torch.view_as_real(pairs).flatten(), 8)
    torch.testing.assert_close(turned(rope, interleaved_to_half(head, 8), 9), expected, rtol=0, atol=1e-12)


def test_no_positions_changes_nothing() -> None:
    q, k = torch.randn(2, 1, 4, 3, 8)
    assert NoPositions()(q, k, torch.arange(3)) == (q, k)


def test_sinusoids_are_the_papers() -> None:
    table = SinusoidalPositionEmbedding(6)(torch.arange(50))
    for p in (0, 1, 49):
        for i in range(3):
            angle = p / 10_000 ** (2 * i / 6)
            assert table[p, 2 * i] == pytest.approx(math.sin(angle), abs=1e-5)
            assert table[p, 2 * i + 1] == pytest.approx(math.cos(angle), abs=1e-5)


def test_embeddings_add_up_and_padding_is_harmless() -> None:
    embed = TokenAndPositionEmbedding(tokens=TokenEmbedding(10, 4), positions=LearnedPositionEmbedding(3, 4))
    tokens, positions = torch.tensor([[9, 0, 9]]), torch.tensor([[-1, 0, 2]])
    x = embed(tokens, positions)
    assert torch.equal(x[0, 2], embed.tokens.weight[9] + embed.positions.weight[2])
    assert x.isfinite().all()


def test_scaled_embedding() -> None:
    embed = ScaledTokenEmbedding(10, 16)
    assert torch.equal(embed(torch.tensor([[3]]), torch.arange(1))[0, 0], embed.weight[3] * 4)


@pytest.mark.parametrize("wrong", [10, -1])
def test_a_token_outside_the_vocabulary_is_named(wrong: int) -> None:
    with pytest.raises(TokenizerError, match=f"token {wrong} is not among the model's ids 0 to 9"):
        TokenEmbedding(10, 4)(torch.tensor([[1, wrong]]), torch.arange(2))


def test_a_position_beyond_the_last_is_named() -> None:
    embed = LearnedPositionEmbedding(3, 4)
    with pytest.raises(ContextError, match="position 3 does not exist: max_seq_len = 3"):
        embed(torch.arange(4))


SHIFT_INVARIANT: dict[str, Any] = {
    "rope": {"rope": RotaryEmbedding(8, theta=100.0)},
    "rope, interleaved": {"rope": InterleavedRotaryEmbedding(8, theta=100.0)},
    "rope, half of the channels": {"rope": RotaryEmbedding(8, theta=100.0, d_rotary=4)},
    "rope, linear": {"rope": RotaryEmbedding(8, theta=100.0, scaling=LinearScaling())},
    "rope, ntk": {"rope": RotaryEmbedding(8, theta=100.0, scaling=NtkScaling())},
    "rope, yarn": {"rope": RotaryEmbedding(8, theta=100.0, scaling=YarnScaling(original_max_seq_len=64))},
    "rope, llama3": {"rope": RotaryEmbedding(8, theta=100.0, scaling=Llama3Scaling(original_max_seq_len=64))},
    "alibi": {"position_bias": Alibi(4)},
    "t5": {"position_bias": T5Bias(4, bidirectional=False)},
    "none": {},
}


@pytest.mark.parametrize("name", SHIFT_INVARIANT)
def test_where_a_text_starts_does_not_matter(name: str) -> None:
    options = {"rope": NoPositions()} | SHIFT_INVARIANT[name]
    layer = Attention(16, n_heads=4, n_kv_heads=2, d_head=8, **options).double()
    x = torch.randn(2, 6, 16, dtype=torch.float64)
    y = layer(x, torch.arange(6), Causal())
    torch.testing.assert_close(layer(x, torch.arange(6) + 50, Causal()), y, rtol=0, atol=1e-9)
    stretched = layer(x, torch.arange(6) * 3, Causal())
    assert torch.allclose(stretched, y, rtol=0, atol=1e-9) == (name == "none")


def test_interleaved_pairs_are_the_complex_product() -> None:
    rope = InterleavedRotaryEmbedding(8, theta=100.0).double()
    head, angles = torch.randn(8, dtype=torch.float64), 9 * rope.inv_freq.double()
    pairs = torch.view_as_complex(head.view(4, 2)) * torch.polar(torch.ones_like(angles), angles)
    torch.testing.assert_close(turned(rope, head, 9), torch.view_as_real(pairs).flatten(), rtol=0, atol=1e-12)


def test_weights_go_from_one_layout_to_the_other_and_back() -> None:
    sizes: dict[str, int] = {"n_heads": 4, "n_kv_heads": 2, "d_head": 6}
    half = Attention(16, rope=RotaryEmbedding(6, theta=100.0), **sizes).double()
    interleaved = Attention(16, rope=InterleavedRotaryEmbedding(6, theta=100.0), **sizes).double()
    x, here = torch.randn(2, 5, 16, dtype=torch.float64), torch.arange(5)
    interleaved.load_state_dict(half.state_dict())
    assert not torch.allclose(interleaved(x, here, Causal()), half(x, here, Causal()))
    state = half.state_dict()
    for name in ("q_proj.weight", "k_proj.weight"):
        state[name] = half_to_interleaved(state[name], 6)
    interleaved.load_state_dict(state)
    torch.testing.assert_close(interleaved(x, here, Causal()), half(x, here, Causal()), rtol=0, atol=1e-12)
    for name in ("q_proj.weight", "k_proj.weight"):
        assert torch.equal(interleaved_to_half(state[name], 6), half.state_dict()[name])


@pytest.mark.parametrize("kind", [RotaryEmbedding, InterleavedRotaryEmbedding])
def test_a_part_of_the_channels_may_stand_still(kind: type[RotaryEmbedding]) -> None:
    part, whole = kind(8, theta=100.0, d_rotary=4), kind(4, theta=100.0)
    q, k = torch.randn(2, 4, 3, 8), torch.randn(2, 1, 3, 8)
    here = torch.arange(5, 8)
    for got, given, expected in zip(part(q, k, here), (q, k), whole(q[..., :4], k[..., :4], here), strict=True):
        assert torch.equal(got[..., 4:], given[..., 4:])
        assert torch.equal(got[..., :4], expected)


def test_linear_scaling_squeezes_positions() -> None:
    plain, scaled = RotaryEmbedding(8, theta=100.0), RotaryEmbedding(8, theta=100.0, scaling=LinearScaling(factor=4.0))
    x = torch.randn(8)
    torch.testing.assert_close(turned(scaled, x, 40), turned(plain, x, 10), rtol=0, atol=1e-5)


def test_ntk_scaling_is_a_larger_base_that_slows_only_the_slowest_channel_fully() -> None:
    plain = RotaryEmbedding(16, theta=100.0).inv_freq
    scaled = RotaryEmbedding(16, theta=100.0, scaling=NtkScaling(factor=4.0)).inv_freq
    assert scaled[0] == plain[0]
    torch.testing.assert_close(scaled[-1] * 4, plain[-1])
    torch.testing.assert_close(scaled, RotaryEmbedding(16, theta=100.0 * 4.0 ** (16 / 14)).inv_freq)


def test_yarn_keeps_fast_channels_squeezes_slow_ones_and_sharpens() -> None:
    scaling = YarnScaling(factor=8.0, original_max_seq_len=4096)
    plain, scaled = (RotaryEmbedding(128, theta=10_000.0, scaling=s) for s in (None, scaling))
    turns = 4096 * plain.inv_freq / (2 * math.pi)
    share = plain.inv_freq / scaled.inv_freq
    assert torch.equal(share[turns > 34], torch.ones_like(share[turns > 34]))
    torch.testing.assert_close(share[turns < 0.8], torch.full_like(share[turns < 0.8], 8.0))
    assert (share.diff() >= 0).all()
    x = torch.randn(128)
    assert turned(scaled, x, 77).norm() == pytest.approx(float(x.norm()) * (0.1 * math.log(8.0) + 1), rel=1e-5)
    assert YarnScaling(attention_factor=1.0).magnitude == 1.0
    assert torch.equal(YarnScaling().apply(torch.ones(1)), torch.ones(1))


@pytest.mark.parametrize("scaling", [LinearScaling, NtkScaling, YarnScaling])
def test_texts_cannot_be_stretched_to_less(scaling: Any) -> None:
    with pytest.raises(ConfigError, match=r"^factor: expected a number from 1, found 0\.5"):
        scaling(factor=0.5)


def test_impossible_turns_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^beta_slow: 32\.0 has to be above 0 and below beta_fast = 32\.0"):
        YarnScaling(beta_slow=32.0)


def test_alibi_is_the_papers() -> None:
    bias = Alibi(8)(torch.arange(3), torch.arange(3))
    assert bias.shape == (8, 3, 3)
    for head in range(8):
        slope = 2.0 ** -(head + 1)
        assert bias[head].tolist() == [[0, -slope, -2 * slope], [-slope, 0, -slope], [-2 * slope, -slope, 0]]
    ragged = Alibi(8)(torch.tensor([[-1, 0], [4, 5]]), torch.tensor([[-1, 0], [4, 5]]))
    assert ragged.shape == (2, 8, 2, 2)
    assert torch.equal(ragged[1], bias[:, :2, :2])


def test_t5_looks_up_the_distance() -> None:
    bias = T5Bias(2, n_buckets=8, max_distance=16, bidirectional=False)
    table = bias(torch.arange(30), torch.arange(30))
    assert table.shape == (2, 30, 30)
    for distance, bucket in {0: 0, 1: 1, 3: 3, 4: 4, 15: 7, 29: 7}.items():
        assert torch.equal(table[:, 29, 29 - distance], bias.weight[bucket])
    assert torch.equal(table[:, 0, 9], bias.weight[0])  # what comes after is hidden anyway
    both = T5Bias(2, n_buckets=8, max_distance=16, bidirectional=True)
    assert torch.equal(both(torch.arange(3), torch.arange(3))[:, 0, 1], both.weight[4 + 1])
