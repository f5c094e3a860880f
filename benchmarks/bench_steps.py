"""What it brings to judge steps: the same answers, half of them with one wrong step, judged whole and step by step.

A small model reads right answers to sums, letters and chains of true and false with their steps. From it two verifiers
are trained on the same answers: one is told of each answer whether it is right, the other of each step. Both judge
answers to 500 questions that neither has seen.

    python benchmarks/bench_steps.py [FOLDER]
"""

import contextlib
import io
import json
import sys
import tempfile
from itertools import islice
from pathlib import Path

from legollm.alignment.judges import TrainedVerifier
from legollm.alignment.steps import StepVerifier
from legollm.checkpoints.loading import load
from legollm.cli import main
from legollm.data import world
from legollm.evaluation.intervals import auc, share

BASE = """
    tokenizer=byte model.arch=llama3 model.n_layers=2 model.n_heads=4 model.n_kv_heads=4 model.d_model=64
    model.d_ff=256 model.max_seq_len=160 train.seq_len=128 train.max_steps=1200 train.batch_size=16
    train.eval_every=1200 train.save_every=1200 optim.lr=3e-3
"""
JUDGE = "train.max_steps=800 train.batch_size=16 train.eval_every=800 train.save_every=800 optim.lr=1e-3"


def run(*words: str) -> str:
    """What a command prints; it has to succeed."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        status = main([word for part in words for word in part.split()])
    assert status == 0, words
    return printed.getvalue()


def measure(folder: Path) -> None:
    text, answers, steps = (folder / name for name in ("right.jsonl", "answers.jsonl", "steps.jsonl"))
    right = (one for one in world.chains(1, 0, 40_000, split="train") if False not in one.labels)
    text.write_text("".join(json.dumps({"text": "\n".join((one.question, *one.steps))}) + "\n" for one in right))
    chosen = list(islice(world.chains(0, 0, 20_000, split="train"), 6000))
    rows = [{"question": one.question, "steps": one.steps, "labels": one.labels} for one in chosen]
    steps.write_text("".join(json.dumps(row) + "\n" for row in rows))
    whole = [
        {"question": one.question, "answer": "\n".join(one.steps), "right": False not in one.labels} for one in chosen
    ]
    answers.write_text("".join(json.dumps(row) + "\n" for row in whole))
    base = folder / "base"
    run("train", f"data.source={text} run={base}", BASE)
    run("verifier train", f"data.source={answers} model={base} run={folder / 'outcome'}", JUDGE)
    printed = run("verifier train kind=process", f"data.source={steps} model={base} run={folder / 'process'}", JUDGE)
    print(*(line for line in printed.splitlines() if line.startswith("held-out")), sep="\n", flush=True)
    new = list(islice(world.chains(0, 0, 40_000, split="val"), 500))
    labels = [False not in one.labels for one in new]
    process = load(folder / "process")
    judges = {
        "whole answers": TrainedVerifier(load(folder / "outcome")),
        "steps, product": StepVerifier(process, "product"),
        "steps, smallest": StepVerifier(process, "min"),
    }
    for name, judge in judges.items():
        scores = [judge(one.question, "\n".join(one.steps)).score for one in new]
        agrees = sum((score >= 0.5) == label for score, label in zip(scores, labels, strict=True))
        print(f"{name:<16}AUC {auc(scores, labels):.3f}, judged as they are {share(agrees, len(new))}", flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as made:
            measure(Path(made))
