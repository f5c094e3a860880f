"""Tokens per second of one text, by engine and precision: python benchmarks/bench_decode.py [key=value ...].

    shapes=gpt2-124m,llama-15m,qwen3-0.6b   random weights of these sizes
    precisions=float32,bfloat16,int8,int4   of engine=cpu; engine=torch runs float32 and bfloat16
    prompt=64 new=64 rounds=5 threads=2
    peer=FOLDER                             of llama-bench and llama-quantize, to be measured in turns with ours

engine=cpu leaves PyTorch one thread, as `legollm generate` does. Ours is the whole loop, greedy: reading the prompt,
then one token after the other with their choice. `share` is how fast the weights are read while decoding, as a part of
how fast PyTorch sums up the same bytes, in turns with it. Medians of rounds that alternate between all rows, so that a
slow moment of the machine hits all of them.
"""

import gc
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch

from legollm.architectures import ARCHITECTURES
from legollm.checkpoints.gguf_models import export_gguf
from legollm.checkpoints.state import save_model
from legollm.generation.cache import FullCache
from legollm.generation.generate import generate
from legollm.generation.sampling import Sampling
from legollm.lowering.decoder import LoweredDecoder
from legollm.tokenizers import RegexBPETokenizer

SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2-124m": ("gpt2", {"max_seq_len": 1024, "n_layers": 12, "n_heads": 12, "d_model": 768}),
    "llama-15m": (
        "llama3",
        {
            "vocab_size": 32_000,
            "n_layers": 6,
            "n_heads": 6,
            "n_kv_heads": 6,
            "d_model": 288,
            "d_ff": 768,
            "tie_embeddings": True,
        },
    ),
    "qwen3-0.6b": (
        "qwen3",
        {"n_layers": 28, "n_heads": 16, "n_kv_heads": 8, "d_head": 128, "d_model": 1024, "d_ff": 3072},
    ),
}
PEER_TYPES = {"float32": "F32", "bfloat16": "F16", "int8": "Q8_0", "int4": "Q4_0"}


def main(words: dict[str, str]) -> None:
    n_threads = int(words.get("threads", "2"))
    for shape in words.get("shapes", ",".join(SHAPES)).split(","):
        measure(
            shape,
            words.get("precisions", ",".join(PEER_TYPES)).split(","),
            int(words.get("prompt", "64")),
            int(words.get("new", "64")),
            int(words.get("rounds", "5")),
            n_threads,
            Path(words["peer"]) if "peer" in words else None,
        )


def measure(
    shape: str, precisions: list[str], n_prompt: int, n_new: int, n_rounds: int, n_threads: int, peer: Path | None
) -> None:
    """Print one table."""
    name, sizes = SHAPES[shape]
    config = ARCHITECTURES[name].config(**sizes)
    model = ARCHITECTURES[name].build(config).eval()
    rows: dict[str, Any] = {"torch float32": model}
    for precision in precisions:
        rows[f"cpu {precision}"] = LoweredDecoder(model, precision, n_threads=n_threads)  # type: ignore[arg-type]
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    reads: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        files = peer_files(Path(folder), peer, model, name, config, precisions) if peer else {}
        for _ in range(n_rounds):
            for row, engine in rows.items():
                gc.collect()
                torch.set_num_threads(1 if isinstance(engine, LoweredDecoder) else n_threads)
                found[row].append(speeds(engine, n_prompt, n_new))
                if isinstance(engine, LoweredDecoder):
                    torch.set_num_threads(n_threads)
                    reads[row].append(plain_read(engine))
            for row, file in files.items():
                found[row].append(peer_speeds(peer, file, n_prompt, n_new, n_threads))  # type: ignore[arg-type]
    median = {row: tuple(map(statistics.median, zip(*times, strict=True))) for row, times in found.items()}
    print(
        f"\n{shape}: {sum(p.numel() for p in model.parameters()):,} parameters, prompt {n_prompt}, {n_new} new tokens"
    )
    print(f"{'':16} {'tokens/s':>9} {'prompt tokens/s':>16} {'GB/s':>6} {'share':>6}  ratio to llama.cpp (prompt)")
    for row, (new, prompt) in median.items():
        line = f"{row:16} {new:9.1f} {prompt:16.0f}"
        if isinstance(engine := rows.get(row), LoweredDecoder):
            read = weight_bytes(engine) * new
            line += f" {read / 1e9:6.1f} {read / statistics.median(reads[row]):6.2f}"
            other = median.get(f"llama.cpp {PEER_TYPES[engine.precision]}")
            line += f"  {new / other[0]:.2f} ({prompt / other[1]:.2f})" if other else ""
        print(line)
    print(f"{n_rounds} rounds; peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB of all")


