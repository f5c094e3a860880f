import math

import pytest
import torch
from torch import Tensor

from legollm.components.feedforward import (
    GLU,
    MLP,
    GatedMLP,
    GeGLU,
    ReGLU,
    SwiGLU,
    gated_d_ff,
    gelu,
    gelu_tanh,
    relu,
    relu_squared,
)

X = torch.linspace(-4, 4, 41, dtype=torch.float64)
PHI = torch.tensor([0.5 * (1 + math.erf(x / math.sqrt(2))) for x in X.tolist()], dtype=torch.float64)


def test_activations_are_their_formulas() -> None:
    torch.testing.assert_close(gelu(X), X * PHI)
    torch.testing.assert_close(gelu_tanh(X), X / 2 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (X + 0.044715 * X**3))))
    assert 1e-5 < (gelu(X) - gelu_tanh(X)).abs().max() < 1e-3  # close, and not the same
    assert torch.equal(relu(X), X.clamp(min=0))
    assert torch.equal(relu_squared(X), X.clamp(min=0) ** 2)


@pytest.mark.parametrize(
    ("kind", "gate"),
    [
        (GLU, torch.sigmoid),
        (SwiGLU, lambda g: g * torch.sigmoid(g)),
        (GeGLU, lambda g: g / 2 * (1 + torch.erf(g / math.sqrt(2)))),
        (ReGLU, lambda g: g * (g > 0)),
    ],
)
def test_gated_layers_are_their_formulas(kind, gate) -> None:
    ffn = kind(6, 10).double()
    x = torch.randn(2, 3, 6, dtype=torch.float64)
    W, V, W2 = ffn.gate_proj.weight, ffn.up_proj.weight, ffn.down_proj.weight
    torch.testing.assert_close(ffn(x), (gate(x @ W.T) * (x @ V.T)) @ W2.T, rtol=0, atol=1e-12)


def test_swiglu_is_not_glu() -> None:
    glu, swiglu = GLU(6, 10), SwiGLU(6, 10)
    swiglu.load_state_dict(glu.state_dict())
    x = torch.randn(4, 6)
    assert (glu(x) - swiglu(x)).abs().max() > 1e-3


def test_any_activation_can_be_passed_in() -> None:
    def double(x: Tensor) -> Tensor:
        return 2 * x

    mlp, x = MLP(4, 8, activation=double, bias=False), torch.randn(3, 4)
    torch.testing.assert_close(mlp(x), 2 * (x @ mlp.up_proj.weight.T) @ mlp.down_proj.weight.T)
    gated = GatedMLP(4, 8, activation=double)
    torch.testing.assert_close(gated(x), gated.down_proj(2 * gated.gate_proj(x) * gated.up_proj(x)))


@pytest.mark.parametrize("d_model", [48, 192, 768, 4096])
def test_gated_width_weighs_as_much_as_four_times_the_model(d_model: int) -> None:
    d_ff = gated_d_ff(d_model)
    assert d_ff % 64 == 0
    assert 0 <= 3 * d_ff - 8 * d_model < 3 * 64
