"""How long a run takes on this machine: the training loop itself, run for some seconds on tokens that mean nothing.

What is too large to be run whole is measured in part, and the rest follows: layers add up, of which two numbers are
measured; rows and micro-batches cost as much as the one before.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from legollm.architectures import ARCHITECTURES
from legollm.checkpoints.manifest import atomic_folder, verify
from legollm.commands.train import TrainRun
from legollm.device import Precision, generator, keep_freed_memory, pick_device, product_seconds
from legollm.errors import ConfigError
from legollm.evaluation.loss import mean_loss
from legollm.generation.cache import GenerativeModel
from legollm.generation.complete import Decoding, complete
from legollm.generation.sampling import Sampling
from legollm.interfaces import Batch, PackedBatch
from legollm.training.objective import NextToken
from legollm.training.optim import build_optimizer
from legollm.training.train import TrainState, train
from legollm.transforms.recompute import recompute

BUDGET_S = 20.0
"""Seconds that all of it may take."""
QUICK_S = 3.0
"""Of steps, where they are short; longer ones may take half of the budget."""
QUICK_STEPS = 20
WARM_UP = 3
"""Steps that find no memory and no kernels prepared, or one where there are few."""
EFFICIENCY = 0.1
"""Of the speed of a square product, what a whole step surely reaches: decides only what is tried first."""
TRIAL_TOKENS = 1024
"""Of a micro-batch of the first trial."""
SAMPLED = 60
"""Tokens of the text that a run writes at each evaluation; so many are not measured, but QUICK_TOKENS."""
QUICK_TOKENS = 16
SAVED = 32 << 20
"""Bytes that are written to see how fast the disk is."""


@dataclass(frozen=True)
class Part:
    """What of a run is measured."""

    model: Any
    """A configuration."""
    n_rows: int
    n_micro_batches: int

    @property
    def n_rows_in_all(self) -> int:
        """Of a step."""
        return self.n_rows * self.n_micro_batches


@dataclass(frozen=True)
class Seconds:
    """Medians of what happens again and again."""

    step: float
    micro_batch: float
    """Forward and backward; part of `step`, once per micro-batch."""
    evaluation: float
    """One validation batch of as many rows."""
    sample: float
    """The short text that is written at each evaluation."""

    def of_whole(self, n_rows: float, n_micro_batches: int, measured: int) -> "Seconds":
        """With n_rows times the rows and other micro-batches, of which `measured` were."""
        update = max(0.0, self.step - measured * self.micro_batch)
        micro_batch = self.micro_batch * n_rows
        return Seconds(update + n_micro_batches * micro_batch, micro_batch, self.evaluation * n_rows, self.sample)

    def plus(self, other: "Seconds", factor: float) -> "Seconds":
        """The line through both, `factor` times as far from this one as `other` is, which is no less."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Seconds(*(max(there, here + factor * (there - here)) for here, there in pairs))


@dataclass(frozen=True)
class Pace:
    """What a run is made of, in seconds of this machine."""

    seconds: Seconds
    n_steps: int
    """How many were measured, at the least."""
    how: str
    """Which part of the run was measured; empty where it was all of it."""


class AnyTokens:
    """Batches of tokens that mean nothing: how long a step takes does not depend on them."""

    def __init__(self, vocab_size: int, n_rows: int, seq_len: int, *, packed: bool, device: torch.device) -> None:
        tokens, targets = torch.randint(vocab_size, (2, n_rows, seq_len), generator=generator(0, "any tokens"))
        self.batch: Batch | PackedBatch = Batch(tokens.to(device), targets.to(device))
        if packed:
            columns = torch.arange(seq_len, device=device).expand(n_rows, -1)
            self.batch = PackedBatch(*self.batch, torch.zeros_like(columns), columns)

    def __next__(self) -> Batch | PackedBatch:
        return self.batch

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


class Watched(NextToken):
    """The loss of a text model, and when each micro-batch began."""

    def __init__(self) -> None:
        self.starts: list[float] = []

    def __call__(self, model: nn.Module, batch: Batch | PackedBatch) -> Tensor:
        if model.training:
            self.starts.append(time.perf_counter())
        return super().__call__(model, batch)


