"""A built model whose linear maps get adapters, and all else stands still: a hundredth of the parameters learns
(LoRA; Hu et al. 2021, arXiv:2106.09685).

`add_lora` puts them in. `merge` has each map compute with one matrix again for as long as nothing learns, such as while
rollouts are written; `unmerge` is exact. `without_adapters` is the base, in the same memory: a reference model for
free. `dissolve` leaves plain linear maps, for whoever does not know adapters.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

import torch
from torch import nn

from legollm.components.adapted import Adapted, AdaptedByDirection
from legollm.components.quantized import QuantizedLinear
from legollm.device import generator
from legollm.errors import ConfigError
from legollm.transforms.quantize import QuantizeConfig, quantize, replace

Kind = Literal["lora", "rslora", "dora"]


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Adapters beside the linear maps of a model, which itself stays as it is."""

    rank: int = 0
    """Width of an adapter: 4 to 64 is usual; 0 is no adapters, and the whole model is trained."""
    alpha: float = 16.0
    """How much an adapter counts: times alpha / rank, with rslora times alpha / sqrt(rank)."""
    dropout: float = 0.0
    """Share of what an adapter reads that is set to zero in training."""
    kind: Kind = "lora"
    """lora; rslora, whose scale suits any rank; dora, which learns the lengths of a matrix's rows by themselves."""
    targets: tuple[str, ...] = ("blocks.*",)
    """Linear maps that get an adapter, by name or its end: q_proj, or blocks.0.ffn.*; * stands for anything."""
    skip: tuple[str, ...] = ("router.proj",)
    """Linear maps among them that get none."""
    also: tuple[str, ...] = ()
    """Modules that are trained as a whole beside the adapters, and saved with them, such as lm_head."""
    quantize: Literal["none", "int8", "int4"] = "none"
    """Round the linear maps of the base first (QLoRA): a quarter or an eighth of their memory."""

    def __post_init__(self) -> None:
        if self.rank < 0:
            raise ConfigError(f"rank: must not be negative, found {self.rank}")
        if not self.alpha > 0:
            raise ConfigError(f"alpha: must be above 0, found {self.alpha}")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout: a share from 0 up to, not including, 1, found {self.dropout}")
        if not self.rank and self.quantize != "none":
            raise ConfigError("quantize: whole numbers cannot be trained; give a rank, or leave quantize out")

    @property
    def scale(self) -> float:
        """What the product of an adapter is multiplied by."""
        return self.alpha / (math.sqrt(self.rank) if self.kind == "rslora" else self.rank)


def add_lora(model: nn.Module, cfg: LoraConfig, *, seed: int = 0, fused: Sequence[Sequence[str]] = ()) -> None:
    """Put adapters into a model, in place, and freeze all else; what it computes stays the same in every bit.

    fused: names of maps that are one matrix elsewhere. Those that get an adapter read through the same A, as the one
    adapter of that matrix does.

    Raises:
        ConfigError: nothing matches a pattern, or a match shares its weights with another module.
    """
    if cfg.quantize != "none":
        if any(isinstance(module, QuantizedLinear) for module in model.modules()):
            raise ConfigError("lora.quantize: the base is quantised already; leave it out")
        quantize(model, QuantizeConfig(precision=cfg.quantize))
    names = targets_of(model, cfg)
    model.requires_grad_(False)
    for name in names:
        adapt(model, name, rank=cfg.rank, scale=cfg.scale, dropout=cfg.dropout, by_direction=cfg.kind == "dora")
    share_inputs(model, fused)
    rng = generator(seed, "lora")
    drawn: set[int] = set()
    for adapted in adapters(model).values():
        if id(adapted.lora_a) not in drawn:
            adapted.draw(rng)
        drawn.add(id(adapted.lora_a))
    for name in modules_of(model, cfg.also):
        model.get_submodule(name).requires_grad_(True)


