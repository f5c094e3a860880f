"""Folders of quantised models: how config.json says what was quantised, and what the tensors are then.

`quantization` in config.json holds what `quantize` was given; the same patterns find the same maps again. Tensors have
our own names, because no other program reads them: NAME.numbers and NAME.scales in place of NAME.weight.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from legollm.architectures import architecture
from legollm.checkpoints import huggingface
from legollm.checkpoints.huggingface import (
    CONFIG,
    QUANTIZATION,
    adopt,
    check_sizes,
    compare,
    config_from_hf,
    write_config,
    write_json,
)
from legollm.checkpoints.reader import DTYPES, WHOLE_NUMBERS, read_json
from legollm.checkpoints.shards import Shape, Shards, write_shards
from legollm.components.decoder import Decoder
from legollm.components.quantized import QuantizedLinear
from legollm.device import without_memory
from legollm.errors import CheckpointError, ConfigError
from legollm.transforms.quantize import QuantizeConfig, prepare

FORMAT = 1
"""One number up when an older legollm would misread them."""
STORED = DTYPES | WHOLE_NUMBERS


def quantization_of(config: Mapping[str, Any]) -> QuantizeConfig | None:
    """What config.json says about it; None for a model of plain weights.

    Raises:
        CheckpointError: a later version's, or one that does not make sense.
    """
    match config.get(QUANTIZATION):
        case None:
            return None
        case {
            "format": 1,
            "method": "rtn" | "gptq" | "awq" as method,
            "precision": "int8" | "int4" as bits,
            "group_size": int(size),
            "skip": [*skip],
            "activations": "float" | "int8" as activations,
            **more,
        } if not more and all(isinstance(one, str) for one in skip):
            try:
                return QuantizeConfig(
                    method=method, precision=bits, group_size=size, skip=tuple(skip), activations=activations
                )
            except ConfigError as error:
                raise CheckpointError(f"{CONFIG}: {QUANTIZATION}: {error}") from error
        case {"format": int(number)} if number != FORMAT:
            raise CheckpointError(f"{CONFIG}: {QUANTIZATION} of format {number}, and this reads {FORMAT}; update it")
        case other:
            raise CheckpointError(f"{CONFIG}: {QUANTIZATION} is {other!r}, which no legollm wrote; quantise it again")


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """All weights of a quantised model once, by our names."""
    tensors: dict[str, Tensor] = dict(model.named_parameters())
    for name, module in model.named_modules():
        if isinstance(module, QuantizedLinear):
            tensors |= {f"{name}.numbers": module.numbers, f"{name}.scales": module.scales}
    return tensors


def save_quantized(
    folder: Path, arch: str, cfg: Any, model: nn.Module, quantization: QuantizeConfig, special_ids: Mapping[str, int]
) -> None:
    """Write config.json, generation_config.json and the weights."""
    tensors = {name: tensor.detach().cpu() for name, tensor in tensors_of(model).items()}
    write_config(folder, arch, cfg, next(model.parameters()).dtype, special_ids)
    said = {"format": FORMAT, **dataclasses.asdict(quantization)}
    write_json(folder / CONFIG, {**read_json(folder / CONFIG), QUANTIZATION: said})
    shapes = {name: Shape(tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
    write_shards(folder, shapes, lambda name: [tensors[name]], max_bytes=huggingface.MAX_SHARD_BYTES)


def load_quantized(folder: Path, quantization: QuantizeConfig) -> tuple[str, Any, Decoder]:
    """Architecture, configuration and model; the numbers go from the disk to their place, and nowhere else.

    Raises:
        CheckpointError: not a model of a supported kind, or tensors that do not fit its configuration.
    """
    arch, cfg = config_from_hf(read_json(folder / CONFIG))
    shards = Shards(folder)
    check_sizes(cfg, len(shards.entries))
    with without_memory():
        model = architecture(arch).build(cfg)
        try:
            prepare(model, quantization)
        except ConfigError as error:
            raise CheckpointError(f"{folder / CONFIG}: {QUANTIZATION}: {error}") from error
    expected, plain = tensors_of(model), dict(model.named_parameters())
    compare(folder, shards.entries, {name: tuple(one.shape) for name, one in expected.items()}, STORED.keys())
    for name, tensor in expected.items():
        found = STORED[shards.entries[name].dtype]
        if not (found.is_floating_point if name in plain else found == tensor.dtype):
            kind = "a float" if name in plain else str(tensor.dtype).removeprefix("torch.")
            raise CheckpointError(f"{folder}: {name} is stored as {found} instead of {kind}; quantise the model again")
    adopt(model, {name: shards.read(name) for name in expected})
    return arch, cfg, model
