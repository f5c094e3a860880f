"""Bricks that are not in this package: found by their names, so that a configuration can ask for them."""

import importlib
import sys
from pathlib import Path
from typing import Any

from legollm.errors import ConfigError


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
