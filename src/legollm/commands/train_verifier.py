"""`legollm verifier train`: a model and answers, or steps, known to be right or wrong -> one that tells them apart."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeVar

from legollm.alignment.judges import (
    LABELS,
    Checked,
    RightOrWrong,
    answer_ids,
    chances,
    checked_batch,
    template_of,
)
from legollm.alignment.steps import STEP_LABELS, RightSteps, Stepped, step_chances, stepped, stepped_batch
from legollm.checkpoints.loading import Loaded, load
from legollm.commands.checked_data import CheckedConfig, chains_of, read_answers, split_answers
from legollm.commands.fit import Job, fit
from legollm.commands.run_folder import Resume, open_run
from legollm.commands.start_from import prepare
from legollm.config import Resolved
from legollm.data.chat import end_of_turn
from legollm.data.pairs import ShuffledBatches, in_order
from legollm.data.prepare import END_OF_TEXT
from legollm.evaluation.intervals import auc, share
from legollm.interfaces import Objective
from legollm.training.objective import IGNORED
from legollm.training.optim import OptimConfig
from legollm.training.train import TrainConfig, TrainState
from legollm.transforms.lora import LoraConfig

Example = TypeVar("Example", Checked, Stepped)


@dataclass(frozen=True, kw_only=True)
class TrainVerifierRun:
    """A whole run that makes a verifier."""

    data: CheckedConfig
    kind: Literal["outcome", "process"] = "outcome"
    """outcome judges whole answers; process each of their lines, so that it can say where one goes wrong (Lightman et
    al. 2023, arXiv:2305.20050)."""
    model: Path = Path("runs/sft/checkpoint")
    """The model to start from, the one that answered or a smaller one: a checkpoint or run folder."""
    run: Path = Path("runs/verifier")
    """The run's folder."""
    seed: int = 1337
    """Decides the first weights of the head, the order of the answers and dropout."""
    resume: Resume = "auto"
    """auto continues where the run stopped, never refuses a folder that holds a run, a number continues that step."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    freeze: tuple[str, ...] = ()
    """Parts of the model that stand still, by name, such as embed,blocks.0; all_but_last_2 is all blocks but two."""
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=5e-4, warmup_steps=20))
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(max_steps=300, batch_size=32, eval_every=100, save_every=100)
    )


def train_verifier(run: Resolved[TrainVerifierRun]) -> None:
    """Train a model to tell right answers from wrong ones, and measure it on questions it has not seen.

    It is trained on answers that a model gave, as `legollm solve` writes them with every attempt; or, with
    kind=process, on answers whose steps were judged.

    legollm verifier train data.source=runs/solve/results.jsonl model=runs/sft run=runs/verifier
    legollm verifier train kind=process data.source=steps.jsonl model=runs/sft run=runs/verifier
    legollm solve model=runs/sft verifier=runs/verifier strategy=weighted
    """
    cfg = run.value
    if cfg.kind == "process":
        state, val = fit_process(cfg)
        print(f"{cfg.run}: {state.step} steps, {state.n_tokens:,} judged steps, {state.seconds:.0f} s of training")
        for line in measured_steps(step_chances(load(cfg.run).model, val), val):
            print(line)
    else:
        state, checked = fit_verifier(cfg)
        scores, labels = chances(load(cfg.run).model, checked), [bool(one.label) for one in checked]
        agrees = sum((score >= 0.5) == label for score, label in zip(scores, labels, strict=True))
        print(f"{cfg.run}: {state.step} steps, {state.n_tokens:,} answers, {state.seconds:.0f} s of training")
        print(f"held-out answers: AUC {auc(scores, labels):.3f}, judged as they are {share(agrees, len(checked))}")
    print(f"next: legollm solve verifier={cfg.run} strategy=weighted")


def fit_verifier(cfg: TrainVerifierRun) -> tuple[TrainState, list[Checked]]:
    """The whole run of a verifier of answers: its state, and the held-out ones."""
    base = opened(cfg)
    tokenizer, template, max_len = base.text_side(), template_of(base), base.config.max_seq_len
    train, val = (
        [Checked(answer_ids(tokenizer, template, one.question, one.answer, max_len), int(one.is_right)) for one in part]
        for part in split_answers(list(read_answers(cfg.data.source)), cfg.data)
    )
    return judge_from(cfg, base, LABELS, RightOrWrong(), train, val, checked_batch), val


def fit_process(cfg: TrainVerifierRun) -> tuple[TrainState, list[Stepped]]:
    """The whole run of a verifier of steps: its state, and the held-out answers."""
    base = opened(cfg)
    tokenizer, template, max_len = base.text_side(), template_of(base), base.config.max_seq_len
    train, val = (
        [stepped(tokenizer, template, one.question, one.steps, one.labels, max_len=max_len) for one in part]
        for part in chains_of(cfg.data)
    )
    return judge_from(cfg, base, STEP_LABELS, RightSteps(), train, val, stepped_batch), val


def opened(cfg: TrainVerifierRun) -> Loaded:
    """The run's folder opened, and the base."""
    open_run(cfg.run, cfg, cfg.resume)
    base = load(cfg.model)
    base.refuse_pairs()
    return base


def judge_from(
    cfg: TrainVerifierRun,
    base: Loaded,
    labels: tuple[str, ...],
    objective: Objective,
    train: Sequence[Example],
    val: Sequence[Example],
    collate: Callable[[Sequence[Example]], Any],
) -> TrainState:
    """Train a base with a head over the labels, and save it."""
    tokenizer, template = base.text_side(), template_of(base)
    start = prepare(base, cfg.lora, cfg.freeze, seed=cfg.seed, labels=labels)
    files: dict[str, Any] = {}
    if template:
        files = {"chat_template": template, "eos": tokenizer.decode([end_of_turn(tokenizer, template)])}
    elif END_OF_TEXT in tokenizer.special_tokens:
        files = {"eos": END_OF_TEXT}
    job = Job(
        folder=cfg.run,
        arch=start.arch,
        model_config=start.config,
        model=start.model,
        adapter=start.adapter,
        tokenizer=tokenizer,
        objective=objective,
        batches=ShuffledBatches(train, collate, cfg.train.batch_size, seed=cfg.seed),
        validation=lambda n: islice(in_order(val, collate, cfg.train.batch_size), n),
        optim=cfg.optim,
        train=cfg.train,
        seed=cfg.seed,
        resume=cfg.resume,
        counts_tokens=False,
        tokenizer_files=files,
    )
    return fit(job)


def measured_steps(found: Sequence[Sequence[float]], val: Sequence[Stepped]) -> list[str]:
    """What the log says of held-out steps: how well they are told apart, and whether the wrong one is found."""
    judged = [
        (chance, label == 1)
        for chances, one in zip(found, val, strict=True)
        for chance, label in zip(chances, one.labels, strict=True)
        if label != IGNORED
    ]
    scores, labels = [chance for chance, _ in judged], [is_right for _, is_right in judged]
    agrees = sum((chance >= 0.5) == is_right for chance, is_right in judged)
    wrong = [(chances, one.labels.index(0)) for chances, one in zip(found, val, strict=True) if 0 in one.labels]
    n_found = sum(first_doubtful(chances) == first for chances, first in wrong)
    return [
        f"held-out steps: AUC {auc(scores, labels):.3f}, judged as they are {share(agrees, len(judged))}",
        f"held-out answers with a wrong step: the first one is found in {share(n_found, len(wrong))}",
    ]


def first_doubtful(chances: Sequence[float]) -> int | None:
    """The first step that is likelier wrong than right."""
    return next((i for i, chance in enumerate(chances) if chance < 0.5), None)
