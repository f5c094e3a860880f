"""Keys of config.json that several architectures share, read from and written for old and new versions alike."""

from collections.abc import Mapping
from typing import Any

from legollm.components.positions import Llama3Scaling
from legollm.errors import CheckpointError


def need(config: Mapping[str, Any], key: str) -> Any:
    """The value of a key that has no default.

    Raises:
        CheckpointError: it is missing.
    """
    if config.get(key) is None:
        raise CheckpointError(f"config.json: {key} is missing; {config.get('model_type')} models need it")
    return config[key]


def accept(config: Mapping[str, Any], key: str, *possible: Any) -> None:
    """Refuse a model that computes something else than the bricks do; an absent key means the first value.

    Raises:
        CheckpointError: the value is not among the possible ones.
    """
    found = config.get(key, possible[0])
    if found not in possible:
        supported = " or ".join(repr(value) for value in possible)
        raise CheckpointError(f"config.json: {key} is {found!r}, and only {supported} is supported")


def rope_to_hf(theta: float, scaling: Llama3Scaling | None) -> dict[str, Any]:
    """Version 4 reads rope_theta and rope_scaling, version 5 rope_parameters: all three, from one value."""
    rope: dict[str, Any] = {"rope_type": "default"}
    if scaling:
        rope = {
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_max_seq_len,
        }
    return {
        "rope_theta": theta,
        "rope_scaling": rope if scaling else None,
        "rope_parameters": {**rope, "rope_theta": theta},
    }


def rope_from_hf(config: Mapping[str, Any]) -> tuple[float, Llama3Scaling | None]:
    """Rotary base and scaling, from either version's keys.

    Raises:
        CheckpointError: an unknown kind of scaling, or two keys that contradict each other.
    """
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    thetas = {float(d["rope_theta"]) for d in (config, rope) if d.get("rope_theta") is not None}
    if len(thetas) > 1:
        raise CheckpointError(f"config.json: rope_theta is given twice, {sorted(thetas)}; remove the wrong one")
    theta = thetas.pop() if thetas else 10_000.0
    accept({**config, **rope}, "partial_rotary_factor", 1.0, None)
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return theta, None
    if kind != "llama3":
        raise CheckpointError(f"config.json: rope_type is {kind!r}, and only 'default' or 'llama3' is supported")
    return theta, Llama3Scaling(
        factor=float(need(rope, "factor")),
        low_freq_factor=float(need(rope, "low_freq_factor")),
        high_freq_factor=float(need(rope, "high_freq_factor")),
        original_max_seq_len=int(need(rope, "original_max_position_embeddings")),
    )
