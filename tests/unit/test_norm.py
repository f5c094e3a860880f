import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from legollm.components.norm import LayerNorm, RMSNorm


def layer_norm_formula(norm: LayerNorm, x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return norm.weight * centred / (centred.square().mean(-1, keepdim=True) + norm.eps).sqrt() + norm.bias


def rms_norm_formula(norm: RMSNorm, x: Tensor) -> Tensor:
    return norm.weight * x / (x.square().mean(-1, keepdim=True) + norm.eps).sqrt()


def drawn(norm: nn.Module) -> nn.Module:
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    return norm.double()


@pytest.mark.parametrize(("kind", "formula"), [(LayerNorm, layer_norm_formula), (RMSNorm, rms_norm_formula)])
def test_output_and_gradients_are_the_formulas(kind, formula) -> None:
    norm = drawn(kind(12, eps=1e-3))
    x = torch.randn(3, 5, 12, dtype=torch.float64, requires_grad=True)
    direction = torch.randn(3, 5, 12, dtype=torch.float64)
    inputs = [x, *norm.parameters()]
    got = torch.autograd.grad((norm(x) * direction).sum(), inputs)
    expected = torch.autograd.grad((formula(norm, x) * direction).sum(), inputs)
    torch.testing.assert_close(norm(x), formula(norm, x), rtol=0, atol=1e-12)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", [LayerNorm, RMSNorm])
def test_gradients_are_those_of_finite_differences(kind) -> None:
    norm = drawn(kind(4))
    assert torch.autograd.gradcheck(norm, torch.randn(2, 4, dtype=torch.float64, requires_grad=True))


def test_norms_are_pytorchs() -> None:
    x = torch.randn(7, 16)
    ours, mean_square = LayerNorm(16), RMSNorm(16)
    torch.testing.assert_close(ours(x), F.layer_norm(x, (16,)), rtol=0, atol=1e-6)
    torch.testing.assert_close(mean_square(x), F.rms_norm(x, (16,), eps=1e-5), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", [LayerNorm, RMSNorm])
def test_statistics_are_float32_in_half_precision(kind, dtype: torch.dtype) -> None:
    x = torch.linspace(100.0, 300.0, 4096).to(dtype)[None]  # squares beyond float16's range, sums beyond 8 bits
    exact = kind(4096)(x.float())
    got = kind(4096).to(dtype)(x)
    assert got.dtype == dtype
    torch.testing.assert_close(got.float(), exact, rtol=2**-8, atol=2**-8)


def test_half_precision_stays_with_float32_weights() -> None:
    assert RMSNorm(8)(torch.ones(2, 8, dtype=torch.bfloat16)).dtype == torch.bfloat16  # as under autocast
