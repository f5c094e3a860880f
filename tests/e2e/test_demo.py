"""`legollm demo` at toy scale: every stage leaves what the next needs, nothing is done twice, nothing is lost."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import legollm as package
from legollm.data.chat import Message
from legollm.training.metrics import read_rows
from walker import Said, legollm

SIZES = {"n_layers": 1, "n_heads": 2, "n_kv_heads": 1, "d_model": 32, "d_head": 16, "d_ff": 64, "max_seq_len": 1024}
STEPS = {"max_steps": 6, "save_every": 3, "eval_every": 3, "eval_batches": 2, "log_every": 1, "batch_size": 4}
SFT = {
    "train.max_steps": 3,
    "train.batch_size": 4,
    "train.precision": "float32",
    "data.n_examples": 48,
    "data.n_val": 6,
}
GRPO = {
    "data.kinds": "[who-has]",
    "data.n_tasks": 8,
    "data.n_val": 4,
    "grpo.n_prompts": 2,
    "grpo.group_size": 2,
    "sampler.max_new_tokens": 4,
    "train.max_steps": 2,
    "train.batch_size": 4,
}
WORDS = [
    "demo",
    "data.read.world_bytes=120000",
    "tokenizer.vocab_size=400",
    "tokenizer.train_bytes=60000",
    *(f"model.{key}={value}" for key, value in SIZES.items()),
    *(f"train.{key}={value}" for key, value in STEPS.items()),
    "train.seq_len=64",
    "train.precision=float32",
    *(f"sft.{key}={value}" for key, value in SFT.items()),
    *(f"grpo.{key}={value}" for key, value in GRPO.items()),
    "n_questions=9",
    "sample_tokens=8",
]
PATIENCE_S = 600  # only so that a hang ends


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Said]:
    folder = tmp_path_factory.mktemp("demo") / "мой первый run"
    folder.mkdir()
    with contextlib.chdir(folder):
        yield legollm(*WORDS)


def test_all_six_stages_are_told(first: Said) -> None:
    assert [f"\n[{i}/6] " in first.out for i in range(1, 7)] == [True] * 6
    assert "step 6/6" in first.out
    assert "step 3/3" in first.out
    assert "report: runs/demo/report.html" in first.out
    assert first.err == ""


def test_files_of_a_run(first: Said) -> None:
    results = json.loads(Path("runs/demo/results.json").read_text(encoding="utf-8"))
    assert len(results["stories"]) == 3
    assert sum(row["n"] for kind, row in results["kinds"].items() if not kind.endswith(": all")) == 9
    assert all(0 <= row[name] <= 1 for row in results["kinds"].values() for name in ("chance", "before", "after"))
    levels = json.loads(Path("runs/demo/pretrain/levels.json").read_text(encoding="utf-8"))["levels"]
    assert levels["uniform"] > levels["4-gram"] > levels["entropy"] > 0
    page = Path("runs/demo/report.html").read_text(encoding="utf-8")
    assert "<svg" in page
    assert page.count("<polyline") == 4
    for section in (
        "How well it reads",
        "From noise to sentences",
        "What it said",
        "Stories by the model",
        "Rewarded for",
    ):
        assert section in page


def test_a_second_call_does_nothing(first: Said) -> None:
    tracked = [path for path in Path("runs/demo").rglob("*") if path.is_file() and path.name != "config.yaml"]
    before = {path: path.stat().st_mtime_ns for path in tracked if path.suffix in (".bin", ".safetensors")}
    results = Path("runs/demo/results.json").read_bytes()
    again = legollm(*WORDS)
    assert "step 6/6" not in again.out
    assert "step 3/3" not in again.out
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert Path("runs/demo/results.json").read_bytes() == results
    shared = [line for line in first.out.splitlines() if line.startswith("  ") and "sample:" not in line]
    assert [line for line in again.out.splitlines() if line.startswith("  ")] == shared


def test_what_comes_next_as_the_demo_says(first: Said) -> None:
    told = first.out[first.out.index("what to try next:") :]
    assert "legollm chat runs/demo temperature=0" in told
    assert legollm("chat", "runs/demo", "temperature=0", "max_new_tokens=3", given="Who?\n").out != ""
    assert legollm("generate", "runs/demo/pretrain", "One morning,", "seed=7", "max_new_tokens=3").out != ""
    assert "world_bytes" in legollm("config", "demo").out


def test_transformers_opens_both_models_and_agrees(first: Said) -> None:
    transformers = pytest.importorskip("transformers")
    for folder in ("runs/demo/pretrain/checkpoint", "runs/demo/checkpoint"):
        lm = package.load(folder)
        theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        text = "One morning, Mira put the key in the box."
        ids = lm.text_side().encode(text)
        assert tokenizer.encode(text) == ids
        tokens = torch.tensor([ids])
        with torch.no_grad():
            torch.testing.assert_close(lm.model(tokens), theirs(tokens).logits, rtol=1e-5, atol=1e-5)
    turns = [
        {"role": "user", "content": text},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "?"},
    ]
    rendered = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    assert tokenizer.encode(rendered) == lm.chat_prompt([Message(**turn) for turn in turns])
    assert theirs.generation_config.eos_token_id == lm.text_side().special_tokens["<|im_end|>"]


@pytest.mark.slow
def test_control_c_during_pretraining_and_the_same_command_again(tmp_path: Path, first: Said) -> None:
    """The run that was interrupted ends with the weights and the answers of the one that was not."""
    path = os.pathsep.join([str(Path(__file__).parents[2] / "src"), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}

    def start(folder: str) -> "subprocess.Popen[str]":
        words = [*WORDS, "train.max_steps=150", f"run={tmp_path / folder}"]
        call = [sys.executable, "-m", "legollm", *words]
        return subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)

    metrics = tmp_path / "stopped" / "pretrain" / "metrics.jsonl"
    process = start("stopped")
    deadline = time.monotonic() + PATIENCE_S
    while process.poll() is None and time.monotonic() < deadline and len(read_rows(metrics)) < 20:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 3, said
    assert said.startswith("legollm: SIGINT at step ")
    assert said.count("\n") == 1
    process = start("stopped")
    out, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, said
    assert "continuing " in out
    process = start("whole")
    process.communicate(timeout=PATIENCE_S)
    losses = [
        [row["loss"] for row in read_rows(tmp_path / name / "pretrain" / "metrics.jsonl") if "loss" in row]
        for name in ("stopped", "whole")
    ]
    assert len(losses[0]) == 150
    assert losses[0] == losses[1]
    for file in ("pretrain/checkpoint/model.safetensors", "checkpoint/model.safetensors", "results.json"):
        assert (tmp_path / "stopped" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
