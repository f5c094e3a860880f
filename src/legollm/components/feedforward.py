# mypy: disable-error-code="no-any-return"
"""Feed-forward: every token thinks for itself."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from legollm.components.spared import spared


def gelu(x: Tensor) -> Tensor:
    """x * Phi(x), the exact form (Hendrycks & Gimpel 2016, arXiv:1606.08415)."""
    return F.gelu(x)


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU through tanh, the approximation that GPT-2 was trained with; it differs by up to 5e-4."""
    return F.gelu(x, approximate="tanh")


def relu(x: Tensor) -> Tensor:
    """max(x, 0)."""
    return F.relu(x)


def relu_squared(x: Tensor) -> Tensor:
    """max(x, 0)^2 (So et al. 2021, arXiv:2109.08668)."""
    return F.relu(x).square()


class MLP(nn.Module):
    """Two linear maps with an activation between them (Vaswani et al. 2017, arXiv:1706.03762)."""

    def __init__(
        self, d_model: int, d_ff: int, *, activation: Callable[[Tensor], Tensor] = gelu_tanh, bias: bool = True
    ) -> None:
        super().__init__()
        self.activation = activation
        self.up_proj = nn.Linear(d_model, d_ff, bias=bias)
        self.down_proj = nn.Linear(d_ff, d_model, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., D) -> (..., D)."""
        return spared(self.narrow, self.up_proj(x))

    def narrow(self, up: Tensor) -> Tensor:
        """(..., F) -> (..., D)."""
        return self.down_proj(self.activation(up))


class GatedMLP(nn.Module):
    """Two linear maps, one of them opened and closed by a third (Dauphin et al. 2017, arXiv:1612.08083).

    y = down_proj(activation(gate_proj(x)) * up_proj(x)). The named kinds below are Shazeer 2020, arXiv:2002.05202.
    """

    def __init__(self, d_model: int, d_ff: int, *, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.activation = activation
        self.gate_proj = nn.Linear(d_model, d_ff, bias=False)
        self.up_proj = nn.Linear(d_model, d_ff, bias=False)
        self.down_proj = nn.Linear(d_ff, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., D) -> (..., D)."""
        return spared(self.narrow, self.gate_proj(x), self.up_proj(x))

    def narrow(self, gate: Tensor, up: Tensor) -> Tensor:
        """(..., F) twice -> (..., D)."""
        return self.down_proj(self.activation(gate) * up)


class GLU(GatedMLP):
    """A gate between 0 and 1: sigmoid(x)."""

    def __init__(self, d_model: int, d_ff: int) -> None:
        super().__init__(d_model, d_ff, activation=F.sigmoid)


class SwiGLU(GatedMLP):
    """A gate of SiLU: x * sigmoid(x)."""

    def __init__(self, d_model: int, d_ff: int) -> None:
        super().__init__(d_model, d_ff, activation=F.silu)


class GeGLU(GatedMLP):
    """A gate of GELU."""

    def __init__(self, d_model: int, d_ff: int) -> None:
        super().__init__(d_model, d_ff, activation=gelu)


class ReGLU(GatedMLP):
    """A gate of ReLU."""

    def __init__(self, d_model: int, d_ff: int) -> None:
        super().__init__(d_model, d_ff, activation=relu)


def gated_d_ff(d_model: int, *, multiple_of: int = 64) -> int:
    """The width at which three matrices weigh as much as an MLP's two of 4 * d_model: 8/3 * d_model, rounded up."""
    return -(-8 * d_model // (3 * multiple_of)) * multiple_of