def targets_of(model: nn.Module, cfg: LoraConfig) -> list[str]:
    """The linear maps that get an adapter, in order.

    Raises:
        ConfigError: a pattern that nothing matches, or a map that shares its weights.
    """
    maps = {name: one for name, one in model.named_modules() if type(one) in (nn.Linear, QuantizedLinear)}
    for pattern in one_by_one(cfg.targets):
        if not any(matches(name, pattern) for name in maps):
            ends = sorted({name.rpartition(".")[2] for name in maps})
            raise ConfigError(f"lora.targets: {pattern!r} matches no linear map; there are {', '.join(ends) or 'none'}")
    whole = modules_of(model, cfg.also)
    names = [
        name
        for name in maps
        if any(matches(name, pattern) for pattern in one_by_one(cfg.targets))
        and not any(matches(name, pattern) for pattern in one_by_one(cfg.skip))
        and not any(f"{name}.".startswith(f"{one}.") for one in whole)
    ]
    if not names:
        raise ConfigError("lora.targets: all that matches is in lora.skip or lora.also; nothing is left to adapt")
    n_places = Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
    for name in names:
        if isinstance(linear := maps[name], nn.Linear) and n_places[id(linear.weight)] > 1:
            raise ConfigError(
                f"lora.targets: {name} shares its weights with another module; an adapter would part them"
            )
    return names


def modules_of(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    """The names of modules with floats that match, outermost ones only.

    Raises:
        ConfigError: a pattern that nothing matches.
    """
    found: list[str] = []
    for pattern in one_by_one(patterns):
        matching = [
            name
            for name, module in model.named_modules()
            if name and matches(name, pattern) and next(module.parameters(), None) is not None
        ]
        if not matching:
            near = ", ".join(name for name, _ in model.named_children())
            raise ConfigError(f"lora.also: {pattern!r} matches no module; there are {near} and what is in them")
        found += matching
    return [name for name in dict.fromkeys(found) if not any(name.startswith(f"{other}.") for other in found)]


def one_by_one(patterns: Sequence[str]) -> list[str]:
    """Patterns as a list; on the command line they may stand side by side with commas."""
    return [one.strip() for pattern in patterns for one in pattern.split(",")]


def matches(name: str, pattern: str) -> bool:
    """Whether a pattern describes a name, or the end of it from some dot on."""
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")


def adapt(model: nn.Module, name: str, *, rank: int, scale: float, dropout: float, by_direction: bool) -> Adapted:
    """Put an adapter around one linear map."""
    linear = model.get_submodule(name)
    assert isinstance(linear, nn.Linear | QuantizedLinear)
    kind = AdaptedByDirection if by_direction else Adapted
    made = kind(linear, rank=rank, scale=scale, dropout=dropout)
    replace(model, name, made.train(model.training))
    return made


def share_inputs(model: nn.Module, fused: Sequence[Sequence[str]]) -> None:
    """Let the maps of each group read through the A of the first of them."""
    found = adapters(model)
    for group in fused:
        members = [found[name] for name in group if name in found]
        for other in members[1:]:
            other.lora_a = members[0].lora_a


def adapters(model: nn.Module) -> dict[str, Adapted]:
    """All adapted maps by name, in order."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Adapted)}


def merge(model: nn.Module) -> None:
    """Have every adapted map compute with one matrix, until `unmerge`; nothing learns meanwhile."""
    for adapted in adapters(model).values():
        adapted.merge()


def unmerge(model: nn.Module) -> None:
    """The inverse of `merge`, exact in every bit."""
    for adapted in adapters(model).values():
        adapted.unmerge()


@contextmanager
def without_adapters(model: nn.Module) -> Iterator[None]:
    """Within the block the model is its base, as long as lora.also is empty."""
    found = adapters(model).values()
    for adapted in found:
        adapted.is_on = False
    try:
        yield
    finally:
        for adapted in found:
            adapted.is_on = True


def dissolve(model: nn.Module, *, quantized: bool = False) -> None:
    """Plain linear maps that compute the same, in place of adapted ones; with `quantized`, of quantised ones, too."""
    for name, adapted in adapters(model).items():
        replace(model, name, adapted.plain())
    if quantized:
        for name, module in list(model.named_modules()):
            if isinstance(module, QuantizedLinear):
                replace(model, name, floats(module))


def floats(quantized: QuantizedLinear) -> nn.Linear:
    """A linear map with the weights that the whole numbers stand for."""
    with torch.device("meta"):
        made = nn.Linear(quantized.in_features, quantized.out_features, bias=False)
    made.weight = nn.Parameter(quantized.weight)
    made.register_parameter("bias", quantized.bias)
    return made
