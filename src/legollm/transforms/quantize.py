"""A built model with linear maps of 8 or 4 bits in place of those of 32: a few lines around three ways to round.

rtn rounds every weight to the nearest number. gptq (gptq.py) and awq (awq.py) look at a calibration text first and
make the error of what a map answers small, not that of its weights.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal, cast

import torch
from torch import Tensor, nn

from legollm.components.quantized import Bits, QuantizedLinear, rounded
from legollm.errors import ConfigError
from legollm.transforms.awq import rescale
from legollm.transforms.calibration import watched
from legollm.transforms.gptq import gptq
from legollm.transforms.recompute import blocks

log = logging.getLogger(__name__)

Method = Literal["rtn", "gptq", "awq"]


@dataclass(frozen=True, kw_only=True)
class QuantizeConfig:
    """Which weights become whole numbers, and how."""

    method: Method = "rtn"
    """rtn: round to nearest. gptq: each column makes up for the error of those before it. awq: channels that matter are
    made larger before they are rounded. The last two look at a calibration text."""
    precision: Bits = "int8"
    """int8: bytes with a scale for each output. int4: half bytes with a bfloat16 scale for each group."""
    group_size: int = 32
    """int4: neighbours in a row that share a scale. engine=cpu reads multiples of 32."""
    skip: tuple[str, ...] = ("lm_head", "*.router.proj")
    """Linear maps that stay as they are, by name; * stands for anything. Embeddings, norms, biases and a head that
    shares its weights with the embedding always stay."""
    activations: Literal["float", "int8"] = "float"
    """With engine=torch, what quantised maps read: float leaves it as it is, int8 rounds it to bytes as engine=cpu
    does."""

    def __post_init__(self) -> None:
        if self.group_size < 2 or self.group_size % 2:
            raise ConfigError(f"group_size: {self.group_size} is no even number above 0; 32, 64 and 128 are usual")
        if self.precision == "int8" and self.group_size != QuantizeConfig.group_size:
            raise ConfigError("group_size: int8 has one scale for each output; leave it out, or give precision=int4")


def quantize(model: nn.Module, cfg: QuantizeConfig, texts: Sequence[tuple[Tensor, ...]] = ()) -> None:
    """Quantise a model's linear maps in place, a block at a time; each reads what the quantised ones before it make.

    texts: for gptq and awq; what the model is called with, such as (tokens,).

    Raises:
        ConfigError: nothing in the model can be quantised, or there is no text to look at.
    """
    names = quantizable(model, cfg)
    if cfg.method != "rtn" and not texts:
        raise ConfigError(f"calibration: {cfg.method} looks at a text; give one, or method=rtn")
    for part in (*blocks(model), model):
        own = {id(module) for module in part.modules()}
        maps = {name: model.get_submodule(name) for name in names}
        linears = {name: one for name, one in maps.items() if isinstance(one, nn.Linear) and id(one) in own}
        if not linears:
            continue
        inputs = watched(model, linears, texts) if cfg.method != "rtn" else {}
        if cfg.method == "awq":
            rescale(part, {linears[name]: one for name, one in inputs.items()}, cfg.precision, cfg.group_size)
        for name, linear in linears.items():
            weight = linear.weight.detach()
            if cfg.method == "gptq":
                numbers, scales = gptq(weight, inputs[name], cfg.precision, cfg.group_size)
            else:
                numbers, scales = rounded(weight, cfg.precision, cfg.group_size)
            with torch.device("meta"):
                made = empty(linear, cfg)
            replace(model, name, made.fill(numbers, scales))
        log.info("quantised %d linear maps", len(linears))


def quantizable(model: nn.Module, cfg: QuantizeConfig) -> list[str]:
    """The names of the linear maps that a configuration is about, in order.

    Raises:
        ConfigError: there are none.
    """
    linears = {name: module for name, module in model.named_modules() if type(module) is nn.Linear}
    n_places = Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
    found = [
        name
        for name, linear in linears.items()
        if n_places[id(linear.weight)] == 1 and not any(fnmatchcase(name, pattern) for pattern in cfg.skip)
    ]
    if not found:
        why = f"all that it has are in skip={','.join(cfg.skip)} or share their weights" if linears else "it has none"
        raise ConfigError(f"model: no linear map that could be quantised; {why}")
    return found


def empty(linear: nn.Linear, cfg: QuantizeConfig) -> QuantizedLinear:
    """What takes a map's place, without numbers yet."""
    made = QuantizedLinear(
        linear.in_features,
        linear.out_features,
        bits=cfg.precision,
        group_size=cfg.group_size,
        bias=False,
        activations=cfg.activations,
    )
    made.bias = linear.bias
    return made


def replace(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module where another one is."""
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)


def prepare(model: nn.Module, cfg: QuantizeConfig) -> None:
    """Quantised maps without numbers where `quantize` would put them: to be filled from a state dict."""
    for name in quantizable(model, cfg):
        linear = cast(nn.Linear, model.get_submodule(name))
        with torch.device(linear.weight.device):
            replace(model, name, empty(linear, cfg))
