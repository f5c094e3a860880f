"""Configuration: YAML files and `key=value` words go in, frozen dataclasses come out.

A default exists in one place: the field of a dataclass next to the code that reads it, with its documentation as the
string below it. Precedence, lowest first: default, preset, YAML file, command line. `read` collects what was written
and where (sources.py, yaml_file.py, tree.py), `resolve` turns it into the dataclass (convert.py) by its annotations
(kinds.py, values.py) and tells what was meant by what does not exist (spelling.py), `describe` prints it back with the
documentation and the origin of every value (describe.py).
"""

from legollm.config.convert import Resolved, resolve
from legollm.config.describe import describe, describe_value, to_tree, to_yaml
from legollm.config.sources import normalise_words, read
from legollm.config.tree import Given, Tree

__all__ = [
    "Given",
    "Resolved",
    "Tree",
    "describe",
    "describe_value",
    "normalise_words",
    "read",
    "resolve",
    "to_tree",
    "to_yaml",
]
