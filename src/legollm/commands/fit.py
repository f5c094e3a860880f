"""A run folder around the training loop: resume, signals, metrics, evaluation, checkpoints, the view."""

import json
import logging
import math
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Literal, Self

import torch
import yaml
from torch import nn

from legollm import __version__
from legollm.checkpoints.huggingface import load_weights
from legollm.checkpoints.manifest import latest, steps, verify
from legollm.checkpoints.state import (
    TrainingState,
    load_state,
    of_rank,
    prepare_root,
    restore_rng,
    rng_tensors,
    save_checkpoint,
)
from legollm.commands.room import check_room
from legollm.commands.run_lock import locked
from legollm.commands.view import NoView, View, choose_view
from legollm.config import to_tree, to_yaml
from legollm.device import keep_freed_memory, pick_device, pick_precision, seed_of
from legollm.errors import CheckpointError, ConfigError, DivergedError, IntegrityError, Interrupted, TooLargeError
from legollm.evaluation.loss import mean_loss
from legollm.interfaces import BatchSource, Objective, Optimizer, Tokenizer
from legollm.parts import is_divided
from legollm.team import ALONE, Team
from legollm.training.alarms import warn_of_first_loss, warn_of_plateau
from legollm.training.distributed import Alone, shared
from legollm.training.metrics import JsonLines, Layers, Value
from legollm.training.optim import OptimConfig, build_optimizer, optimizer_tensors, restore_optimizer
from legollm.training.schedule import learning_rate
from legollm.training.together import together
from legollm.training.track import check_installed, tracking
from legollm.training.train import TrainConfig, TrainState, train
from legollm.transforms.recompute import recompute
from legollm.whole_file import write_whole

log = logging.getLogger(__name__)

Resume = Literal["auto", "never"] | int


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
    title: str = ""
    lines: Mapping[str, float] = field(default_factory=dict)
    """Levels of bits per byte to compare with."""
    tokenizer_files: Mapping[str, Any] = field(default_factory=dict)
    """What the tokenizer's files need besides: eos, chat_template."""
    team: Team = ALONE
    """The processes that share the work, all of which have the same job but for their rows of each batch."""


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
        numbers.rewind(state.step)
    if state.step >= job.train.max_steps:
        return state
    if start:
        load_weights(job.model, job.arch, job.model_config, start)
    recompute(job.model, job.train.recompute)
    engine = shared(job.model.to(device), job.train.parallel, team)
    optimizer = build_optimizer(job.model, job.optim)
    if team.size == 1:  # several processes may each have a part of all of this
        check_room(root, job.model, job.optim, job.train, state.step)
    torch.manual_seed(seed_of(job.seed, of_rank("dropout", team.rank)))
    precision: Any = job.train.precision
    if saved:
        restore_optimizer(optimizer, saved.tensors)
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
                stop=lambda: signals.caught is not None,
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
        if state.step < cfg.max_steps:
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
        self.saved_step = -1

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
        if self.is_new and self.state.first_loss is not None:
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
        self.view.metrics(step, shown)

    def evaluate(self, state: TrainState) -> None:
        """The same validation batches every time; at the end of the run, the whole split."""
        last = state.step == self.cfg.max_steps
        batches = self.job.validation(None if last else self.cfg.eval_batches * self.job.team.size)
        team = self.job.team
        loss = mean_loss(self.job.model, self.job.objective, batches, self.cfg.precision, team)
        values: dict[str, Value] = {"val_loss": loss.nats}
        if self.job.bytes_per_token:
            values["val_bpb"] = loss.bits_per_byte(loss.n_terms * self.job.bytes_per_token)
        if last:
            values["val_tokens"] = loss.n_terms
        if math.isfinite(loss.nats) and (state.best_loss is None or loss.nats < state.best_loss):
            state.best_loss, state.best_step = loss.nats, state.step
        text = self.sampled()
        if not team.leads:
            return
        warn_of_plateau(state.step, state.best_step, state.best_loss, self.cfg.eval_every)
        self.note(state.step, **values, **({"sample": text} if text else {}))
        self.view.metrics(state.step, values)
        if text:
            self.view.sample(text)

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
        )
        self.saved_step = state.step


def open_run(folder: Path, config: Any, resume: Resume, team: Team = ALONE) -> None:
    """Make the run's folder, or check that what it holds is the run that `config` describes, before any work.

    team: the processes that call this; its leader does it.

    Raises:
        ConfigError: it holds another run, or any run and resume is never, or not the step to resume; or another
            process trains in it; or a package of train.track is not installed.
    """
    keep_freed_memory()
    check_installed(config.train.track)

    def opened() -> str:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            open_alone(folder, config, resume)
        return str(folder)

    team.tell(opened)


