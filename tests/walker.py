"""The command line in this process, as the tests of whole walks use it."""

import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from legollm.cli import main
from legollm.data import world


class Said(NamedTuple):
    """What one command line gave."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def legollm(*words: str, given: str = "", status: int = 0) -> Said:
    """Run one command line in the current folder, `given` on its standard input; errors must be one line."""
    out, err = io.StringIO(), io.StringIO()
    streams = contextlib.redirect_stdout(out), contextlib.redirect_stderr(err)
    with streams[0], streams[1], mock.patch.object(sys, "stdin", io.StringIO(given)):
        found = main(words)
    said = Said(found, out.getvalue(), err.getvalue())
    assert found == status, said
    if status:
        assert said.err.startswith("legollm: ")
        assert said.err.count("\n") == 1
    return said


SIZES = {"n_layers": 1, "n_heads": 2, "n_kv_heads": 1, "d_model": 32, "d_head": 16, "d_ff": 64}
STEPS = {"max_steps": 8, "save_every": 4, "eval_every": 4, "eval_batches": 2, "log_every": 2, "batch_size": 4}
MODEL = [f"model.{key}={value}" for key, value in SIZES.items()]
LOOP = [*(f"train.{key}={value}" for key, value in STEPS.items()), "train.precision=float32", "optim.warmup_steps=2"]


def write_texts(folder: Path) -> None:
    """book.txt, and conversations in both shapes."""
    (folder / "book.txt").write_text("".join(world.corpus(1, 40_000, "train")), encoding="utf-8")
    asked = [(f"Where is number {i}?", f"in box {i}") for i in range(12)]
    short: list[dict[str, Any]] = [{"prompt": question, "answer": answer} for question, answer in asked]
    long: list[dict[str, Any]] = [
        {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}
        for question, answer in asked
    ]
    for name, rows in {"answers.jsonl": short, "messages.jsonl": long}.items():
        (folder / name).write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def train_base(folder: Path) -> None:
    """tok.json, data/book and runs/base, from book.txt, with the command line alone."""
    write_texts(folder)
    legollm("tokenizer", "train", "book.txt", "tokenizer.vocab_size=320", "out=tok.json")
    legollm("data", "prepare", "book.txt", "tokenizer=tok.json", "folder=data/book")
    legollm("train", "data.prepared=data/book", "run=runs/base", "model.max_seq_len=96", *MODEL, *LOOP)
