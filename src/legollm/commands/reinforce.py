"""What `grpo` and `ppo` have in common: a model, tasks and an algorithm put together for the one loop, and a report."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from legollm.alignment.advantages import RunningBaseline
from legollm.alignment.plan import Plan, SamplerConfig
from legollm.alignment.policy import Average, Meter, ObjectiveConfig, Penalty, PolicyGradient
from legollm.alignment.rollouts import Rollouts
from legollm.checkpoints.loading import Loaded, load
from legollm.commands.checkable import Exam, TaskConfig, encoded, judge_of, tasks_of
from legollm.commands.fit import Job, fit
from legollm.commands.run_folder import Resume, open_run
from legollm.commands.start_from import Reference, prepare
from legollm.components.decoder import Decoder
from legollm.config import Resolved
from legollm.data.chat import end_of_turn
from legollm.data.prepare import END_OF_TEXT
from legollm.errors import CheckpointError, ConfigError
from legollm.evaluation.report import Chart, Curve, Section, write_report
from legollm.training.metrics import read_rows
from legollm.training.optim import OptimConfig
from legollm.training.train import TrainConfig, TrainState
from legollm.transforms.lora import LoraConfig

CHARTS: Mapping[str, tuple[str, str]] = {
    "reward": ("Reward of sampled answers", "mean"),
    "val_accuracy": ("Held-out prompts answered right, greedily", "share"),
    "kl": ("Divergence from the reference", "nats per answer"),
    "entropy": ("Entropy of the next token", "nats"),
    "answer_tokens": ("Length of an answer", "tokens"),
    "clip_fraction": ("Tokens whose push was clipped", "share"),
    "dead_groups": ("Groups whose answers are all equally good", "share"),
    "logprob_gap": ("Largest difference between trainer and sampler", "nats"),
}
"""What the report draws of metrics.jsonl."""
SHOWN = ("reward", "kl", "entropy", "answer_tokens", "clip_fraction", "dead_groups", "cut_off", "logprob_gap", "beta")
"""Figures of a log line, in this order."""


@dataclass(frozen=True, kw_only=True)
class ReinforceRun:
    """What every run needs that learns from rewards."""

    model: Path = Path("runs/sft/checkpoint")
    """The model at the start, which is also the reference: a checkpoint or run folder, or a Hugging Face folder."""
    run: Path = Path("runs/reinforce")
    """The run's folder."""
    seed: int = 1337
    """Decides the order of the prompts and what is drawn."""
    resume: Resume = "auto"
    """auto continues where the run stopped, never refuses a folder that holds a run, a number continues that step."""
    data: TaskConfig = field(default_factory=TaskConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    freeze: tuple[str, ...] = ()
    """Parts of the model that stand still, by name, such as embed,blocks.0; all_but_last_2: all blocks but two."""
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(lr=3e-4, schedule="constant", warmup_steps=5, weight_decay=0.0)
    )


def loop(**changes: Any) -> TrainConfig:
    """The loop's defaults for runs that learn from rewards."""
    usual = {"max_steps": 200, "log_every": 5, "eval_every": 25, "save_every": 50}
    return TrainConfig(**{**usual, "precision": "float32", "compile": "never", **changes})


@dataclass(frozen=True, kw_only=True)
class Algorithm:
    """What a verb decides."""

    name: str
    cfg: ObjectiveConfig
    plan: Plan
    average: Average
    by_answer: bool = False
    kl_in_loss: bool = False
    value_weight: float | None = None
    """With a value head; None is without."""
    value_clip: float | None = None
    baseline: RunningBaseline | None = None


@dataclass(frozen=True)
class Learned:
    """What a run came to."""

    state: TrainState
    n_held_out: int
    before: float
    """The share of held-out prompts that was answered right at the first look."""
    after: float
    early: str | None
    """Why it ended before its time, if it did."""


def reinforce(run: Resolved[Any], algorithm: Algorithm) -> None:
    """Train, say how it went, and leave `report.html` in the run's folder."""
    cfg = run.value
    done = learn(cfg, algorithm)
    print(f"{cfg.run}: {done.state.step} steps, {done.state.seconds:.0f} s of training")
    if done.early:
        print(f"ended at step {done.state.step}: {done.early}")
    print(f"right on {done.n_held_out} held-out prompts: {done.before:.1%} before, {done.after:.1%} after")
    print(f"next: see {cfg.run}/report.html, or legollm generate {cfg.run}/checkpoint")


def learn(cfg: Any, algorithm: Algorithm) -> Learned:
    """The whole run of a configuration, its report included."""
    tasks, held_out = tasks_of(cfg.data)
    open_run(cfg.run, cfg, cfg.resume)
    job, exam = job_of(cfg, algorithm, load(cfg.model), tasks, held_out)
    state = fit(job)
    rows = read_rows(cfg.run / "metrics.jsonl")
    before, after = accuracies(rows)
    if not exam.said:  # nothing was left to do
        exam(load(cfg.run).model)
    report(cfg.run, algorithm.name, rows, exam)
    return Learned(state, len(held_out), before, after, job.ended())


