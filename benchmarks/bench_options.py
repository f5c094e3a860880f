"""The price of each option of training: the time of a step, as a multiple of that with the default.

    python benchmarks/bench_options.py [--rounds 7] [--steps 3] [--preset small] [WORDS ...]

Each WORDS are settings of `legollm train`, such as "optim.name=muon"; without any, the usual ones. There is one model
for each, in one process; all take a few steps of the training loop in turns, so that a busy machine is busy for all.
Shown is the median over rounds of the time of an option to that of the default in the same round.
"""

import argparse
import time
from dataclasses import replace
from statistics import median
from typing import Any

import torch

from legollm.architectures import ARCHITECTURES
from legollm.commands.train import PRESETS, TrainRun
from legollm.config.convert import resolve
from legollm.config.sources import read
from legollm.device import keep_freed_memory, pick_precision
from legollm.interfaces import Batch
from legollm.training.objective import NextToken
from legollm.training.optim import build_optimizer
from legollm.training.train import TrainState, train
from legollm.transforms.recompute import recompute

USUAL = (
    "train.precision=float32",
    "optim.name=muon",
    "optim.name=lion",
    "optim.name=sgd",
    "train.recompute=2",
    "train.recompute=full",
    "train.grad_accum=4 train.batch_size=4",
    "train.inspect_every=1",
    "train.compile=always",
)


class Ids:
    """Rows of ids that mean nothing."""

    def __init__(self, vocab_size: int, n_rows: int, seq_len: int) -> None:
        self.shape, self.vocab_size = (n_rows, seq_len + 1), vocab_size
        self.rng = torch.Generator().manual_seed(0)

    def __next__(self) -> Batch:
        ids = torch.randint(self.vocab_size, self.shape, generator=self.rng)
        return Batch(ids[:, :-1], ids[:, 1:])

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Any) -> None: ...


class Trainee:
    """A model with an option, and its loop."""

    def __init__(self, words: list[str]) -> None:
        cfg: TrainRun = resolve(TrainRun, read(None, words), presets=PRESETS).value
        self.cfg, self.state = cfg.train, TrainState()
        n_ids = cfg.tokenizer.vocab_size  # as in a run, where the model has as many as the tokenizer
        self.model = ARCHITECTURES[cfg.model.arch].build(replace(cfg.model, vocab_size=n_ids), seed=0)
        recompute(self.model, cfg.train.recompute)
        self.optimizer = build_optimizer(self.model, cfg.optim)
        self.batches = Ids(n_ids, cfg.train.batch_size, cfg.train.seq_len or cfg.model.max_seq_len)

    def seconds(self, n_steps: int) -> float:
        """Of one of a few more steps."""
        at = self.state.step
        cfg = replace(self.cfg, max_steps=at + n_steps, log_every=at + n_steps)
        start = time.perf_counter()
        train(
            self.model,
            NextToken(),
            self.batches,
            self.optimizer,
            cfg,
            learning_rate=lambda step: 1e-4,
            state=self.state,
            log=lambda step, **values: None,
            evaluate=lambda state: None,
            save=lambda state: None,
        )
        return (time.perf_counter() - start) / n_steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--preset", default="small")
    parser.add_argument("options", nargs="*", metavar="WORDS", default=USUAL)
    asked = parser.parse_args()
    keep_freed_memory()
    precision = pick_precision("auto", torch.device("cpu"))  # once: each of them would measure it
    common = [f"preset={asked.preset}", "train.compile=never", f"train.precision={precision}"]
    trainees = {option: Trainee([*common, *option.split()]) for option in ("", *asked.options)}
    times: dict[str, list[float]] = {option: [] for option in trainees}
    for round_number in range(-1, asked.rounds):
        for option, trainee in trainees.items():
            seconds = trainee.seconds(asked.steps)
            if round_number >= 0:  # the one before warms up
                times[option].append(seconds)
    usual = times[""]
    print(f"preset={asked.preset} {precision}: {1000 * median(usual):.0f} ms a step, median of {asked.rounds} rounds")
    for option in asked.options:
        ratio = median(mine / other for mine, other in zip(times[option], usual, strict=True))
        print(f"{option:<40} {ratio:>5.2f}x")


if __name__ == "__main__":
    main()
