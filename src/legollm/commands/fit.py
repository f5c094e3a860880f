"""A run folder around the training loop: resume, signals, metrics, evaluation, checkpoints, the view."""

import json
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from legollm import __version__
from legollm.checkpoints.adapter import Adapter, load_adapters
from legollm.checkpoints.huggingface import load_weights
from legollm.checkpoints.state import (
    TrainingState,
    load_state,
    of_rank,
    restore_rng,
    rng_tensors,
    save_checkpoint,
)
from legollm.commands.room import check_room
from legollm.commands.run_folder import Resume, flat, saved_config, starting_point
from legollm.commands.run_lock import locked
from legollm.commands.signals import Signals
from legollm.commands.view import NoView, View, choose_view
from legollm.config import to_tree
from legollm.device import pick_device, pick_precision, seed_of
from legollm.errors import CheckpointError, DivergedError, Interrupted, TooLargeError
from legollm.evaluation.loss import mean_loss
from legollm.interfaces import BatchSource, Objective, Optimizer, Tokenizer
from legollm.parts import is_divided
from legollm.team import ALONE, Team
from legollm.training.alarms import warn_of_first_loss, warn_of_plateau
from legollm.training.distributed import Alone, shared
from legollm.training.metrics import JsonLines, Layers, Value, read_rows
from legollm.training.optim import OptimConfig, build_optimizer, optimizer_tensors, restore_optimizer
from legollm.training.schedule import learning_rate
from legollm.training.together import together
from legollm.training.track import tracking
from legollm.training.train import TrainConfig, TrainState, seen_enough, train
from legollm.transforms.recompute import recompute

log = logging.getLogger(__name__)

ASIDE = "weight.aside."
"""What the names of weights that are no part of the model begin with, among the optimizer's tensors."""


@dataclass
class Job:
    """Everything a training run is made of, before it starts."""

    folder: Path
    """Opened with `open_run`."""
    arch: str
    model_config: Any
    model: nn.Module
    tokenizer: Tokenizer
    objective: Objective
    batches: BatchSource
    validation: Callable[[int | None], Iterable[Any]]
    """The first n validation batches, or with None the whole split."""
    optim: OptimConfig
    train: TrainConfig
    seed: int
    resume: Resume = "auto"
    bytes_per_token: float | None = None
    """Of the validation split; None where bits per byte mean nothing."""
    sample: Callable[[nn.Module], str] | None = None
    """A short text by the model, to watch it learn."""
    figures: Callable[[], Mapping[str, float]] = dict
    """What the log shows of the data at each logged step, such as how often it was read."""
    val_figures: Callable[[], Mapping[str, float]] = dict
    """The same of a look at the validation set, besides its loss."""
    counts_tokens: bool = True
    """Whether the terms of the loss are tokens, so that the first one can be compared with guessing among them."""
    title: str = ""
    lines: Mapping[str, float] = field(default_factory=dict)
    """Levels of bits per byte to compare with."""
    tokenizer_files: Mapping[str, Any] = field(default_factory=dict)
    """What the tokenizer's files need besides: eos, chat_template."""
    team: Team = ALONE
    """The processes that share the work, all of which have the same job but for their rows of each batch."""
    adapter: Adapter | None = None
    """Of a model that start_from.py gave adapters: they are all that its checkpoints hold."""
    aside: nn.Module | None = None
    """What learns along and is no part of the model, such as a value head; it is saved with the optimizer's memory."""
    examine: Callable[[nn.Module], Mapping[str, float]] | None = None
    """What is measured at the start and at each look, in place of the loss on validation batches; `val_error` is among
    it, and is to become small."""
    ended: Callable[[], str | None] = lambda: None
    """Why the run ends before its last step; None while it does not."""


def team_of(config: Any) -> AbstractContextManager[Team]:
    """The processes that torchrun started for this run, for as long as it lasts."""
    versions = {"the version of legollm": __version__, "the version of torch": torch.__version__}
    return together(flat(to_tree(config)) | versions, config.train.device)


def fit(job: Job) -> TrainState:
    """Train, and leave `config.yaml`, `metrics.jsonl` and `checkpoints/step-NNNNNNNN` in the run folder.

    Raises:
        ConfigError: the folder holds another run, or a step to resume from that is not there; or another process
            trains in it.
        CheckpointError: a checkpoint that could not be written, unless train.on_save_failure is warn.
        DivergedError: the loss was not finite several steps in a row, or weights are not finite; `diverged.json` says
            what is known.
        Interrupted: a signal came; the state was saved.
    """
    with locked(job.folder) if job.team.leads else nullcontext():
        return fit_alone(job)


