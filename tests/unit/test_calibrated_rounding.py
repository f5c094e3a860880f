"""GPTQ and AWQ against their slow definitions, and against rounding to nearest on the text they looked at."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from legollm.architectures import build
from legollm.components.decoder import Decoder
from legollm.components.quantized import Bits, QuantizedLinear, plain, rounded
from legollm.transforms.awq import best_scales, channels_of, rescale
from legollm.transforms.calibration import Inputs, watched
from legollm.transforms.gptq import DAMPING, gptq
from legollm.transforms.quantize import QuantizeConfig, quantizable, quantize
from tiny_models import some_tokens, tiny_model

TEXTS = [(some_tokens(1, 32, seed=seed),) for seed in range(4)]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def correlated(n: int, width: int) -> Tensor:
    """States as a model has them: channels that go together, some of them large."""
    return normal(n, width) @ normal(width, width, seed=1) * normal(width, seed=2).exp()


def inputs_of(x: Tensor) -> Inputs:
    inputs = Inputs()
    inputs.add(x)
    return inputs


def linears_of(model: Decoder) -> dict[str, nn.Linear]:
    return {name: model.get_submodule(name) for name in quantizable(model, QuantizeConfig())}  # type: ignore[misc]


def textbook(weight: Tensor, gram: Tensor, bits: Bits, size: int) -> Tensor:
    """Optimal brain surgery a column at a time, with the inverse of what is left updated by elimination."""
    w, width = weight.double().clone(), weight.size(1)
    inverse = (gram.double() + DAMPING * gram.double().diagonal().mean() * torch.eye(width)).inverse()
    result = torch.zeros_like(w)
    for j in range(width):
        if bits == "int8":
            step = (weight.abs().amax(1) / 127).double()
        elif j % size == 0:
            group = w[:, j : j + size]
            step = torch.stack([row[row.abs().argmax()] / -8 for row in group]).bfloat16().double()
        limits = (-127, 127) if bits == "int8" else (-8, 7)
        result[:, j] = (w[:, j] / step).round().clamp(*limits) * step
        error = (w[:, j] - result[:, j]) / inverse[j, j]
        w -= error[:, None] * inverse[j]
        inverse = inverse - torch.outer(inverse[:, j], inverse[j]) / inverse[j, j]
    return result


@pytest.mark.parametrize(("bits", "width"), [("int4", 96), ("int4", 40), ("int8", 70), ("int8", 150)])
def test_gptq_is_the_textbook_s(bits: Bits, width: int) -> None:
    weight, inputs = normal(11, width), inputs_of(correlated(400, width))
    found = plain(*gptq(weight, inputs, bits, 32), width)
    wanted = textbook(weight, inputs.gram, bits, 32)
    torch.testing.assert_close(found, wanted.float(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("bits", ["int8", "int4"])
def test_gptq_s_answers_are_nearer(bits: Bits) -> None:
    weight, x = normal(24, 96), correlated(300, 96)
    errors = [
        (x @ (weight - plain(*one, 96)).t()).square().sum()
        for one in (gptq(weight, inputs_of(x), bits, 32), rounded(weight, bits, 32))
    ]
    assert errors[0] < 0.75 * errors[1]


def test_gptq_is_never_the_worse() -> None:
    """Corrections are greedy, and of a few columns they may lose: then the nearest numbers are kept."""
    for seed in range(40):
        weight, x = normal(1, 4, seed=seed), normal(3, 4, seed=100 + seed)
        errors = [
            (x @ (weight - plain(*one, 4)).t()).square().sum()
            for one in (gptq(weight, inputs_of(x), "int4", 4), rounded(weight, "int4", 4))
        ]
        assert errors[0] <= errors[1] * 1.001


def test_gptq_of_what_read_nothing_rounds_to_nearest() -> None:
    weight = normal(5, 64)
    x = torch.zeros(9, 64)
    x[:, 3] = 1.0  # all other channels are dead
    for inputs in (Inputs(), inputs_of(torch.zeros(0, 64)), inputs_of(torch.zeros(3, 64)), inputs_of(x)):
        for found, wanted in zip(gptq(weight, inputs, "int4", 32), rounded(weight, "int4", 32), strict=True):
            assert found.equal(wanted)


def test_what_maps_read_is_seen() -> None:
    model = tiny_model("llama3")
    linears = linears_of(model)
    read: dict[str, list[Tensor]] = {name: [] for name in linears}
    for name, linear in linears.items():
        linear.register_forward_pre_hook(lambda _, args, name=name: read[name].append(args[0].flatten(0, -2)))
    found = watched(model, linears, TEXTS)
    for name, inputs in found.items():
        x = torch.cat(read[name])
        assert inputs.n_states == len(x) == 128
        torch.testing.assert_close(inputs.gram, x.t() @ x, rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(inputs.magnitudes, x.abs().mean(0))
    assert len({id(one) for one in found.values()}) == 2 * 4  # of 7 maps in a block, three and two read the same
    change = normal(*linears["blocks.0.attn.q_proj"].weight.shape)
    x = torch.cat(read["blocks.0.attn.q_proj"])
    assert found["blocks.0.attn.q_proj"].error(change) == pytest.approx(
        float((x @ change.t()).square().sum()), rel=1e-4
    )


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("gpt2", {}),
        ("llama3", {"n_kv_heads": 4}),
        ("moe", {}),
        ("vanilla", {"norm_placement": "parallel", "ffn": "swiglu"}),
        ("vanilla", {"norm_placement": "sandwich", "n_kv_heads": 4}),
        ("vanilla", {"norm_placement": "post", "ffn": "none"}),
        ("t5", {"vocab_size": 97, "n_layers": 1, "d_model": 32, "n_heads": 4, "d_head": 8, "d_ff": 48}),
    ],
)
def test_rescaled_channels_compute_the_same(name: str, changes: dict[str, Any]) -> None:
    model = build("t5", **changes).eval() if name == "t5" else tiny_model(name, **changes)
    texts = [text * (2 if name == "t5" else 1) for text in TEXTS]
    with torch.inference_mode():
        before = model(*texts[0])
    weights = {key: one.detach().clone() for key, one in model.named_parameters()}
    linears = linears_of(model)
    rescale(model, {linears[key]: one for key, one in watched(model, linears, texts).items()}, "int4", 32)
    changed = {key for key, one in model.named_parameters() if not one.equal(weights[key])}
    assert changed
    with torch.inference_mode():
        assert float((model(*texts[0]) - before).norm() / before.norm()) < 1e-5


@pytest.mark.parametrize("bits", ["int8", "int4"])
def test_awq_s_answers_are_nearer(bits: Bits) -> None:
    """One strength is none at all, so that nothing gets worse; a few large channels are what it is for."""
    x = normal(300, 96)
    x[:, ::17] *= 30
    linear, inputs = nn.Linear(96, 24, bias=False), inputs_of(x)
    linear.weight.data = normal(24, 96, seed=3)
    s = best_scales({linear: inputs}, bits, 32)
    weight = linear.weight.detach()
    errors = [
        (x @ (plain(*rounded(weight * s, bits, 32), 96) / s - weight).t()).square().sum() for s in (s, torch.ones(96))
    ]
    assert errors[0] < 0.6 * errors[1]


@pytest.mark.parametrize("bits", ["int8", "int4"])
@pytest.mark.parametrize("name", ["gpt2", "llama3", "qwen3_moe"])
def test_no_map_answers_worse_than_a_rounded_one(name: str, bits: Bits) -> None:
    """On the text that was looked at: alone with gptq, and with awq all together that read the same."""
    model = tiny_model(name)
    linears = linears_of(model)
    inputs = watched(model, linears, TEXTS)

    def error(name: str, numbers: Any, s: Tensor | float = 1.0) -> float:
        weight = linears[name].weight.detach()
        return inputs[name].error(weight - plain(*numbers, weight.size(1)) / s)

    by_gptq = {}
    for name, linear in linears.items():
        weight = linear.weight.detach()
        by_gptq[name] = error(name, gptq(weight, inputs[name], bits, 32)) / error(name, rounded(weight, bits, 32))
    assert max(by_gptq.values()) <= 1
    assert sum(by_gptq.values()) < 0.9 * len(by_gptq)
    names = {id(linear): name for name, linear in linears.items()}
    n_better = 0
    for module in model.modules():
        for _, readers in channels_of(module):
            own = {linear: inputs[names[id(linear)]] for linear in readers if id(linear) in names}
            s = best_scales(own, bits, 32)
            weights = {names[id(linear)]: linear.weight.detach() for linear in own}
            found = sum(error(name, rounded(weight * s, bits, 32), s) for name, weight in weights.items())
            wanted = sum(error(name, rounded(weight, bits, 32)) for name, weight in weights.items())
            assert found <= wanted * (1 + 1e-6)
            n_better += found < 0.99 * wanted
    assert n_better >= 2


def test_later_blocks_see_what_rounded_ones_make(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their correction counters the error of the blocks before, which a Gram matrix of exact states does not know."""
    model = tiny_model("llama3")
    seen = []
    monkeypatch.setattr(
        "legollm.transforms.quantize.watched",
        lambda model, linears, texts: (
            seen.append([name for name, one in model.named_modules() if isinstance(one, QuantizedLinear)])
            or watched(model, linears, texts)
        ),
    )
    quantize(model, QuantizeConfig(method="gptq"), TEXTS)
    assert [len(names) for names in seen] == [0, 7]
