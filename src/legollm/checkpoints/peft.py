"""Adapters under the names and settings that the peft library gives them, in both directions.

Names come from the architecture's weight map. Where one of their matrices is several of ours, as GPT-2's c_attn is
q_proj, k_proj and v_proj, their one adapter is ours side by side: the maps share A, and the rows of B are divided.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from legollm.architectures import architecture
from legollm.architectures.scored import SUFFIX
from legollm.architectures.weight_map import Row, from_theirs, listing, resolve_rows, to_theirs
from legollm.checkpoints.huggingface import tied_names
from legollm.components.adapted import Adapted, AdaptedByDirection, row_lengths
from legollm.components.quantized import QuantizedLinear
from legollm.errors import CheckpointError
from legollm.parts import whole
from legollm.transforms.lora import LoraConfig, adapt, adapters, share_inputs, targets_of

PREFIX, A, B, MAGNITUDE = "base_model.model.", ".lora_A.weight", ".lora_B.weight", ".lora_magnitude_vector"
OWN = ("lora_a", "lora_b", "magnitude")
"""What the parameters of an adapter are called here."""
WITHOUT_MEANING = {
    *("task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision"),
    *("inference_mode", "exclude_modules", "layers_to_transform", "layers_pattern", "megatron_core", "eva_config"),
    *("qalora_group_size", "runtime_config", "fan_in_fan_out"),
}
"""Keys of adapter_config.json that say nothing about what a trained adapter computes: its tensors do."""
KNOWN = {
    *("r", "target_modules", "lora_alpha", "lora_dropout", "bias", "use_rslora", "use_dora", "modules_to_save"),
    *("rank_pattern", "alpha_pattern", "init_lora_weights", "ensure_weight_tying"),
}
TASKS = {"t5": "SEQ_2_SEQ_LM", "transformer": "SEQ_2_SEQ_LM", "encoder_classifier": "SEQ_CLS"}
TIED = "embed_tokens.weight"
"""The only weight that PEFT trains with what is tied to it."""
CHANGE_THE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Ways to start an adapter that also move the weights of the base."""


@dataclass(frozen=True)
class Slot:
    """A matrix of theirs with an adapter, and the maps of ours that it is made of."""

    row: Row
    """Resolved: of the matrix itself."""
    maps: tuple[str, ...]
    sizes: tuple[int, ...]
    """Outputs of each."""

    @property
    def theirs(self) -> str:
        return PREFIX + self.row.theirs.removesuffix(".weight")


def plain_names(model: nn.Module) -> list[str]:
    """The weights of a model as if it had neither adapters nor whole numbers, a tied one once."""
    bases = {f"{name}.base" for name in adapters(model)}
    names = [name for name, _ in model.named_parameters() if name.rpartition(".")[2] not in OWN]
    names += [f"{name}.weight" for name, one in model.named_modules() if isinstance(one, QuantizedLinear)]
    parts = [name.rpartition(".") for name in names]
    return [f"{at.removesuffix('.base') if at in bases else at}.{leaf}".removeprefix(".") for at, _, leaf in parts]


def plain_weight(model: nn.Module, name: str) -> Tensor:
    """A weight of the base by its plain name."""
    at, _, leaf = name.rpartition(".")
    module = model.get_submodule(at)
    found: Tensor = getattr(module.base if isinstance(module, Adapted) else module, leaf)
    return found


def rows_of_model(arch: str, model: nn.Module) -> list[Row]:
    return resolve_rows(architecture(arch).hugging_face.rows, plain_names(model))


def fused_maps(arch: str, model: nn.Module) -> list[list[str]]:
    """The linear maps that are one matrix there."""
    groups = [row.ours for row in rows_of_model(arch, model) if len(row.ours) > 1 and row.theirs.endswith(".weight")]
    return [[name.removesuffix(".weight") for name in group] for group in groups]


def slots(arch: str, model: nn.Module) -> list[Slot]:
    """The adapters of a model, as they see them."""
    found = adapters(model)
    made = []
    for row in rows_of_model(arch, model):
        maps = tuple(name.removesuffix(".weight") for name in row.ours)
        if row.theirs.endswith(".weight") and any(name in found for name in maps):
            made.append(Slot(row, maps, tuple(plain_weight(model, name).size(0) for name in row.ours)))
    return made


def rows_beside(arch: str, model: nn.Module) -> list[Row]:
    """Weights that are trained as a whole beside the adapters.

    Raises:
        CheckpointError: part of a matrix that also has an adapter there.
    """
    trained = {name for name, one in model.named_parameters() if one.requires_grad and name.split(".")[-1] not in OWN}
    rows = [row for row in rows_of_model(arch, model) if trained.intersection(row.ours)]
    if both := [slot.row.theirs for slot in slots(arch, model) if slot.row in rows]:
        raise CheckpointError(
            f"lora.also: {both[0]} is one matrix in PEFT's format, and part of it has an adapter; give all of it to "
            "lora.also or lora.targets"
        )
    return rows


