"""`legollm demo`: the whole walk on the built-in corpus, from text to a model that answers, with a report at the end.

Each stage leaves files in the run's folder and is skipped when they are there: a second call is quick, and one that was
interrupted goes on where it stopped.
"""

import json
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from legollm.alignment.plan import SamplerConfig
from legollm.architectures.qwen3 import Qwen3Config
from legollm.checkpoints.loading import Loaded, load
from legollm.commands.checkable import TaskConfig
from legollm.commands.grpo import GrpoRun, algorithm_of
from legollm.commands.layers_view import layers_section
from legollm.commands.material import Material, TokenizerConfig, TrainData, gather
from legollm.commands.reinforce import Learned, learn, loop
from legollm.commands.run_folder import open_run
from legollm.commands.sft import ConversationConfig, SftRun, as_messages, finetune
from legollm.commands.text_plot import plot
from legollm.commands.train import PRESETS as TRAIN_PRESETS
from legollm.commands.train import TrainRun, pretrain
from legollm.config import Resolved
from legollm.data import world
from legollm.data.readers import SourceOptions
from legollm.errors import ConfigError
from legollm.evaluation.baselines import lzma_bits_per_byte, ngram_loss, uniform_bits_per_byte
from legollm.evaluation.intervals import share
from legollm.evaluation.questions import Answered, Item, answer_all, scores
from legollm.evaluation.report import Chart, Curve, Section, write_report
from legollm.training.metrics import read_rows
from legollm.training.optim import OptimConfig
from legollm.training.train import TrainConfig
from legollm.whole_file import write_whole

NGRAM_ORDER = 4
ANSWERING: dict[str, Any] = {"final": world.final_answer, "stop": ("\nQ:",), "max_new_tokens": 100}
"""A story of a few sentences is read aloud before the answer; a base model would go on with a next question."""
OPENINGS = ("One morning,", "Mira", "It was")


@dataclass(frozen=True, kw_only=True)
class DemoRun:
    """The demo's parts; all of them can be changed, from the size of the corpus to the learning rate."""

    run: Path = Path("runs/demo")
    """The folder of the fine-tuned model and the report; the base model lies in pretrain/ below it."""
    seed: int = 1337
    """Decides everything that is random."""
    data: TrainData = field(default_factory=lambda: TrainData(read=SourceOptions(world_bytes=6_000_000)))
    tokenizer: TokenizerConfig = field(default_factory=lambda: TokenizerConfig(train_bytes=4_000_000))
    model: Qwen3Config = field(
        default_factory=lambda: Qwen3Config(
            d_head=64, max_seq_len=512, rope_theta=10_000.0, local_layers=(0,), window=4
        )
    )
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(name="muon", lr=5e-3, schedule="wsd", warmup_steps=30)
    )
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(max_steps=600, batch_size=8, seq_len=256, eval_every=200, save_every=200)
    )
    echo_steps: int = 250
    """First this many steps of lines of words, each said twice."""
    sft: SftRun = field(
        default_factory=lambda: SftRun(
            data=ConversationConfig(n_examples=6_000, n_turns=3),
            optim=OptimConfig(name="muon", lr=5e-3, schedule="wsd", warmup_steps=20, decay_fraction=0.6),
            train=TrainConfig(max_steps=500, batch_size=12, eval_every=250, save_every=250),
        )
    )
    grpo: GrpoRun = field(
        default_factory=lambda: GrpoRun(
            data=TaskConfig(kinds=tuple(world.KINDS), n_tasks=1_000, n_val=150),
            sampler=SamplerConfig(max_new_tokens=20),
            optim=OptimConfig(lr=1e-3, schedule="constant", warmup_steps=5, weight_decay=0.0),
            train=loop(max_steps=16, batch_size=256, log_every=2, eval_every=8, save_every=8),
        )
    )
    """The model that answers, rewarded for right answers of no more than 20 tokens."""
    n_questions: int = 300
    """Held-out questions the models are asked."""
    sample_tokens: int = 120
    """Length of the stories in the report."""

    def __post_init__(self) -> None:
        if self.data.mixture:
            raise ConfigError("data: mixture is for `legollm train`; the demo measures its levels on one text")


