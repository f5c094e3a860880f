"""What fine-tuning brings a small model on real instructions, and whether it learns ten answers by heart.

A model of about a million weights reads a text, then learns from 1,100 instructions with their answers (a .json list of
`instruction`, `input`, `output`), of which 50 are held out; then from ten of them alone until it can recite them.

    python benchmarks/bench_sft.py INSTRUCTIONS.json TEXT [FOLDER]
"""

import contextlib
import io
import json
import sys
import tempfile
from pathlib import Path

import legollm
from legollm.cli import main
from legollm.data.conversations import read_conversations
from legollm.training.metrics import read_rows

BASE = """
    tokenizer=bpe tokenizer.vocab_size=1024 model.arch=llama3 model.n_layers=4 model.n_heads=4 model.n_kv_heads=4
    model.d_model=128 model.d_ff=384 model.max_seq_len=256 train.seq_len=128 train.batch_size=16 train.max_steps=600
    train.eval_every=0 train.save_every=0 optim.lr=2e-3
"""
SFT = "train.batch_size=8 train.max_steps=260 train.eval_every=130 train.save_every=0 optim.lr=1e-3 data.n_val=50"
TEN = "train.batch_size=10 train.max_steps=150 train.eval_every=0 train.save_every=0 optim.lr=2e-3 data.n_val=1"


def run(*words: str) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        status = main([word for part in words for word in part.split()])
    assert status == 0, words


def measure(instructions: Path, text: Path, folder: Path) -> None:
    base, tuned, ten = (folder / name for name in ("base", "tuned", "ten"))
    run("train", f"data.source={text} run={base}", BASE)
    n = sum(tensor.numel() for tensor in legollm.load(base).model.parameters())
    print(f"base: {n:,} weights, {sum(1 for _ in read_conversations(instructions)):,} instructions", flush=True)
    learn = f"model={base} data.source={instructions}"
    run("sft", learn, f"run={folder / 'before'}", f"{SFT} train.max_steps=1 optim.lr=1e-12")  # moves nothing
    run("sft", learn, f"run={tuned}", SFT)
    for name, path in {"before": folder / "before", "after": tuned}.items():
        *_, loss = (row["val_loss"] for row in read_rows(path / "metrics.jsonl") if "val_loss" in row)
        print(f"{name + ':':<8}{loss:.3f} nats per token of 50 held-out answers", flush=True)
    chosen = [chat for chat in read_conversations(instructions) if len(chat[-1].content) < 60][:10]
    source = folder / "ten.jsonl"
    rows = [{"messages": [{"role": turn.role, "content": turn.content} for turn in chat]} for chat in chosen]
    source.write_text("".join(json.dumps(row) + "\n" for row in [*rows, *rows]), encoding="utf-8")  # one is held out
    run("sft", f"model={base} data.source={source} run={ten}", TEN)
    losses = [row["loss"] for row in read_rows(ten / "metrics.jsonl") if "loss" in row]
    lm = legollm.load(ten, engine="torch")
    n_same = sum(
        lm.generate(lm.chat_prompt(chat[:-1]), temperature=0, max_new_tokens=80) == chat[-1].content for chat in chosen
    )
    print(f"ten alone: {losses[0]:.3f} -> {losses[-1]:.4f} nats per token, {n_same} of 10 answers word for word")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        measure(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]) if len(sys.argv) > 3 else Path(made))