def open_alone(folder: Path, config: Any, resume: Resume) -> None:
    """`open_run`, in a folder that no other process uses."""
    root = folder / "checkpoints"
    prepare_root(root)
    found = steps(root)
    if resume == "never" and found:
        raise ConfigError(
            f"run: {folder} holds a run already (step {next(iter(found))}); resume=auto continues it, "
            "run=ANOTHER_FOLDER starts a new one"
        )
    if isinstance(resume, int) and resume not in found:
        there = ", ".join(map(str, found)) or "none"
        raise ConfigError(f"resume: {folder} has no checkpoint of step {resume}; there are: {there}")
    path = folder / "config.yaml"
    before = saved_config(path)
    now = flat(to_tree(config))
    changed = [key for key in now if key in before and before[key] != now[key] and not key.startswith(CHANGEABLE)]
    if changed and found:
        key = changed[0]
        more = f" (and {len(changed) - 1} more keys differ)" if len(changed) > 1 else ""
        raise ConfigError(
            f"{key}: {folder} was started with {before[key]!r}, now it is {now[key]!r}{more}; "
            "run=ANOTHER_FOLDER starts a new run"
        )
    if changed:  # nothing was trained yet: what was made from the text is made again
        (folder / "tokenizer.json").unlink(missing_ok=True)
    save_config(folder, config)


def save_config(folder: Path, config: Any) -> None:
    """Write config.yaml at once: a killed process leaves the old file or the new one."""
    write_whole(folder / "config.yaml", to_yaml(config))


CHANGEABLE = (
    *("train.", "optim.", "resume", "run", "model.vocab_size"),
    *("data.prefetch", "data.n_workers", "data.shard_bytes"),
)
"""What may differ between a run and its continuation: all but the model, its text, its seed and its prompt.

The size of the vocabulary is the tokenizer's, and a checkpoint of another size does not load.
"""


def saved_config(path: Path) -> dict[str, Any]:
    """What an earlier start of the run wrote, with dotted keys; nothing if this is the first.

    Raises:
        ConfigError: somebody has changed the file into something else.
    """
    if not path.exists():
        return {}
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path}: not YAML any more ({' '.join(str(error).split())}); restore or remove it"
        ) from error
    if not isinstance(tree, Mapping):
        raise ConfigError(f"{path}: holds no settings any more; restore or remove it")
    return flat(tree)


def chosen_start(job: Job, root: Path) -> Path | None:
    """The leader's `starting_point`, for all processes."""
    name = job.team.tell(lambda: str(starting_point(job, root) or ""))
    return Path(name) if name else None


def starting_point(job: Job, root: Path) -> Path | None:
    """The checkpoint to continue from, None for a new run; what was saved after it is set aside.

    Raises:
        CheckpointError: there are checkpoints, and none of them is whole.
        IntegrityError: the step that was asked for is damaged.
    """
    found = steps(root)
    if isinstance(job.resume, int):
        start: Path | None = found[job.resume]
        try:
            verify(found[job.resume])
        except IntegrityError as error:
            raise IntegrityError(f"{error}; resume=auto continues the newest checkpoint that is whole") from error
    else:
        start = latest(root)
        if found and not start:
            raise CheckpointError(f"{root}: none of {len(found)} checkpoints is whole; run=ANOTHER_FOLDER starts anew")
    for path in found.values():  # newest first
        if path == start:
            break
        aside = set_aside(path)
        log.warning("%s is set aside as %s", path, aside.name)
    return start


def set_aside(path: Path) -> Path:
    """Rename a checkpoint that the run does not continue, or it would be taken for the newest one."""
    name = path.name.replace("step-", "abandoned-")
    aside = path.with_name(name)
    while aside.exists():
        aside = aside.with_name(f"{aside.name}-again")
    return path.rename(aside)


def flat(tree: Mapping[str, Any], at: str = "") -> dict[str, Any]:
    items: dict[str, Any] = {}
    for key, value in tree.items():
        items |= flat(value, f"{at}{key}.") if isinstance(value, Mapping) else {at + key: value}
    return items


class Signals:
    """SIGINT, SIGTERM and SIGHUP ask the loop to stop after its step; a second one stops at once."""

    NAMES = ("SIGINT", "SIGTERM", "SIGHUP")

    def __init__(self) -> None:
        self.caught: str | None = None
        self.before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # the only one that may set handlers
            for name in self.NAMES:
                number = getattr(signal, name, None)
                if number and signal.getsignal(number) != signal.SIG_IGN:  # nohup means what it says
                    self.before[number] = signal.signal(number, self.catch)
        return self

    def catch(self, number: int, frame: FrameType | None) -> None:
        if self.caught:
            raise KeyboardInterrupt
        self.caught = signal.Signals(number).name

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
