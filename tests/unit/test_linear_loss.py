"""The loss in parts: the same number and the same gradients as from all logits at once."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from legollm.components.decoder import Decoder
from legollm.device import Precision, autocast
from legollm.interfaces import Batch, PackedBatch
from legollm.training import linear_loss
from legollm.training.linear_loss import linear_cross_entropy, rows_at_once
from legollm.training.objective import IGNORED, NextToken
from tiny_models import TINY, VOCAB, some_tokens, tiny_model

N, D = 23, 8
CPU = torch.device("cpu")
DECODERS = [name for name in TINY if isinstance(tiny_model(name), Decoder)]


@pytest.fixture(params=[1, 7, 64], ids="{} rows at once".format)
def parts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Parts of one row; of a number that divides nothing; and, as in a real run, of a multiple of 64."""
    monkeypatch.setattr(linear_loss, "LOGITS_AT_ONCE", request.param * VOCAB)
    assert rows_at_once(VOCAB) == request.param
    n_rows: int = request.param
    return n_rows


def inputs(dtype: torch.dtype = torch.float64, n: int = N) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(3)
    hidden, weight, bias = (
        torch.randn(size, generator=rng, dtype=torch.float64).to(dtype).requires_grad_()
        for size in [(n, D), (VOCAB, D), (VOCAB,)]
    )
    return hidden, weight, bias, torch.randint(VOCAB, (n,), generator=rng)


