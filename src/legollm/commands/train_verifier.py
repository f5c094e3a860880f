"""`legollm verifier train`: a model and answers known to be right or wrong -> a model that tells them apart."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from legollm.alignment.judges import (
    LABELS,
    Checked,
    RightOrWrong,
    answer_ids,
    chances,
    checked_batch,
    template_of,
)
from legollm.checkpoints.loading import load
from legollm.commands.fit import Job, fit
from legollm.commands.run_folder import Resume, open_run
from legollm.commands.start_from import prepare
from legollm.config import Resolved
from legollm.data.chat import end_of_turn
from legollm.data.pairs import ShuffledBatches, in_order
from legollm.data.prepare import END_OF_TEXT
from legollm.data.rows import rows, text
from legollm.errors import ConfigError, DataError
from legollm.evaluation.intervals import auc, share
from legollm.training.optim import OptimConfig
from legollm.training.train import TrainConfig, TrainState
from legollm.transforms.lora import LoraConfig


@dataclass(frozen=True, kw_only=True)
class CheckedConfig:
    """Where the answers come from."""

    SHORTHAND: ClassVar[str] = "source"

    source: Path
    """results.jsonl of `legollm solve`; or rows with `question`, `answer`, and `right`: true or false."""
    val_fraction: float = 0.1
    """Share of the questions that is kept to measure with, with all their answers."""

    def __post_init__(self) -> None:
        if not 0 < self.val_fraction < 1:
            raise ConfigError(f"val_fraction: a share between 0 and 1, found {self.val_fraction}")


@dataclass(frozen=True, kw_only=True)
class TrainVerifierRun:
    """A whole run that makes a verifier."""

    data: CheckedConfig
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


class Answer(NamedTuple):
    """One answer and whether it is right."""

    question: str
    answer: str
    is_right: bool


def train_verifier(run: Resolved[TrainVerifierRun]) -> None:
    """Train a model to tell right answers from wrong ones, and measure it on questions it has not seen.

    It is trained on answers that a model gave, as `legollm solve` writes them with every attempt.

    legollm verifier train data.source=runs/solve/results.jsonl model=runs/sft run=runs/verifier
    legollm solve model=runs/sft verifier=runs/verifier strategy=weighted
    """
    cfg = run.value
    state, val = fit_verifier(cfg)
    scores, labels = chances(load(cfg.run).model, val), [bool(one.label) for one in val]
    agrees = sum((score >= 0.5) == label for score, label in zip(scores, labels, strict=True))
    print(f"{cfg.run}: {state.step} steps, {state.n_tokens:,} answers, {state.seconds:.0f} s of training")
    print(f"held-out answers: AUC {auc(scores, labels):.3f}, judged as they are {share(agrees, len(val))}")
    print(f"next: legollm solve verifier={cfg.run} strategy=weighted")


def fit_verifier(cfg: TrainVerifierRun) -> tuple[TrainState, list[Checked]]:
    """The whole run: its state, and the held-out answers."""
    open_run(cfg.run, cfg, cfg.resume)
    base = load(cfg.model)
    base.refuse_pairs()
    tokenizer, template, max_len = base.text_side(), template_of(base), base.config.max_seq_len
    train, val = (
        [Checked(answer_ids(tokenizer, template, one.question, one.answer, max_len), int(one.is_right)) for one in part]
        for part in split_answers(list(read_answers(cfg.data.source)), cfg.data)
    )
    start = prepare(base, cfg.lora, cfg.freeze, seed=cfg.seed, labels=LABELS)
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
        objective=RightOrWrong(),
        batches=ShuffledBatches(train, checked_batch, cfg.train.batch_size, seed=cfg.seed),
        validation=lambda n: islice(in_order(val, checked_batch, cfg.train.batch_size), n),
        optim=cfg.optim,
        train=cfg.train,
        seed=cfg.seed,
        resume=cfg.resume,
        counts_tokens=False,
        tokenizer_files=files,
    )
    return fit(job), val


def read_answers(path: Path) -> list[Answer]:
    """Every attempt in a file of results, or its rows as they are.

    Raises:
        DataError: a row of another shape; names file and line.
    """
    found = []
    for where, row in rows(path):
        question = text(row, "question", where)
        attempts = row.get("attempts", [row])
        if not isinstance(attempts, list) or not all(isinstance(one, dict) for one in attempts):
            raise DataError(f"{where}: attempts: expected a list of objects, found {attempts!r:.60}")
        for one in attempts:
            if not isinstance(one.get("right"), bool):
                raise DataError(f"{where}: right: expected true or false, found {one.get('right')!r:.60}")
            found.append(Answer(question, text(one, "answer", where), one["right"]))
    return list(dict.fromkeys(found))


def split_answers(answers: Sequence[Answer], cfg: CheckedConfig) -> tuple[list[Answer], list[Answer]]:
    """Those to train on and those to measure with; the question decides, so that none is in both.

    Raises:
        DataError: one of the parts lacks right answers, or wrong ones.
    """
    parts: tuple[list[Answer], list[Answer]] = ([], [])
    for one in answers:
        number = int.from_bytes(hashlib.sha256(one.question.encode()).digest()[:8], "big")
        parts[number < cfg.val_fraction * 2**64].append(one)
    for name, part in zip(("to train on", "to measure with"), parts, strict=True):
        n_right = sum(one.is_right for one in part)
        if n_right in (0, len(part)):
            raise DataError(
                f"{cfg.source}: {n_right} right and {len(part) - n_right} wrong answers {name}; both kinds are needed, "
                "so take more questions, or a model that is neither always right nor always wrong"
            )
    return parts
