"""What an import costs and needs, each looked at in a fresh interpreter."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SRC = ROOT / "src"


def run(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    """`code` run by a new Python that finds the package in src/."""
    prefix = f"import sys; sys.path.insert(0, {str(SRC)!r})\n"
    return subprocess.run([sys.executable, "-c", prefix + code, *words], capture_output=True, text=True)


def loaded_by(code: str) -> set[str]:
    """Top-level modules that are there after `code`, as it reports them on its last line."""
    done = run(
        f"{code}\nimport json, sys; print(); print(json.dumps([name for name in sys.modules if '.' not in name]))"
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def distributions(requirements: list[str]) -> set[str]:
    return {re.split(r"[\s<>=!~\[;]", requirement)[0].lower() for requirement in requirements}


def optional_modules() -> set[str]:
    """Modules of the extras that are no core dependency; here all have the names of their distributions."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = set().union(*(distributions(extra) for extra in project["optional-dependencies"].values()))
    return {name.replace("-", "_") for name in extras - distributions(project["dependencies"]) - {"legollm"}}


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = {"torch", "numpy", "safetensors", "regex", "jinja2", "rich", "yaml", *optional_modules()}
    assert loaded_by("import legollm") & heavy == set()


def test_help_needs_no_torch() -> None:
    loaded = loaded_by("from legollm.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass")
    assert loaded & {"torch", "numpy", *optional_modules()} == set()


@pytest.mark.slow
def test_every_module_imports_with_the_core_dependencies_only() -> None:
    paths = sorted((SRC / "legollm").rglob("*.py"))
    dotted = [".".join(path.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__") for path in paths]
    modules = [name for name in dotted if name != "legollm.__main__"]  # importing that one starts the program
    code = """
import importlib, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

missing, modules = (set(word.split(",")) for word in sys.argv[1:])
sys.meta_path.insert(0, Missing())
failed = []
for module in sorted(modules):
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        failed.append(f"{module}: {error}")
sys.exit("\\n".join(failed) or 0)
"""
    optional = optional_modules()
    assert {"transformers", "tiktoken", "pytest", "pyarrow"} <= optional
    done = run(code, ",".join(sorted(optional)), ",".join(modules))
    assert done.returncode == 0, done.stderr


def test_neither_the_compiler_nor_algebra_is_needed_to_open_a_model_and_to_write() -> None:
    """torch would import them for a normal_, an empty_like or a cat on the meta device: two seconds and 100 MB."""
    code = """
import sys, tempfile
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from legollm.architectures import ARCHITECTURES
from legollm.checkpoints.huggingface import save_hf_folder
from legollm.checkpoints.loading import USED_BY, load
from legollm.device import without_memory
from tests.tiny_models import TINY, tiny_config, tiny_model
for name, row in ARCHITECTURES.items():
    with without_memory():
        model = row.build(row.config())
    assert all(p.is_meta for p in model.parameters())
with tempfile.TemporaryDirectory() as place:
    for name in TINY.keys() - USED_BY.keys():
        save_hf_folder(Path(place) / name, name, tiny_config(name), tiny_model(name))
        lm = load(Path(place) / name, engine="torch")
        assert len(list(lm.stream([1, 2], as_ids=True, max_new_tokens=3))) == 3
        assert not {"torch._dynamo", "sympy"} & set(sys.modules), name
"""
    done = run(code, str(ROOT))
    assert done.returncode == 0, done.stderr
