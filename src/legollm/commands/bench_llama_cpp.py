"""llama.cpp beside our engines: the same weights in its types, and the seconds that its own benchmark says."""

import json
import subprocess
from collections.abc import Collection
from pathlib import Path
from typing import Any

from legollm.checkpoints.gguf_models import export_gguf
from legollm.errors import DataError
from legollm.tokenizers.fast import cores

TYPES = {"cpu": "F32", "torch": "F32", "cpu-bfloat16": "F16", "cpu-int8": "Q8_0", "cpu-int4": "Q4_0"}
"""Of an engine of ours, what takes as many bits there."""
ENCODINGS = {"F32": "float32", "F16": "float16", "Q8_0": "q8_0"}


def written_gguf(model: Path, place: Path, peer: Path, engines: Collection[str]) -> dict[str, Path]:
    """The model as files for llama.cpp, one for each type that some engine compares with; by the names of rows."""
    files = {}
    for kind in dict.fromkeys(TYPES[engine] for engine in engines if engine in TYPES):
        target = place / kind / "model.gguf"
        if kind in ENCODINGS:
            export_gguf(model, target.parent, encoding=ENCODINGS[kind])
        else:
            source = place / "F32" / "model.gguf"
            if not source.exists():
                export_gguf(model, source.parent, encoding="float32")
            target.parent.mkdir()
            said(peer / "llama-quantize", "--pure", source, target, kind)
        files[f"llama.cpp {kind}"] = target
    return files


def llama_cpp_seconds(peer: Path, file: Path, n_prompt: int, n_new: int) -> dict[str, Any]:
    """Seconds of reading a prompt, and of each token that is written after it."""
    text = said(
        peer / "llama-bench", "-m", file, "-t", cores(), "-p", n_prompt, "-n", n_new, "-d", 0, "-r", 1, "-o", "json"
    )
    results = json.loads(text)
    written = next(one["avg_ts"] for one in results if one["n_gen"])
    read = next(one["avg_ts"] for one in results if one["n_prompt"] and not one["n_gen"])
    return {"prompt_s": n_prompt / read, "token_s": [1 / written] * n_new}


def said(*command: object) -> str:
    """What a program of llama.cpp printed.

    Raises:
        DataError: it failed.
    """
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
        raise DataError(f"{Path(str(command[0])).name} failed: {last}")
    return done.stdout
