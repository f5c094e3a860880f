"""Looking into a model: it computes what it did, and what is seen is what independent arithmetic finds."""

import math
from collections import Counter
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from legollm.components.attention import Attention
from legollm.components.blocks import PreNormBlock
from legollm.components.decoder import Decoder
from legollm.components.feedforward import MLP
from legollm.components.moe import MoE
from legollm.components.norm import RMSNorm
from legollm.components.positions import (
    LearnedPositionEmbedding,
    NoPositions,
    TokenAndPositionEmbedding,
    TokenEmbedding,
)
from legollm.components.routing import Router, TopK
from legollm.evaluation.experts import information, kind_of, mixtures_of
from legollm.evaluation.experts import ranked as ranked_experts
from legollm.evaluation.heads import by_chance, follows_the_same, heads_of, indifferent, ranked, told
from legollm.evaluation.lens import expectations, logit_lens
from legollm.evaluation.looking import look
from legollm.evaluation.xray import xray
from legollm.transforms.lora import LoraConfig, add_lora
from legollm.transforms.quantize import QuantizeConfig, quantize
from tiny_models import TINY, some_tokens, tiny_model

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in TINY},
    "window": ("qwen3", {"local_layers": (1,), "window": 3}),
    "alibi": ("vanilla", {"positions": "alibi"}),
    "t5": ("vanilla", {"positions": "t5"}),
    "rope and sinks": ("vanilla", {"positions": "rope", "sinks": True, "n_kv_heads": 2, "window": 4}),
    "after": ("vanilla", {"norm_placement": "post"}),
    "beside": ("vanilla", {"norm_placement": "parallel", "qk_norm": True}),
    "experts": ("vanilla", {"ffn": "moe"}),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_model_that_is_watched_computes_the_same_bits(variant: str) -> None:
    name, changes = VARIANTS[variant]
    model, ids = tiny_model(name, **changes), some_tokens(12)
    with torch.inference_mode():
        alone = model(ids[None])[0]
    seen = look(model, ids)
    assert torch.equal(seen.logits, alone)
    with torch.inference_mode():
        assert torch.equal(model(ids[None])[0], alone)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "bigram"])
def test_the_weights_mix_the_values_to_what_attention_gives(variant: str) -> None:
    """An oracle without the trick of unit vectors: weights times values, through o_proj, is the brick's own answer."""
    name, changes = VARIANTS[variant]
    model, ids = tiny_model(name, dtype=torch.float64, **changes), some_tokens(12)
    given: dict[int, Tensor] = {}
    made: dict[int, Tensor] = {}
    for i, block in enumerate(model.blocks):
        block.attn.v_proj.register_forward_hook(lambda _, x, y, i=i: given.__setitem__(i, y[0]))
        block.attn.o_proj.register_forward_pre_hook(lambda _, x, i=i: made.__setitem__(i, x[0][0]))
    seen = look(model, ids)
    for i, block in enumerate(model.blocks):
        weights = seen.attention[i]
        values = given[i].unflatten(-1, (-1, block.attn.d_head)).transpose(0, 1)  # (K, T, Dh)
        values = values.repeat_interleave(len(weights) // len(values), 0)
        torch.testing.assert_close((weights @ values).transpose(0, 1).flatten(1), made[i], rtol=1e-9, atol=1e-12)
        assert torch.equal(weights, weights.tril())
        if not changes.get("sinks"):
            torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:2], dtype=torch.float64))


@pytest.mark.parametrize("change", ["int8", "lora"])
def test_quantised_and_adapted_models_are_seen_into(change: str) -> None:
    model, ids = tiny_model("qwen3"), some_tokens(9)
    before = look(model, ids)
    if change == "int8":
        quantize(model, QuantizeConfig())
    else:
        add_lora(model, LoraConfig(rank=2))
    seen = look(model, ids)
    assert seen.attention.keys() == {0, 1}
    torch.testing.assert_close(seen.attention[0], before.attention[0], rtol=0, atol=0.05)


def test_a_model_in_training_is_looked_at_as_it_writes_and_goes_on_training() -> None:
    model, ids = tiny_model("gpt2", dropout=0.5), some_tokens(9)
    still = look(model, ids).logits
    assert torch.equal(look(model.train(), ids).logits, still)
    assert model.training


# Heads


def evenly(n: int) -> Tensor:
    return torch.full((1, n, n), 1 / n)


def test_a_head_that_looks_at_eight_places_alike_has_three_bits() -> None:
    (head,) = heads_of({0: evenly(8)}, torch.arange(8))
    assert (head.entropy, head.effective, head.copy) == (3.0, 8.0, None)
    assert head.sink == head.previous == 1 / 8
    alike = indifferent(torch.arange(8))
    assert alike.entropy == pytest.approx(sum(math.log2(n) for n in range(1, 9)) / 8)
    assert alike.effective == pytest.approx(4.5)


