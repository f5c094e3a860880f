"""Quantised models: how far each number moves, which maps it is done to, and that kernels read the same numbers."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from legollm.architectures import build
from legollm.components.quantized import (
    LIMITS,
    STATES_PER_SCALE,
    Bits,
    QuantizedLinear,
    as_bytes,
    in_pairs,
    out_of_pairs,
    plain,
    rounded,
)
from legollm.errors import ConfigError
from legollm.transforms.quantize import QuantizeConfig, prepare, quantizable, quantize
from tiny_models import TINY, some_tokens, tiny_model

BITS: tuple[Bits, ...] = ("int8", "int4")
T5 = {"vocab_size": 97, "n_layers": 2, "d_model": 32, "n_heads": 4, "d_head": 8, "d_ff": 48}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def quantised(model: nn.Module, **settings: Any) -> nn.Module:
    changed = copy.deepcopy(model)
    quantize(changed, QuantizeConfig(**settings))
    return changed


def relative(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).detach().norm() / wanted.detach().norm())


def one_by_one(weight: list[float], bits: Bits) -> tuple[list[int], float]:
    """The definition, for the numbers that share a scale."""
    extreme = max(weight, key=abs)
    step = abs(extreme) / 127 if bits == "int8" else float(torch.tensor(extreme / -8).bfloat16())
    lowest, highest = LIMITS[bits]
    return [max(lowest, min(highest, round(w / step))) for w in weight], step


def test_rounding_is_its_definition() -> None:
    weight = normal(5, 48)
    numbers, scales = rounded(weight, "int8", 32)
    for row, own, step in zip(weight.tolist(), numbers.tolist(), scales.tolist(), strict=True):
        assert (own, pytest.approx(step)) == one_by_one(row, "int8")
    numbers, scales = rounded(weight, "int4", 16)
    for row, own, steps in zip(weight.view(5, 3, 16).tolist(), numbers.tolist(), scales.tolist(), strict=True):
        for group in range(3):
            assert (own[group], pytest.approx(steps[group])) == one_by_one(row[group], "int4")


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("width", [1, 31, 64, 70])
def test_a_number_moves_by_half_a_step_at_most(bits: Bits, width: int) -> None:
    """int4: but what would be 8 steps is 7; and a scale of bfloat16 may be off by 1/256 of its 8 steps."""
    weight = 3 * normal(9, width)
    weight[0] = 0
    numbers, scales = rounded(weight, bits, 32)
    steps = scales.float().abs()[..., None].expand(numbers.shape).flatten(1)[:, :width]
    moved = (plain(numbers, scales, width) - weight).abs()
    is_cut = numbers.flatten(1)[:, :width] == 7 if bits == "int4" else torch.zeros_like(moved, dtype=torch.bool)
    assert (moved <= torch.where(is_cut, 1 + 8 / 256, 0.5 + 1e-4) * steps + 1e-30).all()
    assert moved[1:].amax() > 0 or width == 1


@pytest.mark.parametrize("bits", BITS)
def test_an_integer_matrix_is_kept_as_it_is(bits: Bits) -> None:
    lowest, highest = LIMITS[bits]
    weight = torch.randint(lowest, highest + 1, (6, 64), generator=torch.Generator().manual_seed(0)).float()
    weight[:, ::32] = lowest
    assert plain(*rounded(weight / 8, bits, 32), 64).equal(weight / 8)


def test_pairs_are_taken_apart_again() -> None:
    numbers = torch.arange(-8, 8, dtype=torch.int8).repeat(3, 2)
    assert in_pairs(numbers).shape == (3, 16)
    assert out_of_pairs(in_pairs(numbers)).equal(numbers)


@pytest.mark.parametrize("activations", ["float", "int8"])
@pytest.mark.parametrize("bits", BITS)
def test_the_brick_multiplies_with_what_its_numbers_stand_for(bits: Bits, activations: Any) -> None:
    weight, x, bias = normal(7, 70), normal(2, 3, 70, seed=1), nn.Parameter(normal(7, seed=2))
    brick = QuantizedLinear(70, 7, bits=bits, bias=False, activations=activations).fill(*rounded(weight, bits, 32))
    brick.bias = bias
    reads = as_bytes(x, STATES_PER_SCALE[bits]) if activations == "int8" else x
    assert brick(x).equal(F.linear(reads, plain(*rounded(weight, bits, 32), 70), bias))
    assert relative(brick(x), F.linear(x, weight, bias)) < {"int8": 0.02, "int4": 0.2}[bits]
    assert brick.bfloat16()(x.bfloat16()).dtype == torch.bfloat16


def test_bytes_keep_states_to_half_a_step() -> None:
    x = normal(4, 70)
    groups = F.pad(x, (0, 26)).view(4, 3, 32)
    half = (groups.abs().amax(-1, keepdim=True) / 254).expand(groups.shape).reshape(4, 96)[:, :70]
    assert ((as_bytes(x, 32) - x).abs() <= half * 1.0001).all()
    assert as_bytes(torch.zeros(1, 5), 32).equal(torch.zeros(1, 5))


def test_scales_stay_what_they_are_in_another_dtype() -> None:
    model = quantised(tiny_model("llama3"))
    before = {name: one.clone() for name, one in model.named_buffers() if "proj" in name}
    assert {name: one.dtype for name, one in model.bfloat16().named_buffers() if "proj" in name} == {
        name: one.dtype for name, one in before.items()
    }
    assert all(model.get_buffer(name).equal(one) for name, one in before.items())
    assert model(some_tokens(1, 4)).dtype == torch.bfloat16


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("name", [*(name for name in TINY if name != "bigram"), "mlp_lm", "t5"])
def test_every_architecture(name: str, bits: Bits) -> None:
    made = {"mlp_lm": lambda: build("mlp_lm", vocab_size=97), "t5": lambda: build("t5", **T5)}
    model = made[name]().eval() if name in made else tiny_model(name)
    small = quantised(model, precision=bits)
    linears = {key for key, one in model.named_modules() if type(one) is nn.Linear}
    left = {key for key, one in small.named_modules() if type(one) is nn.Linear}
    assert left == {key for key in linears if key == "lm_head" or key.endswith("router.proj")} < linears
    tokens = (some_tokens(2, 9),) * (2 if name == "t5" else 1)
    with torch.inference_mode():
        found, wanted = small(*tokens), model(*tokens)
    assert 0 < relative(found, wanted) < {"int8": 0.05, "int4": 0.6}[bits]
    empty = copy.deepcopy(model)
    prepare(empty, QuantizeConfig(precision=bits))
    empty.load_state_dict(small.state_dict())
    with torch.inference_mode():
        assert empty(*tokens).equal(found)


def test_which_maps() -> None:
    names = set(quantizable(tiny_model("gpt2", tie_embeddings=False), QuantizeConfig()))
    tied = tiny_model("gpt2")
    assert set(quantizable(tied, QuantizeConfig(skip=()))) == names
    assert set(quantizable(tiny_model("gpt2", tie_embeddings=False), QuantizeConfig(skip=()))) == names | {"lm_head"}
    some = set(quantizable(tied, QuantizeConfig(skip=("blocks.0.*", "*.o_proj"))))
    assert some == {name for name in names if name.startswith("blocks.1.") and not name.endswith("o_proj")}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"group_size": 7}, "group_size: 7 is no even number above 0; 32, 64 and 128 are usual"),
        ({"group_size": 64}, "group_size: int8 has one scale for each output; leave it out, or give precision=int4"),
        ({"skip": ("*",)}, r"model: no linear map that could be quantised; all that it has are in skip=\*"),
        ({"method": "gptq"}, "calibration: gptq looks at a text; give one, or method=rtn"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        quantised(tiny_model("gpt2"), **{"precision": "int4" if settings == {"group_size": 7} else "int8"} | settings)


def test_a_model_without_linear_maps_is_refused() -> None:
    with pytest.raises(ConfigError, match="no linear map that could be quantised; it has none"):
        quantised(tiny_model("bigram"))
