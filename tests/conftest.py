"""Fixtures every folder of tests may use."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: tiny tensors on many threads mostly wait for each other

from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real corpora and tokenizer files, which are not part of the repository."""
    folder = Path(os.environ.get("LEGOLLM_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set LEGOLLM_DATA to a folder that has it")
    return folder
