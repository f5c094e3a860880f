"""Adapters: they start as nothing, count as the papers say, merge exactly, and only what shall learn does."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from legollm.architectures import build
from legollm.checkpoints.peft import fused_maps
from legollm.components.adapted import Adapted, AdaptedByDirection
from legollm.components.quantized import QuantizedLinear
from legollm.errors import ConfigError
from legollm.training.optim import OptimConfig, build_optimizer, optimizer_tensors
from legollm.transforms.compiled import Compiled, compile_blocks, passes
from legollm.transforms.freeze import freeze
from legollm.transforms.lora import LoraConfig, adapters, add_lora, dissolve, merge, unmerge, without_adapters
from legollm.transforms.quantize import QuantizeConfig, quantize
from tiny_models import TINY, some_tokens, tiny_model

KINDS = ("lora", "rslora", "dora")


def with_lora(model: nn.Module, arch: str = "llama3", **settings: Any) -> nn.Module:
    add_lora(model, LoraConfig(**{"rank": 3} | settings), fused=fused_maps(arch, model))
    return model


def moved(model: nn.Module) -> nn.Module:
    """As if it had learned something."""
    rng = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            noise = torch.randn(parameter.shape, generator=rng, dtype=torch.float64)
            parameter.data += (0.05 * noise).to(parameter.dtype)
    return model


def linear(d_in: int = 12, d_out: int = 7, dtype: torch.dtype = torch.float64) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(d_in, d_out, dtype=dtype)


def test_the_update_is_its_definition() -> None:
    """Every number by the formulas of the papers, in loops."""
    base = linear()
    x = torch.randn(5, 12, dtype=torch.float64)
    one = moved(Adapted(base.requires_grad_(False), rank=2, scale=1.5))
    assert isinstance(one, Adapted)
    w = base.weight.clone()
    for i in range(7):
        for j in range(12):
            w[i, j] += 1.5 * sum(one.lora_b[i, r] * one.lora_a[r, j] for r in range(2))
    torch.testing.assert_close(one(x), x @ w.T + base.bias, rtol=0, atol=1e-12)
    two = AdaptedByDirection(base, rank=2, scale=1.5)
    two.load_state_dict(one.state_dict() | {"magnitude": torch.rand(7, dtype=torch.float64)})
    lengths = [math.sqrt(sum(v**2 for v in row)) for row in w.tolist()]
    for i in range(7):
        w[i] *= two.magnitude[i] / lengths[i]
    torch.testing.assert_close(two(x), x @ w.T + base.bias, rtol=0, atol=1e-12)


def test_the_lengths_are_constants_in_the_backward_pass() -> None:
    """DoRA, section 4.3: gradients are those of magnitude / C * (W + s B A) with C held fixed."""
    base = linear().requires_grad_(False)
    one = moved(AdaptedByDirection(base, rank=2, scale=0.5))
    assert isinstance(one, AdaptedByDirection)
    x, weights = torch.randn(5, 12, dtype=torch.float64), torch.randn(5, 7, dtype=torch.float64)
    parts = [one.lora_a, one.lora_b, one.magnitude]
    found = torch.autograd.grad((one(x) * weights).sum(), parts)
    turned = base.weight + 0.5 * one.lora_b @ one.lora_a
    fixed = turned.norm(dim=1).detach()
    y = x @ ((one.magnitude / fixed)[:, None] * turned).T + base.bias
    for a, b in zip(found, torch.autograd.grad((y * weights).sum(), parts), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_scales() -> None:
    assert LoraConfig(rank=8, alpha=16).scale == 2
    assert LoraConfig(rank=16, alpha=8, kind="rslora").scale == 2
    assert LoraConfig(rank=4, alpha=2, kind="dora").scale == 0.5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("arch", ["gpt2", "qwen3", "moe"])
def test_nothing_changes_at_the_start(arch: str, kind: str) -> None:
    model, tokens = tiny_model(arch), some_tokens(2, 9)
    before = model(tokens)
    assert torch.equal(with_lora(model, arch, kind=kind)(tokens), before)
    assert len(adapters(model)) > 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_merged_is_unmerged(kind: str, dtype: torch.dtype, error: float) -> None:
    model = moved(with_lora(build("gpt2", **TINY["gpt2"]).to(dtype), "gpt2", kind=kind))  # logits of about 1
    tokens = some_tokens(2, 9)
    before = model(tokens)
    merge(model)
    torch.testing.assert_close(model(tokens), before, rtol=0, atol=error)
    assert not torch.equal(model(tokens), before)
    unmerge(model)
    assert torch.equal(model(tokens), before)
    names = {name for name, _ in tiny_model("gpt2").named_parameters()}
    dissolve(model)
    torch.testing.assert_close(model(tokens), before, rtol=0, atol=error)
    assert {name for name, _ in model.named_parameters()} == names


@pytest.mark.parametrize("bits", ["int8", "int4"])
def test_a_rounded_base_is_the_rounded_model(bits: Any) -> None:
    rounded, tokens = build("llama3", **TINY["llama3"]), some_tokens(2, 9)
    model = with_lora(copy.deepcopy(rounded), quantize=bits)
    quantize(rounded, QuantizeConfig(precision=bits))
    assert torch.equal(model(tokens), rounded(tokens))
    before = moved(model)(tokens)
    assert not torch.equal(before, rounded(tokens))
    with without_adapters(model):
        assert torch.equal(model(tokens), rounded(tokens))
    dissolve(model, quantized=True)
    torch.testing.assert_close(model(tokens), before, rtol=0, atol=1e-6)
    assert not any(isinstance(module, QuantizedLinear) for module in model.modules())


def test_gradients_pass_whole_numbers_as_they_pass_floats() -> None:
    base = linear(dtype=torch.float32)
    model = nn.Sequential(base)
    quantize(model, QuantizeConfig(skip=()))
    x = torch.randn(2, 5, 12, requires_grad=True)
    floats = nn.Linear(12, 7)
    floats.load_state_dict({"weight": model[0].weight, "bias": base.bias})
    weights = torch.randn(2, 5, 7)
    found = torch.autograd.grad((model(x) * weights).sum(), [x, model[0].bias])
    wanted = torch.autograd.grad((floats(x) * weights).sum(), [x, floats.bias])
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b)


def test_autograd_keeps_no_floats_of_whole_numbers() -> None:
    model = nn.Sequential(nn.Linear(64, 64))
    quantize(model, QuantizeConfig(skip=()))
    kept: list[Tensor] = []
    x = torch.randn(3, 64, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        model(x).sum().backward()
    assert sum(tensor.numel() for tensor in kept) < 64 * 64


def test_only_adapters_learn_and_only_they_are_remembered() -> None:
    model = with_lora(tiny_model("gpt2"), "gpt2", also=("norm",))
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name.rpartition(".")[2] for name in learning - {"norm.weight", "norm.bias"}} == {"lora_a", "lora_b"}
    assert {"norm.weight", "norm.bias"} <= learning
    optimizer = build_optimizer(model, OptimConfig())
    before = copy.deepcopy(model.state_dict())
    model(some_tokens(2, 9)).square().sum().backward()
    optimizer.step()
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    aliases = {name for name in changed if name.endswith("lora_a")}  # k and v read through the A of q
    assert changed - aliases <= learning
    assert {name.split(".", 1)[1] for name in optimizer_tensors(optimizer)} == learning


def test_maps_that_are_one_matrix_elsewhere_read_through_one() -> None:
    model = with_lora(tiny_model("gpt2"), "gpt2")
    found = adapters(model)
    q, k, v, o = (found[f"blocks.1.attn.{name}_proj"] for name in "qkvo")
    assert q.lora_a is k.lora_a is v.lora_a
    assert o.lora_a is not q.lora_a
    assert len({id(one.lora_a) for one in adapters(with_lora(tiny_model("llama3"))).values()}) == 14


def test_blocks_with_lengths_are_left_to_no_compiler(caplog: pytest.LogCaptureFixture) -> None:
    model = with_lora(tiny_model("gpt2"), "gpt2", kind="dora")
    assert not compile_blocks(model)
    assert "blocks with lora.kind=dora are not compiled" in caplog.text
    assert not any(isinstance(getattr(holder, name), Compiled) for holder, name in passes(model))


def test_a_seed_decides_the_start() -> None:
    starts = [tiny_model("llama3") for _ in range(3)]
    for model, seed in zip(starts, (1, 1, 2), strict=True):
        add_lora(model, LoraConfig(rank=2), seed=seed)
    first, same, other = (torch.cat([one.lora_a.detach().flatten() for one in adapters(m).values()]) for m in starts)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert float(first.abs().max()) <= 32**-0.5
    assert first.std().item() == pytest.approx((3 * 37) ** -0.5, rel=0.2)  # D_in is 32, and 64 for one map in seven


@pytest.mark.parametrize(
    ("targets", "n"),
    [
        (("q_proj", "v_proj"), 4),
        (("q_proj,v_proj",), 4),
        (("blocks.0.*",), 7),
        (("ffn.*",), 6),
        (("*",), 14),
        (("b*.1.*.o_*",), 1),
    ],
)
def test_targets_are_names_or_their_ends(targets: tuple[str, ...], n: int) -> None:
    model = build("llama3", **TINY["llama3"] | {"tie_embeddings": False})
    with_lora(model, targets=targets, skip=("lm_head",))
    assert len(adapters(model)) == n


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"targets": ("w_q",)}, "lora.targets: 'w_q' matches no linear map; there are down_proj, k_proj, "),
        ({"targets": ("lm_head",)}, "lora.targets: lm_head shares its weights with another module"),
        ({"skip": ("*",)}, "lora.targets: all that matches is in lora.skip or lora.also; nothing is left to adapt"),
        ({"also": ("head",)}, "lora.also: 'head' matches no module; there are embed, blocks, norm, lm_head and"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=f"^{problem}"):
        with_lora(tiny_model("gpt2"), "gpt2", **settings)


@pytest.mark.parametrize("wrong", [{"rank": -1}, {"alpha": 0.0}, {"dropout": 1.0}, {"quantize": "int8"}])
def test_impossible_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"^{next(iter(wrong))}: "):
        LoraConfig(**wrong)


def test_a_rounded_base_is_not_rounded_again() -> None:
    model = tiny_model("llama3")
    quantize(model, QuantizeConfig())
    with pytest.raises(ConfigError, match=r"^lora\.quantize: the base is quantised already"):
        with_lora(model, quantize="int4")


def learns(model: nn.Module) -> set[str]:
    return {".".join(name.split(".")[:2]) for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize(
    ("patterns", "left"),
    [
        (("embed, blocks.0",), {"blocks.1", "norm.weight", "norm.bias"}),
        (("all_but_last_1",), {"blocks.1", "norm.weight", "norm.bias"}),
        (("*.bias", "embed", "blocks"), {"norm.weight"}),
        ((), {"blocks.0", "blocks.1", "norm.weight", "norm.bias", "embed.tokens", "embed.positions"}),
    ],
)
def test_frozen_parts_stand_still(patterns: tuple[str, ...], left: set[str]) -> None:
    model = tiny_model("gpt2")
    freeze(model, patterns)
    assert learns(model) == left
    n_learning = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    optimizer = build_optimizer(model, OptimConfig())
    assert sum(one.numel() for group in optimizer.param_groups for one in group["params"]) == n_learning


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("block.0", "'block.0' matches nothing; there are embed, blocks, norm and what is in them"),
        ("all_but_last_2", "all_but_last_2 leaves nothing to freeze, the model has 2 blocks"),
        ("*", "nothing is left that learns"),
    ],
)
def test_freezing_nothing_or_all_is_refused(pattern: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=rf"^freeze: {problem.replace('*', '.')}"):
        freeze(tiny_model("gpt2"), (pattern,))
