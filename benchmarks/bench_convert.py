"""How much memory a conversion takes: a folder of zeros with 1.5 billion parameters, converted in a process of its own.

python benchmarks/bench_convert.py [n_layers=24] [format=hf|gguf] [dtype=bfloat16]

The folder is a sparse file of 3 GB; the result is 3 GB on the disk (float32: 6 GB). Prints the peak of the resident
memory beside the bound, 1.3 times the largest tensor and 300 MB. Linux only: it reads /proc.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from legollm.architectures import ARCHITECTURES
from legollm.checkpoints.huggingface import to_hf, write_config
from legollm.device import without_memory

PEAK = """
import re, sys
from legollm.cli import main
status = main(sys.argv[1:])
print(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
sys.exit(status)
"""
MB = 1_000_000


def sparse_folder(folder: Path, arch: str, **sizes: int) -> tuple[int, int]:
    """A folder of bfloat16 zeros that take no room -> its parameters, and the bytes of its largest tensor."""
    cfg = ARCHITECTURES[arch].config(**sizes)
    with without_memory():
        model = ARCHITECTURES[arch].build(cfg)
    tensors = to_hf(arch, dict(model.named_parameters()))
    header, end = {}, 0
    for name, tensor in tensors.items():
        start, end = end, end + 2 * tensor.numel()
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    folder.mkdir()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    write_config(folder, arch, cfg, torch.bfloat16, {})
    return end // 2, max(2 * tensor.numel() for tensor in tensors.values())


def peak_of(*words: str) -> int:
    """Bytes of resident memory at the most, of a `legollm` command in a process of its own."""
    done = subprocess.run([sys.executable, "-c", PEAK, *words], capture_output=True, text=True, check=True)
    return 1024 * int(done.stdout.split()[-1])


def main(words: list[str]) -> None:
    wanted = {"n_layers": "24", "format": "hf", "dtype": "bfloat16"} | dict(word.split("=") for word in words)
    sizes = {"n_heads": 16, "n_kv_heads": 8, "d_head": 128, "d_model": 2048, "d_ff": 6144, "vocab_size": 151_936}
    with tempfile.TemporaryDirectory() as temporary:
        source, target = Path(temporary, "source"), Path(temporary, "target")
        n_parameters, largest = sparse_folder(source, "qwen3", n_layers=int(wanted["n_layers"]), **sizes)
        started = time.perf_counter()
        peak = peak_of("export", f"{source}", f"{target}", f"format={wanted['format']}", f"dtype={wanted['dtype']}")
        seconds = time.perf_counter() - started
    bound = 1.3 * largest + 300 * MB
    what = f"to {wanted['format']} in {wanted['dtype']}"
    print(f"{n_parameters:,} parameters in bfloat16, largest tensor {largest / MB:,.0f} MB")
    print(f"{what}: peak {peak / MB:,.0f} MB of {bound / MB:,.0f} MB allowed, {seconds:.0f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
