"""Bugs that language models have had, put in on purpose: each is caught by a check, and nothing else is.

A mutation breaks one place. Then a suite runs that knows nothing of it: the contract of a GPT-2, a LLaMA 3 and a
Qwen 3, and the same weights in an independent implementation (the transformers library, formulas of PyTorch). What a
property cannot tell, because the broken model is a model as well, parity has to. `pytest -m slow -s` prints the
table of who catches what.
"""

import functools
import importlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from legollm.architectures import ARCHITECTURES
from legollm.architectures.weight_map import from_theirs, resolve_rows
from legollm.components.decoder import Decoder
from legollm.components.feedforward import GLU
from legollm.components.masks import Near, Ragged
from legollm.components.norm import LayerNorm, RMSNorm
from legollm.components.positions import (
    LearnedPositionEmbedding,
    RotaryEmbedding,
    ScaledTokenEmbedding,
)
from legollm.contract import learning, models
from legollm.contract.verdict import Check, Outcome, difference, within
from legollm.data import loader
from legollm.generation.cache import FullCache
from legollm.interfaces import Batch
from legollm.training import optim
from legollm.training.objective import NextToken
from legollm.training.train import TrainConfig, TrainState, train

transformers = pytest.importorskip("transformers")

SIZES = {
    "gpt2": {"vocab_size": 97, "max_seq_len": 40, "n_layers": 3, "n_heads": 4, "d_model": 32},
    "llama3": {"vocab_size": 97, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "d_model": 32, "d_ff": 64},
    "qwen3": {"vocab_size": 97, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "d_model": 32, "d_head": 16, "d_ff": 64}
    | {"local_layers": (0,), "window": 3},
}
TOKENS = torch.randint(97, (2, 12), generator=torch.Generator().manual_seed(1))


def config(name: str) -> Any:
    return ARCHITECTURES[name].config(**SIZES[name])


@functools.cache
def reference(name: str) -> tuple[dict[str, Tensor], Tensor]:
    """Their weights, moved so that all matter, and their logits; computed before anything is broken."""
    row = ARCHITECTURES[name].hugging_face
    torch.manual_seed(0)
    theirs = getattr(transformers, row.class_name)(
        transformers.AutoConfig.for_model(row.model_type, **row.config_to_hf(config(name)))
    ).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter += 0.2 * torch.randn(parameter.shape)
        return dict(theirs.state_dict()), theirs(TOKENS).logits


def built(name: str) -> Decoder:
    return ARCHITECTURES[name].build(config(name))


def parity(name: str) -> Check:
    def the_same_as_transformers(model: Decoder) -> Outcome:
        weights, logits = reference(name)
        parameters = dict(model.named_parameters())
        rows = resolve_rows(ARCHITECTURES[name].hugging_face.rows, parameters)
        sizes = {key: value.size(0) for key, value in parameters.items()}
        model.load_state_dict(from_theirs(rows, weights, sizes), strict=False)
        return within(difference(model.eval()(TOKENS), logits), 2e-5)

    return the_same_as_transformers


def spread_of_new_weights(model: Decoder) -> Outcome:
    """GPT-2's initialisation, by the paper: 0.02, and 0.02 / sqrt(2 N) for what adds to the residual stream."""
    deep = ARCHITECTURES["gpt2"].build(ARCHITECTURES["gpt2"].config(vocab_size=97, n_layers=8, d_model=64))
    worst = 0.0
    for name, p in deep.named_parameters():
        if p.ndim == 2:
            wanted = 0.02 / 4 if name.endswith(("o_proj.weight", "down_proj.weight")) else 0.02
            worst = max(worst, abs(p.std().item() / wanted - 1))
    return within(worst, 0.1)


