"""What a training run starts from: a base model, whose layers may be frozen, rounded, or given adapters.

Every verb that goes on training a model begins here:

    class DpoRun:
        model: Path = ...
        lora: LoraConfig = field(default_factory=LoraConfig)
        freeze: tuple[str, ...] = ()

    start = prepared(cfg.model, cfg.lora, cfg.freeze, seed=cfg.seed)
    job = Job(arch=start.arch, model_config=start.config, model=start.model, adapter=start.adapter, ...)

With `adapter` in the job its checkpoints are folders of adapters, and a resumed run fills those of `start.model`. A
verb that changes the model first, such as by another head, loads it itself and gives it to `prepare`. A frozen
reference model is `Reference(start)`: with adapters, the same model without them, and no second copy in memory.
"""

import copy
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from legollm.checkpoints.adapter import Adapter, fingerprint
from legollm.checkpoints.loading import Loaded, load
from legollm.checkpoints.peft import adapter_config, fused_maps
from legollm.components.quantized import QuantizedLinear
from legollm.errors import CheckpointError, ConfigError
from legollm.interfaces import Tokenizer
from legollm.transforms.freeze import freeze
from legollm.transforms.lora import LoraConfig, add_lora, without_adapters

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Start:
    """A model that is ready to be trained; the parameters that learn are those with requires_grad."""

    model: nn.Module
    arch: str
    config: Any
    tokenizer: Tokenizer | None
    chat_template: str | None
    folder: Path
    """Of the base."""
    adapter: Adapter | None
    """Goes into the Job; None where the whole model is saved."""

    @property
    def n_trained(self) -> int:
        """Parameters that learn."""
        return sum(parameter.numel() for parameter in self.model.parameters() if parameter.requires_grad)


def prepared(model: Path, lora: LoraConfig, frozen: Sequence[str] = (), *, seed: int) -> Start:
    """Load a base, round it, freeze it, give it adapters, as a configuration says. seed: of the run.

    Raises:
        CheckpointError: no such model, or one that cannot be trained so.
        ConfigError: a pattern of lora.* or freeze that matches nothing.
    """
    return prepare(load(model), lora, frozen, seed=seed)


def prepare(base: Loaded, lora: LoraConfig, frozen: Sequence[str] = (), *, seed: int) -> Start:
    """`prepared` for a model that is loaded already."""
    adapter = None
    if lora.rank:
        adapter = with_adapters(base, lora, frozen, seed)
    elif any(isinstance(module, QuantizedLinear) for module in base.model.modules()):
        raise CheckpointError(
            f"{base.folder}: quantised weights cannot be trained; give lora.rank=8 to train adapters beside them, or "
            "the model they were made from"
        )
    else:
        freeze(base.model, frozen)
    start = Start(base.model, base.arch, base.config, base.tokenizer, base.chat_template, base.folder, adapter)
    if adapter or frozen:
        n_all = sum(parameter.numel() for parameter in base.model.parameters())
        log.info(
            "%s of %s parameters learn (%.2f%%)", *(f"{start.n_trained:,}", f"{n_all:,}"), 100 * start.n_trained / n_all
        )
    return start


def with_adapters(base: Loaded, lora: LoraConfig, frozen: Sequence[str], seed: int) -> Adapter:
    """Put adapters into a loaded model, in place, and say what they belong to."""
    if frozen:
        raise ConfigError("freeze: with lora.rank the whole base stands still already; leave it out")
    if base.base:
        raise CheckpointError(
            f"{base.folder}: holds an adapter; `legollm merge {base.folder} out=FOLDER` makes a base of it for another"
        )
    adapter = Adapter(base.folder.resolve(), fingerprint(base.model), lora)
    add_lora(base.model, lora, seed=seed, fused=fused_maps(base.arch, base.model))
    adapter_config(base.arch, base.model, lora, "")  # refuses now what could not be saved later
    return adapter


class Reference:
    """The model as it was at the start of the run, to compare with while it learns; made before the run begins."""

    def __init__(self, start: Start) -> None:
        shares = start.adapter is not None and not start.adapter.lora.also
        self.model = start.model if shares else copy.deepcopy(start.model).requires_grad_(False).eval()

    @contextmanager
    def as_it_was(self) -> Iterator[nn.Module]:
        """Within the block, a model to call without gradients; dropout is off, whatever the model is doing."""
        learns = self.model.training
        self.model.eval()
        try:
            with torch.no_grad(), without_adapters(self.model):
                yield self.model
        finally:
            self.model.train(learns)
