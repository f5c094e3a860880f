"""One measurement of writing, in a process of its own: `python -m legollm.commands.bench_worker '{"engine": ...}'`.

The time of the first token counts from the start of that process, as its parent noted it. Then the prompt is read and
continued once more, with everything loaded and compiled: the time of each token is that of its step.
"""

import json
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

WARM = 4
"""Tokens whose times are left out: the first one has read the prompt, and the next ones fill caches."""


def measured(job: dict[str, Any]) -> dict[str, Any]:
    """job: folder, engine, n_prompt, n_new, n_rows, started -> start_s, prompt_s, token_s: seconds, and peak_bytes.

    reads: of kernels, bytes of weights that a token reads, and bytes per second at which this machine reads as many.
    """
    write: Any = theirs(job) if job["engine"].startswith("transformers") else Ours(job)
    for _ in write(1):
        pass
    started = time.time() - job["started"]
    times = [time.perf_counter()]
    for _ in write(job["n_new"]):
        times.append(time.perf_counter())
    seconds = [after - before for before, after in pairwise(times)]
    found = {"start_s": started, "prompt_s": seconds[0], "token_s": seconds[WARM:], "peak_bytes": peak_bytes()}
    return found | {"reads": read_rate(write.model) if isinstance(write, Ours) else None}


class Ours:
    """The loop of `legollm generate`, greedy."""

    def __init__(self, job: dict[str, Any]) -> None:
        from legollm.checkpoints.loading import load
        from legollm.generation.sampling import Sampling

        kind, precision, self.has_cache = engine_of(job["engine"])
        self.model = load(job["folder"], engine=kind, precision=precision).writer_of(Sampling(max_new_tokens=1))
        self.prompt = prompt_of(job)

    def __call__(self, n_new: int) -> Iterator[Any]:
        from legollm.generation.cache import FullCache
        from legollm.generation.generate import generate
        from legollm.generation.sampling import Sampling

        n_rows, n_prompt = self.prompt.shape
        cache = FullCache.for_model(self.model, n_rows, n_prompt + n_new) if self.has_cache else None
        return generate(self.model, self.prompt, Sampling(temperature=0, max_new_tokens=n_new), cache=cache)


def prompt_of(job: dict[str, Any]) -> Any:
    """Some ids that every vocabulary has, (B, T)."""
    import torch

    return (torch.arange(job["n_prompt"]) % 200 + 50).repeat(job["n_rows"], 1)


def read_rate(model: Any) -> tuple[int, float] | None:
    """Bytes of weights that a token reads, and bytes per second at which PyTorch sums them up; of kernels only."""
    import torch

    from legollm.kernels import plan
    from legollm.lowering.decoder import LoweredDecoder

    if not isinstance(model, LoweredDecoder):
        return None
    torch.set_num_threads(model.team.n_threads)
    steps = [rows[rows[:, plan.KIND] == plan.LINEAR, plan.WEIGHT] for rows in (model.body.rows, model.head.rows)]
    read = {int(address) for addresses in steps for address in addresses}  # an embedding is looked up, not read
    weights = [one.data for one in model.writer.weights.values() if one.data.data_ptr() in read]
    parts = [data.view(torch.uint8).flatten() for data in weights]
    parts = [part[: len(part) // 8 * 8].view(torch.int64) for part in parts]
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        for part in parts:
            part.sum()
        seconds.append(time.perf_counter() - start)
    n_bytes = sum(part.nbytes for part in parts)
    return n_bytes, n_bytes / sorted(seconds)[2]


def theirs(job: dict[str, Any]) -> Any:
    """The same of `transformers`, which opens the same folder."""
    import torch
    from transformers import AutoModelForCausalLM

    dtype = torch.bfloat16 if job["engine"].endswith("bfloat16") else torch.float32
    model: Any = AutoModelForCausalLM.from_pretrained(job["folder"], dtype=dtype, local_files_only=True)
    model.eval()
    prompt = prompt_of(job)

    def write(n_new: int) -> Iterator[Any]:
        with torch.inference_mode():
            cache, tokens = None, prompt
            for _ in range(n_new):
                out = model(tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
                cache, tokens = out.past_key_values, out.logits[:, -1].argmax(-1, keepdim=True)
                yield tokens

    return write


def engine_of(name: str) -> Any:
    """cpu-int8 -> ("cpu", "int8", True); torch-no-cache -> ("torch", "float32", False)."""
    kind, _, how = name.partition("-")
    return kind, "float32" if how in ("", "no-cache") else how, how != "no-cache"


def peak_bytes() -> int:
    """The most memory that this process ever had; 0 where the system does not say."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    print(json.dumps(measured(json.loads(sys.argv[1]))))
