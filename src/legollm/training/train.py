"""The training loop: the same for pretraining, fine-tuning and alignment; only the objective and the batches differ."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from legollm.device import Device, Precision, autocast, pick_precision
from legollm.errors import ConfigError, DivergedError
from legollm.interfaces import BatchSource, MetricLog, Objective, Optimizer
from legollm.parts import n_not_finite, whole
from legollm.team import ALONE, Team
from legollm.training.alarms import WINDOW, usual, warn_of_spike
from legollm.training.balance import balance_figures
from legollm.training.clipping import all_gradients, clip, norm_of
from legollm.training.compilation import Compilation
from legollm.training.distributed import Alone, Parallel
from legollm.training.inspection import Inspection, layer_of
from legollm.training.memory import within_memory
from legollm.training.track import TrackerName
from legollm.transforms.compiled import Compile
from legollm.transforms.recompute import Recompute

MAX_SKIPS = 3
"""Steps in a row whose loss or gradient is not finite before the run stops."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The loop: how long, on how much at once, and what happens how often."""

    max_steps: int = 1000
    """Optimizer steps of the whole run."""
    batch_size: int = 16
    """Rows of one micro-batch; with torchrun, in each process."""
    grad_accum: int = 1
    """Micro-batches per step; k of b rows give exactly the gradient of one of k * b rows."""
    parallel: Parallel = "auto"
    """With torchrun: ddp (auto) has the whole model in every process, fsdp divides it among them."""
    seq_len: int | None = None
    """Tokens per row; null takes the model's max_seq_len."""
    grad_clip: float = 1.0
    """The gradient's norm is scaled down to this; 0 leaves it alone."""
    spike_factor: float = 0.0
    """A step whose gradient norm is more than this many times the median of the last 100 is left out; 0 is never."""
    recompute: Recompute = "none"
    """Blocks that keep nothing for the backward pass but compute it again: none, full for all, or a number n for every
    n-th one; wide is all of them, but only for attention weights and what lies between the products of a feed-forward
    layer. Less memory, slower steps, the same gradients."""
    compile: Compile = "auto"
    """Whether the compiler takes the blocks: always, never, or auto, which tries it in a run that has more than twenty
    minutes left, and keeps it if the steps are shorter then."""
    precision: Precision = "auto"
    """Of matrix products: float32, bfloat16, or auto, which measures what is faster here. Weights stay float32."""
    device: Device = "auto"
    """cpu, cuda, mps, or auto."""
    log_every: int = 10
    """Steps between two lines of metrics."""
    inspect_every: int = 0
    """Steps between two looks into each layer: norm of its gradient, size of its move, scale of its output, as `layers`
    in metrics.jsonl; 0 is never."""
    track: tuple[TrackerName, ...] = ()
    """Programs that get the metrics, too: tensorboard, wandb, trackio. What fails there does not touch the run."""
    eval_every: int = 200
    """Steps between two looks at the validation set; 0 is never."""
    eval_batches: int = 20
    """Validation batches of such a look, the same ones each time; the last one of a run reads the whole split."""
    patience: int = 0
    """Such looks in a row without a better validation loss that end the run; 0 is never."""
    target_loss: float | None = None
    """Validation loss in nats per token, or with rewards the share of held-out prompts that is wrong, at or below which
    the run ends; null is never."""
    save_every: int = 200
    """Steps between two checkpoints; 0 saves only at the end and on interruption. Otherwise a step whose validation
    loss is the best so far is saved, too."""
    keep: int = 2
    """Checkpoints that are kept: the newest ones, and the best one beside them."""
    on_save_failure: Literal["stop", "warn"] = "stop"
    """What to do when a checkpoint cannot be written: stop the run, or warn and train on. The last one must succeed."""

    def __post_init__(self) -> None:
        for name, least in {
            "max_steps": 1,
            "batch_size": 1,
            "grad_accum": 1,
            "log_every": 1,
            "eval_batches": 1,
        }.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{name}: must be at least {least}, found {getattr(self, name)}")
        for name in ("eval_every", "patience", "save_every", "inspect_every", "grad_clip", "spike_factor"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}: must not be negative, found {getattr(self, name)}")
        for name in ("patience", "target_loss"):
            if (value := getattr(self, name)) and not self.eval_every:
                raise ConfigError(f"{name}: {value} looks at the validation set, and eval_every = 0 takes none")
        if self.recompute not in ("none", "wide", "full") and int(self.recompute) < 1:
            raise ConfigError(f"recompute: none, wide, full or a number from 1, found {self.recompute}")
        if self.seq_len is not None and self.seq_len < 1:
            raise ConfigError(f"seq_len: must be at least 1, found {self.seq_len}")
        if self.keep < 2:
            raise ConfigError(
                f"keep: must be at least 2, so that one good checkpoint is always left, found {self.keep}"
            )


