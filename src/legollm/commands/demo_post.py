"""`legollm demo post`: small models through all of post-training, with what every stage brought.

Stories: a base has read them and learns to answer questions. Sums: a base has read some, and a few lessons bring it to
a conversation in which most of its answers are wrong. Pairs of right and wrong ones of them teach it which to prefer
(DPO); rewards teach it sums that nobody worked for it, with groups of answers (GRPO) and with a value for each token
(PPO); and its answers are checked by a program and tried again. Numbers: a model half knows which of two is larger, and
another learns to tell its right answers from its wrong ones, and chooses among eight. All of it several times, with
other random numbers, because one run of a small model says little.

Each stage is the verb of its name, with its own folder: what is there is not done again.
"""

import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from legollm.alignment.judges import chances
from legollm.alignment.plan import SamplerConfig
from legollm.alignment.preferences import PreferenceConfig
from legollm.architectures.llama3 import Llama3Config
from legollm.architectures.qwen3 import Qwen3Config
from legollm.checkpoints.loading import load
from legollm.commands import grpo, ppo
from legollm.commands.checkable import Exam, TaskConfig, encoded, tasks_of
from legollm.commands.checked_data import CheckedConfig
from legollm.commands.demo import ANSWERING, DemoRun, item_of
from legollm.commands.demo_post_table import Row, accuracy_curves, sections, show
from legollm.commands.dpo import DpoRun, outcome_of, prefer
from legollm.commands.grpo import GrpoConfig, GrpoRun
from legollm.commands.material import TokenizerConfig
from legollm.commands.ppo import PpoConfig, PpoRun
from legollm.commands.preference_data import PairConfig
from legollm.commands.reinforce import learn, loop
from legollm.commands.run_folder import open_run
from legollm.commands.sft import SftRun, finetune
from legollm.commands.solve import SolveRun, answers_of, row_of
from legollm.commands.text_plot import plot
from legollm.commands.train import TrainRun, pretrain
from legollm.commands.train_verifier import TrainVerifierRun, fit_verifier
from legollm.config import Resolved
from legollm.data import world
from legollm.data.world.truth import asked
from legollm.errors import ConfigError
from legollm.evaluation.intervals import auc
from legollm.evaluation.questions import answer_all
from legollm.evaluation.report import write_report
from legollm.training.optim import OptimConfig
from legollm.training.train import TrainConfig
from legollm.whole_file import write_whole

AS_IN_THE_DEMO = ("data", "tokenizer", "model", "optim", "train", "echo_steps")
SUMS = TaskConfig(source="world:add", difficulty=2)
"""Two-digit additions; those to measure with are never learned from."""
SUM_TOKENS = 6
"""Of an answer to one, at most: three digits and the end of the turn, and room to be wrong."""
N_WRITTEN = 60_000
"""Sums that the base of sums reads, of which its lessons are some."""
NUMBERS = TaskConfig(source="world:larger", difficulty=2)
"""Which of two numbers of two digits is larger."""
N_READ = 9_000
"""Such questions with their answers that a model reads."""


