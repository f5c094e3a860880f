"""Fixtures every folder of tests may use."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: tiny tensors on many threads mostly wait for each other

from pathlib import Path

import pytest
from hypothesis import settings

# The same examples in every run on a shared machine, however slow: a failure there is a change's fault, not luck's.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("default", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "default")

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real corpora and tokenizer files, which are not part of the repository."""
    folder = Path(os.environ.get("LEGOLLM_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set LEGOLLM_DATA to a folder that has it")
    return folder
