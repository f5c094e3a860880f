"""Bricks of one's own in a recipe: they are what they are elsewhere, and nobody else's are imported."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import legollm
from legollm.architectures import build
from legollm.architectures.vanilla import VanillaConfig, vanilla
from legollm.checkpoints.huggingface import save_hf_folder
from legollm.cli import main
from legollm.errors import CheckpointError, ConfigError

OURS = """
import torch
from torch import nn
from legollm.components.attention import Attention
from legollm.components.feedforward import SwiGLU
from legollm.components.norm import RMSNorm
from legollm.components.positions import Alibi, LearnedPositionEmbedding, RotaryEmbedding


class Gain(nn.Module):
    def __init__(self, d_model: int, d_ff: int) -> None:
        super().__init__()
        self.any_name = nn.Linear(d_model, d_ff, bias=False)
        self.and_back = nn.Linear(d_ff, d_model, bias=False)

    def forward(self, x):
        return self.and_back(torch.relu(self.any_name(x)))


class Greedy(Gain):
    def __init__(self, d_model, n_wheels):
        super().__init__(d_model, n_wheels)


def number():
    return 7
"""
TINY = {"vocab_size": 23, "max_seq_len": 16, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "d_model": 32, "d_ff": 64}
SMALL = ["tokenizer=byte", "train.device=cpu", "model.arch=vanilla", "train.batch_size=2", "optim.warmup_steps=0"]
SMALL += [f"model.{key}={value}" for key, value in TINY.items() if key != "vocab_size"]

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to work in, with a module `ours_outside` and one whose import leaves a mark."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "ours_outside.py").write_text(OURS)
    (tmp_path / "stranger_outside.py").write_text("open('mark', 'w').close()\n" + OURS)
    (tmp_path / "text.txt").write_text("the cat sat on the mat and the dog sat on the log.\n" * 40)
    yield tmp_path
    for name in ("ours_outside", "stranger_outside"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("setting", "own", "same_as"),
    [
        ("ffn", "SwiGLU", {"ffn": "swiglu"}),
        ("norm", "RMSNorm", {"norm": "rmsnorm"}),
        ("positions", "Alibi", {"positions": "alibi"}),
        ("positions", "RotaryEmbedding", {"positions": "rope"}),
        ("positions", "LearnedPositionEmbedding", {"positions": "learned"}),
        ("attention", "Attention", {"bias": False}),
    ],
)
@pytest.mark.usefixtures("place")
def test_a_brick_by_its_path_is_the_brick_by_its_name(setting: str, own: str, same_as: dict[str, str]) -> None:
    others = {"bias": False, "qk_norm": setting == "norm"}
    outside = build("vanilla", **TINY, **others, **{setting: f"ours_outside:{own}"})
    inside = build("vanilla", **TINY, **(others | same_as))
    tokens = torch.randint(23, (2, 9), generator=torch.Generator().manual_seed(0))
    assert list(outside.state_dict()) == list(inside.state_dict())
    assert torch.equal(outside(tokens), inside(tokens))


def test_a_run_with_a_brick_from_outside_goes_all_the_way(
    place: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["train", *SMALL, "data.source=text.txt", "run=run", "model.ffn=ours_outside:Gain"]
    assert main([*words, "train.max_steps=2"]) == 0
    assert "next: LEGOLLM_BRICKS=ours_outside:Gain legollm generate run" in capsys.readouterr().out
    assert main(["train", "run/config.yaml", "train.max_steps=3"]) == 0  # goes on where it was
    assert main([*words, "train.max_steps=4"]) == 0
    steps = [json.loads(line)["step"] for line in (place / "run" / "metrics.jsonl").read_text().splitlines()]
    assert max(steps) == 4
    assert main(["generate", "run", "prompt=the", "max_new_tokens=3"]) == 1
    assert "if they are yours, set LEGOLLM_BRICKS=ours_outside:Gain" in capsys.readouterr().err
    monkeypatch.setenv("LEGOLLM_BRICKS", "other:Brick,ours_outside:Gain")
    for command in (["generate", "run", "prompt=the", "max_new_tokens=3"], ["eval", "run", "data.source=text.txt"]):
        assert main(command) == 0
    assert main(["export", "run", "exported"]) == 0
    receipt = json.loads((place / "exported" / "receipt.json").read_text())
    assert receipt["max_abs_logit_difference"] == 0


def test_a_folder_from_elsewhere_imports_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = VanillaConfig(**TINY)
    save_hf_folder(place / "model", "vanilla", cfg, vanilla(cfg))
    config = json.loads((place / "model" / "config.json").read_text())
    config["ffn"] = "stranger_outside:Gain"
    (place / "model" / "config.json").write_text(json.dumps(config))
    monkeypatch.setenv("LEGOLLM_BRICKS", "stranger_outside:Other,ours_outside:Gain")  # a name is trusted, no module
    with pytest.raises(CheckpointError, match="names bricks from outside, whose code would run"):
        legollm.load(place / "model")
    for command in (["inspect", "model"], ["export", "model", "to"], ["import", "model", "to"], ["eval", "model"]):
        assert main(command) == 1
    assert not (place / "mark").exists()
    monkeypatch.setenv("LEGOLLM_BRICKS", "stranger_outside:Gain")
    with pytest.raises(CheckpointError, match="do not fit"):
        legollm.load(place / "model")
    assert (place / "mark").exists()


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("ffn=ours_outside:Gone", "ours_outside.py has no Gone; it has Gain, Greedy, number"),
        ("ffn=nowhere_at_all:Gain", "no module nowhere_at_all"),
        ("ffn=ours_outside:Greedy", "nobody knows a value for n_wheels; give a default, use the names vocab_size"),
        ("ffn=ours_outside:number", "expected a torch.nn.Module, found int"),
        ("ffn=ours_outside:Alibi", "tells positions (position_bias), and a ffn is wanted"),
        ("attention=ours_outside:Gain", "cannot be called as forward(x, positions, mask, cache), as a mixer is"),
        ("positions=ours_outside:Gain", "forward fits none of positions(positions); rotary(q, k, positions)"),
        ("ffn=swiglo", "is none of relu, gelu, gelu_tanh, relu_squared, glu, swiglu, geglu, reglu, moe, none; did you"),
    ],
)
def test_what_does_not_fit_is_told_before_there_is_a_run(word: str, message: str, place: Path, capsys: Capture) -> None:
    assert main(["train", *SMALL, "data.source=text.txt", "run=run", f"model.{word}"]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (place / "run").exists()


@pytest.mark.usefixtures("place")
def test_the_recipe_alone_and_its_one_file_know_no_bricks_from_outside(capsys: Capture) -> None:
    with pytest.raises(ConfigError, match="ours_outside:Gain: a brick from outside, which this file does not fetch"):
        vanilla(VanillaConfig(**TINY, ffn="ours_outside:Gain"))
    assert "ours_outside" not in sys.modules
    assert main(["eject", "ours_outside:Gain"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
