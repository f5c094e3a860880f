"""The most memory that a training step takes, found by running one on tensors without memory.

Autograd frees what it kept as it goes, so no sum of parts is the peak: a whole step is run, forward, backward and
update, and every block of memory that a tensor would have is weighed from when it would be taken until it is given
back. What a product takes within itself is not seen.
"""

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

    @property
    def held(self) -> int:
        return self.weights + self.optimizer

    @property
    def most(self) -> int:
        return max(self.backward, self.update)

    def rows_within(self, n_bytes: float) -> int:
        """The most rows of a micro-batch whose step stays below that; 0 if not even one does."""
        if n_bytes < self.update:
            return 0
        return max(0, self.batch_size + int((n_bytes - self.backward) // self.per_row))


LARGE = 4 << 30
"""Bytes of weights from which an optimizer's temporaries, never more than one weight's, do not matter."""
TOKENS = 1 << 14
"""Of a larger micro-batch, so many are run, and what the others take follows from 16 times as many."""
PROCESS = 274 << 20
"""Of a process that trains on a CPU, beside its tensors: Python, PyTorch, legollm 244 MiB, first products 30."""
SPARE = {"float32": 0.45, "bfloat16": 0.7}
"""Memory that a CPU process takes beside the tensors that come and go, to what they hold: gaps between them, and copies
within products. Fitted to runs like those of benchmarks/bench_plan.py; from 0.3 to 1.1 in single runs."""


def process_bytes(tensors: int, held: int, precision: str) -> int:
    """The most memory of a process that trains on a CPU, from that of its tensors, of which `held` never go."""
    return PROCESS + tensors + int(SPARE[precision] * (tensors - held))


def tensor_bytes(process: float, held: int, precision: str) -> float:
    """The inverse of `process_bytes`: what tensors may hold in a process of that size."""
    return held + (process - PROCESS - held) / (1 + SPARE[precision])


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

        def gradients(n_rows: int) -> int:
            living.most = living.now
            for _ in range(min(grad_accum, 2)):  # from the second on, gradients lie beside the activations
                backward(model, torch.zeros(n_rows, seq_len, dtype=torch.long), precision, loss_of)
            return int(living.most)

        alike = moved_alike(optimizer)
        for is_first in (True, False):  # in the first step, not all memories are there from the start
            grads: dict[Tensor, Tensor] = {
                parameter: gradient_like(parameter, is_large=before > LARGE) for parameter in model.parameters()
            }
            for one in alike:
                one.grad = grads[one]
            living.most = living.now
            optimizer.step()
            update = living.most
            optimizer.zero_grad()
            del grads
            if is_first:
                living.now += sum((n - 1) * state_bytes(optimizer, one) for one, n in alike.items())
        remembered = living.now - before
        n_rows = min(batch_size, max(1, TOKENS // seq_len))
        peak = gradients(n_rows)
        optimizer.zero_grad()
        larger = gradients(16 * n_rows)  # of few rows, the gradients of the weights may still hide what rows take
        per_row = (larger - peak) / (15 * n_rows)
        return Peak(before, remembered, peak + int((batch_size - n_rows) * per_row), update, per_row, batch_size)


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


def state_bytes(optimizer: Optimizer, parameter: Tensor) -> int:
    """What an optimizer remembers of a parameter."""
    return sum(value.nbytes for value in optimizer.state[parameter].values() if isinstance(value, Tensor))


def gradient_like(parameter: Tensor, *, is_large: bool) -> Tensor:
    """A gradient; that of a large model lies in memory in another order, so that no optimizer walks through it in a
    hundred thousand blocks."""
    if is_large and parameter.ndim >= 2:
        return torch.zeros_like(parameter.mT).mT
    return torch.zeros_like(parameter)


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
        if key not in self.known:
            self.known.add(key)
            self.now += storage.nbytes()
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self.give_back, key, storage.nbytes()).atexit = False

    def give_back(self, key: int, n_bytes: int) -> None:
        self.known.discard(key)
        self.now -= n_bytes