def test_chance_is_of_what_a_block_can_see() -> None:
    near = torch.ones(8, 8).tril().triu(-3)  # a window of four
    chance = by_chance({0: near[None] * torch.rand(2, 8, 8), 3: torch.rand(1, 8, 8).tril()}, torch.arange(8))
    assert chance[3] == indifferent(torch.arange(8), block=3)
    assert chance[0].effective == pytest.approx((1 + 2 + 3 + 5 * 4) / 8)
    assert chance[0].previous == pytest.approx((1 / 2 + 1 / 3 + 5 / 4) / 7)
    heads = [replace(chance[0], head=1), replace(chance[3], head=0)]
    assert told(heads[:1], "previous", chance) == "block 0 head 1 (0.30); by chance 0.30"
    assert told(heads, "previous", chance) == (
        "block 0 head 1 (0.30, by chance 0.30), block 3 head 0 (0.25, by chance 0.25)"
    )


def test_weight_that_goes_nowhere_is_counted_as_a_place() -> None:
    (head,) = heads_of({0: evenly(4) / 2}, torch.arange(4))
    assert head.nothing == pytest.approx(0.5)
    assert head.entropy == pytest.approx(0.5 * 1 + 4 * 0.125 * 3)


def test_what_follows_the_same_token_by_the_definition() -> None:
    ids = some_tokens(30, vocab_size=5)
    found = follows_the_same(ids)
    for i in range(30):
        for j in range(30):
            assert bool(found[i, j]) == (0 < j < i and bool(ids[j - 1] == ids[i])), (i, j)


# A model with planted structures

TEXT = "=Bay 12 has 34 keys. Bay 12 has 34 keys, and bay 7 has 56."
V, P = 95, 80
TOKEN, PLACE, BEFORE = slice(0, V), slice(V, V + P), slice(V + P, 2 * V + P)  # who writes where in the stream
COPYING, RESTING, LOOKING_BACK = (1, 1), (0, 0), (0, 1)
NUMERIC = 2


def token_bytes(token: int) -> bytes:
    return bytes([32 + token])


def planted() -> Decoder:
    """Heads by hand: (0, 0) rests on the first token, (0, 1) notes the token before, (1, 1) looks for that note; the
    router of block 1 sends digits to one expert and deals out the rest. All else is small and random."""
    torch.manual_seed(0)
    d_model, d_head = 2 * V + P, max(V, P)

    def block(ffn: nn.Module) -> PreNormBlock:
        attn = Attention(d_model, n_heads=2, n_kv_heads=2, d_head=d_head, rope=NoPositions())
        return PreNormBlock(norm1=RMSNorm(d_model), attn=attn, norm2=RMSNorm(d_model), ffn=ffn)

    mlp = partial(MLP, d_model, 4, bias=False)
    router = Router(d_model, 4, TopK(1))
    blocks = [block(mlp()), block(MoE(router=router, experts=[mlp() for _ in range(4)]))]
    model = Decoder(
        embed=TokenAndPositionEmbedding(
            tokens=TokenEmbedding(V, d_model), positions=LearnedPositionEmbedding(P, d_model)
        ),
        blocks=blocks,
        norm=RMSNorm(d_model),
        lm_head=nn.Linear(d_model, V, bias=False),
    )
    with torch.no_grad():
        for parameter in blocks[0].parameters(), blocks[1].parameters(), model.lm_head.parameters():
            for one in parameter:
                one.copy_(torch.ones_like(one) if one.dim() == 1 else 0.001 * torch.randn_like(one))
        model.embed.tokens.weight.copy_(torch.eye(V, d_model))
        model.embed.positions.weight.copy_(torch.zeros(P, d_model))
        model.embed.positions.weight[:, PLACE] = torch.eye(P)
        first, second = blocks[0].attn, blocks[1].attn
        q, k, v, o = (part.weight for part in (first.q_proj, first.k_proj, first.v_proj, first.o_proj))
        q[0, PLACE], k[0, V] = 100.0, 100.0  # every place asks for the first
        q[d_head : d_head + P - 1, PLACE] = 100 * torch.eye(P)[1:]  # place i asks for i - 1
        k[d_head : d_head + P, PLACE] = 100 * torch.eye(P)
        v[d_head : d_head + V, TOKEN] = torch.eye(V)
        o[BEFORE, d_head : d_head + V] = torch.eye(V)
        q, k = second.q_proj.weight, second.k_proj.weight
        q[d_head : d_head + V, TOKEN] = k[d_head : d_head + V, BEFORE] = 30 * torch.eye(V)
        digits = [ord(digit) - 32 for digit in "0123456789"]
        router.proj.weight[NUMERIC, TOKEN] = -100.0
        router.proj.weight[NUMERIC, digits] = 100.0
        router.proj.weight[[0, 1, 3], TOKEN] = torch.randn(3, V)
    return model.eval()


@pytest.fixture(scope="module")
def ids() -> list[int]:
    return [ord(character) - 32 for character in TEXT]


