"""One step of several processes: each with its own rows, and one gradient, as if one process had had all of them.

ddp: every process has the whole model; gradients are summed while the backward pass still runs
    (Li et al. 2020, arXiv:2006.15704).
fsdp: every process has some rows of each matrix, of its gradient and of its optimizer's memory, and borrows the others
    for the length of a block (Rajbhandari et al. 2020, arXiv:1910.02054; Zhao et al. 2023, arXiv:2304.11277).

Both engines are PyTorch's own. Gradients are summed, not averaged: the loss was divided by the terms of all processes.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributed import GradBucket  # type: ignore[attr-defined]

from legollm.components.encoder_decoder import EncoderDecoder
from legollm.components.ngram_embedding import NgramEmbedding
from legollm.components.routing import SigmoidTopK
from legollm.errors import ConfigError
from legollm.team import Team

log = logging.getLogger(__name__)

Parallel = Literal["auto", "ddp", "fsdp"]


class Alone:
    """A process that shares its model with nobody."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        """What the objective calls; its parameters are those of the model it was made of."""

    def passes(self, is_last: bool) -> AbstractContextManager[None]:
        """Around forward and backward of one micro-batch; with the last one of a step gradients are exchanged."""
        return nullcontext()

    def writing(self) -> AbstractContextManager[None]:
        """Around what a model does besides one pass, such as writing a text; what is divided, all processes do."""
        return nullcontext()


class Copies(Alone):
    """The same model in every process (DDP)."""

    def __init__(self, model: nn.Module) -> None:
        device = next(model.parameters()).device
        with warnings.catch_warnings(action="ignore", category=FutureWarning):  # the name it will have is not in 2.10
            copies = nn.parallel.DistributedDataParallel(
                model,
                device_ids=[device] if device.type == "cuda" else None,
                broadcast_buffers=False,  # they are constants
                gradient_as_bucket_view=True,
            )
        copies.register_comm_hook(None, summed)
        super().__init__(copies)
        self.copies = copies

    @contextmanager
    def passes(self, is_last: bool) -> Iterator[None]:
        with nullcontext() if is_last else self.copies.no_sync():
            yield


class Parts(Alone):
    """Some rows of every parameter in every process (FSDP2)."""

    def __init__(self, model: nn.Module, team: Team) -> None:
        """
        Raises:
            ConfigError: a model that is not computed block by block.
        """
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import FSDPModule, fully_shard

        if any(isinstance(module, SigmoidTopK) for module in model.modules()):
            raise ConfigError(
                "train.parallel: fsdp cannot divide experts that are balanced by a bias (sigmoid); use ddp"
            )
        mesh = init_device_mesh(next(model.parameters()).device.type, (team.size,))
        # The blocks of a decoder with an encoder also work outside of their pass: there the model is borrowed at once.
        for unit in [] if isinstance(model, EncoderDecoder) else units(model):
            fully_shard(unit, mesh=mesh)
        # Given back after every pass: who calls less than the whole model has to see that its weights are divided.
        fully_shard(model, mesh=mesh, reshard_after_forward=True)
        super().__init__(model)
        self.modules = [module for module in model.modules() if isinstance(module, FSDPModule)]
        for module in self.modules:
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)

    @contextmanager
    def passes(self, is_last: bool) -> Iterator[None]:
        for module in self.modules:
            module.set_requires_gradient_sync(is_last, recurse=False)
        yield

    @contextmanager
    def writing(self) -> Iterator[None]:
        """With all that does not lie in blocks, which fetch their own."""
        root = self.modules[0]
        root.unshard()
        yield
        root.reshard()


def shared(model: nn.Module, parallel: Parallel, team: Team) -> Alone:
    """The engine for a model whose weights are the same in every process of the team."""
    if team.size == 1:
        if parallel == "fsdp":
            log.warning("train.parallel: nothing to divide among one process; start several with torchrun")
        for module in model.modules():
            if isinstance(module, NgramEmbedding):
                module.sparse = True  # neither of the other engines sums gradients that are lists of rows
        return Alone(model)
    return Parts(model, team) if parallel == "fsdp" else Copies(model)


def units(module: nn.Module) -> list[nn.Module]:
    """The blocks of a model: what stands in its lists. None of them, if two share a parameter."""
    found: list[nn.Module] = []
    for child in module.children():
        found += list(child) if isinstance(child, nn.ModuleList) else units(child)
    owners = [id(parameter) for unit in found for parameter in unit.parameters()]
    return found if len(owners) == len(set(owners)) else []


def summed(state: None, bucket: GradBucket) -> torch.futures.Future[Tensor]:
    """What DDP does with a bucket of gradients; by default it would divide by the number of processes."""
    work = torch.distributed.all_reduce(bucket.buffer(), async_op=True)
    assert work is not None
    future: torch.futures.Future[Tensor] = work.get_future().then(lambda done: done.value()[0])
    return future
