"""`legollm demo post` at toy scale: every stage leaves its folder and a row, and nothing is done twice."""

import json
from pathlib import Path

import pytest

from legollm.cli import main
from legollm.commands import demo_post
from legollm.commands.checkable import TaskConfig
from legollm.commands.demo_post_table import Row, spelled, summary
from legollm.evaluation.intervals import mean_interval

Capture = pytest.CaptureFixture[str]
MODEL = ["n_layers=1", "d_model=32", "n_heads=2", "n_kv_heads=1", "d_head=16", "d_ff=64"]
WORDS = [
    "n_questions=6",
    "n_sampled=250",
    "n_judged=150",
    "numbers.train.max_steps=60",
    "numbers.train.batch_size=16",
    "base.data.read.world_bytes=200_000",
    "base.tokenizer.vocab_size=1200",
    "base.tokenizer.train_bytes=200_000",
    "base.train.seq_len=64",
    "base.echo_steps=0",
    *(f"base.model.{word}" for word in MODEL),
    *(f"sums.model.{word}" for word in MODEL),
    "sums.train.max_steps=60",
    "sums.optim.lr=1e-2",
    "sums.optim.warmup_steps=5",
    "taught.train.max_steps=40",
    "taught.optim.lr=5e-3",
    "sft.data.n_examples=40",
    "dpo.n_answers=2",
    "grpo.grpo.n_prompts=4",
    "grpo.grpo.extra_rounds=0",
    "grpo.grpo.group_size=2",
    "grpo.train.batch_size=8",
    "ppo.ppo.n_prompts=8",
    "ppo.train.batch_size=8",
    *(f"{stage}.train.max_steps=2" for stage in ("base", "sft", "dpo", "grpo", "ppo", "verifier")),
    *(f"{stage}.train.batch_size=2" for stage in ("sft", "dpo")),
    *(f"{stage}.data.n_val=4" for stage in ("sft", "taught")),
]


@pytest.mark.slow
def test_every_stage_has_a_row_and_is_done_once(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_post, "NUMBERS", TaskConfig(source="world:larger", difficulty=1))  # sooner half right
    for name in ("N_WRITTEN", "N_READ"):
        monkeypatch.setattr(demo_post, name, 3_000)
    words = ["demo", "post", f"run={tmp_path}", "seeds=2", *WORDS]
    assert main(words) == 0
    table = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    stages = [row["stage"] for row in table[0]]
    assert stages[:8] == [
        *(f"stories: {stage}" for stage in ("base", "sft")),
        *(f"sums: {stage}" for stage in ("base", "taught", "dpo", "grpo", "ppo", "taught, one try")),
    ]
    assert stages[10:12] == ["numbers: base", "numbers: verifier"]
    assert [[row["stage"] for row in rows] for rows in table] == [stages, stages]
    assert all(0 <= row["right"] <= 1 for rows in table for row in rows if row["right"] is not None)
    tries = {row["stage"]: row["right"] for row in table[0]}
    assert tries["sums: taught, 4 tries, each checked"] >= tries["sums: taught, one try"]
    assert "95 % interval" in (tmp_path / "report.html").read_text(encoding="utf-8")
    capsys.readouterr()
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("model.safetensors")}
    assert len(times) >= 17  # one base, and eight models of either seed
    assert main(words) == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("model.safetensors")} == times
    again = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert [[row["right"] for row in rows] for rows in again] == [[row["right"] for row in rows] for rows in table]


def test_the_interval_of_a_mean_is_student_s() -> None:
    assert mean_interval([0.5]) == (0.5, 0.0)
    mean, half = mean_interval([1.0, 2.0, 3.0])
    assert (mean, half) == (2.0, pytest.approx(4.303 / 3**0.5))
    many = [0.0, 1.0] * 15
    assert mean_interval(many)[1] == pytest.approx(2.045 * (30 / 29 / 4) ** 0.5 / 30**0.5, rel=2e-3)


def test_a_row_of_the_table_is_the_mean_over_seeds() -> None:
    table = [[Row("a", 0.25, 60.0, "x"), Row("b")], [Row("a", 0.75, 120.0, "y"), Row("b")]]
    assert summary(table) == [("a", "50.0% +- 317.6", "1.5", "y"), ("b", "", "", "")]
    assert spelled([0.5]) == "50.0%"
