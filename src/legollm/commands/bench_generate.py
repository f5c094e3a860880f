"""`legollm bench generate`: how fast a model reads a prompt and writes, by engine, precision, length and batch."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any, ClassVar

from legollm.commands.bench_llama_cpp import llama_cpp_seconds, written_gguf
from legollm.config import Resolved
from legollm.errors import ConfigError, DataError
from legollm.evaluation.report import Chart, Curve, svg

ENGINES = (
    *("torch", "torch-bfloat16", "torch-no-cache"),
    *("cpu", "cpu-bfloat16", "cpu-int8", "cpu-int4"),
)
PEERS = ("transformers", "transformers-bfloat16")
SHAPES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "gpt2-124m": ("gpt2", {"max_seq_len": 1024, "n_layers": 12, "n_heads": 12, "d_model": 768}),
    "llama-15m": (
        "llama3",
        {"vocab_size": 32_000, "n_layers": 6, "n_heads": 6, "n_kv_heads": 6, "d_model": 288, "d_ff": 768}
        | {"tie_embeddings": True},
    ),
    "qwen3-0.6b": (
        "qwen3",
        {"n_layers": 28, "n_heads": 16, "n_kv_heads": 8, "d_head": 128, "d_model": 1024, "d_ff": 3072},
    ),
    "tiny": ("gpt2", {"vocab_size": 300, "max_seq_len": 128, "n_layers": 2, "n_heads": 2, "d_model": 32}),
}


@dataclass(frozen=True, kw_only=True)
class BenchGenerateRun:
    """What is measured, and how often."""

    POSITIONAL: ClassVar[tuple[str, ...]] = ("model",)

    model: str = "gpt2-124m"
    """A checkpoint, run or Hugging Face folder; or gpt2-124m, llama-15m, qwen3-0.6b, tiny: random weights of that
    shape."""
    engines: tuple[str, ...] = ("torch", "cpu", "cpu-bfloat16", "cpu-int8", "cpu-int4")
    """torch, torch-bfloat16, torch-no-cache (everything is read again for each token), cpu, cpu-bfloat16, cpu-int8,
    cpu-int4."""
    prompt: tuple[int, ...] = (64,)
    """Tokens of the prompt; several are a sweep."""
    new: int = 64
    """Tokens that are written."""
    batch: tuple[int, ...] = (1,)
    """Texts that are written together; several are a sweep."""
    rounds: int = 3
    """All rows take turns so often, each in a process of its own; figures are medians."""
    against: tuple[str, ...] = ()
    """Peers that take turns with the engines: transformers, transformers-bfloat16, or the folder of llama.cpp's
    llama-bench and llama-quantize."""
    json: bool = False
    """Print JSON."""
    svg: Path | None = None
    """A picture of tokens per second over the lengths of the prompt, or over the batch."""

    def __post_init__(self) -> None:
        for engine in self.engines:
            if engine not in ENGINES:
                raise ConfigError(f"engines: {engine!r} is none of {', '.join(ENGINES)}")
        for peer in self.against:
            if peer not in PEERS and not (Path(peer) / "llama-bench").is_file():
                raise ConfigError(
                    f"against: {peer!r} is none of {', '.join(PEERS)}, nor a folder with llama.cpp's llama-bench"
                )
        if find_spec("transformers") is None and set(PEERS) & set(self.against):
            raise ConfigError("against: transformers is not installed; pip install transformers, or leave it out")
        if not self.engines or not self.prompt or not self.batch:
            raise ConfigError("engines, prompt and batch each need at least one value")
        for name in ("new", "rounds"):
            least = 8 if name == "new" else 1
            if getattr(self, name) < least:
                raise ConfigError(f"{name}: must be at least {least}, found {getattr(self, name)}")
        for name in ("prompt", "batch"):
            if min(getattr(self, name)) < 1:
                raise ConfigError(f"{name}: must be at least 1, found {min(getattr(self, name))}")


@dataclass(frozen=True)
class Speed:
    """One row of the table: medians over the rounds."""

    engine: str
    n_prompt: int
    n_rows: int
    tokens_per_s: float
    """Of all texts of the batch together."""
    prompt_tokens_per_s: float
    start_s: float | None = None
    """From the start of the process to the first token."""
    p50_ms: float | None = None
    p90_ms: float | None = None
    p99_ms: float | None = None
    peak_mib: float | None = None
    share: float | None = None
    """Of the rate at which this machine reads as many bytes, the part at which the weights were read; of kernels."""


def bench_generate(run: Resolved[BenchGenerateRun]) -> None:
    """Time the prompt, each token and the start, by engine and precision, and beside transformers or llama.cpp.

    legollm bench generate llama-15m engines=[torch,cpu,cpu-int8] against=[transformers]
    """
    cfg = run.value
    with model_folder(cfg.model) as folder:
        rows = measure(cfg, folder)
    if cfg.svg:
        cfg.svg.write_text(picture(rows), encoding="utf-8")
    if cfg.json:
        print(json.dumps([vars(row) for row in rows], indent=1))
    else:
        print(table(rows))


@contextmanager
def model_folder(model: str) -> Iterator[Path]:
    """The folder, or one with random weights of a shape for as long as it is needed."""
    if model not in SHAPES:
        yield Path(model)
        return
    from legollm.architectures import ARCHITECTURES
    from legollm.checkpoints.state import save_model
    from legollm.tokenizers import RegexBPETokenizer

    name, sizes = SHAPES[model]
    config = ARCHITECTURES[name].config(**sizes)
    tokenizer = RegexBPETokenizer(pattern="gpt2")  # llama.cpp loads no file without one
    tokenizer.train(__doc__ or "", vocab_size=300, special_tokens=["<|endoftext|>"])
    with tempfile.TemporaryDirectory() as place:
        save_model(Path(place) / "model", ARCHITECTURES[name].build(config, seed=0), name, config, tokenizer)
        yield Path(place) / "model"


def measure(cfg: BenchGenerateRun, folder: Path) -> list[Speed]:
    """All rows, in turns."""
    cases = [(prompt, rows) for prompt in cfg.prompt for rows in cfg.batch]
    found: dict[tuple[str, int, int], list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as place:
        files = {
            name: (peer, file)
            for peer in map(Path, cfg.against)
            if (peer / "llama-bench").is_file()
            for name, file in written_gguf(folder, Path(place), peer, cfg.engines).items()
        }
        for _ in range(cfg.rounds):
            for n_prompt, n_rows in cases:
                for engine in (*cfg.engines, *(peer for peer in cfg.against if peer in PEERS)):
                    job = {"folder": str(folder), "engine": engine, "n_prompt": n_prompt, "n_new": cfg.new}
                    one = in_a_process(job | {"n_rows": n_rows})
                    found.setdefault((engine, n_prompt, n_rows), []).append(one)
                for name, (peer, file) in files.items() if n_rows == 1 else ():
                    one = llama_cpp_seconds(peer, file, n_prompt, cfg.new)
                    found.setdefault((name, n_prompt, n_rows), []).append(one)
    return [speed(*key, rounds) for key, rounds in found.items()]


def in_a_process(job: Mapping[str, Any]) -> dict[str, Any]:
    """
    Raises:
        DataError: the process failed; its last line says why.
    """
    command = [sys.executable, "-m", "legollm.commands.bench_worker", json.dumps({**job, "started": time.time()})]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONWARNINGS": "ignore"})
    if done.returncode:
        said = (done.stderr.strip() or "it said nothing").splitlines()[-1]
        raise DataError(f"{job['engine']}: {said.removeprefix('legollm.errors.')}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def speed(engine: str, n_prompt: int, n_rows: int, rounds: Sequence[Mapping[str, Any]]) -> Speed:
    """What several rounds say together. Percentiles are over the tokens of a round, and the median of those."""
    tokens = [one["token_s"] for one in rounds]
    per_s = median(n_rows * len(seconds) / sum(seconds) for seconds in tokens)
    read = median(n_rows * n_prompt / one["prompt_s"] for one in rounds)
    if "start_s" not in rounds[0]:
        return Speed(engine, n_prompt, n_rows, per_s, read)
    p50, p90, p99 = (1e3 * median(percentile(seconds, share) for seconds in tokens) for share in (0.5, 0.9, 0.99))
    start, peak = (median(one[key] for one in rounds) for key in ("start_s", "peak_bytes"))
    share = None
    if rounds[0]["reads"]:
        share = median(one["reads"][0] * per_s / n_rows / one["reads"][1] for one in rounds)
    return Speed(engine, n_prompt, n_rows, per_s, read, start, p50, p90, p99, peak / 2**20, share)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least that share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


def table(rows: Sequence[Speed]) -> str:
    """For the terminal; ratios are to the first row of the same prompt and batch."""
    first: dict[tuple[int, int], Speed] = {}
    head = f"{'engine':22}{'prompt':>7}{'batch':>6}{'tokens/s':>10}{'ratio':>7}{'prompt tokens/s':>16}{'ratio':>7}"
    lines = [head + f"{'P50 ms':>8}{'P90':>8}{'P99':>8}{'start s':>9}{'peak MiB':>9}{'share':>7}"]
    for row in rows:
        base = first.setdefault((row.n_prompt, row.n_rows), row)
        line = f"{row.engine:22}{row.n_prompt:7}{row.n_rows:6}{row.tokens_per_s:10.1f}"
        line += f"{row.tokens_per_s / base.tokens_per_s:6.2f}x{row.prompt_tokens_per_s:16,.0f}"
        line += f"{row.prompt_tokens_per_s / base.prompt_tokens_per_s:6.2f}x"
        if row.start_s is not None and row.peak_mib is not None:
            line += "".join(f"{value:8.2f}" for value in (row.p50_ms, row.p90_ms, row.p99_ms))
            line += f"{row.start_s:9.2f}{row.peak_mib:9.0f}"
        line += f"{row.share:7.2f}" if row.share is not None else ""
        lines.append(line)
    return "\n".join(lines)


def picture(rows: Sequence[Speed]) -> str:
    """Tokens per second of each engine over what was swept."""
    by_batch = len({row.n_prompt for row in rows}) == 1
    points: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        points.setdefault(row.engine, []).append((row.n_rows if by_batch else row.n_prompt, row.tokens_per_s))
    label = "texts written together" if by_batch else "tokens of the prompt"
    chart = svg(Chart("tokens per second", label, "tokens/s", [Curve(name, line) for name, line in points.items()]))
    return chart.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
