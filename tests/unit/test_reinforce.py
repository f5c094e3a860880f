"""The commands that learn from rewards: tasks from everywhere, runs that end early, and what they leave behind."""

import json
from pathlib import Path
from typing import Any

import pytest

from legollm.architectures import ARCHITECTURES
from legollm.checkpoints.loading import load
from legollm.checkpoints.state import save_model
from legollm.cli import load_verb, main, resolve_verb
from legollm.commands.checkable import TaskConfig, encoded, judge_of, tasks_of
from legollm.commands.grpo import algorithm_of
from legollm.data.world import Task
from legollm.errors import ConfigError, ContextError, DataError
from legollm.tokenizers import CharTokenizer, RegexBPETokenizer
from legollm.training.metrics import read_rows

SUMS = [{"prompt": f"{a}+{b}=", "answer": str(a + b), "verifier": "number"} for a in range(5) for b in range(5)]
LOOP = "train.max_steps=6 train.batch_size=16 train.log_every=1 train.eval_every=3 train.save_every=0 optim.lr=0.02"
SMALL = f"grpo.n_prompts=4 grpo.group_size=4 sampler.max_new_tokens=2 {LOOP}"


def file_of(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def base(tmp_path: Path) -> Path:
    tokenizer = CharTokenizer()
    tokenizer.train("0123456789+=\n")
    row = ARCHITECTURES["llama3"]
    cfg = row.config(vocab_size=tokenizer.vocab_size, max_seq_len=12, n_layers=1, n_heads=2, d_model=16, d_ff=32)
    save_model(tmp_path / "base", row.build(cfg, 1), "llama3", cfg, tokenizer)
    return tmp_path / "base"


def words(verb: str, base: Path, more: str = SMALL) -> list[str]:
    source = file_of(base.parent / "sums.jsonl", SUMS)
    return [verb, f"model={base}", f"data.source={source}", f"run={base.parent / 'run'}", *more.split()]


def test_a_run_leaves_figures_a_report_and_a_model(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words("grpo", base)) == 0
    rows = read_rows(base.parent / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows if "val_accuracy" in row] == [0, 3, 6]
    wanted = {"reward", "kl", "entropy", "answer_tokens", "clip_fraction", "dead_groups", "cut_off", "logprob_gap"}
    for row in rows:
        assert "loss" not in row or (wanted <= row.keys() and row["logprob_gap"] < 1e-4)
    page = (base.parent / "run" / "report.html").read_text()
    assert page.count("<svg") == 8
    for title in ("Divergence from the reference", "Held-out prompts", "Answers at the end", "expected"):
        assert title in page
    assert "held-out prompts: " in capsys.readouterr().out
    assert load(base.parent / "run").generate("1+1=", max_new_tokens=2, temperature=0)


@pytest.mark.parametrize("verb", ["grpo", "ppo"])
def test_a_model_that_went_too_far_ends_the_run(verb: str, base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = f"{verb}.n_prompts=4 {verb}.group_size=4 sampler.max_new_tokens=2 {LOOP} optim.lr=0.5 {verb}.kl_limit=0.01"
    command = words(verb, base, sizes.replace("max_steps=6", "max_steps=50"))
    for _ in range(2):  # the same command again has nothing to add
        assert main(command) == 0
        (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("ended at step")]
        assert "and kl_limit is 0.01; a larger beta" in line
        rows = read_rows(base.parent / "run" / "metrics.jsonl")
        last = rows[-1]["step"]
        assert last < 50
        assert [row["step"] for row in rows if "val_accuracy" in row].count(last) == 1


def test_what_the_names_of_algorithms_mean() -> None:
    def of(*words: str) -> Any:
        return algorithm_of(resolve_verb(load_verb("grpo"), list(words)).value)

    assert of().average == "answer"
    assert of("grpo.kind=dapo").cfg.clip_high == 0.28
    assert of("grpo.kind=dapo", "grpo.clip_high=0.3").cfg.clip_high == 0.3
    assert (of("grpo.kind=dapo").plan.extra_rounds, of("grpo.kind=dapo").plan.mask_overlong) == (3, True)
    assert (of("grpo.kind=dapo", "grpo.extra_rounds=0").plan.extra_rounds, of().plan.extra_rounds) == (0, 0)
    assert of("grpo.kind=rloo").plan.kl_in_reward
    assert not of("grpo.kind=dr_grpo").plan.kl_in_reward


def test_tasks_of_the_world_by_kind_and_difficulty() -> None:
    cfg = TaskConfig(source="world:add", difficulty=2, n_tasks=300, n_val=40)
    train, val = tasks_of(cfg)
    assert (len(train), len(val)) == (300, 40)
    assert all(task.prompt.startswith("Q: What is ") and " + " in task.prompt for task in train + val)
    assert not {task.key for task in train} & {task.key for task in val}
    mixed, _ = tasks_of(TaskConfig(kinds=("parity", "who-has"), n_tasks=60, n_val=2))
    is_sum = ["even or odd" in task.prompt for task in mixed]
    assert 15 < sum(is_sum) < 45
    with pytest.raises(ConfigError, match="there is no 'ad'"):
        tasks_of(TaskConfig(source="world:ad"))
    with pytest.raises(ConfigError, match="difficulty: 4 is none of 1, 2, 3"):
        tasks_of(TaskConfig(difficulty=4))


def test_tasks_of_a_file_are_split_by_their_prompts(tmp_path: Path) -> None:
    path = file_of(tmp_path / "sums.jsonl", SUMS)
    train, val = tasks_of(TaskConfig(source=str(path), val_fraction=0.2))
    assert (len(train), len(val)) == (20, 5)
    turned = file_of(tmp_path / "turned.jsonl", SUMS[::-1] + SUMS)  # order and doubles do not matter
    assert tasks_of(TaskConfig(source=str(turned), val_fraction=0.2)) == (train, val)
    with pytest.raises(DataError, match="1 prompt; one to learn from"):
        tasks_of(TaskConfig(source=str(file_of(tmp_path / "one.jsonl", SUMS[:1]))))


def test_prompts_as_text_or_as_a_conversation() -> None:
    task = Task("Who?", "me", "exact", "Who?")
    tokenizer = RegexBPETokenizer()
    tokenizer.train("Who? user assistant", vocab_size=300, special_tokens=["<|im_start|>", "<|im_end|>"])
    assert encoded([task], tokenizer, None, 9) == [tokenizer.encode("Who?")]
    template = "{% for m in messages %}<|im_start|>{{ m.role }} {{ m.content }}<|im_end|>{% endfor %}<|im_start|>"
    (ids,) = encoded([task], tokenizer, template, 99)
    assert tokenizer.decode(ids) == "<|im_start|>user Who?<|im_end|><|im_start|>"
    with pytest.raises(ContextError, match=r"starts with 'Who\?' has \d+ tokens, .* room for 2"):
        encoded([task], tokenizer, template, 2)


def test_each_task_names_its_judge() -> None:
    judge = judge_of([Task("1+1=", "2", "number", ""), Task("Say a", "a", "exact", "")])
    assert [judge(0, " 2.0"), judge(0, "3"), judge(1, "A."), judge(1, "b")] == [1.0, 0.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ("grpo.group_size=1", "group_size: grpo needs at least 2"),
        ("train.batch_size=7", "do not divide the 16 of a rollout"),
        ("sampler.max_new_tokens=12", "leaves no room in the 12 of the model"),
        ("sampler.top_k=5", "sampler.top_k: no such setting"),
        ("grpo.kl_target=1", "kl_target: moves beta, which starts at 0"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    more: str, complaint: str, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words("grpo", base), *more.split()]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert complaint in error
