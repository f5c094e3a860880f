"""Block-sparse attention: the same as dense attention under its mask, at the price of the blocks it names."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from legollm.components.attention import attend
from legollm.components.block_sparse import BlockSparse
from legollm.errors import ConfigError, ContextError
from tiny_models import some_tokens, tiny_model

MASKS = {
    "strided": BlockSparse.strided(6, 4, stride=2),
    "big bird": BlockSparse.big_bird(6, 4, n_random=2, seed=3),
    "own block only": BlockSparse(torch.eye(6, dtype=torch.bool), 4),
    "all": BlockSparse(torch.ones(6, 6, dtype=torch.bool), 4),
}
SIZES = [(24, 24), (22, 22), (5, 22), (1, 9), (1, 1), (3, 3), (8, 24)]


def given(T: int, S: int, options: str) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"q": (2, 4, T, 8), "k": (2, 2, S, 8), "v": (2, 2, S, 8)}
    shapes |= {"bias": (4, T, S)} if "bias" in options else {}
    shapes |= {"sinks": (4,)} if "sinks" in options else {}
    return {
        name: torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for name, shape in shapes.items()
    }


@pytest.mark.parametrize("options", ["nothing", "bias", "sinks", "bias and sinks"])
@pytest.mark.parametrize("name", MASKS)
def test_it_is_dense_attention_under_its_mask(name: str, options: str) -> None:
    for T, S in SIZES:
        inputs = given(T, S, options)
        results = []
        for backend in (None, "naive"):
            y = attend(mask=MASKS[name], backend=backend, scale=0.3, **inputs)
            results.append([y, *torch.autograd.grad(y.sin().sum(), list(inputs.values()))])
        torch.testing.assert_close(*results, rtol=0, atol=1e-9)


def flops(n_blocks: int, layout: Tensor) -> int:
    """Of both products, forward and backward, as PyTorch counts them while they run."""
    q, k, v = (torch.randn(1, 2, 8 * n_blocks, 4, requires_grad=True) for _ in range(3))
    with FlopCounterMode(display=False) as counter:
        attend(q, k, v, BlockSparse(layout, 8)).sum().backward()
    return counter.get_total_flops()


def test_work_follows_the_number_of_blocks_and_nothing_else() -> None:
    one_block = 6 * 2 * 2 * 8 * 8 * 4  # 2 products forward, 4 backward; 2 heads; 2 n^2 Dh each
    for n_blocks in (4, 16):
        for mask in (
            BlockSparse(torch.eye(n_blocks, dtype=torch.bool), 8),
            BlockSparse.strided(n_blocks, 8, stride=2),
            BlockSparse(torch.ones(n_blocks, n_blocks, dtype=torch.bool), 8),
        ):
            assert flops(n_blocks, mask.layout) == int(mask.layout.tril().sum()) * one_block


def test_dropout_drops_attention_and_keeps_its_mean() -> None:
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 4, 24, 8)
    y = attend(q, k, torch.ones_like(k), MASKS["all"], dropout=0.5)
    assert y.std() > 0.05
    assert y.mean() == pytest.approx(1.0, abs=0.1)


def rows(mask: BlockSparse) -> list[str]:
    return ["".join("x" if seen else "." for seen in row) for row in mask.layout.tolist()]


def test_the_patterns_are_those_of_their_papers() -> None:
    assert rows(BlockSparse.strided(6, 1, stride=3)) == ["x.....", "xx....", "xxx...", "xxxx..", ".xxxx.", "..xxxx"]
    assert rows(BlockSparse.big_bird(5, 1, n_near=2, n_random=0)) == ["x....", "xx...", "xxx..", "x.xx.", "x..xx"]
    several = [BlockSparse.big_bird(64, 1, n_global=0, n_near=1, n_random=3, seed=seed).layout for seed in (0, 0, 1)]
    assert torch.equal(several[0], several[1])
    assert not torch.equal(several[0], several[2])
    assert several[0].sum(1).tolist() == [1 + min(i, 3) for i in range(64)]
    assert not several[0].triu(1).any()


def test_a_model_reads_through_it() -> None:
    model, tokens = tiny_model("llama3", dtype=torch.float64), some_tokens(2, 23)
    mask = BlockSparse.strided(6, 4, stride=2)
    logits = model(tokens, mask=mask)
    changed = tokens.clone()
    changed[:, 12] += 1
    assert torch.equal(model(changed, mask=mask)[:, :12], logits[:, :12])
    whole = BlockSparse(torch.ones(6, 6, dtype=torch.bool), 4)
    torch.testing.assert_close(model(tokens, mask=whole), model(tokens), rtol=0, atol=1e-9)
    assert not torch.allclose(logits, model(tokens))


def test_a_layout_that_cannot_be_is_refused() -> None:
    for layout in (torch.ones(2, 3, dtype=torch.bool), torch.ones(2, 2, dtype=torch.bool).tril(-1)):
        with pytest.raises(ConfigError, match=r"layout: found a table of \(2, .\); make it square with its diagonal"):
            BlockSparse(layout, 4)
    q = torch.randn(1, 1, 9, 4)
    for backend in (None, "naive"):
        with pytest.raises(ContextError, match="the layout has room for 8 tokens, found 9"):
            attend(q, q, q, BlockSparse.strided(2, 4, stride=1), backend=backend)
