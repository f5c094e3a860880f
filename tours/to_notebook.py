"""A tour as a Jupyter notebook: `python tours/to_notebook.py tours/verifier_loop.py [OUT.ipynb]`.

A tour is a plain script. `# %% [markdown]` begins a cell of prose, whose lines are comments; `# %%` one of code. Only
the standard library is needed; a notebook is JSON (nbformat 4.5).
"""

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

MARK = "# %%"


class Cell(NamedTuple):
    """Prose or code, without the marks of the script."""

    is_prose: bool
    text: str


def cells_of(script: str) -> Iterator[Cell]:
    """The cells of a script, in order; what stands above the first mark is code."""
    is_prose, lines = False, list[str]()
    for line in [*script.splitlines(), MARK]:
        if not line.startswith(MARK):
            lines.append(line)
            continue
        if text := "\n".join(map(uncommented, lines) if is_prose else lines).strip("\n"):
            yield Cell(is_prose, text)
        is_prose, lines = line.removeprefix(MARK).strip() == "[markdown]", []


def uncommented(line: str) -> str:
    return line.removeprefix("#").removeprefix(" ")


def notebook(script: str) -> dict[str, Any]:
    """A script as the tree of a notebook, nothing of which has run."""
    cells: list[dict[str, Any]] = []
    for i, cell in enumerate(cells_of(script)):
        name = hashlib.sha256(f"{i} {cell.text}".encode()).hexdigest()[:8]
        more: dict[str, Any] = {} if cell.is_prose else {"execution_count": None, "outputs": []}
        kind = "markdown" if cell.is_prose else "code"
        cells.append(
            {"cell_type": kind, "id": name, "metadata": {}, "source": cell.text.splitlines(keepends=True), **more}
        )
    python = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": cells, "metadata": {"kernelspec": python}, "nbformat": 4, "nbformat_minor": 5}


def main(words: list[str]) -> int:
    if not 1 <= len(words) <= 2 or not Path(words[0]).is_file():
        print("give a tour: python tours/to_notebook.py tours/NAME.py [OUT.ipynb]", file=sys.stderr)
        return 2
    tour = Path(words[0])
    out = Path(words[1]) if len(words) == 2 else tour.with_suffix(".ipynb")
    out.write_text(json.dumps(notebook(tour.read_text(encoding="utf-8")), indent=1) + "\n", encoding="utf-8")
    print(out)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