def speeds(model: Any, n_prompt: int, n_new: int) -> tuple[float, float]:
    """Tokens per second while writing and while reading the prompt."""
    prompt = torch.arange(n_prompt)[None] + 100
    cache = FullCache.for_model(model, 1, n_prompt + n_new)
    steps = generate(model, prompt, Sampling(temperature=0, max_new_tokens=n_new), cache=cache)
    start = time.perf_counter()
    next(steps)
    first = time.perf_counter()
    for _ in steps:
        pass
    return (n_new - 1) / (time.perf_counter() - first), n_prompt / (first - start)


def weights(engine: LoweredDecoder) -> list[torch.Tensor]:
    return [weight.data for weight in engine.writer.weights.values()]


def weight_bytes(engine: LoweredDecoder) -> int:
    """Bytes that one token reads: an embedding that is not the head is looked up, not read."""
    read = {int(address) for plan in (engine.body, engine.head) for address in linear_addresses(plan.rows)}
    return sum(weight.nbytes for weight in engine.writer.weights.values() if weight.data.data_ptr() in read)


def linear_addresses(rows: Any) -> Any:
    from legollm.kernels import plan

    return rows[rows[:, plan.KIND] == plan.LINEAR, plan.WEIGHT]


def plain_read(engine: LoweredDecoder) -> float:
    """Bytes per second at which PyTorch sums up all weights."""
    parts = [data.view(torch.uint8).flatten() for data in weights(engine)]
    parts = [part[: len(part) // 8 * 8].view(torch.int64) for part in parts]
    start = time.perf_counter()
    for part in parts:
        part.sum()
    return sum(part.nbytes for part in parts) / (time.perf_counter() - start)


def peer_files(folder: Path, peer: Path, model: Any, name: str, config: Any, precisions: list[str]) -> dict[str, Path]:
    """The same weights for llama.cpp, in each of its types."""
    tokenizer = RegexBPETokenizer(pattern="gpt2")  # its programs load no file without one
    tokenizer.train(__doc__ or "", vocab_size=300, special_tokens=["<|endoftext|>"])
    save_model(folder / "model", model, name, config, tokenizer)
    files = {}
    for precision in precisions:
        kind = PEER_TYPES[precision]
        encoding = {"F32": "float32", "F16": "float16", "Q8_0": "q8_0", "Q4_0": "float32"}[kind]
        target = folder / kind
        if kind == "Q4_0":
            source = files.get("llama.cpp F32") or export(folder, folder / "source", encoding)
            target.mkdir()
            quantize = [peer / "llama-quantize", "--pure", source, target / "model.gguf", "Q4_0"]
            subprocess.run([*map(str, quantize)], check=True, capture_output=True)
        else:
            export(folder, target, encoding)
        files[f"llama.cpp {kind}"] = target / "model.gguf"
    return files


def export(folder: Path, target: Path, encoding: str) -> Path:
    export_gguf(folder / "model", target, encoding=encoding)
    return target / "model.gguf"


def peer_speeds(peer: Path, file: Path, n_prompt: int, n_new: int, n_threads: int) -> tuple[float, float]:
    """Tokens per second of llama-bench: writing after the prompt, and reading it."""
    command = [peer / "llama-bench", "-m", file, "-t", n_threads, "-p", n_prompt, "-n", n_new, "-d", 0, "-r", 1]
    done = subprocess.run([*map(str, command), "-o", "json"], check=True, capture_output=True, text=True)
    results = json.loads(done.stdout)
    return (
        next(one["avg_ts"] for one in results if one["n_gen"]),
        next(one["avg_ts"] for one in results if one["n_prompt"] and not one["n_gen"]),
    )


if __name__ == "__main__":
    main(dict(word.split("=", 1) for word in sys.argv[1:]))
