"""A lowered decoder computes what the model computes that it was made of, for every brick that has a lowering."""

import copy
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from legollm.architectures import build
from legollm.components.decoder import Decoder
from legollm.components.routing import Router
from legollm.errors import ContextError, LoweringError, TokenizerError
from legollm.generation.cache import FullCache
from legollm.generation.complete import complete
from legollm.generation.generate import left_padded
from legollm.generation.sampling import Sampling
from tiny_models import some_tokens, tiny_model

pytest.importorskip("numba")

from legollm.lowering.decoder import LoweredDecoder
from legollm.lowering.weights import Precision, packed

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in ("bigram", "gpt2", "llama3", "qwen3", "vanilla")},
    "untied": ("gpt2", {"tie_embeddings": False}),
    "one key head, odd widths": ("llama3", {"n_kv_heads": 1, "d_model": 44, "n_heads": 2, "d_ff": 70}),
    "many query heads": ("llama3", {"n_kv_heads": 1, "d_model": 36, "n_heads": 6}),
    "local layers": ("qwen3", {"local_layers": (0,), "window": 3, "d_head": 20}),
    "rope, rmsnorm, swiglu, sinks": (
        "vanilla",
        {"positions": "rope", "norm": "rmsnorm", "ffn": "swiglu", "sinks": True, "d_model": 40, "n_kv_heads": 2},
    ),
    "alibi, no norm, geglu": ("vanilla", {"positions": "alibi", "norm": "none", "ffn": "geglu", "window": 5}),
    "sinusoidal, post, gelu": ("vanilla", {"positions": "sinusoidal", "norm_placement": "post", "ffn": "gelu"}),
    "t5, sandwich, reglu": ("vanilla", {"positions": "t5", "norm_placement": "sandwich", "ffn": "reglu", "d_ff": 50}),
    "no positions, parallel, relu squared": (
        "vanilla",
        {"positions": "none", "norm_placement": "parallel", "ffn": "relu_squared", "qkv_bias": True},
    ),
    "n-grams, glu": ("vanilla", {"ffn": "glu", "ngram_rows": (31, 17), "qk_norm": True, "n_kv_heads": 2}),
    "attention alone": ("vanilla", {"ffn": "none"}),
    **{name: (name, {}) for name in ("mixtral", "qwen3_moe")},
    **{f"moe, {rule}": ("moe", {"rule": rule, "temperature": 0.7}) for rule in ("switch", "top_k", "soft", "sigmoid")},
    "moe, straight through": ("moe", {"rule": "straight_through", "n_experts": 7, "d_expert": 21}),
    "moe, sandwich": ("vanilla", {"ffn": "moe", "norm_placement": "sandwich"}),
    "moe, parallel": ("vanilla", {"ffn": "moe", "norm_placement": "parallel", "n_active": 1}),
    "relu, tied": ("vanilla", {"ffn": "relu", "bias": False, "tie_embeddings": True}),
}
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16", "int8", "int4")