def adapter_tensors(arch: str, model: nn.Module) -> dict[str, Tensor]:
    """All that was learned, under their names. Of a divided model, all processes call this.

    Raises:
        CheckpointError: see `rows_beside`.
    """
    tensors: dict[str, Tensor] = {}
    found = adapters(model)
    for slot in slots(arch, model):
        parts = [found.get(name) for name in slot.maps]
        one = next(part for part in parts if part)
        tensors[slot.theirs + A] = gathered(one.lora_a)
        tensors[slot.theirs + B] = torch.cat(
            [
                gathered(part.lora_b) if part else torch.zeros(size, one.rank, dtype=one.lora_b.dtype)
                for part, size in zip(parts, slot.sizes, strict=True)
            ]
        )
        if isinstance(one, AdaptedByDirection):
            weights = [gathered(plain_weight(model, name)) for name in slot.row.ours]
            tensors[slot.theirs + MAGNITUDE] = torch.cat(
                [
                    gathered(part.magnitude) if isinstance(part, AdaptedByDirection) else row_lengths(weight)
                    for part, weight in zip(parts, weights, strict=True)
                ]
            )
    rows = rows_beside(arch, model)
    weights_beside = to_theirs(rows, {name: gathered(plain_weight(model, name)) for row in rows for name in row.ours})
    tensors |= {PREFIX + name: tensor for name, tensor in weights_beside.items()}
    return tensors | {name: tensors[first].clone() for name, first in twins(arch, model).items() if first in tensors}


def twins(arch: str, model: nn.Module) -> dict[str, str]:
    """Each further name of a tied weight of theirs -> its first one; PEFT stores both."""
    rows = architecture(arch).hugging_face.rows
    tied = [(name, first) for name, first in tied_names(model).items() if name.rpartition(".")[2] not in OWN]
    pairs = [(resolve_rows(rows, [name])[0], resolve_rows(rows, [first])[0]) for name, first in tied]
    return {PREFIX + name.theirs: PREFIX + first.theirs for name, first in pairs}


def gathered(tensor: Tensor) -> Tensor:
    return whole(tensor.detach()).cpu()


