"""What weights of fewer bits cost and save: python benchmarks/bench_quantize.py [RUN] [key=value ...].

    steps=400            of `preset=small`, which is trained where no RUN is named; a minute or two
    groups=32,128        int4: weights that share a scale
    samples=64           gptq, awq: stretches of the run's own training text
    batches=32           of its validation text, 16 windows each, for the perplexity
    new=128 rounds=5     tokens per second with engine=cpu: medians of rounds that alternate between all rows

`perplexity` is what PyTorch computes from the weights; `with bytes` has states rounded to bytes before each product, as
engine=cpu does it. MB are those of the weights on the disk.
"""

import contextlib
import io
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from legollm.checkpoints.loading import Loaded, load, resolve_folder
from legollm.cli import main as legollm
from legollm.commands.evaluate import own_data
from legollm.components.quantized import QuantizedLinear
from legollm.data.loader import TokenFile, validation_batches
from legollm.evaluation.loss import mean_loss
from legollm.training.objective import NextToken

DEFAULTS = {"steps": "400", "groups": "32,128", "samples": "64", "batches": "32", "new": "128", "rounds": "5"}


def run(*words: str) -> None:
    """A command, whose output is not shown."""
    with contextlib.redirect_stdout(io.StringIO()):
        status = legollm(words)
    if status:
        sys.exit(status)


def folders(source: Path, room: Path, words: dict[str, str]) -> Iterator[tuple[str, Path]]:
    """What is compared: the name of a row, and its folder."""
    yield "float32", source
    run("export", f"{source}", f"{room / 'bfloat16'}", "dtype=bfloat16")
    yield "bfloat16", room / "bfloat16"
    kinds = [("int8", "", "rtn"), ("int8", "", "gptq"), ("int8", "", "awq")]
    kinds += [("int4", size, method) for size in words["groups"].split(",") for method in ("rtn", "gptq", "awq")]
    for precision, size, method in kinds:
        name = f"{precision} {method}" + (f" {size}" if size else "")
        target = room / name.replace(" ", "-")
        more = [f"group_size={size}"] if size else []
        run(
            "quantize",
            f"{source}",
            f"{target}",
            f"precision={precision}",
            f"method={method}",
            f"samples={words['samples']}",
            *more,
        )
        yield name, target


def perplexity(lm: Loaded, data: Path, n_batches: int) -> float:
    """Over the first windows of the validation text."""
    batches = validation_batches(TokenFile(data, "val").ids, batch_size=16, seq_len=lm.config.max_seq_len)
    return math.exp(mean_loss(lm.model, NextToken(), islice(batches, n_batches)).nats)


def seconds_to_write(lm: Loaded, n_new: int) -> float:
    start = time.perf_counter()
    n = sum(1 for _ in lm.stream([0], temperature=0, max_new_tokens=n_new, as_ids=True))
    return (time.perf_counter() - start) / max(1, n)


def main(argv: list[str]) -> None:
    words = DEFAULTS | dict(word.split("=") for word in argv if "=" in word)
    with tempfile.TemporaryDirectory() as temporary:
        room = Path(temporary)
        named = [Path(word) for word in argv if "=" not in word]
        trained = named[0] if named else room / "run"
        if not named:
            run("train", "preset=small", f"train.max_steps={words['steps']}", f"run={trained}")
        source = resolve_folder(trained)
        data = own_data(source)
        if data is None:
            sys.exit(f"{trained}: its training text is gone; name a run that has it")
        models, rows = {}, {}
        for name, folder in folders(source, room, words):
            size = sum(file.stat().st_size for file in folder.glob("model*.safetensors")) / 1e6
            lm = load(folder, engine="cpu", precision="bfloat16" if name == "bfloat16" else "float32")
            lm.model.float()
            plain = perplexity(lm, data, int(words["batches"]))
            quantized = [one for one in lm.model.modules() if isinstance(one, QuantizedLinear)]
            for one in quantized:
                one.activations = "int8"
            rows[name] = (size, plain, perplexity(lm, data, int(words["batches"])) if quantized else plain)
            models[name] = load(folder, engine="cpu", precision=lm.precision)
        times: dict[str, list[float]] = {name: [] for name in models}
        for _ in range(int(words["rounds"]) + 1):  # the first one compiles and packs
            for name, lm in models.items():
                times[name].append(seconds_to_write(lm, int(words["new"])))
        start = rows["float32"][1]
        print(f"{'weights':<16}{'MB':>8}{'tokens/s':>10}{'perplexity':>12}{'change':>9}{'with bytes':>12}{'change':>9}")
        for name, (size, plain, bytes_too) in rows.items():
            speed = 1 / statistics.median(times[name][1:])
            print(
                f"{name:<16}{size:>8.1f}{speed:>10,.0f}{plain:>12.3f}{plain / start - 1:>+9.2%}"
                f"{bytes_too:>12.3f}{bytes_too / start - 1:>+9.2%}",
                flush=True,
            )


if __name__ == "__main__":
    main(sys.argv[1:])