PRESETS = TRAIN_PRESETS


def demo(run: Resolved[DemoRun]) -> None:
    """Micro-world -> tokenizer -> pre-training -> fine-tuning -> evaluation -> rewards -> a page that shows it."""
    cfg = run.value
    start = time.perf_counter()
    base_run = TrainRun(
        run=cfg.run / "pretrain",
        seed=cfg.seed,
        data=cfg.data,
        tokenizer=cfg.tokenizer,
        model=cfg.model,
        optim=cfg.optim,
        train=cfg.train,
        echo_steps=cfg.echo_steps,
        prompt=OPENINGS[0],
    )
    print(
        f"legollm demo: {platform.python_implementation()} {platform.python_version()}, torch {torch.__version__}, "
        f"{os.cpu_count()} cores, {'GPU' if torch.cuda.is_available() else 'no GPU'}; folder {cfg.run}"
    )
    open_run(base_run.run, base_run, "auto")
    stage(1, "a world is simulated, narrated and cut into tokens")
    material = gather(cfg.data, cfg.tokenizer, base_run.run)
    levels = measured_levels(material, cfg, base_run.run / "levels.json")
    show_text(material)
    stage(2, "a model reads it")
    pretrain(base_run, title="pre-training", lines=levels)
    stage(3, "it learns to answer questions")
    sft_run = replace(cfg.sft, model=base_run.run, run=cfg.run, seed=cfg.seed)
    finetune(sft_run, title="fine-tuning")
    stage(4, "held-out questions, before and after")
    results = measured_results(cfg, base_run.run)
    show_scores(results)
    stage(5, "stories by the model")
    for text in results["stories"]:
        print(f"  {text}\n")
    stage(6, "it is rewarded for being right, in few words")
    rewarded = replace(cfg.grpo, model=cfg.run, run=cfg.run / "rewarded", seed=cfg.seed)
    learned = learn(rewarded, algorithm_of(rewarded))
    show_rewards(rewarded, learned)
    parts = [*sections(cfg, base_run.run, levels, results, material), rewards_section(rewarded)]
    parts.append(Section("What to try next", code=NEXT.format(run=cfg.run)))
    write_report(cfg.run / "report.html", "legollm demo", parts)
    print(f"report: {cfg.run / 'report.html'}   ({time.perf_counter() - start:.0f} s)")
    print(NEXT.format(run=cfg.run))


NEXT = """what to try next:
  legollm chat {run} temperature=0                        ask it about a story you make up
  legollm generate {run}/pretrain "One morning," seed=7   another story
  legollm config demo                                     everything that can be changed
  legollm train data.source=FILE preset=small             the same on a text of yours"""


def stage(number: int, title: str) -> None:
    print(f"\n[{number}/6] {title}", flush=True)


def measured_levels(material: Material, cfg: DemoRun, path: Path) -> dict[str, float]:
    """Bits per byte of the validation text under models that know nothing, repeat or count; and its entropy."""
    stamp = material.val.meta["stamp"]
    if known := written(path, stamp):
        return dict(known["levels"])
    val, n_bytes, vocab_size = material.val, material.val.n_bytes, material.tokenizer.vocab_size
    per_byte = len(val) / n_bytes / np.log(2)
    ids = val.ids[:].astype(np.int64)
    nats = ngram_loss(material.train.ids[:].astype(np.int64), ids, vocab_size=vocab_size, order=NGRAM_ORDER)
    levels = {
        "uniform": uniform_bits_per_byte(vocab_size, len(val), n_bytes),
        "lzma": lzma_bits_per_byte(material.tokenizer.decode_bytes(ids.tolist(), skip_special=True)),
        f"{NGRAM_ORDER}-gram": float(nats * per_byte),
        "entropy": world.describe(cfg.data.read.world_seed, 2000).bits_per_byte,
    }
    write(path, {"stamp": stamp, "levels": levels})
    return levels