@torch.no_grad()
def fill_adapters(arch: str, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """The inverse of `adapter_tensors`, in place, for a model whose adapters are there already.

    Raises:
        CheckpointError: tensors that do not fit the adapters.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in adapter_tensors(arch, model).items()}
    wrong = [name for name in expected.keys() & tensors.keys() if tuple(tensors[name].shape) != expected[name]]
    if problems := sorted({*wrong, *(expected.keys() ^ tensors.keys())}):
        raise CheckpointError(f"the tensors of the adapter do not fit: {listing(problems)}")
    found = adapters(model)
    for slot in slots(arch, model):
        b = torch.split(tensors[slot.theirs + B], list(slot.sizes))
        lengths = torch.split(tensors.get(slot.theirs + MAGNITUDE, tensors[slot.theirs + B]), list(slot.sizes))
        for name, rows, magnitude in zip(slot.maps, b, lengths, strict=True):
            if adapted := found.get(name):
                adapted.lora_a.copy_(tensors[slot.theirs + A])
                adapted.lora_b.copy_(rows)
                if isinstance(adapted, AdaptedByDirection):
                    adapted.magnitude.copy_(magnitude)
    for row in rows_beside(arch, model):
        sizes = {name: plain_weight(model, name).size(0) for name in row.ours}
        for name, tensor in from_theirs([row], {row.theirs: tensors[PREFIX + row.theirs]}, sizes).items():
            plain_weight(model, name).copy_(tensor)


def attach(
    arch: str,
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    config: Mapping[str, Any],
    only: LoraConfig | None = None,
) -> None:
    """Put adapters around the maps of a model that tensors and settings of theirs are about, and fill them.

    only: the adapters that are there; of what their format fills up with zeros, the others are left out.

    Raises:
        CheckpointError: what is no LoRA, rsLoRA or DoRA of linear maps of this model.
    """
    refuse_others(config)
    rows = {row.theirs: row for row in rows_of_model(arch, model)}
    wanted = set(targets_of(model, only)) if only else None
    groups: list[list[str]] = []
    model.requires_grad_(False)
    for name in [name.removesuffix(A) for name in tensors if name.endswith(A)]:
        row = rows.get(f"{name.removeprefix(PREFIX)}.weight")
        maps = [ours.removesuffix(".weight") for ours in row.ours] if row else []
        if not maps or not all(isinstance(model.get_submodule(one), nn.Linear | QuantizedLinear) for one in maps):
            raise CheckpointError(f"{name}: an adapter of what is no linear map of this {arch} with weights of its own")
        maps = [one for one in maps if wanted is None or one in wanted]
        rank = tensors[name + A].size(0)
        scale = alpha_of(config, name.removeprefix(PREFIX)) / (math.sqrt(rank) if config.get("use_rslora") else rank)
        for one in maps:
            adapt(
                model,
                one,
                rank=rank,
                scale=scale,
                dropout=float(config.get("lora_dropout") or 0.0),
                by_direction=name + MAGNITUDE in tensors,
            )
        groups.append(maps)
    share_inputs(model, groups)
    twice = twins(arch, model).keys() if config.get("ensure_weight_tying") else ()
    beside = [name for name in tensors if not name.endswith((A, B, MAGNITUDE)) and name not in twice]
    tied = tied_ids(model)
    for name in beside:
        row = rows.get(name.removeprefix(PREFIX))
        if row is None:
            raise CheckpointError(f"{name}: neither an adapter of a linear map nor a weight of its own of this {arch}")
        for ours in row.ours:
            weight = plain_weight(model, ours)
            if id(weight) in tied and not config.get("ensure_weight_tying"):
                raise CheckpointError(f"{name}: trained apart from the weights that it is tied to; they are one here")
            weight.requires_grad_(True)
    fill_adapters(arch, model, tensors)


def refuse_others(config: Mapping[str, Any]) -> None:
    """
    Raises:
        CheckpointError: settings of an adapter that the bricks do not compute.
    """
    kind, start = config.get("peft_type"), config.get("init_lora_weights")
    if kind != "LORA":
        raise CheckpointError(f"peft_type: {kind!r} is not supported; LORA is, with use_rslora or use_dora")
    if isinstance(start, str) and start.lower().startswith(CHANGE_THE_BASE):
        raise CheckpointError(
            f"init_lora_weights: {start!r} moved the base, too; save the adapter with "
            "path_initial_model_for_weight_conversion, which makes it one of the plain base"
        )
    if config.get("bias", "none") != "none":
        raise CheckpointError(f"bias: {config['bias']!r} is not supported, only 'none'; merge the adapter with peft")
    if strange := sorted(key for key, value in config.items() if value and key not in WITHOUT_MEANING | KNOWN):
        raise CheckpointError(f"{strange[0]}: {config[strange[0]]!r} is not supported; merge the adapter with peft")
    for pattern in config.get("alpha_pattern") or {}:
        if not re.fullmatch(r"[\w.]+", pattern):
            raise CheckpointError(f"alpha_pattern: {pattern!r} is no name, nor the end of one; merge it with peft")


def alpha_of(config: Mapping[str, Any], module: str) -> float:
    """What the product of a module's adapter is multiplied by, before its rank is taken into account."""
    patterns = config.get("alpha_pattern") or {}
    key = next((one for one in patterns if module == one or module.endswith(f".{one}")), None)
    found = patterns[key] if key else config.get("lora_alpha", 8)
    if not isinstance(found, int | float):
        raise CheckpointError(f"lora_alpha: {found!r} is no number")
    return float(found)


def adapter_config(arch: str, model: nn.Module, lora: LoraConfig, base: str) -> dict[str, Any]:
    """adapter_config.json for the adapters of a model.

    Raises:
        CheckpointError: what was trained beside them cannot be said there.
    """
    all_maps = {row.theirs.removesuffix(".weight") for row in rows_of_model(arch, model) if is_map(row, model)}
    chosen = {slot.row.theirs.removesuffix(".weight") for slot in slots(arch, model)}
    ends = {name.rpartition(".")[2] for name in chosen}
    exact = chosen == {name for name in all_maps if name.rpartition(".")[2] in ends}
    beside, rows = rows_beside(arch, model), rows_of_model(arch, model)
    tied = [row for row in beside if any(id(plain_weight(model, name)) in tied_ids(model) for name in row.ours)]
    if tied and not tied[0].theirs.endswith(TIED):
        raise CheckpointError(
            f"lora.also: {tied[0].ours[0]} is tied to the head, which PEFT's format cannot say of {tied[0].theirs}; "
            "leave it out"
        )
    return {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS" if arch.endswith(SUFFIX) else TASKS.get(arch, "CAUSAL_LM"),
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": lora.rank,
        "lora_alpha": int(lora.alpha) if lora.alpha == int(lora.alpha) else lora.alpha,
        "lora_dropout": lora.dropout,
        "use_rslora": lora.kind == "rslora",
        "use_dora": lora.kind == "dora",
        "target_modules": sorted(ends if exact else chosen),
        "modules_to_save": sorted({shortest(row.theirs, rows) for row in beside}) or None,
        "ensure_weight_tying": bool(tied),
        "fan_in_fan_out": any(slot.row.transpose for slot in slots(arch, model)),
        "init_lora_weights": True,
        "bias": "none",
    }


def shortest(theirs: str, rows: Sequence[Row]) -> str:
    """The module of a weight of theirs, without what it lies in if there is only one of that name."""
    whole_name = theirs.rpartition(".")[0]
    leaf = whole_name.rpartition(".")[2]
    modules = {row.theirs.rpartition(".")[0] for row in rows}
    return leaf if [name for name in modules if name.endswith(leaf)] == [whole_name] else whole_name


def tied_ids(model: nn.Module) -> set[int]:
    """Of the parameters that have more than one name."""
    n_names = Counter(id(one) for _, one in model.named_parameters(remove_duplicate=False))
    return {one for one, n in n_names.items() if n > 1}


def is_map(row: Row, model: nn.Module) -> bool:
    """Whether a row is the matrix of a linear map."""
    module = model.get_submodule(row.ours[0].rpartition(".")[0])
    return row.theirs.endswith(".weight") and isinstance(module, nn.Linear | QuantizedLinear | Adapted)
