"""The most memory that a training step takes, found by running one on tensors without memory.

Autograd frees what it kept as it goes, so no sum of parts is the peak: a whole step is run, forward, backward and
update, and every block of memory that a tensor would have is weighed from when it would be taken until it is given
back. What a product takes within itself is not seen.
"""

import itertools
import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from legollm.components.encoder_decoder import EncoderDecoder
from legollm.components.moe import MoE
from legollm.device import autocast
from legollm.evaluation.cost import EvenMoE, storage_of
from legollm.evaluation.heap import Heap
from legollm.interfaces import Optimizer


@dataclass(frozen=True)
class Peak:
    """Bytes of tensors at the two moments of a step when memory can be fullest."""

    weights: int
    optimizer: int
    """What the optimizer remembers; like the weights, there all the time and included in both."""
    backward: int
    """While gradients are computed: weights, what the optimizer remembers, activations, logits in float32."""
    update: int
    """While the optimizer moves the weights: gradients and its own temporaries instead of activations."""
    per_row: float
    """What a further row of a micro-batch adds to `backward`."""
    batch_size: int
    spare: float
    """How much more the heap of the C library takes than the tensors that come and go, as a share of them."""

    @property
    def held(self) -> int:
        return self.weights + self.optimizer

    @property
    def most(self) -> int:
        return max(self.backward, self.update)

    def process_bytes(self, precision: str) -> int:
        """The most memory of a process that trains on a CPU."""
        return PROCESS[precision] + self.most + int(self.spare * (self.most - self.held))

    def tensor_bytes(self, process: float, precision: str) -> float:
        """The inverse: what tensors may hold in a process of that size."""
        return self.held + (process - PROCESS[precision] - self.held) / (1 + self.spare)

    def rows_within(self, n_bytes: float) -> int:
        """The most rows of a micro-batch whose step stays below that; 0 if not even one does."""
        if n_bytes < self.update:
            return 0
        return max(0, self.batch_size + int((n_bytes - self.backward) // self.per_row))


LARGE = 4 << 30
"""Bytes of weights from which an optimizer's temporaries, never more than one weight's, do not matter."""
TOKENS = 1 << 14
"""Of a larger micro-batch, so many are run, and what the others take follows from 16 times as many."""
PROCESS = {"float32": 315 << 20, "bfloat16": 350 << 20}
"""Of a process that trains on a CPU, beside its tensors: Python, PyTorch, legollm 244 MiB, what a run is made of, and
the kernels of its products. Fitted to runs like those of benchmarks/bench_plan.py."""


def peak_of(
    build: Callable[[], nn.Module],
    optimizer_of: Callable[[nn.Module], Optimizer],
    seq_len: int,
    *,
    batch_size: int,
    grad_accum: int = 1,
    precision: str = "float32",
    loss_of: Callable[[nn.Module, Tensor], Tensor] | None = None,
) -> Peak:
    """The peaks of a step when the optimizer remembers something already; nothing is allocated.

    loss_of: from a model and tokens (B, T) to a loss; without it, the cross entropy of all logits.
    """
    with FakeTensorMode(), torch.random.fork_rng(devices=[]), Living() as living:
        model = build().train()
        for module in model.modules():
            if isinstance(module, MoE):
                EvenMoE(module)
        for parameter in model.parameters():
            living.take(parameter)
        optimizer = optimizer_of(model)
        before = living.now
        n_rows = min(batch_size, max(1, TOKENS // seq_len))

        def gradients(n_rows: int) -> int:
            living.most = living.now
            for _ in range(min(grad_accum, 2)):  # from the second on, gradients lie beside the activations
                backward(model, torch.zeros(n_rows, seq_len, dtype=torch.long), precision, loss_of)
            return int(living.most)

        alike = moved_alike(optimizer)
        for is_first in (True, False):  # in the first step, not all memories are there from the start
            peak = gradients(n_rows)
            grads: dict[Tensor, Tensor | None] = {parameter: parameter.grad for parameter in model.parameters()}
            for one, grad in grads.items():
                one.grad = grad if one in alike else None
            del one, grad
            if before > LARGE:
                for one in alike:
                    one.grad = grads[one] = in_another_order(one)
            living.most = living.now
            optimizer.step()
            update = living.most
            optimizer.zero_grad()
            del grads
            for one, n in alike.items() if is_first else ():
                for n_bytes in state_bytes(optimizer, one) * (n - 1):
                    living.keep(n_bytes)
            living.heap.step_ends()
        remembered = living.now - before
        most, heap = max(peak, update), living.heap.most
        spare = max(0, heap - most) / max(1, most - before - remembered)
        larger = gradients(16 * n_rows)  # of few rows, the gradients of the weights may still hide what rows take
        per_row = (larger - peak) / (15 * n_rows)
        peak += int((batch_size - n_rows) * per_row)
        return Peak(before, remembered, peak, update, per_row, batch_size, spare)


def moved_alike(optimizer: Optimizer) -> dict[Tensor, int]:
    """One of all parameters that are moved in the same way, and how many those are: a step of it shows what one of each
    takes. Matrices that are moved together stand for themselves."""
    found: dict[tuple[Any, ...], Tensor] = {}
    count: Counter[Tensor] = Counter()
    for i, group in enumerate(optimizer.param_groups):
        for parameter in group["params"]:
            own = (id(parameter),) if group.get("is_matrix") else ()
            count[found.setdefault((i, parameter.shape, parameter.dtype, *own), parameter)] += 1
    return count


def state_bytes(optimizer: Optimizer, parameter: Tensor) -> list[int]:
    """Of each tensor that an optimizer remembers of a parameter."""
    return [value.nbytes for value in optimizer.state[parameter].values() if isinstance(value, Tensor)]


def in_another_order(parameter: Tensor) -> Tensor:
    """A gradient that lies in memory in another order, so that no optimizer walks through that of a large model in a
    hundred thousand blocks."""
    return torch.zeros_like(parameter.mT).mT if parameter.ndim >= 2 else torch.zeros_like(parameter)


def backward(
    model: nn.Module, tokens: Tensor, precision: str, loss_of: Callable[[nn.Module, Tensor], Tensor] | None = None
) -> None:
    """The gradient of a micro-batch, taken as the training loop does."""
    with autocast(precision, torch.device("cpu")):
        loss = (loss_of or plain_loss)(model, tokens)
    loss.backward()  # type: ignore[no-untyped-call]


def plain_loss(model: nn.Module, tokens: Tensor) -> Tensor:
    """The logits live no longer than this function, as in an objective."""
    texts = (tokens, tokens) if isinstance(model, EncoderDecoder) else (tokens,)
    logits = model(*texts).float()
    return F.cross_entropy(logits.flatten(0, -2), logits.new_zeros(logits.shape[:-1], dtype=torch.long).flatten())


class Living(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of all tensors that are alive: `now`, and the `most` there were since it was set."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now: int = 0
        self.most: int = 0
        self.known: set[int] = set()
        self.heap = Heap()
        self.numbers = itertools.count()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        found = function(*args, **(kwargs or {}))
        for tensor in found if isinstance(found, tuple | list) else (found,):
            if isinstance(tensor, Tensor):
                self.take(tensor)
        return found

    def take(self, tensor: Tensor) -> None:
        """Count the memory of a tensor until nothing looks at it any more; views share it."""
        storage, key = tensor.untyped_storage(), storage_of(tensor)
        if key not in self.known and (n_bytes := storage.nbytes()):
            number = next(self.numbers)
            self.known.add(key)
            self.now += n_bytes
            self.most = max(self.most, self.now)
            self.heap.take(number, n_bytes)
            weakref.finalize(storage, self.give_back, key, number, n_bytes).atexit = False

    def keep(self, n_bytes: int) -> None:
        """Count what is there for good without a tensor of its own."""
        self.now += n_bytes
        self.heap.take(next(self.numbers), n_bytes)

    def give_back(self, key: int, number: int, n_bytes: int) -> None:
        self.known.discard(key)
        self.now -= n_bytes
        self.heap.give_back(number)
