"""Costs found without memory are those of the real model: every product, every byte."""

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from legollm.architectures import ARCHITECTURES
from legollm.architectures.gpt2 import GPT2Config
from legollm.components import attention
from legollm.components.encoder_decoder import EncoderDecoder
from legollm.components.feedforward import MLP
from legollm.components.moe import MoE
from legollm.components.routing import Router, Soft, TopK
from legollm.evaluation.cost import Cost, cost_of
from legollm.generation.cache import FullCache
from legollm.transforms.freeze import freeze
from legollm.transforms.lora import LoraConfig, add_lora
from legollm.transforms.recompute import Recompute, recompute
from tiny_models import TINY, tiny_config

T = 12
LEARNED = [name for name in TINY if ARCHITECTURES[name].learns != "counts"]
CACHED = [name for name in LEARNED if ARCHITECTURES[name].learns == "steps"]


@cache
def counted(name: str) -> Cost:
    return cost_of(lambda: ARCHITECTURES[name].build(tiny_config(name)), T)


def real(name: str) -> tuple[nn.Module, list[Tensor]]:
    """A tiny model with memory, and what it reads."""
    model = ARCHITECTURES[name].build(tiny_config(name))
    return model, [torch.ones(1, T, dtype=torch.long)] * (2 if isinstance(model, EncoderDecoder) else 1)


@pytest.fixture(autouse=True)
def _every_product_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fused kernel does the same products out of sight of torch's counter."""
    monkeypatch.setattr(attention, "faster_backend", lambda *args: "naive")


def in_linear(model: nn.Module, texts: list[Tensor]) -> int:
    """2 x rows x inputs x outputs of every linear map that is called, seen by hooks."""
    found = 0

    def count(module: Any, args: tuple[Tensor, ...], y: Tensor) -> None:
        nonlocal found
        found += 2 * y.numel() * module.in_features

    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(count)
    model(*texts)
    return found


@pytest.mark.parametrize("name", LEARNED)
def test_products_are_those_of_the_real_model(name: str) -> None:
    model, texts = real(name)
    cost = counted(name)
    with FlopCounterMode(display=False) as forward:
        model(*texts)
    assert cost.forward_flops == forward.get_total_flops()
    assert cost.n_parameters == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", LEARNED)
def test_training_is_three_forward_passes(name: str) -> None:
    model, texts = real(name)
    cost = counted(name)
    with FlopCounterMode(display=False) as both:
        model(*texts).sum().backward()
    assert cost.training_flops == both.get_total_flops()


@pytest.mark.parametrize("rank", [0, 2])
def test_weights_that_stand_still_have_no_gradient(rank: int) -> None:
    """What reads the frozen embedding needs none of its input either, in the first block; that is not looked into."""

    def build() -> nn.Module:
        model = ARCHITECTURES["llama3"].build(tiny_config("llama3", n_layers=8))
        if rank:
            add_lora(model, LoraConfig(rank=rank))
        freeze(model, () if rank else ("*.norm?",))
        return model

    cost, model = cost_of(build, T), build()
    with FlopCounterMode(display=False) as both:
        model(torch.ones(1, T, dtype=torch.long)).sum().backward()
    assert cost.n_trained == sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert 0.95 * cost.training_flops < both.get_total_flops() <= cost.training_flops
    assert (cost.training_flops == 3 * cost.forward_flops) == (not rank)


@pytest.mark.parametrize("name", LEARNED)
def test_products_with_weights_are_those_of_linear_maps(name: str) -> None:
    routers = [module for module in real(name)[0].modules() if isinstance(module, Router)]
    in_routers = sum(2 * T * router.proj.weight.numel() for router in routers)  # they call no module
    cost = counted(name)
    assert cost.weight_flops == in_linear(*real(name)) + in_routers


@pytest.mark.parametrize("name", LEARNED)
def test_kept_bytes_are_those_of_the_real_model(name: str) -> None:
    model, texts = real(name)
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = model(*texts)
        F.cross_entropy(logits.flatten(0, -2), torch.zeros(logits[..., 0].numel(), dtype=torch.long))
    n_bytes = sum(tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in weights)
    is_mixture = any(isinstance(module, MoE) for module in model.modules())
    lists = 0.1 * n_bytes if is_mixture else 0  # who goes to which expert is known to the real model only
    assert counted(name).kept_bytes == pytest.approx(n_bytes, abs=lists)