@dataclass
class TrainState:
    """What the loop itself has to remember."""

    step: int = 0
    """Optimizer steps done."""
    n_tokens: int = 0
    """Terms of the loss seen so far."""
    n_skips: int = 0
    """Steps in a row that were not applied, up to now."""
    seconds: float = 0.0
    """Time spent training, over all processes that worked on this run."""
    best_loss: float | None = None
    """The lowest validation loss so far, in nats per token."""
    best_step: int | None = None
    """The step it was measured at."""
    first_loss: float | None = None
    """The training loss of the first step."""
    losses: list[float] = field(default_factory=list)
    """Training losses of the last steps that were finite."""
    norms: list[float] = field(default_factory=list)
    """Gradient norms of the same steps; their median decides what a spike is."""
    max_rows: int | None = None
    """Rows of a micro-batch that fit into memory, where batch_size of them did not."""

    compiled: bool | None = None
    """Whether the steps to come are compiled; None before that is decided."""

    def remember(self, loss: float, norm: float) -> None:
        """Of the last WINDOW steps."""
        self.first_loss = loss if self.first_loss is None else self.first_loss
        self.losses, self.norms = [*self.losses, loss][-WINDOW:], [*self.norms, norm][-WINDOW:]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TrainState":
        """What an earlier version did not remember is as at the start."""
        return cls(**{field.name: values[field.name] for field in fields(cls) if field.name in values})


def train(
    model: nn.Module,
    objective: Objective,
    batches: BatchSource,
    optimizer: Optimizer,
    cfg: TrainConfig,
    *,
    learning_rate: Callable[[int], float],
    state: TrainState,
    log: MetricLog,
    evaluate: Callable[[TrainState], None],
    save: Callable[[TrainState], None],
    stop: Callable[[], bool] = lambda: False,
    team: Team = ALONE,
    engine: Alone | None = None,
) -> None:
    """Minimise `objective` until cfg.max_steps, or until `stop` says so; a resumed `state` continues where it was.

    team, engine: the processes that share each step, and how they share `model`; without them, this process does all.

    Raises:
        DivergedError: MAX_SKIPS steps in a row had a loss or a gradient that is not finite; none of them was applied.
        TooLargeError: not even a single row fits into the device's memory.
    """
    device = next(model.parameters()).device
    precision = pick_precision(cfg.precision, device)
    engine = engine or Alone(model)
    compilation = Compilation(model, cfg.compile, cfg.max_steps, team)
    state.compiled = compilation.start(state.compiled)
    since, tokens_since = time.perf_counter(), 0
    model.train()
    while state.step < cfg.max_steps and not team.any(stop()):
        began = time.perf_counter()
        lr = learning_rate(state.step)
        for group in optimizer.param_groups:
            group["lr"] = lr
        place = dict(batches.state_dict())
        micro_batches = [on_device(next(batches), device) for _ in range(cfg.grad_accum)]
        team.moved()
        n_terms = int(team.sums(sum(objective.n_terms(batch) for batch in micro_batches))[0])
        gradients = partial(summed_gradients, engine, objective, n_terms, autocast(precision, device), team)
        inspection = Inspection(model) if due(state.step + 1, cfg.inspect_every) else None
        with inspection.watching() if inspection else nullcontext():
            total, state.max_rows = within_memory(gradients, model, micro_batches, state.max_rows, team)
        if inspection:
            inspection.before_move()
        grads = all_gradients(model.parameters())
        grad_norm = norm_of(grads)
        loss, norm = team.sums(float(total))[0], float(grad_norm)
        is_finite = math.isfinite(loss) and math.isfinite(norm)
        is_spike = is_finite and cfg.spike_factor > 0 and norm > cfg.spike_factor * usual(state.norms)
        if is_finite and not is_spike:
            warn_of_spike(state.step + 1, norm, state.norms)
            if cfg.grad_clip:  # only now: scaling by a norm that is not finite would hide where it came from
                clip(grads, grad_norm, cfg.grad_clip)
            optimizer.step()
        elif is_spike:
            log(state.step + 1, loss=loss, grad_norm=norm, lr=lr, spike=norm / usual(state.norms))
        del grads  # or they would live through the passes of the next step
        if is_finite:
            state.remember(loss, norm)  # also of a spike: what lasts becomes usual
            state.n_skips = 0
        else:
            state.n_skips += 1
            log(state.step + 1, loss=loss, grad_norm=norm, lr=lr, skipped=state.n_skips)
            if state.n_skips >= MAX_SKIPS:
                raise diverged(model, state, loss, norm, lr, place)
        if inspection:
            log(state.step + 1, layers=inspection.figures(team))
        optimizer.zero_grad(set_to_none=True)
        state.step += 1
        state.n_tokens += n_terms
        tokens_since += n_terms
        if state.compiled is None:
            shape = tuple(batch[0].shape for batch in micro_batches)
            state.compiled = compilation.after_step(state.step, time.perf_counter() - began, shape)
        if due(state.step, cfg.log_every) or state.step == cfg.max_steps:
            now = time.perf_counter()
            rate, state.seconds = tokens_since / (now - since), state.seconds + now - since
            log(
                state.step,
                loss=loss,
                lr=lr,
                grad_norm=norm,
                tokens=state.n_tokens,
                tokens_per_s=rate,
                **balance_figures(model, team),
            )
            since, tokens_since = time.perf_counter(), 0
        paused = time.perf_counter()
        if due(state.step, cfg.eval_every) or state.step == cfg.max_steps:
            model.eval()
            with team.paused():
                evaluate(state)
            model.train()
        is_best = cfg.save_every > 0 and state.step == state.best_step
        if due(state.step, cfg.save_every) or is_best or state.step == cfg.max_steps:
            with team.paused():
                save(state)
        since += time.perf_counter() - paused  # evaluation and saving are not training time


