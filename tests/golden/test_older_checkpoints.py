"""Checkpoints as earlier versions wrote them: they load and go on, or the message names the version that made them."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

import legollm
from legollm.checkpoints import manifest
from legollm.checkpoints.manifest import canonical
from legollm.errors import CheckpointError, IntegrityError
from tiny_run import go

ADDED_SINCE = {
    "0.1.0, before gradient norms were remembered": ("first_loss", "losses", "norms", "max_rows"),
    "0.1.0, before the best step was remembered": (
        "first_loss",
        "losses",
        "norms",
        "max_rows",
        "best_loss",
        "best_step",
    ),
}
"""Parts of the loop's state that a version did not have yet."""


def rewrite(folder: Path, name: str, change: Any) -> None:
    """Change a JSON file of a checkpoint as if it had been written so: the manifest knows."""
    path = folder / name
    document = json.loads(path.read_text())
    change(document)
    text = json.dumps(document, indent=1) + "\n"
    path.write_text(text)
    listing = json.loads((folder / manifest.MANIFEST).read_text())
    listing["files"][name] = {"bytes": len(text), "sha256": hashlib.sha256(text.encode()).hexdigest()}
    (folder / manifest.MANIFEST).write_text(canonical(listing))


def newest(run: Path) -> Path:
    return (run / "checkpoint").resolve()


@pytest.mark.parametrize("version", ADDED_SINCE)
def test_what_a_version_did_not_remember_is_as_at_the_start(tmp_path: Path, version: str) -> None:
    go(tmp_path / "whole", max_steps=12)
    go(tmp_path / "run", max_steps=6)
    (tmp_path / "run" / "config.yaml").unlink()  # its train.max_steps is not the point

    def without(document: dict[str, Any]) -> None:
        for name in ADDED_SINCE[version]:
            del document["loop"][name]

    rewrite(newest(tmp_path / "run"), "state.json", without)
    state = go(tmp_path / "run", max_steps=12)
    assert state.step == 12
    assert len(state.norms) == 6
    assert legollm.load(tmp_path / "run").config == legollm.load(tmp_path / "whole").config


@pytest.mark.parametrize("number", [0, 2, "one"])
def test_a_training_state_of_another_format_names_its_version(tmp_path: Path, number: Any) -> None:
    go(tmp_path)
    rewrite(newest(tmp_path), "state.json", lambda document: document.update(version=number, legollm="9.8.7"))
    with pytest.raises(
        CheckpointError, match=rf"state\.json: format {number} of legollm 9\.8\.7; this version reads 1"
    ):
        go(tmp_path, max_steps=14)
    assert legollm.load(tmp_path).config.n_layers == 1  # the model opens all the same


@pytest.mark.parametrize("number", [0, 2])
def test_a_manifest_of_another_format_says_so(tmp_path: Path, number: int) -> None:
    go(tmp_path)
    path = newest(tmp_path) / manifest.MANIFEST
    path.write_text(canonical(json.loads(path.read_text()) | {"version": number}))
    with pytest.raises(IntegrityError, match=rf"format {number}, and this version of legollm reads 1"):
        legollm.load(newest(tmp_path))