def measured_results(cfg: DemoRun, base: Path) -> dict[str, Any]:
    """What both models answer to held-out questions, and stories by the base model; kept until a model changes."""
    path = cfg.run / "results.json"
    before, after = load(base), load(cfg.run)
    stamp = f"{manifest_of(before)} {manifest_of(after)} {cfg.seed} {cfg.n_questions} {cfg.sample_tokens}"
    if known := written(path, stamp):
        return known
    asked = held_out(cfg)
    kinds: dict[str, dict[str, Any]] = {}
    answered: list[Answered] = []
    for name, lm in {"before": before, "after": after}.items():
        tokenizer = lm.text_side()
        answered = answer_all(
            lm.writer, tokenizer, [item_of(lm, q) for q in asked], **ANSWERING, stop_ids=lm.stop_ids()
        )
        for steps, is_simple in {"one step": True, "more steps": False}.items():
            part = [one for one, q in zip(answered, asked, strict=True) if (q.steps == 1) == is_simple]
            for row in scores(part):
                kinds.setdefault(f"{steps}: {row.kind}", {"n": row.n, "chance": row.chance})[name] = row.share
    sampling: dict[str, Any] = {"temperature": 0.7, "max_new_tokens": cfg.sample_tokens, "seed": cfg.seed}
    results = {
        "stamp": stamp,
        "kinds": kinds,
        "examples": [
            {"question": one.item.question, "answer": one.item.answer, "said": one.said.strip(), "right": one.is_right}
            for one in answered[:: max(1, len(answered) // 12)]
        ],
        "stories": [opening + before.generate(opening, **sampling) for opening in OPENINGS],
    }
    write(path, results)
    return results


def written(path: Path, stamp: str) -> dict[str, Any]:
    """What an earlier call wrote from the same inputs; empty if it did not."""
    known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return known if known.get("stamp") == stamp else {}


def write(path: Path, value: Mapping[str, Any]) -> None:
    """At once: a killed process leaves the old file or the new one."""
    write_whole(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def manifest_of(lm: Loaded) -> str:
    """What tells one checkpoint from another."""
    manifest = json.loads((lm.folder / "manifest.json").read_text(encoding="utf-8"))
    return str(manifest["files"]["model.safetensors"]["sha256"])[:16]


def held_out(cfg: DemoRun) -> list[world.Question]:
    """Questions about stories that are in no training text: two thirds need one sentence, the others more."""
    n_simple = cfg.n_questions * 2 // 3
    plenty = 200 * cfg.n_questions  # about one story in twenty is held out
    simple = islice(world.questions(cfg.seed, 0, plenty, max_steps=1, split="val"), n_simple)
    others = (q for q in world.questions(cfg.seed, 0, plenty, split="val") if q.steps > 1)
    return [*simple, *islice(others, cfg.n_questions - n_simple)]


def item_of(lm: Loaded, question: world.Question) -> Item:
    """A question in the form that a model knows: a conversation after fine-tuning, plain text before."""
    tokenizer = lm.text_side()
    prompt = lm.chat_prompt(as_messages([question])[:1]) if lm.chat_template else tokenizer.encode(question.prompt)
    text = f"{question.context} {question.question}"
    return Item(prompt, text, question.answer, question.kind, 1 / len(question.candidates))


def show_text(material: Material) -> None:
    """What was made: sizes, the start of a document, and how it is cut."""
    train, val = material.train, material.val
    print(
        f"  {train.n_bytes / 1e6:.1f} MB in {len(train.document_starts):,} stories and conversations to learn from, "
        f"{val.n_bytes / 1e6:.1f} MB held out; {material.tokenizer.vocab_size:,} ids, "
        f"{train.n_bytes / len(train):.2f} bytes per token"
    )
    ids = train.ids[:48].tolist()
    pieces = [material.tokenizer.token_bytes(i).decode("utf-8", "replace").replace("\n", " ") for i in ids]
    print(f"  {'|'.join(pieces)} ...")


def show_scores(results: Mapping[str, Any]) -> None:
    print(f"  {'exact answers to':<34}{'n':>5}{'by chance':>11}{'before':>9}{'after':>9}")
    for kind, row in results["kinds"].items():
        print(f"  {kind:<34}{row['n']:>5}{row['chance']:>11.0%}{row['before']:>9.0%}{row['after']:>9.0%}")


def show_rewards(cfg: GrpoRun, learned: Learned) -> None:
    """How rewards and held-out answers went; whether that is more than luck is for the reader to see."""
    for line in plot(reward_curves(cfg), height=8, x_label="steps"):
        print(f"  {line}")
    print(f"  held-out questions of all kinds, answered right in at most {cfg.sampler.max_new_tokens} tokens:")
    for when, right in (("before", learned.before), ("after", learned.after)):
        print(f"    {when:7} {share(round(right * learned.n_held_out), learned.n_held_out)}")


def reward_curves(cfg: GrpoRun) -> dict[str, list[tuple[float, float]]]:
    rows = read_rows(cfg.run / "metrics.jsonl")
    names = {"reward": "mean reward of sampled answers", "val_accuracy": "held-out questions answered right"}
    return {text: [(row["step"], row[name]) for row in rows if name in row] for name, text in names.items()}


def rewards_section(cfg: GrpoRun) -> Section:
    return Section(
        "Rewarded for being right, in few words",
        f"{cfg.grpo.kind.upper()}: {cfg.grpo.group_size} answers to each of {cfg.grpo.n_prompts} questions a step, of "
        f"no more than {cfg.sampler.max_new_tokens} tokens; the right ones become likelier. Reading aloud at length "
        "does not pay here. Held-out questions are answered greedily, within the same length.",
        Chart(
            "reward and held-out accuracy",
            "step",
            "share",
            [Curve(name, points) for name, points in reward_curves(cfg).items()],
        ),
    )


def sections(
    cfg: DemoRun, base: Path, levels: Mapping[str, float], results: Mapping[str, Any], material: Material
) -> list[Section]:
    """The report: how the loss fell, how the samples changed, what is answered, what was said."""
    rows = read_rows(base / "metrics.jsonl")
    to_bits = 1 / np.log(2) / material.bytes_per_token
    train_curve = [(row["tokens"] / 1e6, row["loss"] * to_bits) for row in rows if "tokens" in row]
    tokens_at = {row["step"]: row["tokens"] / 1e6 for row in rows if "tokens" in row}
    val_curve = [(tokens_at[r["step"]], r["val_bpb"]) for r in rows if "val_bpb" in r and r["step"] in tokens_at]
    samples = [(f"step {row['step']}", str(row["sample"])) for row in rows if "sample" in row]
    last: dict[str, Any] = next((row for row in reversed(rows) if "val_bpb" in row), {})
    kinds = [
        (kind, row["n"], f"{row['chance']:.0%}", f"{row['before']:.0%}", f"{row['after']:.0%}")
        for kind, row in results["kinds"].items()
    ]
    said = [
        (one["question"], one["answer"], one["said"], "right" if one["right"] else "wrong")
        for one in results["examples"]
    ]
    return [
        Section(
            "How well it reads",
            f"Bits per byte of held-out stories: {last.get('val_bpb', float('nan')):.3f} at the end. The dashed lines "
            "are the same text under a model that knows nothing, a general compressor, and a model that counts; the "
            "lowest is an upper bound of the entropy of the generator that wrote the text, which no model can beat by "
            "more than luck.",
            Chart(
                "bits per byte",
                "million tokens read",
                "bits per byte",
                [Curve("training", train_curve), Curve("held out", val_curve)],
                levels,
            ),
        ),
        *layers_section(rows),
        Section("From noise to sentences", "The same opening, the same luck, as training went on.", rows=samples),
        Section(
            "Questions about stories it has never seen",
            "Exact answers. Chance is picking one of the answers the story makes plausible.",
            header=("kind", "questions", "chance", "before fine-tuning", "after"),
            rows=kinds,
        ),
        Section("What it said", header=("question", "answer", "the model", ""), rows=said),
        Section("Stories by the model", rows=[(story,) for story in results["stories"]]),
    ]