def relative(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


def with_plain_weights(model: Decoder, precision: Precision) -> Decoder:
    """The model whose matrices are what those of this precision stand for."""
    plain = copy.deepcopy(model)
    routers = {id(module.proj) for module in plain.modules() if isinstance(module, Router)}
    matrices = [one.weight for one in plain.modules() if isinstance(one, nn.Linear) and id(one) not in routers]
    matrices += [p for name, p in plain.embed.named_parameters() if "positions" not in name]
    with torch.no_grad():
        for weight in {id(weight): weight for weight in matrices}.values():
            weight.copy_(packed(weight, precision).plain())
    return plain


@pytest.mark.parametrize("case", CASES)
@torch.inference_mode()
def test_it_computes_what_the_model_computes(case: str) -> None:
    name, changes = CASES[case]
    model = tiny_model(name, **changes)
    tokens = some_tokens(3, 19)
    assert relative(LoweredDecoder(model)(tokens), model(tokens)) < 2e-6


ROUNDING = {"bfloat16": (2e-6, 3e-5), "int8": (0.05, 0.05), "int4": (0.05, 0.05)}
"""Of few rows, and of many. The states are rounded, too, which those of the model with plain weights are not: to bytes
with int8 and int4, and by tiles, which bfloat16 uses, to 16 bits."""


@pytest.mark.parametrize("precision", ROUNDING)
@pytest.mark.parametrize("case", ["gpt2", "llama3", "qwen3", "one key head, odd widths", "n-grams, glu", "moe, soft"])
@torch.inference_mode()
def test_in_each_precision(case: str, precision: Precision) -> None:
    name, changes = CASES[case]
    model = tiny_model(name, **changes)
    tokens = some_tokens(3, 19)
    plain, lowered = with_plain_weights(model, precision), LoweredDecoder(model, precision)
    for some, rounding in zip((tokens[:, :4], tokens), ROUNDING[precision], strict=True):
        assert relative(lowered(some), plain(some)) < rounding


@pytest.mark.parametrize("case", CASES)
@torch.inference_mode()
def test_any_chunking_is_equal(case: str) -> None:
    name, changes = CASES[case]
    lowered = LoweredDecoder(tiny_model(name, **changes))
    tokens = some_tokens(2, 21)
    whole = lowered(tokens)
    for cuts in ((0, 1, 2, 21), (0, 7, 8, 20, 21), range(22)):
        cache = FullCache.for_model(lowered, 2, 21)
        parts = [lowered(tokens[:, a:b], cache=cache) for a, b in pairwise(cuts)]
        assert relative(torch.cat(parts, 1), whole) < 1e-6


@pytest.mark.parametrize("case", ["gpt2", "qwen3", "local layers", "alibi, no norm, geglu", "n-grams, glu"])
@torch.inference_mode()
def test_rows_of_unequal_length_are_as_alone(case: str) -> None:
    name, changes = CASES[case]
    model = tiny_model(name, **changes)
    lowered = LoweredDecoder(model)
    texts = [some_tokens(n, seed=n).tolist() for n in (3, 11, 6)]
    tokens, positions = left_padded(texts)
    cache = FullCache.for_model(lowered, 3, 20)
    found = [lowered(tokens, positions, cache)[:, -1]]
    following = some_tokens(4, 3, 1, seed=9)
    found += [lowered(new, cache=cache)[:, -1] for new in following]
    for row, text in enumerate(texts):
        alone = model(torch.tensor([text + following[:, row, 0].tolist()]))[0, len(text) - 1 :]
        assert relative(torch.stack([one[row] for one in found]), alone) < 2e-6


@torch.inference_mode()
def test_more_rows_than_one_pass_takes() -> None:
    model = tiny_model("llama3")
    lowered = LoweredDecoder(model)
    for shape in ((2, 200), (300, 3)):
        tokens = some_tokens(*shape)
        assert relative(lowered(tokens), model(tokens)) < 2e-6


def test_generation_is_the_same_with_any_number_of_threads() -> None:
    model = tiny_model("qwen3")
    prompts = [some_tokens(n, seed=n).tolist() for n in (5, 9, 2)]
    sampling = Sampling(temperature=0.8, top_k=20, max_new_tokens=24, seed=3)
    wanted = complete(model, prompts, sampling)
    for n_threads in (1, 2, 3):
        assert complete(LoweredDecoder(model, n_threads=n_threads), prompts, sampling) == wanted


def test_int4_keeps_what_half_bytes_can_hold() -> None:
    scales = torch.tensor([0.5, -2.0])[:, None, None]  # bfloat16 has both
    weight = (torch.arange(-8.0, 8).repeat(2, 2)[:, None] * scales).view(2, 32).repeat(9, 3)[:17, :90]
    assert packed(weight, "int4").plain().equal(weight)


def test_float32_weights_are_not_copied() -> None:
    model = tiny_model("llama3")
    lowered = LoweredDecoder(model)
    tokens = some_tokens(1, 5)
    before = lowered(tokens)
    with torch.no_grad():
        model.lm_head.weight *= 2
    assert lowered(tokens).equal(2 * before)


def test_wrong_input_is_named() -> None:
    lowered = LoweredDecoder(tiny_model("gpt2"))
    with pytest.raises(TokenizerError, match="token 97 is not among the model's ids 0 to 96"):
        lowered(torch.tensor([[1, 97]]))
    with pytest.raises(ContextError, match="position 40 does not exist: max_seq_len = 40"):
        lowered(torch.zeros(1, 41, dtype=torch.int64))


def test_what_has_no_lowering_is_named() -> None:
    with pytest.raises(
        LoweringError, match=r"no lowering for legollm\.architectures\.mlp_lm\.WindowBlock; engine=torch"
    ):
        LoweredDecoder(build("mlp_lm", vocab_size=11))


def test_a_subclass_of_a_brick_may_be_something_else() -> None:
    class Twice(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    model = tiny_model("llama3")
    model.lm_head = Twice(32, 97)
    with pytest.raises(LoweringError, match=r"no lowering for .*Twice; engine=torch runs it"):
        LoweredDecoder(model)


def test_states_outlive_the_next_pass() -> None:
    lowered = LoweredDecoder(tiny_model("llama3"))
    first, second = some_tokens(1, 4), some_tokens(1, 4) + 1
    states = lowered.hidden(first)
    before = states.clone()
    lowered.hidden(second % 11)
    assert torch.equal(states, before)
