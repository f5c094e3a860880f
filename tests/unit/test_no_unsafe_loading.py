"""Nothing in the package can run code that comes in a file: a scan of its sources, proven on examples."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SOURCES = sorted((ROOT / "src" / "legollm").rglob("*.py"))

MODULES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "torch.package"}
NAMES = {
    "eval": "runs code",
    "exec": "runs code",
    "compile": "makes code",
    "__import__": "imports what a text says",
    "torch.load": "unpickles; safetensors does not",
    "torch.serialization.load": "unpickles; safetensors does not",
    "torch.jit.load": "runs what a file says",
    "torch.hub": "downloads and runs code",
    "torch.distributed.checkpoint": "unpickles its .metadata file",
    "numpy.lib.format.read_array": "may unpickle",
    "os.system": "runs a shell",
    "os.popen": "runs a shell",
    "yaml.load": "needs a Loader to be safe; use safe_load",
    "yaml.load_all": "needs a Loader to be safe; use safe_load_all",
    "yaml.full_load": "builds objects a file names",
    "yaml.unsafe_load": "builds any object a file names",
    "yaml.Loader": "builds any object a file names",
    "yaml.FullLoader": "builds objects a file names",
    "yaml.UnsafeLoader": "builds any object a file names",
    "jinja2.Environment": "gives templates all of Python; use the immutable sandbox",
    "jinja2.Template": "gives templates all of Python; use the immutable sandbox",
    "jinja2.sandbox.SandboxedEnvironment": "lets templates change what they are given; use the immutable sandbox",
}
KEYWORDS = {"allow_pickle": "unpickles", "trust_remote_code": "runs a repository's code", "shell": "runs a shell"}


def origins(tree: ast.AST) -> dict[str, str]:
    """The full name behind each name that an import of this module binds."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {
                a.asname or a.name.split(".")[0]: a.name if a.asname else a.name.split(".")[0] for a in node.names
            }
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return found


def full_name(node: ast.AST, known: dict[str, str]) -> str | None:
    """`np.lib.format` -> numpy.lib.format; None for what does not start at a plain name."""
    if isinstance(node, ast.Name):
        return known.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        base = full_name(node.value, known)
        return base and f"{base}.{node.attr}"
    return None


def is_false(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


def dangers(source: str) -> Iterator[str]:
    """Each use of something that may run code from a file, as `line: what: why`."""
    tree = ast.parse(source)
    known = origins(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.stmt | ast.expr | ast.keyword):
            continue
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            continue  # a field of that name; whoever reads the name is looked at
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Name | ast.Attribute) and (name := full_name(node, known)):
            names = [name]
        elif isinstance(node, ast.keyword) and node.arg in KEYWORDS and not is_false(node.value):
            yield f"{node.lineno}: {node.arg}: {KEYWORDS[node.arg]}"
        for name in names:
            if name in NAMES:
                yield f"{node.lineno}: {name}: {NAMES[name]}"
            elif any(name == module or name.startswith(f"{module}.") for module in MODULES):
                yield f"{node.lineno}: {name}: unpickles or the like"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT / "src")))
def test_the_package_cannot_run_code_from_a_file(path: Path) -> None:
    assert list(dangers(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import marshal as m",
        "import shelve",
        "def f(): import dill",
        "import torch\ntorch.load('x.pt', weights_only=True)",
        "import torch as t\nt.load('x.pt')",
        "from torch import load",
        "from torch.serialization import load as read",
        "import torch.distributed.checkpoint",
        "eval('1')",
        "exec(text)",
        "run = eval",
        "class Settings:\n    compile: bool = True\n    code = compile",
        "compile(text, 'f', 'exec')",
        "__import__(name)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "import numpy as np\nnp.load(path, allow_pickle=flag)",
        "import yaml\nyaml.load(text)",
        "import yaml\nyaml.load(text, Loader=yaml.SafeLoader)",
        "from yaml import UnsafeLoader",
        "make(path, trust_remote_code=True)",
        "import subprocess\nsubprocess.run(text, shell=True)",
        "import os\nos.system(text)",
        "from jinja2 import Environment",
        "import jinja2\njinja2.Template(text)",
    ],
)
def test_a_danger_is_found(source: str) -> None:
    assert list(dangers(source))


@pytest.mark.parametrize(
    "source",
    [
        "model.eval()",
        "import re\nre.compile(pattern)",
        "import torch\ntorch.compile(model)",
        "class Settings:\n    compile: bool = True\nwanted = settings.compile",
        "import numpy as np\nnp.load(path, allow_pickle=False)",
        "import yaml\nyaml.safe_load(text)\nloader = yaml.SafeLoader(text)",
        "import subprocess\nsubprocess.run(['ls'], shell=False)",
        "from jinja2.sandbox import ImmutableSandboxedEnvironment",
        "from safetensors.torch import load_file",
        "import json\njson.load(file)",
    ],
)
def test_what_is_safe_passes(source: str) -> None:
    assert list(dangers(source)) == []
