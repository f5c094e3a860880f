"""What tells one version of a kernel from another, and whether it was compiled before. No numba here."""

import hashlib
import os
import re
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent


@cache
def stamp(path: Path) -> str:
    """A hash of a module's source and of the kernel modules that it takes anything from."""
    source = path.read_text(encoding="utf-8")
    below = re.findall(r"^from legollm\.kernels\.(\w+) import", source, re.MULTILINE)
    parts = [source, *(stamp(HERE / f"{name}.py") for name in below)]
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:8]


def is_compiled(module: str, function: str) -> bool:
    """Whether an earlier process left the machine code of a kernel where this one looks for it first."""
    name = f"{module}.{function}_{stamp(HERE / f'{module}.py')}-*.nbi"
    folder = os.environ.get("NUMBA_CACHE_DIR")
    return any(Path(folder).rglob(name) if folder else (HERE / "__pycache__").glob(name))
