"""`legollm bench speedrun`: the time from a command to a given loss over Tiny Shakespeare's validation text."""

import hashlib
import json
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, ClassVar

from legollm.commands.run_presets import SPEEDRUNS
from legollm.config import Resolved
from legollm.data.loader import TokenFile
from legollm.errors import ConfigError, DataError
from legollm.tokenizers import load_tokenizer
from legollm.training.metrics import read_rows

PREFIX = "speedrun-"
RECORDS = tuple(name.removeprefix(PREFIX) for name in SPEEDRUNS)
VALIDATION_SHA256 = "c54f3753a4e6e3c3d1759212815a7caf826e68a33021b25312984400bed40a1f"
"""Of the last 111,540 characters of the text, the tenth that nanoGPT validates on, too."""
NANOGPT = (
    "config/train_shakespeare_char.py --device=cpu --compile=False --eval_iters=20 --log_interval=100 --block_size=64 "
    "--batch_size=12 --n_layer=4 --n_head=4 --n_embd=128 --max_iters=2000 --lr_decay_iters=2000 --dropout=0.0"
)
"""nanoGPT's documented recipe for a CPU. It ends at 1.913 over the whole split, 1.88 to 1.89 by its own estimate."""


@dataclass(frozen=True, kw_only=True)
class SpeedrunRun:
    """Which records are run, and how often."""

    POSITIONAL: ClassVar[tuple[str, ...]] = ("source",)

    source: str = "tiny_shakespeare"
    """The text: the data set that `legollm data get tiny_shakespeare` fetched, or a copy of the file."""
    records: tuple[str, ...] = RECORDS
    """The losses to be reached, in nats per character."""
    rounds: int = 1
    """Runs of each, with different seeds; times and losses are medians."""
    against: Path | None = None
    """A copy of nanoGPT with its data prepared: its documented CPU recipe is timed in turns with the records."""
    json: bool = False
    """Print JSON."""

    def __post_init__(self) -> None:
        if unknown := [record for record in self.records if record not in RECORDS]:
            raise ConfigError(f"records: {unknown[0]!r} is none of {', '.join(RECORDS)}")
        if self.rounds < 1:
            raise ConfigError(f"rounds: must be at least 1, found {self.rounds}")
        if self.against and not (self.against / "data/shakespeare_char/train.bin").is_file():
            raise ConfigError(
                f"against: {self.against} has no data/shakespeare_char/train.bin; give a copy of nanoGPT and run its "
                "data/shakespeare_char/prepare.py"
            )


def speedrun(run: Resolved[SpeedrunRun]) -> None:
    """Time whole commands, from the start of Python to the loss over the whole validation split, which is measured,
    and saved checkpoint. The validation text is checked by its hash.

    legollm bench speedrun tinyshakespeare.txt records=["1.88"] rounds=3
    """
    cfg = run.value
    measured: dict[str, list[tuple[float, float]]] = {}
    for seed in range(1, cfg.rounds + 1):
        for record in cfg.records:
            measured.setdefault(record, []).append(timed_record(record, cfg.source, seed))
        if cfg.against:
            measured.setdefault("nanoGPT", []).append(timed_nanogpt(cfg.against))
    rows = [row_of(name, runs) for name, runs in measured.items()]
    if cfg.json:
        print(json.dumps(rows, indent=1))
        return
    print(f"{'record':<10}{'seconds':>9}{'loss':>9}{'worst':>9}  reached")
    for row in rows:
        reached = "" if row["reached"] is None else "yes" if row["reached"] else "no"
        print(f"{row['name']:<10}{row['seconds']:>9.1f}{row['loss']:>9.4f}{row['worst']:>9.4f}  {reached}")
    if cfg.against:
        nano = rows[-1]["seconds"]
        print("time of nanoGPT / time: " + ", ".join(f"{row['name']} {nano / row['seconds']:.1f}" for row in rows[:-1]))


def row_of(name: str, runs: list[tuple[float, float]]) -> dict[str, Any]:
    """Medians over the rounds; a record is reached if the median loss is."""
    seconds, losses = [one[0] for one in runs], [one[1] for one in runs]
    loss = median(losses)
    reached = loss <= float(name) if name in RECORDS else None
    return {"name": name, "seconds": median(seconds), "loss": loss, "worst": max(losses), "reached": reached}


def timed_record(record: str, source: str, seed: int) -> tuple[float, float]:
    """Seconds of the command and the loss it ended with.

    Raises:
        DataError: another text than Tiny Shakespeare, or the command failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        words = [f"preset={PREFIX}{record}", f"data.source={source}", f"run={folder}", f"seed={seed}"]
        seconds = timed([sys.executable, "-m", "legollm", "train", *words], Path.cwd())[0]
        check_validation_text(Path(folder))
        last = read_rows(Path(folder) / "metrics.jsonl")[-1]
        return seconds, float(last["val_loss"])


def check_validation_text(run: Path) -> None:
    """
    Raises:
        DataError: the run was validated on another text, so its loss means something else.
    """
    text = load_tokenizer(run / "tokenizer.json").decode_bytes([int(i) for i in TokenFile(run / "data", "val").ids[:]])
    if hashlib.sha256(text).hexdigest() != VALIDATION_SHA256:
        raise DataError(
            f"the validation text has {len(text):,} bytes that are not the last tenth of Tiny Shakespeare; give the "
            "file that `legollm data get tiny_shakespeare` fetches"
        )


def timed_nanogpt(folder: Path) -> tuple[float, float]:
    """Seconds of its training command, and its own estimate of the loss at the end."""
    with tempfile.TemporaryDirectory() as out:
        seconds, said = timed([sys.executable, "train.py", *NANOGPT.split(), f"--out_dir={out}"], folder)
    return seconds, float(re.findall(r"val loss ([\d.]+)", said)[-1])


def timed(command: list[str], folder: Path) -> tuple[float, str]:
    """Seconds of a command in a process of its own, and what it printed.

    Raises:
        DataError: it failed; its last line says why.
    """
    start = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise DataError((done.stderr or done.stdout).strip().splitlines()[-1].removeprefix("legollm: "))
    return seconds, done.stdout