def calibrate(
    cfg: TrainRun,
    precision: Precision,
    *,
    flops_of: Callable[[Any], float],
    fits: Callable[[Any, int], bool],
    budget_s: float = BUDGET_S,
) -> Pace:
    """Take real steps of a run for about `budget_s` seconds, or steps of so much of it as can be taken in that time.

    flops_of: of one row in training, by the model's configuration. fits: whether a model has room in memory with so
    many rows of a micro-batch.

    Raises:
        ConfigError: not even a part of the model has room in memory.
    """
    keep_freed_memory()
    began = time.perf_counter()
    model, loop = cfg.model, cfg.train
    n_micro_batches = min(loop.grad_accum, 2)
    whole = Part(model, loop.batch_size, loop.grad_accum)
    has_room = fits(model, loop.batch_size)
    flops = flops_of(model)
    square = product_seconds(torch.bfloat16 if precision == "bfloat16" else torch.float32)

    def left() -> float:
        return budget_s - (time.perf_counter() - began)

    if has_room and 4 * whole.n_rows_in_all * flops * square / (2 * 512**3) / EFFICIENCY < left() / 2:
        return pace(cfg, precision, [whole], left())
    least = Part(fewer_layers(model, 1), max(1, min(loop.batch_size, TRIAL_TOKENS // seq_len_of(cfg))), n_micro_batches)
    if not (has_room or fits(least.model, least.n_rows)):
        raise ConfigError("calibrate: not even one layer has room in memory; give a smaller model, or leave it out")
    trial, _ = measured(cfg, least, precision, 0.0)
    of_least = flops_of(least.model)
    per_flop = trial.step / (of_least * least.n_rows_in_all)
    if has_room and 4 * whole.n_rows_in_all * flops * per_flop < left():
        return pace(cfg, precision, [whole], left())
    for parts in smaller(whole, least):
        work = sum(part.n_rows_in_all * between(part.model, least.model, of_least, model, flops) for part in parts)
        if 4 * work * per_flop < left() and fits(parts[-1].model, parts[-1].n_rows):
            break
    return pace(cfg, precision, parts, left())


def between(model: Any, few: Any, of_few: float, many: Any, of_many: float) -> float:
    """What grows with the layers, of a model with so many, from what it is with few and with many."""
    if model in (few, many):
        return of_few if model == few else of_many
    share: float = (model.n_layers - few.n_layers) / (many.n_layers - few.n_layers)
    return of_few + (of_many - of_few) * share


def smaller(whole: Part, least: Part) -> Iterator[list[Part]]:
    """Ways to measure less, the best first: two micro-batches, then also few layers, then also few rows."""
    n_layers = getattr(whole.model, "n_layers", 1)
    n_rows = whole.n_rows
    yield [Part(whole.model, n_rows, least.n_micro_batches)]
    while True:
        for n in (8, 6, 4, 2):
            if n < n_layers and least.model is not whole.model:
                models = [least.model, fewer_layers(whole.model, n)]
                yield [Part(model, n_rows, least.n_micro_batches) for model in models]
        if n_rows <= least.n_rows:
            break
        n_rows = max(least.n_rows, n_rows // 2)
        if least.model is whole.model:
            yield [Part(whole.model, n_rows, least.n_micro_batches)]


def fewer_layers(model: Any, n: int) -> Any:
    """The configuration of a model with n layers; the same one where layers differ, or where there are none."""
    differ = any(name.endswith("_layers") and isinstance(value, tuple) and value for name, value in vars(model).items())
    return model if differ or getattr(model, "n_layers", 1) <= n else replace(model, n_layers=n)


def pace(cfg: TrainRun, precision: Precision, parts: Sequence[Part], seconds: float) -> Pace:
    """Measure the parts, and add up what the whole takes."""
    found = [measured(cfg, part, precision, 0.6 * seconds / len(parts)) for part in parts]
    one, n_steps = found[-1][0], min(n for _, n in found)
    part, how = parts[-1], []
    if len(parts) == 2:
        few, many, all_there = parts[0].model.n_layers, part.model.n_layers, cfg.model.n_layers
        one = found[0][0].plus(one, (all_there - few) / (many - few))
        how.append(f"{few} and {many} of {all_there} layers")
    loop = cfg.train
    if part.n_rows < loop.batch_size:
        how.append(f"{part.n_rows} of {loop.batch_size} rows")
    if part.n_micro_batches < loop.grad_accum:
        how.append(f"{part.n_micro_batches} of {loop.grad_accum} micro-batches")
    whole = one.of_whole(loop.batch_size / part.n_rows, loop.grad_accum, part.n_micro_batches)
    return Pace(whole, n_steps, ", ".join(how))


def measured(cfg: TrainRun, part: Part, precision: Precision, limit_s: float) -> tuple[Seconds, int]:
    """Take steps of a part of a run, as the training loop does -> their times, and how many there were.

    limit_s: no step begins after so many seconds; two are taken at least, of which the first does not count.
    """
    device, seq_len = pick_device(cfg.train.device), seq_len_of(cfg)
    model = ARCHITECTURES[part.model.arch].build(part.model)
    recompute(model, cfg.train.recompute)
    model.to(device)
    objective, ends = Watched(), [time.perf_counter()]
    packed = cfg.data.packing == "best_fit"
    batches = AnyTokens(part.model.vocab_size, part.n_rows, seq_len, packed=packed, device=device)
    loop = replace(
        cfg.train,
        precision=precision,
        batch_size=part.n_rows,
        grad_accum=part.n_micro_batches,
        max_steps=sys.maxsize,
        log_every=1,
        eval_every=0,
        save_every=0,
        inspect_every=0,
        compile="never",  # what it takes is won back in a long run only
    )

    def is_enough() -> bool:
        passed = ends[-1] - ends[0]
        return len(ends) > 2 and (passed > limit_s or (len(ends) > QUICK_STEPS and passed > QUICK_S))

    train(
        model,
        objective,
        batches,
        build_optimizer(model, cfg.optim),
        loop,
        learning_rate=lambda step: 0.0,  # weights stay as they are, which nothing can make diverge
        state=TrainState(),
        log=lambda step, **values: ends.append(time.perf_counter()),
        evaluate=lambda state: None,
        save=lambda state: None,
        stop=is_enough,
    )
    steps = [end - start for start, end in pairwise(ends)]
    n_cold = WARM_UP if len(steps) > 3 * WARM_UP else 1
    starts = [
        objective.starts[i : i + part.n_micro_batches] for i in range(0, len(objective.starts), part.n_micro_batches)
    ]
    passes = [later - earlier for starts_of_step in starts[n_cold:] for earlier, later in pairwise(starts_of_step)]
    step = statistics.median(steps[n_cold:])
    model.eval()
    return (
        Seconds(
            step=step,
            micro_batch=statistics.median(passes) if passes else step,
            evaluation=seconds_of(lambda: mean_loss(model, objective, [next(batches)], precision)),
            sample=SAMPLED / QUICK_TOKENS * seconds_of(lambda: write(model, seq_len)),
        ),
        len(steps) - n_cold,
    )


def write(model: nn.Module, seq_len: int) -> None:
    """The start of a text such as a run shows at each evaluation."""
    sampling = Sampling(temperature=0.8, max_new_tokens=QUICK_TOKENS)
    decoding = Decoding(window=seq_len, on_overflow="crop")
    complete(cast(GenerativeModel, model), [[0] * min(8, seq_len // 2)], sampling, decoding=decoding)


def seconds_of(work: Callable[[], object]) -> float:
    """The shortest of a few times, the first of which finds nothing prepared."""
    times: list[float] = []
    while len(times) < 2 or (len(times) < 5 and sum(times) < 0.5):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def seq_len_of(cfg: TrainRun) -> int:
    return int(cfg.train.seq_len or cfg.model.max_seq_len)


def saving_seconds(n_bytes: int) -> float:
    """How long a checkpoint of that size takes, by writing a smaller one where other temporary files go."""

    def seconds(n: int) -> float:
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            with atomic_folder(Path(folder) / "checkpoint", n_bytes=n) as temporary:
                save_file({"weights": torch.ones(n, dtype=torch.uint8)}, temporary / "model.safetensors")
            verify(Path(folder) / "checkpoint")
            return time.perf_counter() - start

    empty, full = seconds(1), seconds(SAVED)
    return empty + max(0.0, full - empty) * n_bytes / SAVED
