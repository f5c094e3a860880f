"""One number to a whole model: near enough, growing in every way, and refused where it cannot be."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from legollm.architectures import ARCHITECTURES, build
from legollm.architectures.sizes import parse_size, sized
from legollm.commands.train import PRESETS, TrainRun, pretrain
from legollm.config import read, resolve
from legollm.errors import ConfigError


def of(arch: str, size: str, vocab_size: int = 2048, **fixed: Any) -> Any:
    row = ARCHITECTURES[arch]
    return sized(row.config(vocab_size=vocab_size), row.build, size, fixed)


@pytest.mark.parametrize(
    ("text", "n"),
    [("25M", 25_000_000), ("1.5B", 1_500_000_000), ("300k", 300_000), ("25_000", 25_000), (" 2 m", 2 * 10**6)],
)
def test_numbers_as_people_write_them(text: str, n: int) -> None:
    assert parse_size(text) == n


@pytest.mark.parametrize("arch", ["qwen3", "llama3", "gpt2", "vanilla"])
@pytest.mark.parametrize(("size", "vocab_size"), [("100k", 65), ("1M", 2048), ("25M", 2048), ("125M", 50_257)])
def test_the_model_has_the_size_asked_for(arch: str, size: str, vocab_size: int) -> None:
    found = of(arch, size, vocab_size)
    assert found.n_parameters == pytest.approx(parse_size(size), rel=0.05)
    assert found.config.vocab_size == vocab_size
    assert found.config.d_model / found.config.n_layers < 130


def test_build_takes_a_size_and_what_is_given_besides() -> None:
    model = build("qwen3", size="300k", vocab_size=512, n_layers=3)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(300_000, rel=0.05)
    assert len(model.blocks) == 3


def flops_per_token(cfg: Any, n_seen: int = 256) -> int:
    """Of a forward pass: two per weight of a linear map, and attention's two products with n_seen tokens."""
    with torch.device("meta"):
        model = ARCHITECTURES[cfg.arch].build(cfg)
    linear = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear))
    return 2 * linear + sum(4 * n_seen * block.attn.o_proj.in_features for block in model.blocks)


def test_more_is_more() -> None:
    runs = [of("qwen3", size) for size in ["150k", "200k", "300k", "500k", "900k", "2M", "5M"]]
    flops = [flops_per_token(run.config) for run in runs]
    assert all(a < b for a, b in pairwise(flops))
    assert all(a.lr > b.lr > 0 for a, b in pairwise(runs))
    assert all(a.n_tokens < b.n_tokens for a, b in pairwise(runs))
    assert runs[0].n_tokens == 20 * runs[0].n_parameters


def test_the_learning_rate_of_gpt2_small() -> None:
    assert of("gpt2", "125M", 50_257).lr == pytest.approx(6.4e-4, rel=0.01)  # GPT-3's table has 6.0e-4 for it


@pytest.mark.parametrize(
    ("arch", "size", "fixed", "message"),
    [
        ("qwen3", "banana", {}, "size: expected a number of parameters such as 25M, 1.5B or 300k, found 'banana'"),
        ("qwen3", "0M", {}, "size: expected a number of parameters such as 25M, 1.5B or 300k, found '0M'"),
        ("bigram", "1M", {}, "size: bigram has no depth and width to choose; leave size out"),
        ("llama3", "10k", {}, "size: the nearest llama3 with 2,048 ids has "),
        ("qwen3", "1M", {"d_model": 512, "n_layers": 8}, "size: the nearest qwen3 with 2,048 ids has "),
    ],
)
def test_what_cannot_be_is_refused(arch: str, size: str, fixed: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        of(arch, size, **fixed)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_run_of_a_size_stops_and_goes_on(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("the cat sat on the mat and the dog on the log.\n" * 100)
    words = [f"data.source={tmp_path / 'text.txt'}", "tokenizer=char", f"run={tmp_path / 'run'}", "size=30k"]
    words += ["model.max_seq_len=16", "model.n_heads=2", "train.batch_size=2", "train.precision=float32"]
    given = {"model.max_seq_len", "model.n_heads", "train.max_steps"}

    def run(*more: str) -> TrainRun:
        return resolve(TrainRun, read(None, [*words, *more]), presets=PRESETS).value

    assert pretrain(run("train.max_steps=3"), given=given).step == 3
    assert pretrain(run("train.max_steps=5"), given=given).step == 5
    saved = resolve(TrainRun, read(tmp_path / "run" / "config.yaml", []), presets=PRESETS).value
    assert saved.size is None
    assert (saved.model.n_heads, saved.model.max_seq_len, saved.train.max_steps) == (2, 16, 5)
    assert sum(p.numel() for p in ARCHITECTURES["qwen3"].build(saved.model).parameters()) == pytest.approx(
        3e4, rel=0.05
    )
    assert saved.optim.lr == pytest.approx(1.8e-3, rel=0.01)
    with pytest.raises(ConfigError, match=r"model\.d_"):
        pretrain(run("size=60k"), given=given)
