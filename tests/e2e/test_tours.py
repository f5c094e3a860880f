"""Every tour runs, its claims hold, and it becomes a notebook with the same code."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
TOURS = sorted(path for path in (ROOT / "tours").glob("*.py") if path.name != "to_notebook.py")
SCRIPT = """# %% [markdown]
# # Title
#
# Text.

# %%
x = 1

# %%

# %%
assert x == 1
"""


def run(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, cwd=folder, env=environment, check=False
    )


def code_of(notebook: dict[str, Any]) -> str:
    return "\n\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code")


def test_a_script_becomes_a_notebook_by_one_command(tmp_path: Path) -> None:
    (tmp_path / "tour.py").write_text(SCRIPT)
    command = str(ROOT / "tours" / "to_notebook.py")
    done = run(command, "tour.py", folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, "tour.ipynb\n"), done.stderr
    found = json.loads((tmp_path / "tour.ipynb").read_text())
    assert [(cell["cell_type"], "".join(cell["source"])) for cell in found["cells"]] == [
        ("markdown", "# Title\n\nText."),
        ("code", "x = 1"),
        ("code", "assert x == 1"),
    ]
    assert run(command, "missing.py", folder=tmp_path).returncode == 2


@pytest.mark.parametrize("tour", TOURS, ids=lambda path: path.stem)
def test_a_tour_teaches_in_prose_and_its_notebook_has_all_of_its_code(tour: Path, tmp_path: Path) -> None:
    sys.path.insert(0, str(tour.parent))
    try:
        from to_notebook import notebook  # type: ignore[import-not-found]
    finally:
        sys.path.pop(0)
    made = notebook(tour.read_text(encoding="utf-8"))
    assert ast.dump(ast.parse(code_of(made))) == ast.dump(ast.parse(tour.read_text(encoding="utf-8")))
    kinds = [cell["cell_type"] for cell in made["cells"]]
    assert kinds[0] == "markdown"
    assert min(kinds.count("markdown"), kinds.count("code")) >= 4
    assert len({cell["id"] for cell in made["cells"]}) == len(kinds)
    assert sum(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(tour.read_text(encoding="utf-8")))) >= 3


@pytest.mark.slow
@pytest.mark.parametrize("tour", TOURS, ids=lambda path: path.stem)
def test_what_a_tour_claims_is_so(tour: Path, tmp_path: Path) -> None:
    done = run(str(tour), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) >= 5
