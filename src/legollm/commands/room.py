"""Whether a run has room on the disk and in memory, asked before it starts."""

import logging
import shutil
from pathlib import Path

import torch
from torch import nn

from legollm.checkpoints.manifest import steps
from legollm.errors import ConfigError
from legollm.training.optim import OptimConfig
from legollm.training.train import TrainConfig
from legollm.transforms.lora import adapters

log = logging.getLogger(__name__)

REMEMBERED = {"adamw": 2, "muon": 1, "lion": 1, "sgd": 1}
"""Numbers that an optimizer remembers of each parameter, at least."""


def check_room(root: Path, model: nn.Module, optim: OptimConfig, cfg: TrainConfig, step: int) -> None:
    """Compare what a run will need with what is free; root: of its checkpoints, step: where it begins.

    Memory is only warned of, as systems lend more than they have.

    Raises:
        ConfigError: the checkpoints do not fit on the disk, and train.on_save_failure is stop.
    """
    learning = sum(parameter.nbytes for parameter in model.parameters() if parameter.requires_grad)
    weights = learning if adapters(model) else sum(parameter.nbytes for parameter in model.parameters())  # on the disk
    remembered = REMEMBERED[optim.name] * learning
    n_there = len(steps(root))
    n_saves = -(-(cfg.max_steps - step) // cfg.save_every) if cfg.save_every else 1
    n_more = max(1, min(cfg.keep + 2, n_there + n_saves) - n_there)  # the newest, the best, the one being written
    needed, free = n_more * (weights + remembered), shutil.disk_usage(root).free
    if needed > free:
        arithmetic = (
            f"train.keep: {n_more} more checkpoints of {weights:,} bytes of weights and {remembered:,} of {optim.name} "
            f"are {needed:,} bytes, and {free:,} are free at {root}"
        )
        if cfg.on_save_failure == "stop":
            raise ConfigError(f"{arithmetic}; make room, or give another run=FOLDER or a smaller model")
        log.warning("%s; training goes on, as train.on_save_failure=warn says", arithmetic)
    memory = available_memory(next(model.parameters()).device)
    if memory is not None and learning + remembered > memory:
        log.warning(
            "gradients take %s bytes and %s %s, and %s are available, with nothing left for activations; give a "
            "smaller model; `legollm plan` counts all of it",
            *(f"{learning:,}", optim.name, f"{remembered:,}", f"{memory:,}"),
        )


def available_memory(device: torch.device) -> int | None:
    """Bytes of the device's memory that are free, None where nobody says."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    facts = Path("/proc/meminfo")
    for line in facts.read_text().splitlines() if device.type == "cpu" and facts.exists() else []:
        name, value, *_ = line.split()
        if name == "MemAvailable:":
            return 1024 * int(value)
    return None
