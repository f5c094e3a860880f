"""Fine-tuning does what it is for: ten answers are learned by heart, and real ones are answered better than before."""

import json
import os
from pathlib import Path

import pytest

import legollm
from legollm.data.chat import Message
from legollm.data.conversations import read_conversations
from legollm.training.metrics import read_rows
from walker import legollm as run

THINGS = ("key", "lamp", "mat", "box", "mill", "boat", "cat", "dog", "book", "coin")
MODEL = "model.arch=llama3 model.n_layers=1 model.n_heads=2 model.n_kv_heads=2 model.d_model=64"
LOOP = "train.precision=float32 train.log_every=1 train.save_every=0"


def base(folder: Path, text: str, *more: str) -> Path:
    (folder / "text.txt").write_text(text, encoding="utf-8")
    words = [f"data.source={folder / 'text.txt'}", f"run={folder / 'base'}", "tokenizer=bpe", *MODEL.split()]
    run("train", *words, "model.d_ff=128", *LOOP.split(), *more)
    return folder / "base"


@pytest.mark.parametrize("rows", ["padded", pytest.param("packed", marks=pytest.mark.slow)])
def test_ten_answers_are_learned_by_heart(tmp_path: Path, rows: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    chats = [
        {"prompt": f"Where is the {thing}?", "answer": f"{thing[::-1]} {i * 37 % 11}"} for i, thing in enumerate(THINGS)
    ]
    source = tmp_path / "chats.jsonl"
    source.write_text(
        "".join(json.dumps(chat) + "\n" for chat in chats * 2)
    )  # one of the twenty is kept for validation
    text = "Where is the key? In the box, under the mat. " * 60
    model = base(tmp_path, text, "tokenizer.vocab_size=300", "train.max_steps=1", "model.max_seq_len=64")
    words = [f"model={model}", f"data.source={source}", f"data.rows={rows}", f"run={tmp_path / 'sft'}", *LOOP.split()]
    size = {"padded": 10, "packed": 5}[rows]
    run("sft", *words, f"train.batch_size={size}", "train.max_steps=110", "train.eval_every=0", "optim.lr=0.006")
    losses = [row["loss"] for row in read_rows(tmp_path / "sft" / "metrics.jsonl") if "loss" in row]
    assert losses[-1] < 0.05
    lm = legollm.load(tmp_path / "sft", engine="torch")
    for chat in chats:
        prompt = lm.chat_prompt([Message("user", chat["prompt"])])
        assert lm.generate(prompt, temperature=0, max_new_tokens=30) == chat["answer"]


@pytest.mark.slow
def test_real_instructions_that_were_held_out_are_answered_better(tmp_path: Path, shared_data: Path) -> None:
    source = shared_data / "tasks" / "instruction-data.json"
    every = list(read_conversations(source))
    text = "\n\n".join("\n".join(message.content for message in chat) for chat in every[:1000])
    more = ["tokenizer.vocab_size=512", "train.max_steps=60", "train.seq_len=64", "model.max_seq_len=256"]
    model = base(tmp_path, text, *more, "optim.lr=0.003", "train.eval_every=0")
    words = [f"model={model}", f"data.source={source}", f"run={tmp_path / 'sft'}", *LOOP.split()]
    run(
        "sft",
        *words,
        "train.batch_size=8",
        "train.max_steps=30",
        "train.eval_every=10",
        "train.eval_batches=4",
        "optim.lr=0.002",
    )
    looks = [row["val_loss"] for row in read_rows(tmp_path / "sft" / "metrics.jsonl") if "val_loss" in row]
    assert looks[-1] < looks[0] - 0.1
