"""Parts of a model that stand still while the rest learns, by name."""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from legollm.errors import ConfigError
from legollm.transforms.lora import one_by_one

ALL_BUT_LAST = re.compile(r"all_but_last_(\d+)")


def freeze(model: nn.Module, patterns: Sequence[str]) -> None:
    """Have no gradient where a pattern matches the name of a parameter or of a module that it is in.

    all_but_last_2 is the embedding and all blocks but the last two; what comes after the blocks learns, too.

    Raises:
        ConfigError: a pattern that matches nothing, or nothing left that learns.
    """
    names = [name for name, _ in model.named_parameters()]
    for pattern in one_by_one(patterns):
        wanted = before_last(names, pattern)
        found = [name for name in names if any(covers(one, name) for one in wanted)]
        if not found:
            tops = ", ".join(dict.fromkeys(name.partition(".")[0] for name in names))
            raise ConfigError(
                f"freeze: {pattern!r} matches nothing; there are {tops} and what is in them, blocks.0.attn"
            )
        for name in found:
            model.get_parameter(name).requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError("freeze: nothing is left that learns; leave something out")


def before_last(names: Sequence[str], pattern: str) -> list[str]:
    """The patterns that all_but_last_N stands for; any other pattern is itself.

    Raises:
        ConfigError: the model has no more blocks than that.
    """
    if not (match := ALL_BUT_LAST.fullmatch(pattern)):
        return [pattern]
    numbers = {int(parts[1]) for name in names if (parts := name.split("."))[0] == "blocks"}
    n_frozen = len(numbers) - int(match[1])
    if n_frozen < 1:
        raise ConfigError(f"freeze: {pattern} leaves nothing to freeze, the model has {len(numbers)} blocks")
    return ["embed", *(f"blocks.{i}" for i in range(n_frozen))]


def covers(pattern: str, name: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")
