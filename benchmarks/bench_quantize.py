"""What weights of fewer bits cost and save: python benchmarks/bench_quantize.py [RUN] [key=value ...].

    steps=400            of `preset=small`, which is trained where no RUN is named; a minute or two
    groups=32,128        int4: weights that share a scale
    samples=64           gptq, awq: stretches of the run's own training text
    batches=32           of its validation text, 16 windows each, for the perplexity
    new=128 rounds=5     tokens per second with engine=cpu: medians of rounds that alternate between all rows
    folder=FOLDER        keeps what is made, and takes what is there; new=0 or batches=0 leaves those columns out

`perplexity` is what PyTorch computes from the weights; `with bytes` has states rounded to bytes before each product, as
engine=cpu does it. MB: the weights on the disk; `maps`: the linear maps among them, without embedding and head.
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

from torch import nn

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
    if not (room / "bfloat16").exists():
        run("export", f"{source}", f"{room / 'bfloat16'}", "dtype=bfloat16")
    yield "bfloat16", room / "bfloat16"
    kinds = [("int8", "", "rtn"), ("int8", "", "gptq"), ("int8", "", "awq")]
    kinds += [("int4", size, method) for size in words["groups"].split(",") for method in ("rtn", "gptq", "awq")]
    for precision, size, method in kinds:
        name = f"{precision} {method}" + (f" {size}" if size else "")
        target = room / name.replace(" ", "-")
        more = [f"group_size={size}"] if size else []
        how = [f"precision={precision}", f"method={method}", f"samples={words['samples']}", *more]
        if not target.exists():
            run("quantize", f"{source}", f"{target}", *how)
        yield name, target


def perplexity(lm: Loaded, data: Path, n_batches: int) -> float:
    """Over the first windows of the validation text."""
    batches = validation_batches(TokenFile(data, "val").ids, batch_size=16, seq_len=lm.config.max_seq_len)
    return math.exp(mean_loss(lm.model, NextToken(), islice(batches, n_batches)).nats)


def seconds_to_write(lm: Loaded, n_new: int) -> float:
    start = time.perf_counter()
    n = sum(1 for _ in lm.stream([0], temperature=0, max_new_tokens=n_new, as_ids=True))
    return (time.perf_counter() - start) / max(1, n)


def bytes_of_maps(lm: Loaded) -> int:
    """Of linear maps but the head."""
    plain = [one.weight for name, one in lm.model.named_modules() if type(one) is nn.Linear and name != "lm_head"]
    quantized = [one for one in lm.model.modules() if isinstance(one, QuantizedLinear)]
    return sum(one.nbytes for one in plain) + sum(one.numbers.nbytes + one.scales.nbytes for one in quantized)


def measure(trained: Path, room: Path, words: dict[str, str]) -> None:
    source = resolve_folder(trained)
    data = own_data(source)
    if data is None:
        sys.exit(f"{trained}: its training text is gone; name a run that has it")
    n_batches, n_new = int(words["batches"]), int(words["new"])
    models: dict[str, Loaded] = {}
    rows: dict[str, list[float]] = {}
    for name, folder in folders(source, room, words):
        lm = load(folder, engine="cpu", precision="bfloat16" if name == "bfloat16" else "float32")
        size = sum(file.stat().st_size for file in folder.glob("model*.safetensors"))
        rows[name] = [size / 1e6, bytes_of_maps(lm) / 1e6]
        models[name] = lm
        if n_batches:
            again = load(folder)
            again.model.float()
            rows[name].append(perplexity(again, data, n_batches))
            for one in again.model.modules():
                if isinstance(one, QuantizedLinear):
                    one.activations = "int8"
            rows[name].append(perplexity(again, data, n_batches))
    times: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(int(words["rounds"]) + 1 if n_new else 0):  # the first one compiles and packs
        for name, lm in models.items():
            times[name].append(seconds_to_write(lm, n_new))
    head = f"{'weights':<16}{'MB':>8}{'maps':>8}"
    head += f"{'tokens/s':>10}" if n_new else ""
    print(head + (f"{'perplexity':>12}{'change':>9}{'with bytes':>12}{'change':>9}" if n_batches else ""))
    for name, (size, maps, *found) in rows.items():
        line = f"{name:<16}{size:>8.1f}{maps:>8.2f}"
        line += f"{1 / statistics.median(times[name][1:]):>10,.0f}" if n_new else ""
        start = rows["float32"][2:3]
        print(line + "".join(f"{one:>12.3f}{one / start[0] - 1:>+9.2%}" for one in found), flush=True)


def main(argv: list[str]) -> None:
    words = DEFAULTS | dict(word.split("=") for word in argv if "=" in word)
    with tempfile.TemporaryDirectory() as temporary:
        room = Path(words.get("folder", temporary))
        room.mkdir(parents=True, exist_ok=True)
        named = [Path(word) for word in argv if "=" not in word]
        trained = named[0] if named else room / "run"
        if not trained.exists():
            run("train", "preset=small", f"train.max_steps={words['steps']}", f"run={trained}")
        measure(trained, room, words)


if __name__ == "__main__":
    main(sys.argv[1:])
