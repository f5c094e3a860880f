"""Bricks that are not in this package: found by their names and built, so that a configuration can ask for them."""

import importlib
import inspect
import sys
from collections.abc import Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

from torch import nn

from legollm.errors import ConfigError

STUDS: Mapping[str, tuple[str, ...]] = {
    "model": ("tokens",),
    "embedding": ("tokens", "positions"),
    "positions": ("positions",),
    "rotary": ("q", "k", "positions"),
    "position_bias": ("query_positions", "key_positions"),
    "mixer": ("x", "positions", "mask", "cache"),
    "block": ("x", "positions", "mask", "cache"),
    "ffn": ("x",),
    "norm": ("x",),
}
"""Where a part can go, and what its forward is given there."""
STARS = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def names_outside(cfg: Any) -> dict[str, str]:
    """Which settings of a model's configuration name a brick that is not in this package: field -> module:Name."""
    found: dict[str, str] = {}
    for key, value in vars(cfg).items():
        if is_dataclass(value):  # the decoder of a model that scores
            found |= names_outside(value)
        elif isinstance(value, str) and ":" in value:
            found[key] = value
    return found


def make_brick(path: str, stud: str, values: Mapping[str, Any]) -> nn.Module:
    """The brick that `module:Name` names, for that place of a model; stud=positions takes any of the three kinds.

    Raises:
        ConfigError: there is none, it cannot be built from `values`, or it does not fit there.
    """
    part = build_brick(brick_from(path), path, values)
    kind = positions_kind(part)
    if stud != "positions" and kind is not None:
        raise ConfigError(f"{path}: tells positions ({kind}), and a {stud} is wanted; name it in another setting")
    if stud == "positions":
        if kind is None:
            raise ConfigError(
                f"{path}: forward fits none of "
                + "; ".join(f"{one}({', '.join(STUDS[one])})" for one in ("positions", "rotary", "position_bias"))
            )
        stud = kind
    refuse_misfit(part, stud, path)
    return part


def build_brick(target: Any, name: str, values: Mapping[str, Any]) -> nn.Module:
    """A module out of a class or a function: parameters without a default get those of `values` with their names.

    Raises:
        ConfigError: it is no class and no function, wants something else, or gives something that is no module.
    """
    if not callable(target) or isinstance(target, nn.Module):
        raise ConfigError(f"{name}: expected a class or a function that makes a module, found {type(target).__name__}")
    needed = [p for p in inspect.signature(target).parameters.values() if p.default is p.empty and p.kind not in STARS]
    if unknown := [p.name for p in needed if p.name not in values]:
        raise ConfigError(
            f"{name}: nobody knows a value for {', '.join(unknown)}; give a default, use the names "
            f"{', '.join(values)}, or name a function without parameters that makes one"
        )
    plain = [values[p.name] for p in needed if p.kind is p.POSITIONAL_ONLY]
    try:
        part = target(*plain, **{p.name: values[p.name] for p in needed if p.kind is not p.POSITIONAL_ONLY})
    except Exception as error:  # whatever the user's own class does
        raise ConfigError(f"{name}: cannot be built: {type(error).__name__}: {error}") from error
    if not isinstance(part, nn.Module):
        raise ConfigError(f"{name}: expected a torch.nn.Module, found {type(part).__name__}")
    return part


def positions_kind(part: nn.Module) -> str | None:
    """The way a part tells positions, by what its forward takes first; None if it does not tell them."""
    kinds = {"q": "rotary", "query_positions": "position_bias", "positions": "positions"}
    return kinds.get(next(iter(inspect.signature(part.forward).parameters), ""))


def refuse_misfit(part: nn.Module, stud: str, name: str) -> None:
    """
    Raises:
        ConfigError: forward cannot be called with what that place gives it, or the attribute a cache needs is missing.
    """
    taken = STUDS[stud]
    try:
        inspect.signature(part.forward).bind(*taken)
    except TypeError as error:
        found = ", ".join(inspect.signature(part.forward).parameters)
        raise ConfigError(
            f"{name}: forward({found}) cannot be called as forward({', '.join(taken)}), as a {stud} is: {error}"
        ) from error
    owner = {"mixer": part, "model": part, "block": getattr(part, "attn", None)}.get(stud)
    attribute = "kv_shapes" if stud == "model" else "kv_shape"
    if stud in ("mixer", "model", "block") and not hasattr(owner, attribute):
        whose = "its attn" if stud == "block" else "it"
        raise ConfigError(
            f"{name}: {whose} has no {attribute}, the heads and width (K, Dh) of the keys and values a cache keeps"
        )


def brick_from(path: str) -> Any:
    """What `module:Name` names, from the current folder or an installed package: my_bricks:MyFFN, my_pkg.ffn:MyFFN.

    The module is imported, which runs it: a path is to be written by whoever starts the program, and is never read
    from a checkpoint or any other file that came from elsewhere.

    Raises:
        ConfigError: no such module or name, or a module that cannot be imported.
    """
    module_name, colon, name = path.partition(":")
    if not colon or not all(part.isidentifier() for part in [*module_name.split("."), *name.split(".")]):
        raise ConfigError(f"{path!r}: a brick from outside is written module:Name, such as my_bricks:MyFFN")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # last, so that no file here takes the place of an installed module
    try:
        found = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise ConfigError(f"{path}: {module_name} imports {error.name}, which is not installed") from error
        raise ConfigError(f"{path}: no module {error.name} in {here}, and none is installed") from error
    except SyntaxError as error:
        raise ConfigError(f"{path}: {error.filename}:{error.lineno}: {error.msg}") from error
    except Exception as error:  # whatever the user's own module does
        raise ConfigError(f"{path}: importing {module_name} fails: {type(error).__name__}: {error}") from error
    for part in name.split("."):
        if not hasattr(found, part):
            own = [key for key, value in vars(found).items() if getattr(value, "__module__", None) == module_name]
            has = ", ".join(own[:10]) or "no definitions"
            raise ConfigError(f"{path}: {getattr(found, '__file__', module_name)} has no {part}; it has {has}")
        found = getattr(found, part)
    return found