def fit_alone(job: Job) -> TrainState:
    """`fit`, in a folder that no other run uses."""
    root, team = job.folder / "checkpoints", job.team
    start = chosen_start(job, root)
    device = pick_device(job.train.device)
    saved = load_state(start) if start else None
    state = TrainState.from_dict(saved.values["loop"]) if saved else TrainState()
    numbers = JsonLines(job.folder / "metrics.jsonl")
    if team.leads:
        numbers.rewind(state.step if start else -1)
    if state.step >= job.train.max_steps:
        return state
    if start:
        if job.adapter:
            load_adapters(job.model, job.arch, start, job.adapter)
        else:
            load_weights(job.model, job.arch, job.model_config, start)
    recompute(job.model, job.train.recompute)
    engine = shared(job.model.to(device), job.train.parallel, team)
    if job.aside is not None:
        job.aside.to(device)
    optimizer = build_optimizer(job.model, job.optim, job.aside)
    if team.size == 1:  # several processes may each have a part of all of this
        check_room(root, job.model, job.optim, job.train, state.step)
    torch.manual_seed(seed_of(job.seed, of_rank("dropout", team.rank)))
    precision: Any = job.train.precision
    if saved:
        restore_optimizer(optimizer, saved.tensors)
        if job.aside is not None:
            names = job.aside.state_dict()
            job.aside.load_state_dict({name: saved.tensors[f"{ASIDE}{name}"] for name in names})
        job.batches.load_state_dict(saved.values["batches"])
        if saved.values["n_threads"] != torch.get_num_threads():
            log.warning(
                "saved with %d threads, continued with %d: sums may differ in their last bits",
                saved.values["n_threads"],
                torch.get_num_threads(),
            )
        if precision == "auto":  # what was measured then, not again: the steps to come would differ
            precision = saved.values["precision"]
    if team.leads:
        (job.folder / "diverged.json").unlink(missing_ok=True)
    precision = team.tell(lambda: pick_precision(precision, device))
    cfg = replace(job.train, precision=precision)
    screen = choose_view(cfg.max_steps, title=job.title, lines=job.lines) if team.leads else NoView()
    settings = saved_config(job.folder / "config.yaml")
    with (
        tracking(cfg.track if team.leads else (), job.folder, settings, state.step) as track,
        Signals() as signals,
        screen as view,
    ):
        if start:
            view.note(f"continuing {start} at step {state.step}")
        run = Run(job, cfg, root, optimizer, numbers, view, state, engine, track)
        if job.examine and not saved:
            job.model.eval()
            run.evaluate(state)
        first = state.step

        def ended() -> str | None:
            return job.ended() or seen_enough(cfg, state)

        if saved:
            restore_rng(saved.tensors, team, otherwise=seed_of(job.seed, f"dropout.{team.rank}/{state.step}"))
        try:
            train(
                job.model,
                job.objective,
                job.batches,
                optimizer,
                cfg,
                learning_rate=run.learning_rate,
                state=state,
                log=run.log,
                evaluate=run.evaluate,
                save=run.save,
                stop=lambda: signals.caught is not None or ended() is not None,
                team=team,
                engine=engine,
            )
        except torch.OutOfMemoryError as error:  # not in the passes over a batch, which the loop divides
            raise TooLargeError(
                f"step {state.step}: out of memory outside of the passes over a batch; give a smaller train.batch_size "
                f"or model; the same command continues from the newest checkpoint ({str(error).splitlines()[0]})"
            ) from error
        except DivergedError as error:
            if not team.leads:
                raise
            details = error.details | {"batches": dict(job.batches.state_dict())}
            (job.folder / "diverged.json").write_text(json.dumps(details, indent=1) + "\n", encoding="utf-8")
            raise
        early = ended() if state.step < cfg.max_steps else None
        if early:
            if state.step > first or team.any(team.leads and not was_closed(job, state.step)):
                job.model.eval()
                run.evaluate(state, closing=True)
                if state.step > first and run.saved_step != state.step:
                    run.write(state)
            view.note(f"step {state.step}: {early}")
        elif state.step < cfg.max_steps:
            if run.saved_step != state.step:  # a signal during a save has what it wants
                with team.paused():
                    run.write(state)
            name = signals.caught or "a signal"
            raise Interrupted(f"{name} at step {state.step}: saved in {root}; the same command continues it")
    return state


