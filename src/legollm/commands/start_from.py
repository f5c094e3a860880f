"""What a training run starts from: a base model, whose layers may be frozen, rounded, or given adapters.

Every verb that goes on training a model begins here:

    class DpoRun:
        model: Path = ...
        lora: LoraConfig = field(default_factory=LoraConfig)
        freeze: tuple[str, ...] = ()

    start = prepared(cfg.model, cfg.lora, cfg.freeze, seed=cfg.seed)
    job = Job(arch=start.arch, model_config=start.config, model=start.model, adapter=start.adapter, ...)

With `adapter` in the job its checkpoints are folders of adapters, and a resumed run fills those of `start.model`. A
verb that needs something of the base first, such as its tokenizer, loads it itself and gives it to `prepare`; with
`labels` the model gets a head for scores. The parameters that have requires_grad learn.

`Reference(start)` is the model as it was, for a KL term: with adapters it is the same model without them, and takes no
memory. While a model with adapters writes rollouts, `merge` and `unmerge` of transforms/lora.py make it as fast as the
plain one.
"""

import copy
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from legollm.architectures.scored import ScoredConfig, with_scores
from legollm.checkpoints.adapter import Adapter, fingerprint
from legollm.checkpoints.loading import Loaded, load
from legollm.checkpoints.peft import adapter_config, fused_maps
from legollm.components.decoder import Decoder
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


def prepared(model: Path, lora: LoraConfig, frozen: Sequence[str] = (), *, seed: int, **scores: Any) -> Start:
    """Load a base and `prepare` it."""
    return prepare(load(model), lora, frozen, seed=seed, **scores)


def prepare(
    base: Loaded,
    lora: LoraConfig,
    frozen: Sequence[str] = (),
    *,
    seed: int,
    labels: tuple[str, ...] = (),
    pad_id: int | None = None,
    per_token: bool = False,
) -> Start:
    """Round a loaded base, freeze it, give it adapters, as a configuration says, in place.

    seed: of the run. labels, pad_id, per_token: of a fresh head for scores in place of the one over the vocabulary, see
    architectures/scored.py; it learns, whatever else stands still.

    Raises:
        CheckpointError: a model that cannot be trained so.
        ConfigError: a pattern of lora.* or freeze that matches nothing.
    """
    model, adapter, arch, config = base.model, None, base.arch, base.config
    n_base = sum(parameter.numel() for parameter in model.parameters())
    if lora.rank:
        refuse_for_adapters(base, frozen)
        adapter = Adapter(base.folder.resolve(), fingerprint(model), lora)
    if labels:
        config = ScoredConfig(base=config, labels=labels, pad_id=pad_id, per_token=per_token)
        arch = config.arch
        with_scores(cast(Decoder, model), len(labels), seed)
    if adapter:
        if labels:
            lora = replace(lora, also=(*lora.also, "lm_head"))
            adapter = replace(adapter, lora=lora, scored=config)
        add_lora(model, lora, seed=seed, fused=fused_maps(arch, model))
        adapter_config(arch, model, lora, "")  # refuses now what could not be saved later
    elif any(isinstance(module, QuantizedLinear) for module in model.modules()):
        raise CheckpointError(
            f"{base.folder}: quantised weights cannot be trained; give lora.rank=8 to train adapters beside them, or "
            "the model they were made from"
        )
    else:
        freeze(model, frozen)
    start = Start(model, arch, config, base.tokenizer, base.chat_template, base.folder, adapter)
    if adapter or frozen:
        log.info("%s parameters learn, the base has %s", f"{start.n_trained:,}", f"{n_base:,}")
    return start


def refuse_for_adapters(base: Loaded, frozen: Sequence[str]) -> None:
    """
    Raises:
        ConfigError: parts to freeze, where all stands still.
        CheckpointError: a base that is an adapter itself.
    """
    if frozen:
        raise ConfigError("freeze: with lora.rank the whole base stands still already; leave it out")
    if base.base:
        raise CheckpointError(
            f"{base.folder}: holds an adapter; `legollm merge {base.folder} out=FOLDER` makes a base of it for another"
        )


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
