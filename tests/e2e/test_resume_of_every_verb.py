"""Every training verb: stopped at any step and started again with the same command, as if never stopped."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from legollm.checkpoints.manifest import steps
from legollm.cli import main
from legollm.commands import fit as fit_module
from legollm.training.metrics import read_rows
from legollm.training.train import TrainState
from legollm.training.train import train as loop

TINY = "n_layers=1 d_model=16 n_heads=2 d_ff=32 max_seq_len=32 dropout=0.1"
LOOP = "train.max_steps=9 train.batch_size=3 train.log_every=1 train.eval_every=4 train.save_every=3"
PAIRS = [{"source": f"say {word}", "target": word[::-1]} for word in ("one", "two", "three", "four", "five")] * 6
LABELS = [{"text": f"{label} day {i}", "label": label} for label in ("good", "bad") for i in range(40)]
TASKS = [
    {"prompt": "The cat sat on the mat, and"[: 3 + i], "answer": ".*[aeiou].*", "verifier": "pattern"}
    for i in range(20)
]
CHATS = [{"prompt": f"What is {i}?", "answer": f"A number, {i}."} for i in range(20)]

CHECKED = [
    {"question": f"What is {i}?", "answer": answer, "right": answer == "A number."}
    for i in range(30)
    for answer in ("A number.", "A word.")
]
COMPARED = [
    {"prompt": f"What is {i}?", "chosen": f"A number, {i}.", "rejected": "A word." * (i % 3 + 1)} for i in range(20)
]


def rows_to(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def model_words(*names: str) -> list[str]:
    return [f"model.{word}" for word in TINY.split() if word.split("=")[0] not in names]


def train_words(folder: Path) -> list[str]:
    text = folder / "text.txt"
    text.write_text("The cat sat on the mat, and the dog by the door. " * 40)
    return ["train", f"data.source={text}", "tokenizer=char", "model.arch=gpt2", *model_words("d_ff")]


def small_base(folder: Path) -> Path:
    """A model that has read a little."""
    base = folder / "base"
    if not base.exists():
        more = "tokenizer=bpe tokenizer.vocab_size=300 train.max_steps=1 train.precision=float32 model.max_seq_len=128"
        words = [word for word in train_words(folder) if word not in ("model.max_seq_len=32", "tokenizer=char")]
        assert main([*words, f"run={base}", *more.split()]) == 0
    return base


def sft_words(folder: Path) -> list[str]:
    return ["sft", f"model={small_base(folder)}", f"data.source={rows_to(folder / 'chats.jsonl', CHATS)}"]


def dpo_words(folder: Path) -> list[str]:
    """With the loss that needs most: answers to other prompts, too."""
    source = rows_to(folder / "pairs.jsonl", COMPARED)
    return ["dpo", f"model={small_base(folder)}", f"data.source={source}", "dpo.loss=kto", "n_answers=2"]


def reward_words(folder: Path) -> list[str]:
    return ["reward", f"model={small_base(folder)}", f"data.source={rows_to(folder / 'pairs.jsonl', COMPARED)}"]


def verifier_words(folder: Path) -> list[str]:
    source = rows_to(folder / "checked.jsonl", CHECKED)
    return ["verifier", "train", f"model={small_base(folder)}", f"data.source={source}"]


def lora_words(folder: Path) -> list[str]:
    return [
        *sft_words(folder),
        "lora.rank=2",
        "lora.kind=dora",
        "lora.dropout=0.1",
        "lora.quantize=int8",
        "optim.lr=0.01",
    ]


def dpo_with_adapters_words(folder: Path) -> list[str]:
    return [*dpo_words(folder), "lora.rank=2", "lora.dropout=0.1"]


def packed_words(folder: Path) -> list[str]:
    return [*sft_words(folder), "data.rows=packed", "data.template=plain", "train.seq_len=96"]


def continued_words(folder: Path) -> list[str]:
    base = next(word for word in sft_words(folder) if word.startswith("model="))
    text = next(word for word in train_words(folder) if word.startswith("data.source="))
    return ["train", f"start_from={base.removeprefix('model=')}", text, "freeze=embed"]


def base_words(folder: Path) -> list[str]:
    """A model and tasks; a rollout lasts four steps, so that a run is stopped in the middle of one."""
    base = folder / "base"
    if not base.exists():
        assert main([*train_words(folder), f"run={base}", "train.max_steps=20", "train.precision=float32"]) == 0
    source = rows_to(folder / "tasks.jsonl", TASKS)
    return [f"model={base}", f"data.source={source}", "sampler.max_new_tokens=5", "optim.lr=0.01"]


def grpo_words(folder: Path) -> list[str]:
    sizes = "grpo.n_prompts=3 grpo.group_size=2 grpo.epochs=2 grpo.kind=dapo grpo.beta=0.1 grpo.kl_target=0.1"
    return ["grpo", *base_words(folder), *sizes.split()]


def reinforce_words(folder: Path) -> list[str]:
    return ["grpo", *base_words(folder), "grpo.n_prompts=6", "grpo.group_size=1", "grpo.kind=reinforce"]


def ppo_words(folder: Path) -> list[str]:
    return ["ppo", *base_words(folder), "ppo.n_prompts=6", "lora.rank=2", "lora.dropout=0.1"]


def seq2seq_words(folder: Path) -> list[str]:
    source = rows_to(folder / "pairs.jsonl", PAIRS)
    return ["seq2seq", "train", f"data.source={source}", *model_words("n_layers")]


def classify_words(folder: Path) -> list[str]:
    source = rows_to(folder / "labels.jsonl", LABELS)
    return ["classify", "train", f"data.source={source}", "tokenizer=char", *model_words()]


VERBS: dict[str, Callable[[Path], list[str]]] = {
    "train": train_words,
    "sft": sft_words,
    "sft of packed rows": packed_words,
    "sft with adapters": lora_words,
    "train from a model": continued_words,
    "grpo": grpo_words,
    "grpo with a baseline": reinforce_words,
    "ppo with adapters": ppo_words,
    "dpo": dpo_words,
    "dpo with adapters": dpo_with_adapters_words,
    "reward": reward_words,
    "verifier": verifier_words,
    "seq2seq": seq2seq_words,
    "classify": classify_words,
}


def rows(folder: Path) -> list[dict[str, Any]]:
    return [
        {k: float.hex(v) if isinstance(v, float) else v for k, v in row.items() if k != "tokens_per_s"}
        for row in read_rows(folder / "metrics.jsonl")
    ]


SLOW = {"dpo with adapters"}


@pytest.mark.parametrize("verb", [pytest.param(v, marks=pytest.mark.slow) if v in SLOW else v for v in VERBS])
def test_stopped_and_started_again_equals_never_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    words = [*VERBS[verb](tmp_path), *LOOP.split(), "train.precision=float32"]
    assert main([*words, f"run={tmp_path / 'whole'}"]) == 0
    for stop in (2, 5, 9):  # in the last step there is nothing left to stop

        def stopping(*args: Any, state: TrainState, stop_at: int = stop, **more: Any) -> None:
            log = more.pop("log")

            def logged(step: int, **values: Any) -> None:
                log(step, **values)
                if step == stop_at:
                    os.kill(os.getpid(), signal.SIGTERM)

            loop(*args, state=state, log=logged, **more)

        monkeypatch.setattr(fit_module, "train", stopping)
        assert main([*words, f"run={tmp_path / 'parts'}"]) == (3 if stop < 9 else 0)
        assert next(iter(steps(tmp_path / "parts" / "checkpoints"))) == stop
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")
    whole, parts = (tmp_path / name / "checkpoint" for name in ("whole", "parts"))
    for name in (
        "adapter_model.safetensors" if verb.endswith("with adapters") else "model.safetensors",
        "optim.safetensors",
    ):
        assert (whole / name).read_bytes() == (parts / name).read_bytes(), name
