"""Logits only where a target counts: the same loss and the same gradients as all of them."""

import pytest
import torch
import torch.nn.functional as F

from legollm.generation.cache import FullCache
from legollm.interfaces import Batch
from legollm.training.objective import IGNORED, NextToken
from tiny_models import TINY, VOCAB, some_tokens, tiny_model


def masked_batch(share: float, seed: int = 0) -> Batch:
    tokens, targets = some_tokens(3, 11, seed=seed), some_tokens(3, 11, seed=seed + 1)
    drop = torch.rand(3, 11, generator=torch.Generator().manual_seed(seed)) < share
    return Batch(tokens, targets.masked_fill(drop, IGNORED))


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("share", [0.0, 0.5, 0.9, 1.0])
def test_loss_and_gradients_equal_those_of_all_logits(name: str, share: float) -> None:
    model, batch = tiny_model(name, dtype=torch.float64), masked_batch(share)
    found = NextToken()(model, batch)
    everything = model(batch.tokens)
    expected = F.cross_entropy(everything.flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORED, reduction="sum")
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert NextToken().n_terms(batch) == int((batch.targets != IGNORED).sum())
    parameters = list(model.parameters())
    for a, b in zip(torch.autograd.grad(found, parameters), torch.autograd.grad(expected, parameters), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", TINY)
def test_chosen_logits_are_the_rows_of_all_logits(name: str) -> None:
    model, tokens = tiny_model(name, dtype=torch.float64), some_tokens(2, 7)
    at = torch.rand(2, 7, generator=torch.Generator().manual_seed(4)) < 0.4
    chosen = model(tokens, at=at)
    assert chosen.shape == (int(at.sum()), VOCAB)
    torch.testing.assert_close(chosen, model(tokens)[at], rtol=1e-12, atol=1e-12)
    assert model(tokens, at=torch.zeros_like(at)).shape == (0, VOCAB)


@pytest.mark.parametrize("name", TINY)
def test_with_a_cache_and_rows_of_unequal_length(name: str) -> None:
    model, tokens = tiny_model(name, dtype=torch.float64), some_tokens(2, 6)
    positions = torch.tensor([[-1, -1, 0, 1, 2, 3], [0, 1, 2, 3, 4, 5]])
    caches = [FullCache.for_model(model, 2, 6) for _ in range(2)]
    last = torch.zeros(2, 6, dtype=torch.bool)
    last[:, -1] = True
    chosen = model(tokens, positions, caches[0], at=last)
    torch.testing.assert_close(chosen, model(tokens, positions, caches[1])[:, -1], rtol=1e-12, atol=1e-12)
    assert caches[0].length == caches[1].length == 6  # all were read, whatever was asked for


def test_sums_are_not_taken_in_half_precision() -> None:
    model = tiny_model("gpt2").bfloat16()
    batch = masked_batch(0.3)
    loss = NextToken()(model, batch)
    assert loss.dtype == torch.float32
    expected = F.cross_entropy(model(batch.tokens).float().flatten(0, 1), batch.targets.flatten(), reduction="sum")
    torch.testing.assert_close(loss, expected, rtol=1e-2, atol=0)
