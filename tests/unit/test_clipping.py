"""The norm of all gradients and cutting it, against PyTorch; tables whose gradients are lists of rows."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from legollm.training.clipping import all_gradients, clip, norm_of


def parameters(factor: float) -> list[nn.Parameter]:
    rng = torch.Generator().manual_seed(0)
    found = [nn.Parameter(torch.zeros(shape)) for shape in [(3, 4), (5,), (2, 2)]]
    for parameter in found[:2]:
        parameter.grad = factor * torch.randn(parameter.shape, generator=rng)
    return found  # the last has no gradient


@pytest.mark.parametrize("factor", [0.01, 0.2, 1.0, 1e4])
def test_equals_torch_in_every_bit(factor: float) -> None:
    ours, theirs = parameters(factor), parameters(factor)
    grads = all_gradients(ours)
    norm = norm_of(grads)
    clip(grads, norm, 1.0)
    assert torch.equal(norm, nn.utils.clip_grad_norm_(theirs, 1.0))
    for a, b in zip(ours[:2], theirs[:2], strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert torch.equal(a.grad, b.grad)


def looked_up(table: nn.Parameter, sparse: bool) -> Tensor:
    """The loss of two passes whose rows overlap."""
    rows = torch.tensor([4, 1, 4, 6])
    weights = torch.arange(12.0).view(4, 3)
    for factor in (1.0, 10.0):
        (factor * (F.embedding(rows, table, sparse=sparse) * weights).sum()).backward()  # type: ignore[no-untyped-call]
    assert table.grad is not None
    return table.grad


def test_rows_that_were_looked_up_twice_count_once_with_their_sum() -> None:
    listed, whole = nn.Parameter(torch.zeros(9, 3)), nn.Parameter(torch.zeros(9, 3))
    assert looked_up(listed, sparse=True).is_sparse
    looked_up(whole, sparse=False)
    found = [all_gradients([listed]), all_gradients([whole])]
    assert found[0][0].shape == (3, 3)
    for grads in found:
        clip(grads, norm_of(grads), 5.0)
    assert listed.grad is not None
    assert whole.grad is not None
    torch.testing.assert_close(listed.grad.to_dense(), whole.grad)
    torch.testing.assert_close(whole.grad.norm(), torch.tensor(5.0))
