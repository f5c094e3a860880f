"""What lowerings share: the lookup of a brick's class, norms, activations, and products with a matrix.

A class that is not in its table has no lowering; a subclass has none either, because it may compute something else.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from legollm.components.feedforward import gelu, gelu_tanh, relu, relu_squared
from legollm.components.norm import LayerNorm, RMSNorm
from legollm.components.quantized import QuantizedLinear
from legollm.errors import LoweringError
from legollm.kernels import plan
from legollm.lowering.weights import Weight
from legollm.lowering.writer import Norm, Product, States, Writer


def lowering_of(table: Mapping[Any, Any], brick: Any) -> Any:
    """The row of a brick's class.

    Raises:
        LoweringError: there is none.
    """
    kind = type(brick)
    if kind not in table:
        raise LoweringError(f"no lowering for {kind.__module__}.{kind.__qualname__}; engine=torch runs it")
    return table[kind]


NORMS: Mapping[type[nn.Module], Callable[[Any], Norm]] = {
    nn.Identity: lambda brick: Norm(),
    RMSNorm: lambda brick: Norm(plan.RMS, brick.weight, None, brick.eps),
    LayerNorm: lambda brick: Norm(plan.LAYER, brick.weight, brick.bias, brick.eps),
}

ACTIVATIONS: Mapping[Callable[[Tensor], Tensor], int] = {
    relu: plan.RELU,
    relu_squared: plan.RELU_SQUARED,
    gelu: plan.GELU,
    gelu_tanh: plan.GELU_TANH,
    F.silu: plan.SILU,
    F.sigmoid: plan.SIGMOID,
}


class Normed(NamedTuple):
    """What half a block reads: norm(x), made in the form that whoever reads it wants."""

    x: States
    norm: Norm

    def read(self, writer: Writer, form: int, *, tiles: bool = True) -> States:
        return writer.prepare(self.x, self.x.width, form=form, norm=self.norm, tiles=tiles)


def norm_of(brick: nn.Module) -> Norm:
    norm: Norm = lowering_of(NORMS, brick)(brick)
    return norm


def matrix(writer: Writer, linear: nn.Module) -> Weight:
    """In the plan's precision, or as it was quantised.

    Raises:
        LoweringError: what stands there is not a plain linear map.
    """
    if lowering_of({nn.Linear: False, QuantizedLinear: True}, linear):
        return writer.quantized(linear)  # type: ignore[arg-type]
    return writer.weight(linear.weight)  # type: ignore[arg-type]


def products(writer: Writer, x: Normed, wanted: Sequence[Product]) -> None:
    """All that is multiplied with norm(x): side by side, those first that read it in the form of the first."""
    for form in dict.fromkeys(one.weight.form for one in wanted):
        writer.linear(x.read(writer, form), [one for one in wanted if one.weight.form == form])


def activation_of(brick: Any) -> int:
    """
    Raises:
        LoweringError: there is none for it.
    """
    if brick.activation not in ACTIVATIONS:
        raise LoweringError(f"no lowering for the activation {brick.activation}; engine=torch runs it")
    return ACTIVATIONS[brick.activation]


def product(
    writer: Writer, linear: nn.Linear, x: States, out: States, *, add: bool, activation: int = 0, gate: int = 0
) -> None:
    """out (+)= linear(activation(x))."""
    weight = matrix(writer, linear)
    prepared = writer.prepare(x, weight.width, form=weight.form, activation=activation, gate=gate, name="product")
    writer.linear(prepared, [Product(weight, out, linear.bias, add)])
