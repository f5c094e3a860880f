"""Tests with an answer sheet, for `legollm eval`: which choice is likelier, or whether what is written is right."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

from legollm.checkpoints.loading import Loaded
from legollm.commands.answers_page import json_lines
from legollm.commands.beginning import prompts_of
from legollm.config.kinds import default_of
from legollm.data import world
from legollm.data.benchmarks import BENCHMARKS, Benchmark, Item, before, read_items, shots_of
from legollm.data.chat import Message
from legollm.data.world.truth import asked
from legollm.errors import ConfigError
from legollm.evaluation.choices import METRICS, Judged, judge_all
from legollm.evaluation.intervals import Estimate, estimate
from legollm.evaluation.samples import Answered, answer_all, run_tests
from legollm.generation.complete import Decoding
from legollm.generation.sampling import Sampling
from legollm.lowering.engine import Engine
from legollm.verifiers import Verdict, verifier
from legollm.verifiers.sandbox import SandboxConfig
from legollm.whole_file import write_whole

WORLD = Benchmark(
    summary="questions of the built-in world that nobody was trained on",
    read=lambda path: iter(()),
    split="val",
    stop=("\nQ:",),
    stop_in_chat=("\nQ:",),
    max_new_tokens=100,
    verifier="world",
)
N_WORLD = 200
TaskName = Literal["mmlu", "hellaswag", "arc", "piqa", "gsm8k", "code", "world"]


@dataclass(frozen=True, kw_only=True)
class TaskSettings:
    """A test, and how it is taken."""

    task: TaskName | None = None
    """mmlu, hellaswag, arc, piqa: the likeliest choice; gsm8k, code (as HumanEval), world: what is written. Null
    measures a text."""
    source: Path | None = None
    """The task's own file, as it was published, or the folder with it; not for world."""
    split: str | None = None
    """Part of the name of the file or folder to ask; null is the usual one: test, or val where no answers to it are
    public."""
    kinds: tuple[str, ...] = ()
    """Only these subjects or kinds, such as philosophy; none is all."""
    n_items: int | None = None
    """The first so many of each file; null is all, of the world 200."""
    n_shots: int | None = None
    """Worked examples before each question; null is the usual number: 5 for mmlu and gsm8k, otherwise 0."""
    shots: Path | None = None
    """The file or folder with the worked examples; null looks beside the source."""
    n_samples: int = 1
    """Answers to each question, where they are written."""
    k: tuple[int, ...] = (1,)
    """pass@k: the chance that one of k answers is right; at most n_samples."""
    temperature: float = 0.0
    """Of written answers; 0 is greedy."""
    top_p: float = 1.0
    """Only the likeliest tokens whose probabilities reach this sum."""
    max_new_tokens: int | None = None
    """Of one answer; null is the usual number: gsm8k 256, code 512, world 100."""
    seed: int = 0
    """Of what is drawn."""
    chat: bool | None = None
    """Ask for written answers through the model's chat template; null does so where it has one."""
    engine: Engine = "auto"
    """What writes: torch, cpu (compiled kernels), or auto: whichever is done sooner."""
    sandbox: SandboxConfig = field(default_factory=SandboxConfig)
    """What code from the model may use."""
    output: Path | None = None
    """A file of JSON lines, one for each question with all that the model made of it; null writes none."""

    def __post_init__(self) -> None:
        for name in ("n_items", "n_samples", "max_new_tokens"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ConfigError(f"{name}: must be at least 1, found {value}")
        if self.n_shots is not None and self.n_shots < 0:
            raise ConfigError(f"n_shots: must be at least 0, found {self.n_shots}")
        if not self.k or not all(1 <= k <= self.n_samples for k in self.k):
            raise ConfigError(f"k: from 1 to n_samples={self.n_samples}, found {list(self.k)}; draw more answers")
        if self.n_samples > 1 and self.temperature == 0:
            raise ConfigError("temperature: 0 writes the same answer each time; with n_samples give more, such as 0.8")
        if self.task == "world" and (self.source or self.n_shots or self.shots):
            raise ConfigError("task: world makes its questions itself; leave out source, n_shots and shots")
        if self.task == "world" and self.split not in (None, "train", "val"):
            raise ConfigError(f"split: the world has train and val, found {self.split!r}")
        if self.task not in (None, "world") and self.source is None:
            raise ConfigError(f"source: task={self.task} reads a file that lies here; give it, or the folder with it")
        if self.split and self.source and self.source.is_file():
            raise ConfigError(f"split: {self.source} is a file, which has one; leave it out, or give the folder")
        if self.shots and self.n_shots == 0:
            raise ConfigError("shots: with n_shots=0 none is shown; leave out one of the two")
        if self.task is not None and not self.benchmark.max_new_tokens:
            defaults = {one.name: default_of(one) for one in fields(TaskSettings)}
            for name in ("n_samples", "k", "temperature", "top_p", "max_new_tokens", "seed", "chat", "engine"):
                if getattr(self, name) != defaults[name]:
                    raise ConfigError(f"{name}: goes with written answers, and task={self.task} compares choices")

    @property
    def benchmark(self) -> Benchmark:
        assert self.task is not None
        return WORLD if self.task == "world" else BENCHMARKS[self.task]


class Outcome(NamedTuple):
    """What a test came to."""

    items: list[Item]
    metrics: dict[str, list[float]]
    """By name what each item gets, 0 to 1."""
    rows: list[dict[str, object]]
    """One for each item, for a file."""
    n_cut: int
    """Of how many items the model had no room for the beginning."""
    chance: float | None
    """What picking at random would get."""


def evaluate_task(cfg: TaskSettings, lm: Loaded, *, window: int, batch_size: int, on_cpu: bool) -> dict[str, Any]:
    """Take a test; the figures as JSON has them.

    Raises:
        DataError, ConfigError: files of another shape, or of other kinds.
        ContextError: an answer that the model has no room for.
    """
    items, judge = problems_of(cfg)
    n_shots = cfg.benchmark.n_shots if cfg.n_shots is None else cfg.n_shots
    shots: dict[str, list[Item]] = {}
    if n_shots:
        assert cfg.source is not None
        if cfg.benchmark.shots_split is None and cfg.shots is None:
            raise ConfigError(f"n_shots: task={cfg.task} has no worked examples; leave it out, or give shots=FILE")
        shots = shots_of(cfg.benchmark, cfg.shots or cfg.source, items, n_shots)
    if items[0].choices:
        outcome = chosen(cfg, lm, items, shots, window=window, batch_size=batch_size)
    else:
        decoding = Decoding(window=window, batch_size=batch_size)
        outcome = written(cfg, lm, items, shots, judge, decoding, on_cpu=on_cpu)
    if cfg.output is not None:
        write_whole(cfg.output, json_lines(outcome.rows))
    return figures_of(cfg, outcome, n_shots)


def problems_of(cfg: TaskSettings) -> tuple[list[Item], Callable[[Item, str], Verdict]]:
    """The questions, and who judges a written answer."""
    if cfg.task == "world":
        n = cfg.n_items or N_WORLD
        split: Literal["train", "val"] = "train" if cfg.split == "train" else "val"
        drawn = list(islice(world.problems(0, 0, 1_000 * n, split=split, kinds=cfg.kinds), n))
        truth = world.Truth(drawn)
        items = [Item(asked(one.prompt), one.prompt, one.answer, one.kind, f"world:{i}") for i, one in enumerate(drawn)]
        return items, lambda item, said: truth(item.question, world.final_answer(said))
    assert cfg.source is not None
    items = read_items(cfg.benchmark, cfg.source, cfg.split, cfg.kinds, cfg.n_items)
    if cfg.task == "code":
        return items, lambda item, said: run_tests(item, said, cfg.sandbox)
    judge = verifier(cfg.benchmark.verifier or "exact")
    return items, lambda item, said: judge(item.question, said, item.answer)


def chosen(
    cfg: TaskSettings,
    lm: Loaded,
    items: Sequence[Item],
    shots: dict[str, list[Item]],
    *,
    window: int,
    batch_size: int,
) -> Outcome:
    """Which choice of each item the model finds likeliest."""
    heads = [before(cfg.benchmark, item, shots.get(item.kind, ())) for item in items]
    judged = judge_all(lm.writer, prompts_of(lm), items, heads, window=window, batch_size=batch_size)
    by_length = any(len(set(map(len, item.choices))) > 1 for item in items)  # not where choices are letters
    names = METRICS if by_length else METRICS[:1]
    metrics = {name: [float(one.is_right(name)) for one in judged] for name in names}
    chance = sum(1 / len(item.choices) for item in items) / len(items)
    return Outcome(
        list(items), metrics, list(map(row_of_choices, judged)), sum(one.n_cut > 0 for one in judged), chance
    )


def row_of_choices(one: Judged) -> dict[str, object]:
    choices = [
        {"text": text, "log_prob": said.log_prob, "is_greedy": said.is_greedy}
        for text, said in zip(one.item.choices, one.said, strict=True)
    ]
    verdicts = {name: one.is_right(name) for name in METRICS}
    return {
        "where": one.item.where,
        "kind": one.item.kind,
        "question": one.item.question,
        "choices": choices,
        "right": one.item.right,
        **verdicts,
        "n_cut": one.n_cut,
    }


def written(
    cfg: TaskSettings,
    lm: Loaded,
    items: Sequence[Item],
    shots: dict[str, list[Item]],
    judge: Callable[[Item, str], Verdict],
    decoding: Decoding,
    *,
    on_cpu: bool,
) -> Outcome:
    """What the model writes in answer to each item, and what is right of it."""
    in_chat = lm.chat_template is not None if cfg.chat is None else cfg.chat
    sampling = Sampling(
        temperature=cfg.temperature,
        top_p=cfg.top_p,
        max_new_tokens=cfg.max_new_tokens or cfg.benchmark.max_new_tokens,
        seed=cfg.seed,
        stop=cfg.benchmark.stop_in_chat if in_chat else cfg.benchmark.stop,
    )
    reading = prompts_of(lm)
    prompts = []
    for item in items:
        worked = shots.get(item.kind, ())
        if in_chat:
            pairs = [(Message("user", one.question), Message("assistant", one.answer)) for one in worked]
            prompts.append(lm.chat_prompt([*(turn for pair in pairs for turn in pair), Message("user", item.question)]))
        else:
            prompts.append(reading.ids(before(cfg.benchmark, item, worked) + item.prompt))
    n_answers = len(prompts) * cfg.n_samples
    model = lm.writer_of(sampling, n_answers=n_answers, decoding=decoding) if on_cpu else lm.writer
    answered = answer_all(
        model,
        lm.text_side(),
        items,
        prompts,
        judge,
        n_samples=cfg.n_samples,
        sampling=sampling,
        stop_ids=lm.stop_ids(),
        decoding=decoding,
    )
    named = "pass@1" if cfg.task == "code" else "exact_match"
    metrics = {named: [one.passes_at(1) for one in answered]}
    metrics |= {f"pass@{k}": [one.passes_at(k) for one in answered] for k in cfg.k if k > 1}
    rows = list(map(row_of_samples, answered))
    return Outcome(list(items), metrics, rows, sum(one.n_cut > 0 for one in answered), None)


def row_of_samples(one: Answered) -> dict[str, object]:
    samples = [
        {"text": said.text, "right": said.verdict.is_right, "reason": said.verdict.reason} for said in one.samples
    ]
    return {
        "where": one.item.where,
        "kind": one.item.kind,
        "question": one.item.question,
        "answer": one.item.answer,
        "samples": samples,
        "n_right": one.n_right,
        "n_cut": one.n_cut,
    }


def figures_of(cfg: TaskSettings, outcome: Outcome, n_shots: int) -> dict[str, Any]:
    """Every metric with its interval, over all and by kind."""
    kinds = sorted({item.kind for item in outcome.items})

    def of(kind: str | None) -> dict[str, Any]:
        mine = [i for i, item in enumerate(outcome.items) if kind in (None, item.kind)]
        return {name: estimate([values[i] for i in mine])._asdict() for name, values in outcome.metrics.items()}

    return {
        "task": cfg.task,
        "source": str(cfg.source) if cfg.source else "world",
        "n_items": len(outcome.items),
        "n_shots": n_shots,
        "n_samples": cfg.n_samples,
        "n_cut": outcome.n_cut,
        "chance": outcome.chance,
        **of(None),
        "kinds": {kind: of(kind) for kind in kinds} if len(kinds) > 1 else {},
    }


def print_task(figures: dict[str, Any], window: int) -> None:
    """The figures as a table, and what a reader has to know about them."""
    names = [name for name, value in figures.items() if isinstance(value, dict) and "value" in value]
    shots = f", {figures['n_shots']} worked examples" if figures["n_shots"] else ""
    samples = f", {figures['n_samples']} answers each" if figures["n_samples"] > 1 else ""
    plural = "" if figures["n_items"] == 1 else "s"
    print(f"{figures['task']}: {figures['n_items']:,} question{plural}{shots}{samples}; in brackets the 95 % interval")
    rows = [("", "n", names)]
    for kind, of in {"all": figures, **figures["kinds"]}.items():
        rows.append((kind, f"{of[names[0]]['n']:,}", [str(Estimate(**of[name])) for name in names]))
    width = max(len(kind) for kind, _, _ in rows)
    for kind, n, cells in rows:
        print(f"{kind:<{width}}  {n:>6}  {'  '.join(f'{cell:<24}' for cell in cells)}".rstrip())
    if figures["chance"] is not None:
        print(f"picking at random gets {figures['chance']:.1%}")
    if figures["n_cut"]:
        print(
            f"{figures['n_cut']:,} of the prompts are longer than the {window} tokens that the model reads; "
            "they lost their first tokens"
        )
