"""What every brick promises, alone and in a model; the swap matrix; and a brick from outside."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from legollm.components.attention import Attention
from legollm.components.blocks import ParallelBlock, PostNormBlock, PreNormBlock, SandwichNormBlock
from legollm.components.decoder import Decoder
from legollm.components.feedforward import GLU, MLP, GeGLU, ReGLU, SwiGLU, gelu, relu_squared
from legollm.components.init import init_weights
from legollm.components.moe import MoE
from legollm.components.norm import LayerNorm, RMSNorm
from legollm.components.outside import STUDS
from legollm.components.positions import (
    Alibi,
    InterleavedRotaryEmbedding,
    LearnedPositionEmbedding,
    LinearScaling,
    NoPositions,
    RotaryEmbedding,
    ScaledTokenEmbedding,
    SinusoidalPositionEmbedding,
    T5Bias,
    TokenAndPositionEmbedding,
    TokenEmbedding,
)
from legollm.components.routing import Router, Rule, Soft, Switch, TopK
from legollm.contract import check_brick
from legollm.contract.learning import loss_of
from legollm.contract.models import no_token_is_seen_before_its_time
from legollm.contract.studs import D, V, seeded
from legollm.interfaces import LayerCache, Mask

Make = Callable[[], nn.Module]
Norm = Callable[[int], nn.Module]

NORMS: dict[str, Norm] = {"LayerNorm": LayerNorm, "RMSNorm": RMSNorm}
MIXERS: dict[str, Make] = {
    "multi-head": lambda: Attention(D, n_heads=4, n_kv_heads=4, d_head=8, rope=NoPositions(), bias=True, dropout=0.1),
    "grouped": lambda: Attention(D, n_heads=4, n_kv_heads=2, d_head=8, rope=RotaryEmbedding(8, theta=100.0)),
    "multi-query": lambda: Attention(
        D, n_heads=4, n_kv_heads=1, d_head=16, rope=RotaryEmbedding(16, theta=100.0), head_norm=RMSNorm
    ),
    "window": lambda: Attention(D, n_heads=4, n_kv_heads=2, d_head=8, rope=RotaryEmbedding(8, theta=100.0), window=3),
    "sinks": lambda: Attention(D, n_heads=4, n_kv_heads=2, d_head=8, rope=RotaryEmbedding(8, theta=100.0), sinks=True),
    "scale": lambda: Attention(D, n_heads=4, n_kv_heads=2, d_head=8, rope=NoPositions(), scale=0.25),
}


def experts(rule: Rule) -> nn.Module:
    return MoE(router=Router(D, 4, rule=rule), experts=[SwiGLU(D, 24) for _ in range(4)])


FFNS: dict[str, Make] = {
    "MLP": lambda: MLP(D, 64),
    "MLP gelu": lambda: MLP(D, 64, activation=gelu),
    "MLP relu_squared": lambda: MLP(D, 64, activation=relu_squared, bias=False),
    "GLU": lambda: GLU(D, 64),
    "SwiGLU": lambda: SwiGLU(D, 64),
    "GeGLU": lambda: GeGLU(D, 64),
    "ReGLU": lambda: ReGLU(D, 64),
    "top-2 of 4": lambda: experts(TopK(2)),
    "switch": lambda: experts(Switch()),
    "soft mixture": lambda: experts(Soft()),
}
BLOCKS: dict[str, Callable[[Norm, Make, Make], nn.Module]] = {
    "pre-norm": lambda n, a, f: PreNormBlock(norm1=n(D), attn=a(), norm2=n(D), ffn=f()),
    "post-norm": lambda n, a, f: PostNormBlock(norm1=n(D), attn=a(), norm2=n(D), ffn=f(), dropout=0.1),
    "sandwich": lambda n, a, f: SandwichNormBlock(
        norm1=n(D), attn=a(), attn_norm=n(D), norm2=n(D), ffn=f(), ffn_norm=n(D)
    ),
    "parallel": lambda n, a, f: ParallelBlock(norm=n(D), attn=a(), ffn=f()),
}
POSITIONS: dict[str, Make] = {
    "learned": lambda: LearnedPositionEmbedding(40, D),
    "sinusoidal": lambda: SinusoidalPositionEmbedding(D),
}
ROTARIES: dict[str, Make] = {
    "half": lambda: RotaryEmbedding(8, theta=10_000.0),
    "interleaved": lambda: InterleavedRotaryEmbedding(8, theta=10_000.0),
    "partial": lambda: RotaryEmbedding(8, theta=10_000.0, d_rotary=4),
    "stretched": lambda: RotaryEmbedding(8, theta=10_000.0, scaling=LinearScaling(factor=4.0)),
    "none": NoPositions,
}
BIASES: dict[str, Make] = {"ALiBi": lambda: Alibi(4), "T5": lambda: T5Bias(4, bidirectional=False)}
EMBEDDINGS: dict[str, Make] = {"tokens": lambda: TokenEmbedding(V, D), "scaled": lambda: ScaledTokenEmbedding(V, D)}

BRICKS: dict[str, tuple[str, Make]] = {
    **{f"norm {name}": ("norm", lambda make=make: make(D)) for name, make in NORMS.items()},
    **{f"mixer {name}": ("mixer", make) for name, make in MIXERS.items()},
    **{f"ffn {name}": ("ffn", make) for name, make in FFNS.items()},
    **{
        f"block {name}": ("block", lambda make=make: make(RMSNorm, MIXERS["grouped"], FFNS["SwiGLU"]))
        for name, make in BLOCKS.items()
    },
    **{f"positions {name}": ("positions", make) for name, make in POSITIONS.items()},
    **{f"rotary {name}": ("rotary", make) for name, make in ROTARIES.items()},
    **{f"bias {name}": ("position_bias", make) for name, make in BIASES.items()},
    **{f"embedding {name}": ("embedding", make) for name, make in EMBEDDINGS.items()},
}


def one_per_stud_at_once() -> list[Any]:
    """All bricks; those that are not the first for their stud are for the patient."""
    known: set[str] = set()
    rows: list[Any] = []
    for name, (stud, _) in BRICKS.items():
        rows.append(pytest.param(name, marks=pytest.mark.slow) if stud in known else name)
        known.add(stud)
    return rows


@pytest.mark.parametrize("brick", one_per_stud_at_once())
def test_it_keeps_its_promises(brick: str) -> None:
    stud, make = BRICKS[brick]
    assert [verdict for verdict in check_brick(stud, seeded(make)) if not verdict.passed] == []


def test_every_stud_has_a_brick() -> None:
    assert {stud for stud, _ in BRICKS.values()} | {"model"} == set(STUDS)


def model_of(block: Make, norm: Norm = RMSNorm, embed: Make = EMBEDDINGS["tokens"]) -> Decoder:
    blocks = [block() for _ in range(2)]
    model = Decoder(embed=embed(), blocks=blocks, norm=norm(D), lm_head=nn.Linear(D, V, bias=False))
    init_weights(model, torch.Generator().manual_seed(0))
    return model


def learns_and_is_causal(model: Decoder) -> None:
    outcome = no_token_is_seen_before_its_time(model)
    assert outcome.passed, outcome
    tokens = torch.randint(V, (4, 11), generator=torch.Generator().manual_seed(0))
    before = loss_of(model.eval(), tokens)
    loss_of(model.train(), tokens).backward()
    torch.optim.AdamW(model.parameters(), lr=3e-3).step()
    assert loss_of(model.eval(), tokens) < before


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("mixer", ["multi-head", "grouped", "multi-query"])
@pytest.mark.parametrize("norm", NORMS)
def test_every_brick_fits_every_other(norm: str, mixer: str, block: str) -> None:
    for ffn in FFNS:
        parts = NORMS[norm], MIXERS[mixer], FFNS[ffn]
        learns_and_is_causal(model_of(lambda parts=parts: BLOCKS[block](*parts), NORMS[norm]))


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("positions", POSITIONS)
def test_every_embedding_fits_every_block(positions: str, block: str) -> None:
    def embed() -> nn.Module:
        return TokenAndPositionEmbedding(tokens=TokenEmbedding(V, D), positions=POSITIONS[positions](), dropout=0.1)

    parts = LayerNorm, MIXERS["multi-head"], FFNS["MLP"]
    learns_and_is_causal(model_of(lambda: BLOCKS[block](*parts), embed=embed))


def test_blocks_place_their_norms_as_they_say() -> None:
    x, here = torch.randn(1, 3, D), torch.arange(3)

    def run(block: str) -> Tensor:
        return BLOCKS[block](Double, Triple, Square).eval()(x, here, None)

    def halves(y: Tensor) -> tuple[Tensor, Tensor]:
        return 3 * y, y**2

    after = x + halves(2 * x)[0]
    assert torch.equal(run("pre-norm"), after + halves(2 * after)[1])
    after = 2 * (x + halves(x)[0])
    assert torch.equal(run("post-norm"), 2 * (after + halves(after)[1]))
    after = x + 2 * halves(2 * x)[0]
    assert torch.equal(run("sandwich"), after + 2 * halves(2 * after)[1])
    assert torch.equal(run("parallel"), x + sum(halves(2 * x)))


class Double(nn.Module):
    def __init__(self, d_model: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


class Triple(nn.Module):
    def forward(self, x: Tensor, *others: Any) -> Tensor:
        return 3 * x


class Square(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x**2


class RunningMean(nn.Module):
    """Somebody else's mixer: the mean of all a token may see. It knows the studs and nothing else of this package."""

    kv_shape = (1, D)

    def __init__(self) -> None:
        super().__init__()
        self.o_proj = nn.Linear(D, D)

    def forward(self, x: Tensor, positions: Tensor, mask: Mask, cache: LayerCache | None = None) -> Tensor:
        seen = x[:, None]  # (B, 1, S, D): one head
        if cache is not None:
            seen, _ = cache.append(seen, seen)
        T, S = x.size(1), seen.size(2)
        allowed = mask.allowed(T, S)
        if allowed is None:
            allowed = torch.ones(T, S, dtype=torch.bool).tril(S - T)
        shares = allowed / allowed.sum(-1, keepdim=True)
        return self.o_proj((shares.to(x.dtype) @ seen).squeeze(1))


def test_a_brick_from_outside_keeps_its_promises() -> None:
    assert [verdict for verdict in check_brick("mixer", seeded(RunningMean)) if not verdict.passed] == []


@pytest.mark.parametrize("block", BLOCKS)
def test_a_brick_from_outside_fits(block: str) -> None:
    model = model_of(lambda: BLOCKS[block](RMSNorm, RunningMean, FFNS["SwiGLU"]))
    learns_and_is_causal(model)
    assert model.kv_shapes == [(1, D), (1, D)]


def test_verdicts_do_not_depend_on_what_was_drawn_before() -> None:
    def measured() -> list[str]:
        return [verdict.measured for verdict in check_brick(*BRICKS["rotary partial"])]

    torch.manual_seed(5)
    first = measured()
    torch.manual_seed(6)
    assert measured() == first
