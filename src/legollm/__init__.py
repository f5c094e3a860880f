"""legollm: language models out of parts one can read.

import legollm
lm = legollm.load("runs/demo/checkpoint")   # .model .tokenizer .config
print(lm.generate("Mira put the key", max_new_tokens=40, temperature=0.8, seed=1))
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from legollm.checkpoints.loading import load

__all__ = ["__version__", "load"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "load":  # imported when it is used: `import legollm` alone is quick and needs no torch
        from legollm.checkpoints.loading import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