def summed_gradients(
    engine: Alone, objective: Objective, n_terms: int, precise: torch.autocast, team: Team, micro_batches: list[Any]
) -> Tensor:
    """Add the gradients of all micro-batches to those of the parameters -> this process's share of the loss, ()."""
    total = torch.zeros(())
    for i, batch in enumerate(micro_batches, start=1):
        with engine.passes(is_last=i == len(micro_batches)):
            with precise:
                # Over the terms of the whole step: how it was split, and among whom, leaves no trace.
                part = objective(engine.model, batch) / max(n_terms, 1)
            part.backward()  # type: ignore[no-untyped-call]
        total = total + part.detach()
        team.moved()
    return total


def seen_enough(cfg: TrainConfig, state: TrainState) -> str | None:
    """Why the run ends early, if it does. It follows from what is saved, so a resumed run ends at the same step."""
    loss, best = state.best_loss, state.best_step
    if loss is None or best is None:
        return None
    if cfg.target_loss is not None and loss <= cfg.target_loss:
        return f"a validation loss of {loss:.4f} at step {best}, and train.target_loss is {cfg.target_loss}"
    if cfg.patience and state.step - best >= cfg.patience * cfg.eval_every:
        return f"no better validation loss in {cfg.patience} looks than {loss:.4f} at step {best}, which is kept"
    return None


def due(step: int, every: int) -> bool:
    """Whether something that happens every `every` steps happens now; 0 is never."""
    return every > 0 and step % every == 0


def on_device(batch: Any, device: torch.device) -> Any:
    """A batch, a tuple of tensors, on the model's device."""
    if device.type == "cpu":
        return batch
    return type(batch)(*(part.to(device, non_blocking=True) if isinstance(part, Tensor) else part for part in batch))


def diverged(
    model: nn.Module, state: TrainState, loss: float, norm: float, lr: float, place: Mapping[str, Any]
) -> DivergedError:
    """What is known at the moment of divergence: a line for the user, and for the file the last good steps, the
    gradient's norm in each layer and parameter, and the place in the data where the batches of this step begin."""
    step = state.step
    norms = {name: float(whole(p.grad.norm())) for name, p in model.named_parameters() if p.grad is not None}
    bad = [name for name, value in norms.items() if not math.isfinite(value)]
    spoiled = [name for name, p in model.named_parameters() if n_not_finite(p)]
    where = f"; gradients not finite in {first_three(bad)}" if bad else ""
    weights = (
        f"weights not finite in {first_three(spoiled)}: the last checkpoint is before that"
        if spoiled
        else "the weights are those of the last good step"
    )
    return DivergedError(
        f"step {step + 1}: loss {loss}, gradient norm {norm} at lr {lr:.2e}, {MAX_SKIPS} steps in a row{where}; "
        f"{weights}; lower optim.lr or raise optim.warmup_steps",
        {
            "step": step + 1,
            "loss": str(loss),
            "lr": lr,
            "last_losses": state.losses[-20:],
            "last_grad_norms": state.norms[-20:],
            "batches_of_step": dict(place),
            "layers": {name: str(value) for name, value in layer_norms(norms).items()},
            "grad_norms": {name: str(value) for name, value in norms.items()},
        },
    )


def layer_norms(norms: Mapping[str, float]) -> dict[str, float]:
    """The norms of whole layers, of those of their parameters: `blocks.3`, `embed`."""
    layers: dict[str, list[float]] = {}
    for name, value in norms.items():
        layers.setdefault(layer_of(name), []).append(value)
    return {name: math.hypot(*values) for name, values in layers.items()}


def first_three(names: Sequence[str]) -> str:
    """A list that fits a line."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