def nothing_is_divided_by_zero(model: Decoder) -> Outcome:
    """Norms of zeros and of tiny numbers, against PyTorch's own."""
    x = torch.cat([torch.zeros(1, 8), torch.randn(3, 8, generator=torch.Generator().manual_seed(0)), torch.ones(1, 8)])
    x[-2] *= 1e-3
    layer, rms = LayerNorm(8, eps=1e-5), RMSNorm(8, eps=1e-5)
    worst = max(
        difference(layer(x), F.layer_norm(x, (8,), layer.weight, layer.bias, 1e-5)),
        difference(rms(x), F.rms_norm(x, (8,), rms.weight, 1e-5)),
    )
    return within(worst, 1e-5)


def the_cache_of_the_package(model: Decoder) -> Outcome:
    def make(model: Any, n_rows: int, max_len: int) -> FullCache:
        return FullCache(model.kv_shapes, n_rows, 20 * max_len, dtype=torch.float64)  # room for what is not forgotten

    return models.cached_equals_uncached(model, make)


class Listed:
    """A BatchSource of a few batches."""

    def __init__(self, batches: list[Batch]) -> None:
        self.left = iter(batches)

    def __next__(self) -> Batch:
        return next(self.left)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """There is nothing to go back to."""


def steps_do_what_they_say(model: Decoder) -> Outcome:
    """The loop on two uneven micro-batches, against cross entropy over all of their targets at once."""
    tokens = torch.randint(9, (2, 6), generator=torch.Generator().manual_seed(0))
    targets = torch.randint(9, (2, 6), generator=torch.Generator().manual_seed(1))
    targets[1, 1:] = -100
    ours = nn.Embedding(9, 9)
    plain = nn.Embedding(9, 9)
    plain.load_state_dict(ours.state_dict())

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = ours

        def forward(self, tokens: Tensor, at: Tensor | None = None) -> Tensor:
            logits = self.table(tokens)
            return logits if at is None else logits[at]

    broken = Model()
    cfg = TrainConfig(max_steps=1, grad_accum=2, grad_clip=0.0, precision="float32", device="cpu")
    train(
        broken,
        NextToken(),
        Listed([Batch(tokens[:1], targets[:1]), Batch(tokens[1:], targets[1:])]),
        torch.optim.SGD(broken.parameters(), lr=1.0),
        cfg,
        learning_rate=lambda step: 1.0,
        state=TrainState(),
        log=lambda step, **values: None,
        evaluate=lambda state: None,
        save=lambda state: None,
    )
    F.cross_entropy(plain(tokens).flatten(0, 1), targets.flatten(), ignore_index=-100).backward()
    return within(difference(ours.weight, plain.weight - plain.weight.grad), 1e-6)


def targets_are_what_follows(model: Decoder) -> Outcome:
    ids = np.arange(100, dtype=np.uint16)
    batch = next(loader.WindowBatches(ids, batch_size=4, seq_len=5, seed=0))
    seen = batch.targets != -100
    wrong = int((batch.targets[seen] != batch.tokens[seen] + 1).sum())
    return Outcome(wrong == 0, f"{wrong} targets are not the next token")


def only_matrices_decay(model: Decoder) -> Outcome:
    """One step of a zero gradient: matrices shrink by lr * weight_decay, vectors stay."""
    model = built("gpt2")
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.data += 1.0
        p.grad = torch.zeros_like(p)
    optim.build_optimizer(model, optim.OptimConfig(lr=0.1, weight_decay=0.5)).step()
    worst = 0.0
    for name, p in model.named_parameters():
        start = before[name] + 1.0
        worst = max(worst, difference(p.detach(), start * (1 - 0.05) if p.ndim >= 2 else start))
    return within(worst, 1e-6)


CONTRACT: tuple[Check, ...] = (
    models.tokens_become_logits,
    *models.CALLER_CHECKS,
    *models.READER_CHECKS,
    learning.gradients_reach_every_weight,
    learning.gradients_are_derivatives,
    learning.recomputing_changes_no_gradient,
    learning.padding_gives_finite_gradients,
    learning.nothing_is_known_at_first,
    models.packed_documents_are_apart,
    the_cache_of_the_package,
)
ALONE: tuple[Check, ...] = (
    spread_of_new_weights,
    nothing_is_divided_by_zero,
    steps_do_what_they_say,
    targets_are_what_follows,
    only_matrices_decay,
)