def kept_files(lm: Loaded) -> dict[str, str]:
    """What the tokenizer's files say of the base: its template, and the token that ends an answer or a text."""
    tokenizer = lm.text_side()
    if lm.chat_template:
        end = end_of_turn(tokenizer, lm.chat_template)
        return {"chat_template": lm.chat_template, "eos": tokenizer.decode([end])}
    return {"eos": END_OF_TEXT} if END_OF_TEXT in tokenizer.special_tokens else {}


def job_of(cfg: Any, algorithm: Algorithm, lm: Loaded, tasks: Any, held_out: Any) -> tuple[Job, Exam]:
    """The run, put together."""
    lm.refuse_pairs()
    if not isinstance(lm.model, Decoder):
        raise CheckpointError(f"{lm.folder}: {lm.arch} cannot learn from rewards; take a decoder such as llama3")
    start = prepare(lm, cfg.lora, cfg.freeze, seed=cfg.seed)
    tokenizer, sampler, limit = lm.text_side(), cfg.sampler, cfg.sampler.max_new_tokens
    if sampler.stop is None:
        sampler = replace(sampler, stop=() if lm.chat_template else ("\n",))
    if limit >= lm.config.max_seq_len:
        raise ConfigError(f"sampler.max_new_tokens: {limit} leaves no room in the {lm.config.max_seq_len} of the model")
    room = lm.config.max_seq_len - limit
    prompts, questions = (encoded(part, tokenizer, lm.chat_template, room) for part in (tasks, held_out))
    meter, penalty = Meter(), Penalty(algorithm.cfg.beta, algorithm.cfg.kl_target)
    head = value_head(lm.model) if algorithm.value_weight is not None else None
    exam = Exam(held_out, questions, tokenizer, max_new_tokens=limit, stop=sampler.stop or (), stop_ids=lm.stop_ids())
    job = Job(
        folder=cfg.run,
        arch=lm.arch,
        model_config=lm.config,
        model=start.model,
        adapter=start.adapter,
        tokenizer=tokenizer,
        objective=PolicyGradient(
            algorithm.cfg,
            average=algorithm.average,
            meter=meter,
            penalty=penalty,
            n_ids=tokenizer.vocab_size,
            temperature=sampler.temperature,
            max_new_tokens=limit,
            by_answer=algorithm.by_answer,
            kl_in_loss=algorithm.kl_in_loss,
            value_head=head,
            value_weight=algorithm.value_weight or 0.0,
            value_clip=algorithm.value_clip,
        ),
        batches=Rollouts(
            lm.model,
            Reference(start).as_it_was,
            tokenizer,
            prompts,
            judge_of(tasks),
            plan=algorithm.plan,
            sampler=sampler,
            seed=cfg.seed,
            meter=meter,
            penalty=penalty,
            stop_ids=lm.stop_ids(),
            value_head=head,
            baseline=algorithm.baseline,
        ),
        validation=lambda n: (),
        optim=cfg.optim,
        train=cfg.train,
        seed=cfg.seed,
        resume=cfg.resume,
        counts_tokens=False,
        figures=lambda: {name: meter.latest[name] for name in SHOWN if name in meter.latest},
        title=f"{algorithm.name}: {cfg.run}",
        tokenizer_files=kept_files(lm),
        aside=head,
        examine=exam,
        ended=lambda: too_far(meter, algorithm.cfg.kl_limit),
    )
    return job, exam


def value_head(model: Decoder) -> nn.Linear:
    """A map from the states of the model to what reward is expected; it starts with 0 everywhere."""
    width = model.lm_head.in_features
    head = nn.Linear(int(width), 1)  # type: ignore[arg-type]
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def too_far(meter: Meter, limit: float | None) -> str | None:
    """Why to end, in words, if the model has left its reference too far behind."""
    kl = meter.latest.get("kl", 0.0)
    if limit is None or kl <= limit:
        return None
    return (
        f"the divergence from the reference is {kl:.2f} nats per answer, and kl_limit is {limit:g}; a larger beta or a "
        "smaller optim.lr keeps it nearer"
    )


def accuracies(rows: list[dict[str, Any]]) -> tuple[float, float]:
    """At the first and at the last look."""
    looks = [float(row["val_accuracy"]) for row in rows if "val_accuracy" in row]
    return looks[0], looks[-1]


def report(folder: Path, name: str, rows: list[dict[str, Any]], exam: Exam) -> None:
    """One page: a chart for each figure, and answers to read."""
    before, after = accuracies(rows)
    sections = [
        Section(
            "What it learned",
            text=f"{name}: of {len(exam.tasks)} held-out prompts {before:.1%} were answered right before and "
            f"{after:.1%} after, taking the likeliest token each time.",
        )
    ]
    for key, (title, unit) in CHARTS.items():
        points = [(float(row["step"]), float(row[key])) for row in rows if key in row]
        if points:
            sections.append(Section(title, chart=Chart("", "step", unit, [Curve(key, points)])))
    sections.append(Section("Answers at the end", header=("prompt", "expected", "answered"), rows=exam.shown()))
    write_report(folder / "report.html", f"{name}: {folder.name}", sections)