@pytest.mark.parametrize("name", CACHED)
def test_kv_values_fill_the_real_cache(name: str) -> None:
    model, _ = real(name)
    cost = counted(name)
    memory = FullCache.for_model(model, batch_size=1, max_len=50)  # type: ignore[arg-type]
    assert cost.kv_values(50) * 4 == memory.nbytes


def test_gpt2_by_hand() -> None:
    cfg = GPT2Config(vocab_size=100, max_seq_len=16, n_layers=3, n_heads=2, d_model=8)
    cost = cost_of(lambda: ARCHITECTURES["gpt2"].build(cfg), 16)
    matrices = 3 * 12 * 8 * 8 + 100 * 8  # per block 4 D^2 of attention and 8 D^2 of MLP, then the head
    assert cost.weight_flops == 2 * 16 * matrices
    assert cost.attention_flops == 3 * 2 * 2 * 16 * 16 * 8  # two products of T x T x D per block
    assert cost.n_looked_up == 16 * 8  # positions; the table of tokens is the head's
    assert cost.rule_flops == 6 * 16 * (cost.n_parameters - 16 * 8)
    assert cost.kv_shapes == ((2, 4),) * 3


def test_a_bfloat16_pass_keeps_less() -> None:
    wide, narrow = (
        cost_of(lambda: ARCHITECTURES["qwen3"].build(tiny_config("qwen3")), 256, precision=precision)
        for precision in ("float32", "bfloat16")
    )
    assert narrow.kept_bytes < wide.kept_bytes
    assert narrow.forward_flops == wide.forward_flops


class Only(nn.Module):
    """A mixture and nothing else, reading numbers as one-hot vectors."""

    def __init__(self, moe: MoE) -> None:
        super().__init__()
        self.moe = moe

    def forward(self, tokens: Tensor) -> Tensor:
        return self.moe(F.one_hot(tokens, 8).float())  # type: ignore[no-any-return]


@pytest.mark.parametrize("n_active", [1, 2, 4])
def test_arithmetic_and_active_weights_follow_the_experts_that_work(n_active: int) -> None:
    def build(rule: nn.Module) -> Only:
        experts = [MLP(8, 16, bias=False) for _ in range(4)]
        return Only(MoE(router=Router(8, 4, rule), experts=experts, shared=MLP(8, 4, bias=False)))  # type: ignore[arg-type]

    cost = cost_of(lambda: build(TopK(n_active)), 7)
    every, expert, shared = 8 * 4, 2 * 8 * 16, 2 * 8 * 4
    assert cost.n_parameters == every + 4 * expert + shared
    assert cost.n_active == every + n_active * expert + shared
    assert cost.weight_flops == 2 * 7 * cost.n_active
    assert cost_of(lambda: build(Soft()), 7).n_active == cost.n_parameters


def test_a_model_larger_than_any_memory() -> None:
    cfg = GPT2Config(max_seq_len=2048, n_layers=8, n_heads=96, d_model=12_288 * 8)
    cost = cost_of(lambda: ARCHITECTURES["gpt2"].build(cfg), 64)
    assert cost.n_parameters > 9e11  # 3.6 TB in float32


def test_blocks_that_are_computed_again_keep_what_they_read_and_nothing_else() -> None:
    def kept(which: Recompute, n_layers: int) -> int:
        def build() -> nn.Module:
            model = ARCHITECTURES["gpt2"].build(replace(tiny_config("gpt2"), n_layers=n_layers))
            recompute(model, which)
            return model

        return cost_of(build, T, batch_size=3).kept_bytes

    read = 4 * 3 * T * tiny_config("gpt2").d_model
    assert kept("full", 4) - kept("full", 3) == read
    assert kept("full", 4) < kept(2, 4) < kept("none", 4)
    assert kept("none", 4) - kept("none", 3) > 10 * read