class Run:
    """The events of one run: what the loop calls every so many steps."""

    def __init__(
        self,
        job: Job,
        cfg: TrainConfig,
        root: Path,
        optimizer: Optimizer | None,
        numbers: JsonLines,
        view: View,
        state: TrainState,
        engine: Alone | None = None,
        track: Callable[[int, Mapping[str, Any]], None] = lambda step, values: None,
    ) -> None:
        self.job, self.cfg, self.root, self.optimizer = job, cfg, root, optimizer
        self.numbers, self.view = numbers, view
        self.state, self.is_new = state, state.step == 0
        self.engine, self.track = engine or Alone(job.model), track
        self.saved_step = self.examined_step = -1

    def learning_rate(self, step: int) -> float:
        optim = self.job.optim
        return learning_rate(
            step,
            peak=optim.lr,
            max_steps=self.cfg.max_steps,
            schedule=optim.schedule,
            warmup_steps=optim.warmup_steps,
            min_ratio=optim.min_lr_ratio,
            decay_fraction=optim.decay_fraction,
        )

    def log(self, step: int, **values: Value | Layers) -> None:
        if not self.job.team.leads:
            return
        if self.is_new and self.job.counts_tokens and self.state.first_loss is not None:
            warn_of_first_loss(self.state.first_loss, self.job.model_config.vocab_size)
            self.is_new = False
        shown = {key: value for key, value in values.items() if not isinstance(value, Mapping)}
        if not shown:  # a look into the layers: too many for the screen
            self.note(step, **values)
            return
        shown |= self.job.figures()
        self.note(step, **(values | shown))
        rate, tokens = float(shown.get("tokens_per_s", 0)), float(shown.get("tokens", 0))
        if rate and tokens:
            shown["seconds_left"] = (self.cfg.max_steps - step) * tokens / step / rate
        if not self.job.counts_tokens:  # on the screen they would be called tokens
            shown = {key: value for key, value in shown.items() if key not in ("tokens", "tokens_per_s")}
        self.view.metrics(step, shown)

    def evaluate(self, state: TrainState, *, closing: bool = False) -> None:
        """The same validation batches every time; at the end of the run, the whole split.

        closing: the run ends before its last step, because of what earlier looks said, and this one leaves that alone.
        """
        if self.job.examine:
            if self.examined_step != state.step:
                self.examined(state, self.job.examine(self.job.model), closing)
            return
        last = closing or state.step == self.cfg.max_steps
        batches = self.job.validation(None if last else self.cfg.eval_batches * self.job.team.size)
        team = self.job.team
        loss = mean_loss(self.job.model, self.job.objective, batches, self.cfg.precision, team)
        values: dict[str, Value] = {"val_loss": loss.nats}
        if self.job.bytes_per_token:
            values["val_bpb"] = loss.bits_per_byte(loss.n_terms * self.job.bytes_per_token)
        if last:
            values["val_tokens"] = loss.n_terms
        values |= {f"val_{name}": value for name, value in self.job.val_figures().items()}
        is_better = math.isfinite(loss.nats) and (state.best_loss is None or loss.nats < state.best_loss)
        if is_better and not closing:
            state.best_loss, state.best_step = loss.nats, state.step
        text = self.sampled()
        if not team.leads:
            return
        warn_of_plateau(state.step, state.best_step, state.best_loss, self.cfg.eval_every)
        self.note(state.step, **values, **({"sample": text} if text else {}))
        self.view.metrics(state.step, values)
        if text:
            self.view.sample(text)

    def examined(self, state: TrainState, values: Mapping[str, float], closing: bool) -> None:
        """A look that is no loss; the model with the smallest error is the best."""
        self.examined_step = state.step
        if not closing and (state.best_loss is None or values["val_error"] < state.best_loss):
            state.best_loss, state.best_step = values["val_error"], state.step
        self.note(state.step, **values)
        self.view.metrics(state.step, values)

    def sampled(self) -> str:
        """A divided model writes in all processes at once, the same words everywhere."""
        writes = self.job.team.leads or any(map(is_divided, self.job.model.parameters()))
        if not (self.job.sample and writes):
            return ""
        with self.engine.writing():
            return self.job.sample(self.job.model)

    def note(self, step: int, **values: Value | Layers) -> None:
        """A row of metrics.jsonl, and for whoever else wants it."""
        with self.excused(step):
            self.numbers(step, **values)
        self.track(step, values)

    @contextmanager
    def excused(self, step: int) -> Iterator[None]:
        """A disk that refuses is only warned of, if that was asked for and there is a later chance."""
        try:
            yield
        except CheckpointError as error:
            if self.cfg.on_save_failure == "stop" or step == self.cfg.max_steps:
                raise
            log.warning("step %d: %s; training goes on, as train.on_save_failure=warn says", step, error)

    def save(self, state: TrainState) -> None:
        """A checkpoint on the way."""
        with self.excused(state.step):
            self.write(state)

    def write(self, state: TrainState) -> None:
        """All that the next step depends on."""
        job = self.job
        values = {
            "loop": state.as_dict(),
            "batches": dict(job.batches.state_dict()),
            "precision": self.cfg.precision,
            "n_threads": torch.get_num_threads(),
        }
        memory = optimizer_tensors(self.optimizer) if self.optimizer else {}
        if job.aside is not None:
            memory |= {f"{ASIDE}{name}": tensor for name, tensor in job.aside.state_dict().items()}
        save_checkpoint(
            self.root,
            state.step,
            model=job.model,
            arch=job.arch,
            config=job.model_config,
            tokenizer=job.tokenizer,
            state=TrainingState(values, memory | rng_tensors(job.team)),
            keep=self.cfg.keep,
            best=state.best_step,
            extra=job.tokenizer_files,
            team=job.team,
            adapter=job.adapter,
        )
        self.saved_step = state.step


def was_closed(job: Job, step: int) -> bool:
    """Whether the look that closes a run was taken at this step, its last one: a process may have died before it."""
    rows = read_rows(job.folder / "metrics.jsonl")
    return job.examine is not None or any(row["step"] == step and "val_tokens" in row for row in rows)


def chosen_start(job: Job, root: Path) -> Path | None:
    """The leader's `starting_point`, for all processes."""
    name = job.team.tell(lambda: str(starting_point(job.resume, root) or ""))
    return Path(name) if name else None
