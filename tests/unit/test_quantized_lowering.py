"""Kernels read the numbers of a quantised model as they are."""

import copy
import logging
from typing import Any

import pytest
import torch
from torch import Tensor

from legollm.components.quantized import Bits, QuantizedLinear
from legollm.errors import LoweringError
from legollm.transforms.quantize import QuantizeConfig, quantize
from tiny_models import some_tokens, tiny_model

pytest.importorskip("numba")

from legollm.components.decoder import Decoder
from legollm.lowering import engine as engines
from legollm.lowering.decoder import LoweredDecoder
from legollm.lowering.engine import lowering_for
from legollm.lowering.weights import of_quantized

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("gpt2", {}),
    "qwen3": ("qwen3", {}),
    "odd widths": ("llama3", {"n_kv_heads": 1, "d_model": 44, "n_heads": 2, "d_ff": 70}),
    "mixture": ("moe", {}),
    "vanilla": ("vanilla", {"norm_placement": "parallel", "qkv_bias": True}),
}
EVERYTHING = ("*.router.proj",)


def quantised(name: str, changes: dict[str, Any], **settings: Any) -> Decoder:
    model = copy.deepcopy(tiny_model(name, **changes))
    quantize(model, QuantizeConfig(**settings))
    return model


def relative(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).detach().norm() / wanted.detach().norm())


@pytest.mark.parametrize(("bits", "size"), [("int8", 32), ("int4", 32), ("int4", 96)])
@pytest.mark.parametrize("case", CASES)
@torch.inference_mode()
def test_it_computes_what_the_brick_computes(case: str, bits: Bits, size: int) -> None:
    """With the same rule for activations. Where a state lies between two bytes, sums in another order may choose the
    other one: mostly the logits agree to 1e-6, and 0.01 allows for some that did."""
    model = quantised(*CASES[case], precision=bits, group_size=size, activations="int8", skip=EVERYTHING)
    tokens = some_tokens(3, 19)
    lowered = LoweredDecoder(model)
    assert relative(lowered(tokens), model(tokens)) < 0.01
    for linear in (one for one in model.modules() if isinstance(one, QuantizedLinear)):
        assert of_quantized(linear).plain().equal(linear.weight)
        if bits == "int8":
            assert of_quantized(linear).data.data_ptr() == linear.numbers.data_ptr()


@pytest.mark.parametrize("bits", ["int8", "int4"])
@pytest.mark.parametrize("case", CASES)
@torch.inference_mode()
def test_a_precision_at_load_is_rounding_to_nearest(case: str, bits: Bits) -> None:
    name, changes = CASES[case]
    model, tokens = tiny_model(name, **changes), some_tokens(3, 19)
    small = quantised(name, changes, precision=bits, skip=EVERYTHING)
    assert LoweredDecoder(small, bits)(tokens).equal(LoweredDecoder(model, bits)(tokens))


@pytest.mark.parametrize("skip", ["*.k_proj", "*.gate_proj", "*.down_proj"])
@torch.inference_mode()
def test_some_maps_may_stay(skip: str) -> None:
    model = quantised("llama3", {}, activations="int8", skip=(skip, "lm_head"))
    tokens = some_tokens(3, 19)
    assert relative(LoweredDecoder(model)(tokens), model(tokens)) < 0.01


def test_other_groups_and_mixed_experts_are_for_torch(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(engines, "is_sooner", lambda *_: True)
    small = quantised("llama3", {}, precision="int4", group_size=16)
    mixed = quantised("mixtral", {}, skip=("*.experts.0.*", "*.router.proj"))
    for model, message in (
        (small, "no lowering for int4 in groups of 16, only of multiples of 32; engine=torch runs it"),
        (mixed, "no lowering for experts of which some are quantised; engine=torch runs them"),
    ):
        with pytest.raises(LoweringError, match=message):
            lowering_for(model, "cpu", "float32", 100)
        with caplog.at_level(logging.INFO, "legollm"):
            assert lowering_for(model, "auto", "float32", 100) is None
        assert caplog.records[-1].message == f"engine: torch, because there is {message}"
