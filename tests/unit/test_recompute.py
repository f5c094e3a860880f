"""Blocks that forget: the same gradients in every bit, less kept, and nothing that happens twice."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from legollm.architectures import ARCHITECTURES
from legollm.components.encoder_decoder import EncoderDecoder
from legollm.components.moe import MoE
from legollm.device import autocast
from legollm.errors import ConfigError
from legollm.interfaces import Batch, PackedBatch
from legollm.training.objective import NextToken
from legollm.transforms.recompute import Recompute, blocks, recompute
from tiny_models import TINY, tiny_config

WITH_BLOCKS = [name for name in TINY if list(blocks(ARCHITECTURES[name].build(tiny_config(name))))]
T = 12


def built(name: str, which: Recompute, dropout: float = 0.2) -> nn.Module:
    model: nn.Module = ARCHITECTURES[name].build(tiny_config(name))
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = dropout
    recompute(model, which)
    return model.train()


def step(model: nn.Module, precision: str = "float32") -> tuple[Tensor, list[Tensor | None], Tensor]:
    """Loss, gradients and the state of the random numbers after two micro-batches with fixed dropout."""
    torch.manual_seed(5)
    vocab_size = 11
    total = torch.zeros(())
    for _ in range(2):
        with autocast(precision, torch.device("cpu")):
            tokens = torch.randint(vocab_size, (3, T))
            if hasattr(model, "label_head") or not hasattr(model, "lm_head"):
                loss = model(tokens).float().square().sum()
            elif isinstance(model, EncoderDecoder):
                loss = model(tokens, tokens).float().logsumexp(-1).sum()
            else:
                loss = NextToken()(model, Batch(tokens, tokens.roll(-1, 1)))
        loss.backward()  # type: ignore[no-untyped-call]
        total = total + loss.detach()
    return total, [p.grad for p in model.parameters()], torch.get_rng_state()


def assert_same(a: tuple[Any, ...], b: tuple[Any, ...]) -> None:
    assert torch.equal(a[0], b[0])
    assert torch.equal(a[2], b[2])
    for x, y in zip(a[1], b[1], strict=True):
        assert (x is None and y is None) or torch.equal(x, y)


@pytest.mark.parametrize("which", ["full", 2, "wide"])
@pytest.mark.parametrize("name", WITH_BLOCKS)
def test_every_architecture_has_the_same_gradients_in_every_bit(name: str, which: Recompute) -> None:
    assert_same(step(built(name, "none")), step(built(name, which)))


@pytest.mark.parametrize("which", ["full", "wide"])
@pytest.mark.parametrize("name", ["gpt2", "mixtral"])
def test_also_where_products_are_bfloat16(name: str, which: Recompute) -> None:
    assert_same(step(built(name, "none"), "bfloat16"), step(built(name, which), "bfloat16"))


def test_also_with_packed_documents() -> None:
    tokens = torch.arange(2 * T).view(2, T) % 11
    documents, positions = torch.tensor([0] * 5 + [1] * 7).expand(2, T), torch.tensor([*range(5), *range(7)])
    batch = PackedBatch(tokens, tokens.roll(-1, 1), documents, positions.expand(2, T))
    found = []
    for which in ("none", "full"):
        torch.manual_seed(5)
        model = built("qwen3", which)
        NextToken()(model, batch).backward()  # type: ignore[no-untyped-call]
        found.append([p.grad for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))  # type: ignore[arg-type]


def kept(model: nn.Module) -> int:
    """Bytes that are alive between forward and backward pass beside the weights, seen by hooks on what is left."""
    sizes: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        sizes[tensor.data_ptr()] = tensor.nbytes
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        model(torch.zeros(3, T, dtype=torch.int64))
    weights = {p.data_ptr() for p in model.parameters()}
    return sum(size for place, size in sizes.items() if place not in weights)


def test_blocks_keep_nothing_and_every_second_one_half() -> None:
    everything, half, nothing = (kept(built("gpt2", which)) for which in ("none", 2, "full"))
    assert nothing < half < everything
    assert half - nothing == pytest.approx((everything - nothing) / 2, rel=0.1)


def test_a_pass_is_not_counted_twice_by_routed_layers() -> None:
    plain, forgetful = built("mixtral", "none"), built("mixtral", "full")
    step(plain)
    step(forgetful)
    for a, b in zip(plain.modules(), forgetful.modules(), strict=True):
        if isinstance(a, MoE) and isinstance(b, MoE):
            assert (a.load, a.idle) == (b.load, b.idle)
            assert sum(a.load) > 0
            assert b.last is None  # the second pass is not left over, with all it holds


def test_the_same_graph_can_be_walked_twice() -> None:
    model = built("gpt2", "full")
    loss = NextToken()(model, Batch(torch.zeros(1, T, dtype=torch.int64), torch.ones(1, T, dtype=torch.int64)))
    loss.backward(retain_graph=True)  # type: ignore[no-untyped-call]
    once = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    loss.backward()  # type: ignore[no-untyped-call]
    twice = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(torch.equal(2 * a, b) for a, b in zip(once, twice, strict=True))


def test_names_weights_and_copies_are_untouched() -> None:
    plain, forgetful = built("gpt2", "none"), built("gpt2", "full")
    assert plain.state_dict().keys() == forgetful.state_dict().keys()
    another = copy.deepcopy(forgetful)
    with torch.no_grad():
        for parameter in another.parameters():
            parameter.zero_()
    assert_same(step(plain), step(forgetful))  # the copy's blocks are its own


def test_without_a_gradient_nothing_is_computed_twice() -> None:
    model = built("gpt2", "full")
    calls = list[nn.Module]()
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda module, args, y: calls.append(module))
    with torch.no_grad():
        model(torch.zeros(1, T, dtype=torch.int64))
    assert len(calls) == len(set(calls))


def test_a_model_without_blocks_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^train\.recompute: this model has no blocks that could be computed again"):
        recompute(ARCHITECTURES["bigram"].build(tiny_config("bigram")), "full")
