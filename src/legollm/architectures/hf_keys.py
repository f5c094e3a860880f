"""Keys of config.json that several architectures share, read from and written for old and new versions alike."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from legollm.components.positions import LinearScaling, Llama3Scaling, NtkScaling, RopeScaling, YarnScaling
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


def labels_to_hf(labels: tuple[str, ...]) -> dict[str, Any]:
    """The keys that name a model's outputs: classes, or with one label a number."""
    return {
        "id2label": {str(i): label for i, label in enumerate(labels)},
        "label2id": {label: i for i, label in enumerate(labels)},
        "problem_type": "single_label_classification" if len(labels) > 1 else "regression",
    }


def labels_from_hf(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The inverse; absent names mean what they mean in transformers.

    Raises:
        CheckpointError: numbers of labels that are not 0, 1, 2, ...
    """
    names = config.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}
    if not isinstance(names, Mapping) or sorted(map(str, names)) != sorted(map(str, range(len(names)))):
        raise CheckpointError(f"config.json: id2label is {names!r}; expected a name for each of 0, 1, 2, ...")
    by_number = {str(number): str(label) for number, label in names.items()}
    return tuple(by_number[str(i)] for i in range(len(by_number)))


def rope_to_hf(theta: float, scaling: RopeScaling | None, d_head: int | None = None) -> dict[str, Any]:
    """Version 4 reads rope_theta and rope_scaling, version 5 rope_parameters: all three, from one value.

    d_head: needed for fixed NTK scaling, which they know as another theta; `rope_ntk` tells us what it was made of.
    """
    rope: dict[str, Any] = {"rope_type": "default"}
    ours: dict[str, Any] = {}
    match scaling:
        case Llama3Scaling():
            rope = {
                "rope_type": "llama3",
                "factor": scaling.factor,
                "low_freq_factor": scaling.low_freq_factor,
                "high_freq_factor": scaling.high_freq_factor,
                "original_max_position_embeddings": scaling.original_max_seq_len,
            }
        case LinearScaling():
            rope = {"rope_type": "linear", "factor": scaling.factor}
        case YarnScaling():
            rope = {
                "rope_type": "yarn",
                "factor": scaling.factor,
                "beta_fast": scaling.beta_fast,
                "beta_slow": scaling.beta_slow,
                "attention_factor": scaling.magnitude,
                "original_max_position_embeddings": scaling.original_max_seq_len,
            }
        case NtkScaling():
            assert d_head is not None
            ours = {"rope_ntk": {"factor": scaling.factor, "rope_theta": theta}}
            theta = theta * scaling.factor ** (d_head / max(d_head - 2, 1))
    return {
        "rope_theta": theta,
        "rope_scaling": rope if rope["rope_type"] != "default" else None,
        "rope_parameters": {**rope, "rope_theta": theta},
        **ours,
    }


def rope_from_hf(config: Mapping[str, Any]) -> tuple[float, RopeScaling | None]:
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
    match rope.get("rope_type", rope.get("type", "default")):
        case "default":
            if ntk := config.get("rope_ntk"):
                return float(need(ntk, "rope_theta")), NtkScaling(factor=float(need(ntk, "factor")))
            return theta, None
        case "llama3":
            return theta, Llama3Scaling(
                factor=float(need(rope, "factor")),
                low_freq_factor=float(need(rope, "low_freq_factor")),
                high_freq_factor=float(need(rope, "high_freq_factor")),
                original_max_seq_len=int(need(rope, "original_max_position_embeddings")),
            )
        case "linear":
            return theta, LinearScaling(factor=float(need(rope, "factor")))
        case "yarn":
            return theta, yarn_from_hf(config, rope)
        case kind:
            raise CheckpointError(
                f"config.json: rope_type is {kind!r}, and only 'default', 'linear', 'yarn' or 'llama3' is supported"
            )


def yarn_from_hf(config: Mapping[str, Any], rope: Mapping[str, Any]) -> YarnScaling:
    """YaRN's settings; absent ones mean what they mean in transformers.

    Raises:
        CheckpointError: settings of its variants.
    """
    accept(rope, "truncate", True, None)
    accept(rope, "mscale", None)
    accept(rope, "mscale_all_dim", None)
    original = rope.get("original_max_position_embeddings") or need(config, "max_position_embeddings")
    scaling = YarnScaling(
        factor=float(need(rope, "factor")),
        beta_fast=float(rope.get("beta_fast") or 32.0),
        beta_slow=float(rope.get("beta_slow") or 1.0),
        original_max_seq_len=int(original),
        attention_factor=rope.get("attention_factor"),
    )
    usual = replace(scaling, attention_factor=None)
    return usual if scaling.magnitude == usual.magnitude else scaling