def catchers(name: str) -> Iterator[str]:
    """The checks that fail now, the cheap ones first. A check that crashes has caught nothing: the error goes on."""
    for check in (parity(name), *ALONE, *CONTRACT):
        if not check(built(name)).passed:
            yield check.__name__.replace("_", " ")


Break = Callable[[pytest.MonkeyPatch], None]
Attend = Callable[..., Tensor]


def attending(change: Callable[[Attend], Attend]) -> Break:
    """Attention arithmetic with something done to it."""
    return lambda patch: patch.setattr(ATTENTION, "attend", change(ATTENTION.attend))


def method(cls: type, name: str, change: Callable[[Any], Any]) -> Break:
    """A method, given what it was."""
    return lambda patch: patch.setattr(cls, name, change(getattr(cls, name)))


def in_recipe(name: str, brick: str, other: Any) -> Break:
    """Another brick in the place of one."""
    return lambda patch: patch.setattr(importlib.import_module(f"legollm.architectures.{name}"), brick, other)


def by_hand(softmax_dim: int = -1, diagonal: int = 0, repeat: str = "interleave") -> Attend:
    """Attention as one writes it in an afternoon, right for the numbers above: for rows of one length, no window."""

    def attend(q: Tensor, k: Tensor, v: Tensor, mask: Any, **options: Any) -> Tensor:
        groups, (T, S) = q.size(1) // k.size(1), (q.size(-2), k.size(-2))
        if repeat == "interleave":
            k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
        else:
            k, v = k.repeat(1, groups, 1, 1), v.repeat(1, groups, 1, 1)
        allowed = mask.allowed(T, S)
        if allowed is None:
            allowed = torch.ones(T, S, dtype=torch.bool).tril(S - T + diagonal)
        scores = (q @ k.transpose(-1, -2) * q.size(-1) ** -0.5).masked_fill(~allowed, -1e9)
        return scores.softmax(softmax_dim) @ v

    return attend


class InterleavedPairs(RotaryEmbedding):
    def forward(self, q: Tensor, k: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        def turned(x: Tensor) -> Tensor:
            angles = positions[..., None].to(x.dtype) * self.inv_freq.to(x.dtype)
            angles = angles.unsqueeze(-3)
            a, b = x[..., ::2], x[..., 1::2]
            return torch.stack([a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()], -1).flatten(
                -2
            )

        return turned(q), turned(k)


class NoBiasLayerNorm(LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, None, self.eps)


class UnbiasedLayerNorm(LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + self.eps).sqrt() * self.weight + self.bias


class CentredRMSNorm(RMSNorm):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x - x.mean(-1, keepdim=True))


class BatchStatistics(RMSNorm):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean((0, -1), keepdim=True) + self.eps) * self.weight


class HalfNorm(RMSNorm):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(torch.bfloat16)).to(x.dtype)


class OneFurther(LearnedPositionEmbedding):
    def forward(self, positions: Tensor) -> Tensor:
        return super().forward((positions + 1).clamp(max=self.weight.size(0) - 1))


def no_residual(block: Any, x: Tensor, positions: Tensor, mask: Any, cache: Any = None) -> Tensor:
    x = x + block.attn(block.norm1(x), positions, mask, cache)
    return block.ffn(block.norm2(x))


def post_norm(block: Any, x: Tensor, positions: Tensor, mask: Any, cache: Any = None) -> Tensor:
    x = block.norm1(x + block.attn(x, positions, mask, cache))
    return block.norm2(x + block.ffn(x))


def remembers(forward: Any) -> Any:
    """Keys and values left in the module for the next call."""

    def attention(self: Any, x: Tensor, positions: Tensor, mask: Any, cache: Any = None) -> Tensor:
        before, self.left = getattr(self, "left", None), x.detach()
        y = forward(self, x, positions, mask, cache)
        return y + 1e-3 * before.mean() if before is not None else y

    return attention


