"""Which engine runs a model: torch, which runs every one, or kernels on the CPU, where they are the sooner ready."""

import logging
import os
import sys
import weakref
from importlib.util import find_spec
from typing import Literal

import torch
from torch import nn

from legollm.components.decoder import Decoder
from legollm.components.quantized import QuantizedLinear
from legollm.errors import ConfigError, LoweringError
from legollm.kernels.stamp import is_compiled
from legollm.lowering.decoder import LoweredDecoder
from legollm.lowering.weights import Precision
from legollm.tokenizers.fast import cores

log = logging.getLogger(__name__)

Engine = Literal["auto", "torch", "cpu"]
"""torch runs every model. cpu: compiled kernels, which need numba and a lowering of each part of the model. auto: the
kernels where they can do it and answer sooner, all told."""

# What auto reckons with, in seconds, measured on two cores.
IMPORT_SECONDS, COMPILE_SECONDS = 0.8, 30.0
LAYER_SECONDS = 3e-4
"""What torch takes for a layer and a token beside reading weights, of which it reads BYTES_PER_SECOND."""
BYTES_PER_SECOND, KERNEL_BYTES_PER_SECOND = 13e9, 20e9
PACK_SECONDS = 4e-9
"""For each weight that is not kept in float32."""
UNPACK_SECONDS = 1e-9
"""What torch takes to make a quantised weight a float32 number, which it does in every pass."""
BYTES = {"float32": 4.0, "bfloat16": 2.0, "int8": 1.0, "int4": 0.5625}


def lowering_for(model: nn.Module, engine: Engine, precision: Precision, n_tokens: int) -> LoweredDecoder | None:
    """The model's lowering, if that is to write n_tokens; None where the model is to do it, in torch.

    Raises:
        ConfigError: torch is asked for and has no such precision.
        LoweringError: kernels are asked for, or needed for the precision, and cannot run the model.
    """
    if engine not in ("auto", "torch", "cpu"):
        raise ConfigError(f"engine: {engine!r} is none of auto, torch, cpu")
    if precision not in BYTES:
        raise ConfigError(f"precision: {precision!r} is none of {', '.join(BYTES)}")
    needs_kernels = precision in ("int8", "int4")
    if engine == "torch" and needs_kernels:
        raise ConfigError(f"precision: {precision} is there with engine=cpu; torch has float32 and bfloat16")
    if engine == "cpu" or needs_kernels:
        return lowered(model, precision)
    if engine == "auto" and is_sooner(model, precision, n_tokens):
        try:
            return lowered(model, precision)
        except LoweringError as error:
            log.info("engine: torch, because there is %s", error)
    return None


def lowered(model: nn.Module, precision: Precision) -> LoweredDecoder:
    """The model for kernels on all cores, which leaves PyTorch one thread for as long as it lives.

    Raises:
        LoweringError: there is no numba, the model is not on the CPU, or a part of it has no lowering.
    """
    if find_spec("numba") is None:
        raise LoweringError("no lowering without numba, which is not installed; install it, or use engine=torch")
    if not isinstance(model, Decoder):
        raise LoweringError(f"no lowering for {type(model).__name__}; engine=torch runs it")
    if next(model.parameters()).device.type != "cpu":
        raise LoweringError("no lowering for a model on another device than the CPU; engine=torch runs it")
    wish = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # a list is for nested loops
    found = LoweredDecoder(model, precision, n_threads=int(wish) if wish.isdigit() and int(wish) else cores())
    # PyTorch's threads wait awake after each of its calls, on the cores where the kernels' threads want to work: GPT-2
    # in int8 writes 125 tokens/s with one of them and 90 with two. They come back when the kernels are gone.
    if torch.get_num_threads() > 1:
        weakref.finalize(found, torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(1)
    return found


def is_sooner(model: nn.Module, precision: Precision, n_tokens: int) -> bool:
    """Whether kernels have written n_tokens before torch has, their import, compilation and packing included."""
    weights = sum(parameter.numel() for parameter in model.parameters() if parameter.dim() == 2)
    quantized = [module for module in model.modules() if isinstance(module, QuantizedLinear)]
    n_unpacked = sum(module.in_features * module.out_features for module in quantized)
    n_bytes = weights * BYTES[precision] + sum(module.numbers.nbytes for module in quantized)
    n_layers = len(getattr(model, "blocks", ()))
    torch_seconds = n_layers * LAYER_SECONDS + n_bytes / BYTES_PER_SECOND + n_unpacked * UNPACK_SECONDS
    kernel_seconds = n_bytes / KERNEL_BYTES_PER_SECOND
    cost = 0.0 if precision == "float32" else weights * PACK_SECONDS
    if "legollm.kernels.steps" not in sys.modules:
        cost += IMPORT_SECONDS
        if not is_compiled("steps", "work"):
            cost += COMPILE_SECONDS
    gain = n_tokens * (torch_seconds - kernel_seconds)
    if cost - COMPILE_SECONDS < gain < cost:
        log.info("engine: torch; with kernels compiled once by engine=cpu the next runs would be faster")
    return gain > cost
