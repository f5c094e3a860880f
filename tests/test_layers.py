"""Imports go to a lower layer or stay in the folder, and other people's packages only where they belong."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "src" / "legollm").rglob("*.py"))

LAYERS = {
    0: {"interfaces", "config", "errors", "device", "kernels", "parts", "team", "whole_file"},
    1: {"tokenizers", "verifiers", "components"},
    2: {"data", "architectures"},
    3: {"transforms", "lowering", "generation", "eject", "contract"},
    4: {"checkpoints", "training", "evaluation"},
    5: {"finetuning", "alignment", "serving"},
    6: {"commands"},
    7: {"cli"},
    8: {"__init__", "__main__"},  # the package's front doors: `import legollm` and `python -m legollm`
}
LAYER_OF = {room: layer for layer, rooms in LAYERS.items() for room in rooms}
EVERYWHERE = {"torch", "numpy", "safetensors", "regex", "jinja2", "yaml", "rich"}  # the core dependencies
ONLY_IN = {
    "numba": {"kernels"},
    "llvmlite": {"kernels"},
    "pyarrow": {"data"},
    "transformers": {"commands"},
    "lm_eval": {"commands"},
}  # may be missing
WITHOUT_NUMBA = {"legollm.kernels.plan", "legollm.kernels.stamp"}
AT_TOP = {"numba", "llvmlite"}  # in their room; it is the room itself that others import inside functions only


class Import(NamedTuple):
    line: int
    module: str  # dotted and absolute
    at_top: bool  # runs when the importing module is imported


def imports(module: str, source: str, is_package: bool = False) -> Iterator[Import]:
    tree = ast.parse(source)
    functions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
    lazy = {
        id(node)
        for part in ast.walk(tree)
        if isinstance(part, functions) or (isinstance(part, ast.If) and ast.unparse(part.test) == "TYPE_CHECKING")
        for node in ast.walk(part)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = module.split(".")[: None if is_package else -1]
            base = parents[: len(parents) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            split = origin in ("legollm", "legollm.kernels")  # what is named there are modules
            names = [f"{origin}.{alias.name}" for alias in node.names] if split else [origin]
        else:
            continue
        yield from (Import(node.lineno, name, id(node) not in lazy) for name in names)


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def violations(module: str, source: str, is_package: bool = False) -> list[str]:
    """What `module` imports against the rules of this file, one sentence each."""
    room, found = room_of(module), []
    for line, target, at_top in imports(module, source, is_package):
        package, where = target.split(".")[0], f"{module}:{line} imports {target}"
        if package == "legollm":
            other = room_of(target)
            if other in (room, "__version__", "errors"):
                continue
            if other not in LAYER_OF:
                found.append(f"{where}, which has no layer")
            elif LAYER_OF[other] >= LAYER_OF[room]:
                found.append(f"{where}: layer {LAYER_OF[room]} may only import lower ones, not {LAYER_OF[other]}")
            elif other == "kernels" and at_top and target not in WITHOUT_NUMBA:
                found.append(f"{where} at the top, but numba may be missing")
        elif package in ONLY_IN:
            if room not in ONLY_IN[package]:
                found.append(f"{where}, which belongs in {', '.join(ONLY_IN[package])} only")
            elif at_top and package not in AT_TOP:
                found.append(f"{where} at the top, but it may be missing")
        elif package not in sys.stdlib_module_names | EVERYWHERE:
            found.append(f"{where}, which is no dependency of the package")
    return found


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT / "src").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_go_to_lower_layers(path: Path) -> None:
    module = name_of(path)
    assert room_of(module) in LAYER_OF, f"{path.name}: a new room needs a row in LAYERS here"
    assert violations(module, path.read_text(encoding="utf-8"), path.name == "__init__.py") == []


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        ("legollm.components.norm", "from legollm.data import loader", "layer 1 may only"),
        ("legollm.components.norm", "from legollm import tokenizers", "layer 1 may only"),
        ("legollm.components.norm", "import legollm.tokenizers.byte", "layer 1 may only"),
        ("legollm.components.norm", "from ..tokenizers import byte", "layer 1 may only"),
        ("legollm.components.norm", "def f():\n    from legollm.training import train", "layer 1 may only"),
        ("legollm.data.chat", "import legollm", "layer 2 may only"),
        ("legollm.data.chat", "from legollm.attic import thing", "no layer"),
        ("legollm.training.optim", "import numba", "belongs in kernels"),
        ("legollm.tokenizers.fast", "import numba", "belongs in kernels"),
        ("legollm.tokenizers.fast", "from legollm.kernels import scan", "at the top"),
        ("legollm.data.sources", "import pyarrow", "at the top"),
        ("legollm.checkpoints.huggingface", "def f():\n    import transformers", "belongs in commands"),
        ("legollm.tokenizers.regex_bpe", "from tiktoken import get_encoding", "no dependency"),
    ],
)
def test_a_violation_is_found(module: str, source: str, complaint: str) -> None:
    (found,) = violations(module, source)
    assert complaint in found


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("legollm.components.norm", "from . import masks\nfrom .masks import Causal"),
        ("legollm.data.chat", "from legollm.tokenizers import ByteTokenizer\nfrom legollm.errors import DataError"),
        ("legollm.device", "from legollm.errors import ConfigError\nimport torch"),
        ("legollm.cli", "from legollm import __version__, config"),
        ("legollm.kernels.scan", "import numba\nfrom legollm.kernels.machine import at"),
        ("legollm.tokenizers.fast", "def f():\n    from legollm.kernels import scan"),
        ("legollm.tokenizers.fast", "if TYPE_CHECKING:\n    from legollm.kernels.words import Memory"),
    ],
)
def test_what_is_allowed_passes(module: str, source: str) -> None:
    assert violations(module, source) == []