def rope_on_values(patch: pytest.MonkeyPatch) -> None:
    def change(attend: Attend) -> Attend:
        rope = RotaryEmbedding(8, theta=500_000.0)
        return lambda q, k, v, mask, **options: attend(
            q, k, rope(v, v, torch.arange(v.size(-2)))[0].to(v.dtype), mask, **options
        )

    attending(change)(patch)


def norm_after_rope(patch: pytest.MonkeyPatch) -> None:
    """q and k are turned first and normalised afterwards."""
    original = RotaryEmbedding.forward
    here: list[Tensor] = []

    def forward(self: Any, q: Tensor, k: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        return q, k

    def attention(
        self: Any, x: Tensor, positions: Tensor, *others: Any, plain: Any = ATTENTION.Attention.forward
    ) -> Any:
        here[:] = [positions]
        return plain(self, x, positions, *others)

    patch.setattr(RotaryEmbedding, "forward", forward)

    def init(self: Any, *args: Any, plain: Any = ATTENTION.Attention.__init__, **options: Any) -> None:
        plain(self, *args, **options)
        for norm in (self.q_norm, self.k_norm):
            norm.register_forward_pre_hook(lambda module, given: turned(given[0]))

        def turned(x: Tensor) -> Tensor:
            return original(self.rope, x, x, here[0])[0]

    patch.setattr(ATTENTION.Attention, "forward", attention)
    patch.setattr(ATTENTION.Attention, "__init__", init)


def per_micro_batch(patch: pytest.MonkeyPatch) -> None:
    """Each micro-batch is divided by its own number of terms, the step by the number of micro-batches."""
    terms = NextToken.n_terms
    summed = NextToken.__call__
    patch.setattr(NextToken, "n_terms", lambda self, batch: 1)
    patch.setattr(NextToken, "__call__", lambda self, model, batch: summed(self, model, batch) / terms(self, batch))


def mean_of_rows(patch: pytest.MonkeyPatch) -> None:
    """Divided by the rows of the batch, not by its tokens."""
    patch.setattr(NextToken, "n_terms", lambda self, batch: len(batch.tokens))


def unshifted(patch: pytest.MonkeyPatch) -> None:
    cut = loader._batch
    patch.setattr(loader, "_batch", lambda *args: (lambda batch: Batch(batch.tokens, batch.tokens))(cut(*args)))


def everything_decays(patch: pytest.MonkeyPatch) -> None:
    def groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
        named = dict(model.named_parameters())
        return [{"params": list(named.values()), "names": list(named), "weight_decay": weight_decay}]

    patch.setattr(optim, "decay_groups", groups)


def untied_by_loading(load: Any) -> Any:
    def load_state_dict(self: Any, state: Any, strict: bool = True) -> Any:
        done = load(self, state, strict=strict)
        self.lm_head.weight = nn.Parameter(self.lm_head.weight.detach().clone())
        return done

    return load_state_dict


def skipping_the_last(hidden: Any) -> Any:
    def without_last(self: Any, tokens: Tensor, positions: Any = None, cache: Any = None, *others: Any) -> Tensor:
        last = self.blocks[-1]
        forward, last.forward = last.forward, lambda x, positions, mask, cache=None: x + 0 * keep(last, cache, x)
        try:
            return hidden(self, tokens, positions, cache, *others)
        finally:
            last.forward = forward

    def keep(block: Any, cache: Any, x: Tensor) -> Tensor:
        if cache is not None:  # the cache is served as ever, so that only the block is missing
            zeros = x.new_zeros(x.size(0), block.attn.n_kv_heads, x.size(1), block.attn.d_head)
            cache.append(zeros, zeros)
        return x

    return without_last


def in_bfloat16(forward: Any) -> Any:
    def rounded(self: Any, *args: Any, **options: Any) -> Tensor:
        logits = forward(self, *args, **options)
        return logits.to(torch.bfloat16).to(logits.dtype)

    return rounded


def large_weights(patch: pytest.MonkeyPatch) -> None:
    """Embeddings and head as PyTorch draws embeddings, from normal(0, 1)."""
    for name in SIZES:
        module = importlib.import_module(f"legollm.architectures.{name}")
        init = module.init_weights

        def louder(model: Any, generator: torch.Generator, init: Any = init) -> None:
            init(model, generator)
            model.lm_head.weight.data *= 50

        patch.setattr(module, "init_weights", louder)


def always_dropping(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    return torch.dropout(x, 0.1, True)


def private_dropout(forward: Any) -> Any:
    """Random numbers that recomputing a block does not draw again."""
    generator = torch.Generator()

    def noisy(self: Any, x: Tensor) -> Tensor:
        y = forward(self, x)
        return y * (1 + 0.1 * torch.rand(y.shape, generator=generator, dtype=y.dtype)) if self.training else y

    return noisy


def restarting(place: Any) -> Any:
    """Positions start at 0 in every call."""

    def again(self: Any, n_tokens: int, positions: Any) -> Any:
        found, mask = place(self, n_tokens, positions)
        return (torch.arange(n_tokens), mask) if positions is None else (found, mask)

    return again


ATTENTION = importlib.import_module("legollm.components.attention")
GPT2, LLAMA3, QWEN3 = SIZES
BLOCK = importlib.import_module("legollm.components.blocks").PreNormBlock
INIT = importlib.import_module("legollm.components.init")
MUTATIONS: dict[str, tuple[str, Break]] = {
    "attention scaled by the model's width": (
        GPT2,
        attending(lambda attend: lambda q, *args, **options: attend(q / 2, *args, **options)),
    ),
    "attention not scaled": (LLAMA3, attending(lambda f: lambda q, *a, **o: f(q * q.size(-1) ** 0.5, *a, **o))),
    "softmax over queries": (GPT2, attending(lambda f: by_hand(softmax_dim=-2))),
    "no causal mask": (GPT2, attending(lambda f: by_hand(diagonal=99))),
    "mask off by one, sees the next": (LLAMA3, attending(lambda f: by_hand(diagonal=1))),
    "mask off by one, not itself": (LLAMA3, attending(lambda f: by_hand(diagonal=-1))),
    "key heads repeated in the wrong order": (LLAMA3, attending(lambda f: by_hand(repeat="tile"))),
    "queries detached": (LLAMA3, attending(lambda f: lambda q, *a, **o: f(q.detach(), *a, **o))),
    "rotary positions on values": (LLAMA3, rope_on_values),
    "norms of heads after rotary positions": (QWEN3, norm_after_rope),
    "interleaved pairs for halves": (LLAMA3, in_recipe("llama3", "RotaryEmbedding", InterleavedPairs)),
    "rotary base of another model": (
        LLAMA3,
        in_recipe("llama3", "RotaryEmbedding", lambda d, theta, **o: RotaryEmbedding(d, theta=10_000.0)),
    ),
    "rotary positions on queries only": (
        LLAMA3,
        method(RotaryEmbedding, "forward", lambda f: lambda self, q, k, positions: (f(self, q, k, positions)[0], k)),
    ),
    "positions off by one": (GPT2, in_recipe("gpt2", "LearnedPositionEmbedding", OneFurther)),
    "window off by one": (QWEN3, method(Near, "__init__", lambda f: lambda self, m, w, d: f(self, m, w + 1, d))),
    "GELU by erf for tanh": (GPT2, in_recipe("gpt2", "gelu_tanh", F.gelu)),
    "GLU for SwiGLU": (LLAMA3, in_recipe("llama3", "SwiGLU", GLU)),
    "LayerNorm without its bias": (GPT2, in_recipe("gpt2", "LayerNorm", NoBiasLayerNorm)),
    "LayerNorm with the unbiased variance": (GPT2, in_recipe("gpt2", "LayerNorm", UnbiasedLayerNorm)),
    "RMSNorm that subtracts the mean": (LLAMA3, in_recipe("llama3", "RMSNorm", CentredRMSNorm)),
    "RMSNorm over the batch": (LLAMA3, in_recipe("llama3", "RMSNorm", BatchStatistics)),
    "RMSNorm in half precision": (LLAMA3, in_recipe("llama3", "RMSNorm", HalfNorm)),
    "LayerNorm without epsilon": (
        GPT2,
        method(LayerNorm, "__init__", lambda f: lambda self, d_model, *, eps=0.0: f(self, d_model, eps=1e-30)),
    ),
    "RMSNorm without epsilon": (
        LLAMA3,
        method(RMSNorm, "__init__", lambda f: lambda self, d_model, *, eps=0.0: f(self, d_model, eps=0.0)),
    ),
    "residual forgotten": (GPT2, lambda patch: patch.setattr(BLOCK, "forward", no_residual)),
    "post-norm for pre-norm": (GPT2, lambda patch: patch.setattr(BLOCK, "forward", post_norm)),
    "last block skipped": (LLAMA3, method(Decoder, "hidden", skipping_the_last)),
    "embedding scaled": (LLAMA3, in_recipe("llama3", "TokenEmbedding", ScaledTokenEmbedding)),
    "logits rounded to bfloat16": (LLAMA3, method(Decoder, "forward", in_bfloat16)),
    "dropout when evaluating": (GPT2, lambda patch: patch.setattr(F, "dropout", always_dropping)),
    "dropout that recomputing does not repeat": (GPT2, method(LayerNorm, "forward", private_dropout)),
    "padding attended": (
        LLAMA3,
        lambda patch: patch.setattr(
            Ragged,
            "visible",
            property(lambda self: self.key_positions[:, None, None, :] <= self.query_positions[:, None, :, None]),
        ),
    ),
    "state left in the module": (LLAMA3, method(ATTENTION.Attention, "forward", remembers)),
    "cache not reset": (LLAMA3, lambda patch: patch.setattr(FullCache, "reset", lambda self: None)),
    "cache not truncated": (LLAMA3, lambda patch: patch.setattr(FullCache, "truncate", lambda self, length: None)),
    "positions not advanced with the cache": (GPT2, method(FullCache, "place", restarting)),
    "tie lost on load": (GPT2, method(Decoder, "load_state_dict", untied_by_loading)),
    "weights start too large": (GPT2, large_weights),
    "residual outputs not scaled by depth": (GPT2, lambda patch: patch.setattr(INIT, "RESIDUAL_OUTPUTS", set())),
    "norms and biases decayed": (GPT2, everything_decays),
    "loss divided by rows": (GPT2, mean_of_rows),
    "each micro-batch divided by its own tokens": (GPT2, per_micro_batch),
    "targets not shifted": (GPT2, unshifted),
}


@pytest.fixture(autouse=True, scope="module")
def references() -> None:
    """Asked for before anything is broken."""
    for name in SIZES:
        reference(name)


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_it_is_caught(mutation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, break_it = MUTATIONS[mutation]
    break_it(monkeypatch)
    assert next(catchers(name), None)


@pytest.mark.parametrize("name", SIZES)
def test_nothing_is_caught_where_nothing_is_broken(name: str) -> None:
    assert list(catchers(name)) == []


def test_there_are_enough() -> None:
    assert len(MUTATIONS) >= 25


@pytest.mark.slow
def test_who_catches_what() -> None:
    """The table: every check that sees each mutation. Twenty are seen without a reference to compare with."""
    width, n_by_promise = max(map(len, MUTATIONS)), 0
    compared = {"the same as transformers", *(check.__name__.replace("_", " ") for check in ALONE)}
    for mutation, (name, break_it) in MUTATIONS.items():
        with pytest.MonkeyPatch.context() as patch:
            break_it(patch)
            found = list(catchers(name))
        n_by_promise += not set(found) <= compared
        print(f"{mutation:<{width}}  {name}: {', '.join(found)}")
    assert n_by_promise >= 20
