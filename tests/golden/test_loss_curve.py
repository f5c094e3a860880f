"""Twenty steps of a tiny model: the same in every bit wherever they are run alike, and nearly so on any machine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from legollm.training.metrics import read_rows
from tiny_run import go

RECORDED = Path(__file__).with_name("loss_curve.json")
SOURCES = Path(__file__).parents[2] / "src"


def curve(folder: Path) -> list[float]:
    """Loss and gradient norm of each step, and the validation losses."""
    go(folder, eval_every=4, max_steps=20, save_every=0)
    return [
        float(row[key])
        for row in read_rows(folder / "metrics.jsonl")
        for key in ("loss", "grad_norm", "val_loss")
        if key in row
    ]


def hexes(values: list[float]) -> list[str]:
    return [float.hex(value) for value in values]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    return curve(tmp_path_factory.mktemp("here") / "run")


def test_twice_in_one_process_is_the_same_in_every_bit(here: list[float], tmp_path: Path) -> None:
    torch.rand(17)  # what was drawn before does not matter
    assert hexes(curve(tmp_path / "again")) == hexes(here)


def test_another_process_is_the_same_in_every_bit(here: list[float], tmp_path: Path) -> None:
    program = (
        f"import sys, torch; torch.set_num_threads({torch.get_num_threads()}); sys.path[:0] = {sys.path!r}\n"
        f"import json, pathlib, test_loss_curve as t; print(t.hexes(t.curve(pathlib.Path({str(tmp_path)!r}))))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=os.environ, check=True)
    assert done.stdout.splitlines()[-1] == str(hexes(here))


def test_the_curve_is_the_recorded_one(here: list[float]) -> None:
    """Machines round differently, so not in every bit; a change of what is computed is far larger than that.

    After a change that is meant to change it: python -c "import test_loss_curve as t; t.record()" in this folder.
    """
    recorded = json.loads(RECORDED.read_text())
    assert len(here) == len(recorded) == 45
    assert here == pytest.approx(recorded, abs=1e-4)
    assert here[0] == pytest.approx(torch.tensor(256.0).log().item(), abs=0.1)  # it starts by knowing nothing
    assert here[-1] < 0.9 * here[0]


def record() -> None:
    """Write down the curve as it is now."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        RECORDED.write_text(json.dumps([round(value, 6) for value in curve(Path(folder))]) + "\n")
