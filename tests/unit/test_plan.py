"""`legollm plan`: the words of train, and figures that can be checked by hand."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from legollm.architectures import build
from legollm.cli import main
from legollm.commands import plan
from legollm.commands.plan import count, size
from legollm.evaluation.cost import cost_of
from legollm.evaluation.peak import Peak
from legollm.generation.cache import FullCache
from legollm.training.optim import OptimConfig, build_optimizer, optimizer_tensors

EXACT = ("train.precision=float32", "train.device=cpu")

Capture = pytest.CaptureFixture[str]


PEAKS: dict[str, Peak] = {}
"""By all that decides them."""


@pytest.fixture(autouse=True)
def _each_peak_is_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    find = plan.peak_at

    def known(cfg: plan.PlanRun, n_rows: int, precision: str, model: Any = None) -> Peak:
        key = f"{cfg.model} {model} {cfg.optim.name} {cfg.train.seq_len} {cfg.train.grad_accum} {n_rows} {precision}"
        key += f" {cfg.lora} {cfg.freeze}"
        if key not in PEAKS:
            PEAKS[key] = find(cfg, n_rows, precision, model)
        return PEAKS[key]

    monkeypatch.setattr(plan, "peak_at", known)


def planned(capsys: Capture, *words: str) -> dict[str, Any]:
    assert main(["plan", *words, *EXACT, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_gpt2_is_as_large_as_published(capsys: Capture) -> None:
    figures = planned(capsys, "model.preset=gpt2", "train.seq_len=8")
    assert figures["parameters"] == {
        "total": 124_439_808,
        "active": 124_439_808,
        "looked_up": 1024 * 768,
        "trained": 124_439_808,
    }
    assert figures["weights_bytes"]["float32"] == 4 * 124_439_808
    assert figures["kv_bytes_per_token"] == {"float32": 4 * 2 * 12 * 768, "bfloat16": 2 * 2 * 12 * 768}
    assert figures["flops_per_token"]["rule_6n"] == 6 * (124_439_808 - 1024 * 768)
    assert figures["flops_per_token"]["attention"] == 12 * 2 * 2 * 8 * 768


@pytest.mark.parametrize("words", [["lora.rank=2"], ["lora.rank=2", "lora.quantize=int4"], ["freeze=embed,blocks.0"]])
def test_only_what_learns_has_gradients_and_is_remembered(capsys: Capture, words: list[str]) -> None:
    whole = planned(capsys, "preset=tiny", "train.batch_size=2", "tokenizer.vocab_size=300")
    part = planned(capsys, "preset=tiny", "train.batch_size=2", "tokenizer.vocab_size=300", *words)
    n = part["parameters"]["trained"]
    assert n < whole["parameters"]["trained"] == whole["parameters"]["total"]
    assert part["training_bytes"]["gradients"] == 4 * n
    assert 8 * n <= part["training_bytes"]["optimizer"] < 8 * n + 1024
    assert part["peak_bytes"]["tensors"] < whole["peak_bytes"]["tensors"]


def test_a_run_costs_its_tokens(capsys: Capture) -> None:
    figures = planned(capsys, "preset=tiny", "train.batch_size=3", "train.grad_accum=2", "train.max_steps=5")
    assert figures["run"]["tokens"] == 5 * 2 * 3 * 64
    assert figures["run"]["flops"] == figures["flops_per_token"]["training"] * 5 * 2 * 3 * 64
    memory = figures["training_bytes"]
    assert memory["total"] == sum(memory[part] for part in ("weights", "gradients", "optimizer", "activations"))
    assert planned(capsys, "preset=tiny", "train.batch_size=6")["training_bytes"]["activations"] == pytest.approx(
        2 * memory["activations"], rel=0.01
    )


@pytest.mark.slow
def test_logits_that_are_never_all_there_do_not_count(capsys: Capture) -> None:
    words = ["model.arch=gpt2", "model.n_layers=1", "model.d_model=16", "model.n_heads=2", "model.vocab_size=50000"]
    figures = planned(capsys, *words, "train.seq_len=64", "train.batch_size=64")
    assert figures["peak_bytes"]["tensors"] < 64 * 64 * 50_000 * 4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train.batch_size=1000000"], "memory: does not fit; train.batch_size="),
        (["train.max_steps=500000"], "more than 4 teaches little; give more text, or train.max_steps="),
        (["train.max_steps=10"], "or the usual 20 with train.max_steps=4368"),
        (["train.max_steps=200000"], "a larger model would use them better, or train.max_steps=4368"),
        (["optim.lr=0.1"], "rate: optim.lr=0.1 is unusual for a model of this size; about 0.002 is usual"),
        (["train.max_steps=50"], "rate: 30 of 50 steps are warm-up; give optim.warmup_steps=5"),
        (["train.eval_every=20"], "evaluation: takes 25 % of the time; give train.eval_every=60"),
        pytest.param(
            ["tokenizer.vocab_size=80000"],
            "vocabulary: the text has 71 tokens for each of 80,000 ids",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_advice_names_the_setting(words: list[str], said: str, capsys: Capture) -> None:
    assert said in "\n".join(planned(capsys, "preset=tiny", *words)["advice"])


def test_a_good_run_gets_no_advice(capsys: Capture) -> None:
    figures = planned(capsys, "preset=tiny", "train.max_steps=4368")
    assert figures["advice"] == []
    assert figures["run"]["tokens_per_parameter"] == pytest.approx(20, rel=0.01)
    assert figures["peak_bytes"]["max_batch_size"] > 16


def test_a_prepared_text_is_known(tmp_path: Path, capsys: Capture) -> None:
    text = tmp_path / "text.jsonl"
    text.write_text("".join(json.dumps({"text": f"{i} is a short document."}) + "\n" for i in range(300)))
    assert main(["data", "prepare", str(text), f"folder={tmp_path / 'data'}", "tokenizer=char"]) == 0
    n_tokens = json.loads((tmp_path / "data" / "meta.json").read_text())["splits"]["train"]["n_tokens"]
    capsys.readouterr()
    figures = planned(capsys, "preset=tiny", f"data.prepared={tmp_path / 'data'}", "train.max_steps=2")
    assert figures["run"]["epochs"] == 2 * 16 * 64 / n_tokens
    assert any(line.startswith("rows: 64 tokens, and a document has 2") for line in figures["advice"])


@pytest.mark.parametrize("arch", ["t5", "transformer", "encoder_classifier"])
def test_models_of_pairs_are_planned(arch: str, capsys: Capture) -> None:
    figures = planned(capsys, f"model.arch={arch}", "model.vocab_size=50", "train.seq_len=8", "train.batch_size=2")
    model = build(arch, vocab_size=50)
    cost = cost_of(lambda: build(arch, vocab_size=50), 8, batch_size=2)
    assert figures["parameters"]["total"] == sum(parameter.numel() for parameter in model.parameters())
    assert figures["flops_per_token"]["forward"] == cost.forward_flops / 8
    assert figures["training_bytes"]["activations"] == cost.kept_bytes
    assert main(["plan", f"model.arch={arch}", "size=3M"]) == 2
    assert "learns from pairs, for which there is no rule" in capsys.readouterr().err


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_optimizer_remembers_that_much(optimizer: str, capsys: Capture) -> None:
    figures = planned(capsys, "preset=tiny", "model.vocab_size=50", f"optim.name={optimizer}")
    sizes = {"n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "d_model": 64, "d_head": 16, "d_ff": 176, "vocab_size": 50}
    model = build("qwen3", **sizes, max_seq_len=64)
    real = build_optimizer(model, OptimConfig(name=optimizer))  # type: ignore[arg-type]
    model(torch.zeros(1, 4, dtype=torch.long)).sum().backward()
    real.step()
    remembered = [t.nbytes for name, t in optimizer_tensors(real).items() if not name.startswith("step.")]
    assert figures["training_bytes"]["optimizer"] == sum(remembered)
    assert figures["parameters"]["total"] == sum(parameter.numel() for parameter in model.parameters())
    cache = FullCache.for_model(model, batch_size=1, max_len=64)
    assert 64 * figures["kv_bytes_per_token"]["float32"] == cache.nbytes


@pytest.mark.parametrize(
    ("words", "ids"),
    [
        (["model.n_layers=1"], 2048),
        (["model.n_layers=1", "tokenizer.vocab_size=300"], 300),
        (["model.n_layers=1", "tokenizer=byte"], 256),
        (["model.n_layers=1", "model.vocab_size=77", "tokenizer=char"], 77),
        (["model.preset=gpt2", "model.n_layers=1", "train.seq_len=2"], 50_257),
    ],
)
def test_a_model_has_as_many_ids_as_it_would_have(words: list[str], ids: int, capsys: Capture) -> None:
    assert planned(capsys, *words)["vocab_size"] == ids


def test_a_size_is_planned_as_train_would_build_it(capsys: Capture) -> None:
    figures = planned(capsys, "size=1M", "tokenizer.vocab_size=300", "model.max_seq_len=16")
    assert figures["parameters"]["total"] == pytest.approx(1e6, rel=0.1)
    assert figures["vocab_size"] == 300
    assert figures["run"]["tokens"] > 1e6


def test_what_a_text_decides_is_asked_for(capsys: Capture) -> None:
    assert main(["plan", "tokenizer=char"]) == 2
    assert "model.vocab_size: a char tokenizer" in capsys.readouterr().err


def test_the_table_is_aligned(capsys: Capture) -> None:
    assert main(["plan", "preset=tiny", *EXACT]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "model          qwen3, 2,048 ids, rows of 64 tokens"
    assert all(line[13:15] == "  " and line[15] != " " for line in lines)
    assert max(map(len, lines)) <= 100


def test_what_is_counted_out_of_a_text_has_no_plan(capsys: Capture) -> None:
    assert main(["plan", "model.arch=ngram"]) == 2
    assert "model.arch: ngram is counted" in capsys.readouterr().err


def test_sizes_and_counts_read_well() -> None:
    assert [size(n) for n in (0, 1536, 2**31, 2**50)] == ["0 bytes", "1.5 KiB", "2 GiB", "1,024 TiB"]
    assert [count(n) for n in (0, 99_999, 123_456)] == ["0", "99,999", "1.23e+05"]