@pytest.mark.parametrize("with_bias", [True, False])
def test_loss_and_gradients_in_double_precision(parts: int, with_bias: bool) -> None:
    hidden, weight, bias, targets = inputs(n=150)
    found = linear_cross_entropy(hidden, weight, bias if with_bias else None, targets)
    logits = F.linear(hidden, weight, bias if with_bias else None)
    expected = F.cross_entropy(logits, targets, reduction="sum")
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    wanted = [hidden, weight, bias][: 3 if with_bias else 2]
    for a, b in zip(torch.autograd.grad(found / 7, wanted), torch.autograd.grad(expected / 7, wanted), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_only_gradients_that_are_wanted(parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = torch.autograd.grad(linear_cross_entropy(*(every := inputs())), every[:3])
    for frozen in range(3):
        some = [x.detach().requires_grad_(i != frozen) for i, x in enumerate(every[:3])]
        linear_cross_entropy(some[0], some[1], some[2], every[3]).backward()  # type: ignore[no-untyped-call]
        for i, (x, grad) in enumerate(zip(some, expected, strict=True)):
            assert x.grad is None if i == frozen else torch.equal(x.grad, grad)  # type: ignore[arg-type]
    monkeypatch.setattr(linear_loss, "add_product", lambda *args: pytest.fail("a product that nobody asked for"))
    linear_cross_entropy(every[0], every[1].detach(), every[2], every[3]).backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        assert not linear_cross_entropy(*every).requires_grad


def test_a_graph_that_is_walked_twice(parts: int) -> None:
    hidden, weight, bias, targets = inputs()
    loss = linear_cross_entropy(hidden, weight, bias, targets)
    once, twice = (torch.autograd.grad(loss * 0.5, [hidden, weight, bias], retain_graph=True) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(once, twice, strict=True))


def test_no_rows_are_a_loss_of_zero() -> None:
    hidden, weight, bias, targets = inputs(n=0)
    loss = linear_cross_entropy(hidden, weight, bias, targets)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss == 0
    assert weight.grad is not None
    assert not weight.grad.any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_products_are_rounded_as_it_says_and_sums_float32(parts: int, dtype: torch.dtype) -> None:
    hidden, weight, _, targets = inputs(torch.float32, n=150)
    with torch.autocast("cpu", dtype):
        found = linear_cross_entropy(hidden, weight, None, targets)
        logits = F.linear(hidden, weight)
    assert logits.dtype == dtype
    assert found.dtype == torch.float32
    expected = F.cross_entropy(logits.float(), targets, reduction="sum")
    exact = F.cross_entropy(F.linear(hidden, weight), targets, reduction="sum")
    assert abs(found - expected) < 1e-6 * exact < abs(found - exact)  # the same roundings, and not none
    wanted = [hidden, weight]
    pairs = zip(
        torch.autograd.grad(found, wanted),
        torch.autograd.grad(expected, wanted),
        torch.autograd.grad(exact, wanted),
        strict=True,
    )
    for a, b, true in pairs:
        assert a.dtype == torch.float32
        # No further from the truth than from all logits at once, whose gradients are rounded as a whole.
        assert (a - true).norm() < 1.2 * (b - true).norm() + 1e-6


def test_a_model_in_bfloat16(parts: int) -> None:
    wanted = hidden, weight, bias = inputs(torch.bfloat16, n=600)[:3]
    targets = inputs(n=600)[3]
    found = linear_cross_entropy(hidden, weight, bias, targets)
    assert found.dtype == torch.float32
    expected = F.cross_entropy(F.linear(hidden, weight, bias).float(), targets, reduction="sum")
    torch.testing.assert_close(found, expected, rtol=5e-3, atol=0)
    exact = F.cross_entropy(F.linear(hidden.double(), weight.double(), bias.double()), targets, reduction="sum")
    gradients, usual, true = (torch.autograd.grad(loss, wanted) for loss in (found, expected, exact))
    for a, b, c in zip(gradients, usual, true, strict=True):
        assert a.dtype == torch.bfloat16
        off, usually_off = ((x - c.double()).norm() for x in (a, b))
        assert off < 1.5 * usually_off + 1e-6 * c.norm()  # however many parts were added up


def batches() -> list[Batch | PackedBatch]:
    """All targets, some, and documents packed into rows."""
    tokens, targets = some_tokens(3, 11), some_tokens(3, 11, seed=1)
    some = targets.masked_fill(torch.rand(3, 11, generator=torch.Generator().manual_seed(0)) < 0.4, IGNORED)
    documents, positions = torch.tensor([0] * 4 + [1] * 7), torch.tensor([*range(4), *range(7)])
    packed = PackedBatch(tokens, some, documents.expand(3, 11), positions.expand(3, 11))
    return [Batch(tokens, targets), Batch(tokens, some), packed]


@pytest.mark.parametrize("name", DECODERS)
def test_every_model_learns_the_same_from_parts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(name, dtype=torch.float64).train()
    parameters = list(model.parameters())
    for batch in batches():
        losses = []
        for at_once in (1 << 24, 5 * VOCAB):
            monkeypatch.setattr(linear_loss, "LOGITS_AT_ONCE", at_once)
            losses.append(NextToken()(model, batch))
        usual, in_parts = losses
        torch.testing.assert_close(in_parts, usual, rtol=1e-12, atol=0)
        pairs = zip(torch.autograd.grad(in_parts, parameters), torch.autograd.grad(usual, parameters), strict=True)
        for a, b in pairs:
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_a_large_vocabulary_takes_this_way_and_a_small_one_all_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("gpt2")
    seen: list[int] = []
    model.lm_head.register_forward_hook(lambda head, args, logits: seen.append(logits.numel()))
    batch = Batch(some_tokens(2, 10), some_tokens(2, 10, seed=1))
    NextToken()(model, batch)
    assert seen == [20 * VOCAB]
    monkeypatch.setattr(linear_loss, "LOGITS_AT_ONCE", 19 * VOCAB)
    NextToken()(model, batch)
    assert len(seen) == 1


class Made(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The memory of all that is computed under it: every block, and which of them are still there."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.sizes: dict[StorageWeakRef, int] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        if isinstance(found, Tensor):
            storage = found.untyped_storage()
            self.sizes[StorageWeakRef(storage)] = storage.nbytes()
        return found

    @property
    def kept(self) -> list[int]:
        return sorted(size for storage, size in self.sizes.items() if not storage.expired() and size > 8)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_logits_are_there_in_parts_and_gradients_alone_are_kept(
    monkeypatch: pytest.MonkeyPatch, precision: Precision
) -> None:
    monkeypatch.setattr(linear_loss, "LOGITS_AT_ONCE", 4 * VOCAB)
    hidden, weight, bias, targets = inputs(torch.float32, n=500)
    given = {StorageWeakRef(x.untyped_storage()) for x in (hidden, weight, bias, targets)}
    with autocast(precision, CPU), Made() as made:
        loss = linear_cross_entropy(hidden, weight, bias, targets)
    for storage in given:
        made.sizes.pop(storage, None)
    assert max(made.sizes.values()) == hidden.nbytes  # and not 500 rows of logits, twelve times as large
    assert made.kept == sorted([hidden.nbytes, weight.nbytes, bias.nbytes])
    assert loss.requires_grad
