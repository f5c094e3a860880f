"""Every brick fits every other: the swap matrix, and a brick from outside."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from legollm.components.attention import Attention
from legollm.components.blocks import ParallelBlock, PostNormBlock, PreNormBlock, SandwichNormBlock
from legollm.components.decoder import Decoder
from legollm.components.feedforward import GLU, MLP, GeGLU, ReGLU, SwiGLU, gelu, relu_squared
from legollm.components.init import init_weights
from legollm.components.norm import LayerNorm, RMSNorm
from legollm.components.positions import (
    LearnedPositionEmbedding,
    NoPositions,
    RotaryEmbedding,
    ScaledTokenEmbedding,
    SinusoidalPositionEmbedding,
    TokenAndPositionEmbedding,
    TokenEmbedding,
)
from legollm.interfaces import LayerCache, Mask
from tiny_models import some_tokens

D, V = 16, 23
Make = Callable[[], nn.Module]
Norm = Callable[[int], nn.Module]

NORMS: dict[str, Norm] = {"LayerNorm": LayerNorm, "RMSNorm": RMSNorm}
ATTENTIONS: dict[str, Make] = {
    "multi-head": lambda: Attention(D, n_heads=4, n_kv_heads=4, d_head=4, rope=NoPositions(), bias=True, dropout=0.1),
    "grouped": lambda: Attention(D, n_heads=4, n_kv_heads=2, d_head=4, rope=RotaryEmbedding(4, theta=100.0)),
    "multi-query": lambda: Attention(
        D, n_heads=4, n_kv_heads=1, d_head=8, rope=RotaryEmbedding(8, theta=100.0), head_norm=RMSNorm
    ),
}
FFNS: dict[str, Make] = {
    "MLP": lambda: MLP(D, 32),
    "MLP gelu": lambda: MLP(D, 32, activation=gelu),
    "MLP relu_squared": lambda: MLP(D, 32, activation=relu_squared, bias=False),
    "GLU": lambda: GLU(D, 32),
    "SwiGLU": lambda: SwiGLU(D, 32),
    "GeGLU": lambda: GeGLU(D, 32),
    "ReGLU": lambda: ReGLU(D, 32),
}
BLOCKS: dict[str, Callable[[Norm, Make, Make], nn.Module]] = {
    "pre-norm": lambda n, a, f: PreNormBlock(norm1=n(D), attn=a(), norm2=n(D), ffn=f()),
    "post-norm": lambda n, a, f: PostNormBlock(norm1=n(D), attn=a(), norm2=n(D), ffn=f(), dropout=0.1),
    "sandwich": lambda n, a, f: SandwichNormBlock(
        norm1=n(D), attn=a(), attn_norm=n(D), norm2=n(D), ffn=f(), ffn_norm=n(D)
    ),
    "parallel": lambda n, a, f: ParallelBlock(norm=n(D), attn=a(), ffn=f()),
}
EMBEDDINGS: dict[str, Make] = {
    "tokens": lambda: TokenEmbedding(V, D),
    "scaled": lambda: ScaledTokenEmbedding(V, D),
    "learned": lambda: TokenAndPositionEmbedding(
        tokens=TokenEmbedding(V, D), positions=LearnedPositionEmbedding(12, D), dropout=0.1
    ),
    "sinusoidal": lambda: TokenAndPositionEmbedding(
        tokens=TokenEmbedding(V, D), positions=SinusoidalPositionEmbedding(D)
    ),
}


def model_of(block: Make, norm: Norm = RMSNorm, embed: Make = EMBEDDINGS["tokens"]) -> Decoder:
    blocks = [block() for _ in range(2)]
    model = Decoder(embed=embed(), blocks=blocks, norm=norm(D), lm_head=nn.Linear(D, V, bias=False))
    init_weights(model, torch.Generator().manual_seed(0))
    return model


def loss_of(model: Decoder, tokens: Tensor) -> Tensor:
    return F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())


def learns_and_is_causal(model: Decoder) -> None:
    tokens = some_tokens(4, 11, vocab_size=V)
    model.eval()
    before, logits = loss_of(model, tokens), model(tokens)
    changed = tokens.clone()
    changed[:, 6] = (changed[:, 6] + 1) % V
    assert torch.equal(model(changed)[:, :6], logits[:, :6])
    assert (model(changed)[:, 7:] != logits[:, 7:]).any()  # and tokens do hear of earlier ones
    model.train()
    loss_of(model, tokens).backward()
    torch.optim.AdamW(model.parameters(), lr=3e-3).step()
    model.eval()
    assert loss_of(model, tokens) < before


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("norm", NORMS)
def test_every_brick_fits_every_other(norm: str, attention: str, block: str) -> None:
    for ffn in FFNS:
        parts = NORMS[norm], ATTENTIONS[attention], FFNS[ffn]
        learns_and_is_causal(model_of(lambda parts=parts: BLOCKS[block](*parts), NORMS[norm]))


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("embed", EMBEDDINGS)
def test_every_embedding_fits_every_block(embed: str, block: str) -> None:
    parts = LayerNorm, ATTENTIONS["multi-head"], FFNS["MLP"]
    learns_and_is_causal(model_of(lambda: BLOCKS[block](*parts), embed=EMBEDDINGS[embed]))


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
    """Somebody else's mixer: it knows the studs and nothing else of this package."""

    kv_shape = (1, D)

    def __init__(self) -> None:
        super().__init__()
        self.o_proj = nn.Linear(D, D)

    def forward(self, x: Tensor, positions: Tensor, mask: Mask, cache: LayerCache | None = None) -> Tensor:
        new = x[:, None]  # (B, 1, T, D): one head
        seen = new if cache is None else cache.append(new, new)[0]
        sums = seen.cumsum(2)[:, :, -new.size(2) :]
        return self.o_proj((sums / (positions[:, None] + 1)).squeeze(1))


@pytest.mark.parametrize("block", BLOCKS)
def test_a_brick_from_outside_fits(block: str) -> None:
    model = model_of(lambda: BLOCKS[block](RMSNorm, RunningMean, FFNS["SwiGLU"]))
    learns_and_is_causal(model)
    assert model.kv_shapes == [(1, D), (1, D)]