def test_planted_heads_rank_first(ids: list[int]) -> None:
    ray = xray(planted(), ids, token_bytes)
    for figure, place in (("copy", COPYING), ("sink", RESTING), ("previous", LOOKING_BACK)):
        first, second, *_ = ranked(ray.heads, figure)
        assert (first.block, first.head) == place
        assert getattr(first, figure) == pytest.approx(1.0, abs=1e-6)
        assert getattr(second, figure) < 0.3
    assert ray.heads[0].entropy == pytest.approx(0.0, abs=1e-6)
    assert ray.heads[2].effective == pytest.approx(
        ray.by_chance[ray.heads[2].block].effective, rel=0.05
    )  # the one that nobody planted


def test_a_planted_numeric_expert_ranks_first(ids: list[int]) -> None:
    (mixture,) = xray(planted(), ids, token_bytes).mixtures
    first, second, *_ = ranked_experts([mixture])
    n_digits = sum(character.isdigit() for character in TEXT)
    assert (first.block, first.expert, first.kind, round(first.share, 9)) == (1, NUMERIC, "digit", 1.0)
    assert (first.n_tokens, first.load, first.share_in_text) == (n_digits, n_digits / len(ids), n_digits / len(ids))
    assert first.specialisation > 2 * first.by_chance > 0
    assert first.specialisation > 1.5 * second.specialisation
    assert {token_bytes(token) for token, _ in first.favourites} <= {digit.encode() for digit in "1234567"}
    assert sum(expert.n_tokens for expert in mixture.experts) == len(ids)


# Experts


def test_specialisation_sums_to_the_mutual_information() -> None:
    """Against the definition, counted by hand."""
    experts, kinds = some_tokens(60, vocab_size=3).tolist(), ["abc"[i] for i in some_tokens(60, seed=1, vocab_size=3)]
    work = torch.zeros(60, 3).double()
    work[range(60), experts] = 1 / 60
    is_kind = torch.tensor([[kind == name for name in "abc"] for kind in kinds]).double()
    both, of_expert, of_kind = Counter(zip(experts, kinds, strict=True)), Counter(experts), Counter(kinds)
    expected = sum(n / 60 * math.log2(n * 60 / of_expert[expert] / of_kind[kind]) for (expert, kind), n in both.items())
    assert float(information(work, is_kind).sum()) == pytest.approx(expected)


def test_an_expert_without_work_has_no_kind() -> None:
    routing = Router(4, 3, TopK(1))
    with torch.no_grad():
        routing.proj.weight.copy_(torch.tensor([[1.0] * 4, [-1.0] * 4, [0.5] * 4]))
    _, decided = routing(torch.rand(5, 4))
    (mixture,) = mixtures_of({0: decided}, [1, 2, 3, 4, 5], ["letter", "digit"] * 2 + ["letter"])
    assert (mixture.balance, mixture.effective) == (0.0, 1.0)
    assert [(e.n_tokens, e.kind, e.specialisation) for e in mixture.experts[1:]] == [(0, "-", 0.0)] * 2


@pytest.mark.parametrize(
    ("token", "kind"),
    [
        (b" 12", "digit"), (b" The", "capital"), (b"the", "letter"), (b" ...", "punctuation"), (b" \n", "space"),
        (b"\xe6", "other"), ("\N{CYRILLIC CAPITAL LETTER YA}".encode(), "capital"), (b"+", "punctuation"),
        (b"", "other"),
    ],
)  # fmt: skip
def test_the_kind_of_a_token(token: bytes, kind: str) -> None:
    assert kind_of(token) == kind


# The logit lens


@pytest.mark.parametrize("name", ["gpt2", "mixtral"])
def test_a_row_of_the_lens_is_the_model_cut_off_there(name: str) -> None:
    model, ids = tiny_model(name), some_tokens(9)
    seen = look(model, ids)
    rows = logit_lens(model, seen.states, ids)
    assert [row.name for row in rows] == ["embedding", "block 0", "block 1"]
    for n_blocks, row in enumerate(rows):
        short = Decoder(embed=model.embed, blocks=list(model.blocks)[:n_blocks], norm=model.norm, lm_head=model.lm_head)
        with torch.inference_mode():
            assert row.after == expectations(short(ids[None])[0], ids)


def test_what_is_expected_against_a_slow_count() -> None:
    logits, ids = torch.randn(7, 11, generator=torch.Generator().manual_seed(3)), some_tokens(7, vocab_size=11)
    found = expectations(logits, ids, 3)
    for i, one in enumerate(found):
        probabilities = logits[i].double().softmax(0).tolist()
        order = sorted(range(11), key=lambda token: -probabilities[token])
        assert [guess.id for guess in one.guesses] == order[:3]
        assert [guess.probability for guess in one.guesses] == pytest.approx([probabilities[t] for t in order[:3]])
        if i < 6:
            assert one.rank == 1 + order.index(int(ids[i + 1]))
            assert one.loss == pytest.approx(-math.log(probabilities[int(ids[i + 1])]))
            assert one.is_right == (one.rank == 1)
        else:
            assert (one.loss, one.rank, one.is_right) == (None, None, False)
