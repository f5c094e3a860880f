"""AdamW equals torch's for any settings, shapes and sequence of gradients; resuming changes nothing."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from legollm.training.optim import AdamW, optimizer_tensors, restore_optimizer

HYPER = st.fixed_dictionaries(
    {
        "lr": st.floats(1e-5, 0.1),
        "betas": st.tuples(st.floats(0, 0.99), st.floats(0, 0.999)),
        "eps": st.floats(1e-10, 1e-3),
        "weight_decay": st.floats(0, 1),
    }
)


@settings(max_examples=25, deadline=None)
@given(HYPER, st.lists(st.integers(1, 5), min_size=1, max_size=3), st.integers(0, 2**31))
def test_adamw_equals_torch(hyper: dict[str, float], shape: list[int], seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    ours = nn.Parameter(torch.randn(shape, generator=rng, dtype=torch.float64))
    theirs = nn.Parameter(ours.detach().clone())
    mine = AdamW([ours], **hyper)  # type: ignore[arg-type]
    reference = torch.optim.AdamW([theirs], **hyper)  # type: ignore[arg-type]
    for step in range(10):
        if step % 4 == 3:  # a step in which the parameter took no part
            ours.grad = theirs.grad = None
        else:
            ours.grad = torch.randn(shape, generator=rng, dtype=torch.float64)
            theirs.grad = ours.grad.clone()
        mine.step()
        reference.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@settings(max_examples=15, deadline=None)
@given(HYPER, st.integers(0, 8), st.integers(0, 2**31))
def test_stopping_anywhere_leaves_no_trace(hyper: dict[str, float], stop: int, seed: int) -> None:
    weights = []
    for resumed in (False, True):
        rng = torch.Generator().manual_seed(seed)
        weight = nn.Parameter(torch.randn(4, 3, generator=rng))
        groups = [{"params": [weight], "names": ["weight"]}]
        optimizer = AdamW(groups, **hyper)  # type: ignore[arg-type]
        for step in range(8):
            if resumed and step == stop:
                saved = optimizer_tensors(optimizer)
                optimizer = AdamW([{"params": [weight], "names": ["weight"]}], **hyper)  # type: ignore[arg-type]
                restore_optimizer(optimizer, saved)
            weight.grad = torch.randn(4, 3, generator=rng)
            optimizer.step()
        weights.append(weight.detach())
    assert torch.equal(weights[0], weights[1])