@dataclass(frozen=True, kw_only=True)
class PostRun:
    """The lab's parts; all of them can be changed."""

    run: Path = Path("runs/post")
    """Folder of all runs and of the report."""
    seed: int = 1337
    """The first seed; the next ones follow it."""
    seeds: int = 3
    """How often all is done but the base that reads stories."""
    n_questions: int = 200
    """Held-out questions about stories, and as many held-out sums."""
    n_sampled: int = 1500
    """Sums to which the taught model gives eight answers each, for pairs."""
    n_judged: int = 6000
    """Questions about numbers that are answered four times each, for the verifier."""
    base: TrainRun = field(
        default_factory=lambda: TrainRun(**{name: getattr(DemoRun(), name) for name in AS_IN_THE_DEMO})
    )
    """Of stories, as in `legollm demo`."""
    sft: SftRun = field(default_factory=lambda: DemoRun().sft)
    sums: TrainRun = field(
        default_factory=lambda: TrainRun(
            tokenizer=TokenizerConfig(vocab_size=300, pattern="qwen"),  # each digit is a token
            model=Qwen3Config(d_model=96, n_layers=3, n_heads=4, n_kv_heads=2, d_head=32, d_ff=256, max_seq_len=64),
            optim=OptimConfig(lr=2e-3, schedule="constant"),
            train=TrainConfig(
                max_steps=1500, batch_size=32, eval_every=25, target_loss=0.86, save_every=250, precision="float32"
            ),
        )
    )
    """Of sums as text; ended while it still gets most of them wrong."""
    taught: SftRun = field(
        default_factory=lambda: SftRun(
            optim=OptimConfig(lr=1e-3, schedule="constant", warmup_steps=10),
            train=TrainConfig(
                max_steps=1000, batch_size=64, eval_every=10, target_loss=0.7, save_every=250, precision="float32"
            ),
        )
    )
    """Of sums as questions and answers; ended where about three in ten are right."""
    dpo: DpoRun = field(
        default_factory=lambda: DpoRun(
            dpo=PreferenceConfig(sft=1.0),
            optim=OptimConfig(lr=3e-4, warmup_steps=10, weight_decay=0.0),
            train=TrainConfig(max_steps=150, batch_size=32, eval_every=50, save_every=50, precision="float32"),
        )
    )
    """Of two answers of the taught model, one right and one wrong."""
    grpo: GrpoRun = field(
        default_factory=lambda: GrpoRun(
            sampler=SamplerConfig(max_new_tokens=SUM_TOKENS),
            grpo=GrpoConfig(kind="dapo", n_prompts=64, extra_rounds=1),
            optim=OptimConfig(lr=8e-4, schedule="linear", warmup_steps=5, weight_decay=0.0),
            train=loop(max_steps=600, batch_size=128, eval_every=50),
        )
    )
    ppo: PpoRun = field(
        default_factory=lambda: PpoRun(
            sampler=SamplerConfig(max_new_tokens=SUM_TOKENS),
            ppo=PpoConfig(n_prompts=512, epochs=1, beta=0.0),
            optim=OptimConfig(lr=8e-4, schedule="linear", warmup_steps=5, weight_decay=0.0),
            train=loop(max_steps=600, batch_size=128, eval_every=50),
        )
    )
    numbers: TrainRun = field(
        default_factory=lambda: TrainRun(
            tokenizer=TokenizerConfig(kind="byte"),
            model=Llama3Config(d_model=64, n_layers=2, n_heads=4, n_kv_heads=4, d_ff=192, max_seq_len=64),
            optim=OptimConfig(lr=3e-3),
            train=TrainConfig(max_steps=800, batch_size=32, eval_every=400, save_every=400, precision="float32"),
        )
    )
    """Of questions about numbers."""
    verifier: TrainVerifierRun = field(
        default_factory=lambda: TrainVerifierRun(
            data=CheckedConfig(source=Path("samples.jsonl")),
            optim=OptimConfig(lr=7e-4, warmup_steps=20),
            train=TrainConfig(max_steps=4500, batch_size=64, eval_every=500, save_every=500, precision="float32"),
        )
    )
    """Of answers to them, from the model that gave them."""

    def __post_init__(self) -> None:
        for name in ("seeds", "n_questions", "n_sampled", "n_judged"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: must be at least 1, found {getattr(self, name)}")


def post(run: Resolved[PostRun]) -> None:
    """Base -> SFT on stories; base -> SFT -> DPO, GRPO, PPO, retry on sums; a verifier on numbers; over several seeds.

    legollm demo post
    legollm demo post seeds=1 run=runs/quick
    """
    cfg = run.value
    print(f"legollm demo post: {cfg.seeds} seeds; folder {cfg.run}", flush=True)
    began = time.perf_counter()
    base = replace(cfg.base, run=cfg.run / "base", seed=cfg.seed)
    open_run(base.run, base, "auto")
    pretrain(base, title="the base")
    took = remembered(base.run / "seconds.json", time.perf_counter() - began)
    table: list[list[Row]] = []
    for number in range(cfg.seeds):
        print(f"\nseed {cfg.seed + number}", flush=True)
        lab = Lab(cfg, cfg.seed + number)
        lab.rows.append(Row("stories: base", questions_right(base.run, cfg), took))
        lab.stories(base.run)
        lab.sums()
        lab.numbers()
        table.append(lab.rows)
        show(table)
    for name, curves in accuracy_curves(cfg.run, cfg.seed, cfg.seeds).items():
        print(f"\n  {name}: held-out sums answered right")
        for line in plot(curves, height=8, x_label="steps"):
            print(f"  {line}")
    write_report(cfg.run / "report.html", "legollm demo post", sections(cfg.run, cfg.seed, cfg.n_questions, table))
    write_whole(cfg.run / "results.json", json.dumps([[vars(row) for row in rows] for rows in table], indent=1) + "\n")
    print(f"report: {cfg.run / 'report.html'}   ({time.perf_counter() - began:.0f} s)")


class Lab:
    """All stages of one seed."""

    def __init__(self, cfg: PostRun, seed: int) -> None:
        self.cfg, self.seed, self.folder = cfg, seed, cfg.run / str(seed)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.rows: list[Row] = []

    def stage(self, name: str, do: Callable[[Path], str], right: Callable[[Path, PostRun], float] | None) -> Path:
        """Do one stage -> its folder."""
        print(f"  {name}", flush=True)
        began, where = time.perf_counter(), self.folder / name.replace(": ", "-")
        more = do(where)
        took = remembered(where / "seconds.json", time.perf_counter() - began)
        self.rows.append(Row(name, right(where, self.cfg) if right else None, took, more))
        return where

    def stories(self, base: Path) -> None:
        def tune(where: Path) -> str:
            finetune(replace(self.cfg.sft, model=base, run=where, seed=self.seed))
            return ""

        self.stage("stories: sft", tune, questions_right)

    def sums(self) -> None:
        cfg, seed = self.cfg, self.seed
        samples, lessons = self.folder / "samples.jsonl", self.folder / "lessons.jsonl"

        def read(where: Path) -> str:
            tasks = sums_of(n_tasks=N_WRITTEN)
            text = self.folder / "sums.jsonl"
            write_rows(text, [{"text": f"{task.prompt} {task.answer}"} for task in tasks])
            write_rows(lessons, [task_row(task) for task in tasks])
            settings = replace(cfg.sums, run=where, seed=seed, data=replace(cfg.sums.data, source=str(text)))
            open_run(where, settings, "auto")
            pretrain(settings, title="sums")
            return ""

        def teach(where: Path) -> str:
            data = replace(cfg.taught.data, source=str(lessons))
            finetune(replace(cfg.taught, model=base, run=where, seed=seed, data=data))
            return ""

        def compare(where: Path) -> str:
            sample(sums_of(n_tasks=cfg.n_sampled), solving(cfg, taught, seed, n=8), samples)
            pairs = self.folder / "pairs.jsonl"
            write_rows(pairs, list(pairs_in(samples)))
            settings = replace(cfg.dpo, model=taught, run=where, seed=seed, data=PairConfig(source=str(pairs)))
            _, val, precision = prefer(settings)
            found = outcome_of(settings, val, precision)
            nats = found.drift.nats if found.drift else math.nan
            return f"right answers likelier {found.before:.0%} -> {found.after:.0%}, {nats:.1f} nats away"

        def reward(own: GrpoRun | PpoRun) -> Callable[[Path], str]:
            def do(where: Path) -> str:
                settings = replace(own, model=taught, run=where, seed=seed, data=SUMS)
                verb = grpo if isinstance(settings, GrpoRun) else ppo
                early = learn(settings, verb.algorithm_of(settings)).early
                return f"ended early: {early}" if early else ""

            return do

        base = self.stage("sums: base", read, sums_right)
        taught = self.stage("sums: taught", teach, sums_right)
        self.stage("sums: dpo", compare, sums_right)
        self.stage("sums: grpo", reward(cfg.grpo), sums_right)
        self.stage("sums: ppo", reward(cfg.ppo), sums_right)
        questions = write_tasks(self.folder / "held-out-sums.jsonl", held_out_sums(cfg))
        ways = {
            "one try": solving(cfg, taught, seed, source=questions, strategy="vote", n=1),
            "majority of 8": solving(cfg, taught, seed, source=questions, strategy="vote", n=8),
            "4 tries, each checked": solving(cfg, taught, seed, source=questions, strategy="retry", tries=4),
        }
        self.rows += [answered(f"sums: taught, {name}", way) for name, way in ways.items()]

    def numbers(self) -> None:
        cfg, seed = self.cfg, self.seed
        samples, judge = self.folder / "answers.jsonl", self.folder / "numbers-verifier"

        def read(where: Path) -> str:
            tasks, _ = tasks_of(replace(NUMBERS, n_tasks=N_READ, n_val=1))
            text = self.folder / "numbers.jsonl"
            write_rows(text, [{"text": f"{task.prompt} {task.answer}\n"} for task in tasks])
            settings = replace(cfg.numbers, run=where, seed=seed, data=replace(cfg.numbers.data, source=str(text)))
            open_run(where, settings, "auto")
            pretrain(settings, title="numbers")
            return ""

        def check(where: Path) -> str:
            tasks, _ = tasks_of(replace(NUMBERS, n_tasks=cfg.n_judged, n_val=1))
            sample(tasks, solving(cfg, base, seed, n=4), samples)
            settings = replace(cfg.verifier, model=base, run=where, seed=seed, data=CheckedConfig(source=samples))
            _, val = fit_verifier(settings)
            return f"AUC {auc(chances(load(where).model, val), [bool(one.label) for one in val]):.3f}"

        base = self.stage("numbers: base", read, numbers_right)
        self.stage("numbers: verifier", check, None)
        _, held_out = tasks_of(replace(NUMBERS, n_tasks=1, n_val=cfg.n_questions))
        questions = write_tasks(self.folder / "held-out-numbers.jsonl", held_out)
        ways = {
            "one try": solving(cfg, base, seed, source=questions, strategy="vote", n=1),
            "majority of 8": solving(cfg, base, seed, source=questions, strategy="vote", n=8),
            "best of 8 by the verifier": solving(
                cfg, base, seed, source=questions, strategy="best_of", n=8, verifier=str(judge)
            ),
        }
        self.rows += [answered(f"numbers: {name}", way) for name, way in ways.items()]


def solving(cfg: PostRun, model: Path, seed: int, **settings: Any) -> SolveRun:
    """How held-out questions are answered: sampled as they come."""
    usual: dict[str, Any] = {
        "n_questions": cfg.n_questions,
        "temperature": 1.0,
        "max_new_tokens": SUM_TOKENS,
        "stop": ("\n",),
        "verifier": "number",
        "feedback": "silent",
    }
    return SolveRun(model=model, seed=seed, **{**usual, **settings})


def answered(name: str, way: SolveRun) -> Row:
    """What a way to answer comes to."""
    began = time.perf_counter()
    solved = answers_of(way)
    return Row(name, sum(one.answer.is_right for one in solved) / len(solved), time.perf_counter() - began)


def sample(tasks: Sequence[world.Task], way: SolveRun, path: Path) -> None:
    """Questions with several answers of the model each, as a file."""
    if path.exists():
        return
    source = write_tasks(path.with_suffix(".tasks.jsonl"), tasks)
    settings = replace(way, run=path.with_suffix(""), source=source, strategy="vote", n_questions=len(tasks))
    write_rows(path, [row_of(one) for one in answers_of(settings)])


def write_tasks(path: Path, tasks: Sequence[world.Task]) -> str:
    write_rows(path, [task_row(task) for task in tasks])
    return str(path)


def pairs_in(samples: Path) -> Iterator[dict[str, str]]:
    """Of each question a right answer and the wrong one that came most often, where the model gave both."""
    for line in samples.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        right, wrong = (
            Counter(one["answer"] for one in row["attempts"] if one["right"] is kind) for kind in (True, False)
        )
        if right and wrong:
            chosen, rejected = right.most_common(1)[0][0], wrong.most_common(1)[0][0]
            yield {"prompt": row["question"], "chosen": chosen, "rejected": rejected}


def task_row(task: world.Task) -> dict[str, str]:
    return {"prompt": task.prompt, "answer": task.answer, "verifier": task.verifier}


def questions_right(model: Path, cfg: PostRun) -> float:
    """The share of held-out questions of one step that a model answers right, greedily."""

    def look() -> float:
        lm = load(model)
        plenty = 400 * cfg.n_questions
        questions = list(islice(world.questions(cfg.seed, 0, plenty, max_steps=1, split="val"), cfg.n_questions))
        items = [item_of(lm, question) for question in questions]
        answered = answer_all(lm.writer, lm.text_side(), items, **ANSWERING, stop_ids=lm.stop_ids())
        return sum(one.is_right for one in answered) / len(answered)

    return remembered(model / "accuracy.json", look)


def sums_right(model: Path, cfg: PostRun) -> float:
    """The share of held-out sums."""
    return tasks_right(model, held_out_sums(cfg))


def numbers_right(model: Path, cfg: PostRun) -> float:
    """The share of held-out questions about numbers."""
    return tasks_right(model, tasks_of(replace(NUMBERS, n_tasks=1, n_val=cfg.n_questions))[1])


def tasks_right(model: Path, tasks: Sequence[world.Task]) -> float:
    """Answered greedily."""

    def look() -> float:
        lm = load(model)
        prompts = encoded(tasks, lm.text_side(), lm.chat_template, lm.config.max_seq_len - SUM_TOKENS)
        stop = () if lm.chat_template else ("\n",)
        exam = Exam(tasks, prompts, lm.text_side(), max_new_tokens=SUM_TOKENS, stop=stop, stop_ids=lm.stop_ids())
        return exam(lm.model)["val_accuracy"]

    return remembered(model / "accuracy.json", look)


def held_out_sums(cfg: PostRun) -> list[world.Task]:
    return sums_of(n_val=cfg.n_questions)


def sums_of(n_tasks: int = 0, n_val: int = 0) -> list[world.Task]:
    """Sums as these models read them, without the signs around a question: to learn from, or to measure with."""
    train, val = tasks_of(replace(SUMS, n_tasks=max(1, n_tasks), n_val=max(1, n_val)))
    return [replace(task, prompt=asked(task.prompt)) for task in (train if n_tasks else val)]


def remembered(path: Path, found: float | Callable[[], float]) -> float:
    """A number that is kept: later calls find everything done, and what it took or came to is what it was."""
    if path.exists():
        return float(json.loads(path.read_text(encoding="utf-8")))
    value = found() if callable(found) else found
    write_whole(path, f"{value}\n")
    return value


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    write_whole(path, "".join(json.dumps(row) + "\n" for row in rows))
