"""A look into the layers: its figures against a direct computation, and no trace in the run."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from legollm.architectures import ARCHITECTURES
from legollm.architectures.gpt2 import GPT2Config
from legollm.commands.layers_view import layers_section
from legollm.components.masks import Causal
from legollm.interfaces import Batch
from legollm.training import train as loop
from legollm.training.inspection import Inspection, layer_of
from legollm.training.metrics import read_rows
from legollm.training.objective import NextToken
from legollm.training.sgd import SGD
from legollm.training.train import TrainConfig, TrainState, train
from tiny_run import go

LAYERS = ["embed", "blocks.0", "blocks.1", "norm"]


class Same:
    """A batch source that has two batches, by turns."""

    def __init__(self) -> None:
        rng = torch.Generator().manual_seed(3)
        ids = torch.randint(0, 50, (2, 3, 9), generator=rng)
        self.batches = [Batch(part[:, :-1], part[:, 1:]) for part in ids]
        self.at = 0

    def __next__(self) -> Batch:
        self.at += 1
        return self.batches[(self.at - 1) % 2]

    def state_dict(self) -> dict[str, int]:
        return {"at": self.at}


def norm_of(tensors: Any) -> float:
    return float(torch.cat([tensor.detach().double().flatten() for tensor in tensors]).norm())


def test_figures_are_those_of_a_direct_computation() -> None:
    model = ARCHITECTURES["gpt2"].build(
        GPT2Config(vocab_size=50, max_seq_len=8, n_layers=2, n_heads=2, d_model=8, dropout=0.0), seed=1
    )
    before = copy.deepcopy(model)
    rows: list[dict[str, Any]] = []
    source: Any = Same()
    train(
        model,
        NextToken(),
        source,
        SGD(model.parameters(), lr=0.5),
        TrainConfig(max_steps=1, grad_accum=2, inspect_every=1, grad_clip=0.01, precision="float32"),
        learning_rate=lambda step: 0.5,
        state=TrainState(),
        log=lambda step, **values: rows.append(values),
        evaluate=lambda state: None,
        save=lambda state: None,
    )
    (found,) = [row["layers"] for row in rows if "layers" in row]
    tokens, targets = (torch.cat(part) for part in zip(*[batch[:2] for batch in source.batches], strict=True))
    logits = before(tokens)
    nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
    positions = torch.arange(8)
    states = [before.embed(tokens, positions)]
    for block in before.blocks:
        states.append(block(states[-1], positions, Causal()))
    states.append(before.norm(states[-1]))
    assert list(found) == LAYERS  # lm_head's weight is the embedding's
    for name, state in zip(LAYERS, states, strict=True):
        old, new = (list(m.get_submodule(name).parameters()) for m in (before, model))
        move = [b.detach() - a.detach() for a, b in zip(old, new, strict=True)]
        assert found[name] == {
            "grad_norm": pytest.approx(norm_of(p.grad for p in old), rel=1e-5),
            "update_ratio": pytest.approx(norm_of(move) / norm_of(old), rel=1e-3),
            "output_rms": pytest.approx(math.sqrt(state.detach().double().square().mean()), rel=1e-6),
        }


def numbers(folder: Path) -> list[dict[str, Any]]:
    rows = read_rows(folder / "metrics.jsonl")
    return [{k: v for k, v in row.items() if k != "tokens_per_s"} for row in rows if "layers" not in row]


@pytest.mark.parametrize("more", [{}, {"recompute": "full", "grad_accum": 2}])
def test_looking_leaves_no_trace(tmp_path: Path, more: dict[str, Any]) -> None:
    go(tmp_path / "looks", inspect_every=2, **more)
    go(tmp_path / "does not", **more)
    assert numbers(tmp_path / "looks") == numbers(tmp_path / "does not")
    weights = [(tmp_path / name / "checkpoint" / "model.safetensors").read_bytes() for name in ("looks", "does not")]
    assert weights[0] == weights[1]
    seen = [row for row in read_rows(tmp_path / "looks" / "metrics.jsonl") if "layers" in row]
    assert [row["step"] for row in seen] == [2, 4, 6, 8, 10, 12]
    assert set(seen[0]["layers"]["blocks.0"]) == {"grad_norm", "update_ratio", "output_rms"}


def test_nothing_is_done_when_nobody_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "Inspection", None)
    go(tmp_path / "run", max_steps=2)


def test_hooks_are_gone_also_after_an_error() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    looking = Inspection(model)
    with looking.watching():
        assert all(module._forward_hooks for module in model)
    with pytest.raises(RuntimeError), looking.watching():
        model(torch.zeros(3))
    assert not any(module._forward_hooks for module in model)


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("embed.tokens.weight", "embed"),
        ("blocks.3.attn.q_proj.weight", "blocks.3"),
        ("encoder.blocks.10.ffn.experts.2.weight", "encoder.blocks.10"),
        ("weight", "weight"),
    ],
)
def test_the_layer_of_a_parameter(name: str, layer: str) -> None:
    assert layer_of(name) == layer


def test_the_page_shows_a_strip_for_each_layer() -> None:
    rows = [
        {"step": step, "layers": {"a": {"grad_norm": 1.0 * step, "update_ratio": 0.0}, "b": {"grad_norm": "nan"}}}
        for step in (10, 20)
    ]
    (section,) = layers_section([{"step": 1, "loss": 1.0}, *rows])
    assert section.strips[0].rows == {"a": [(10, 10.0), (20, 20.0)]}
    assert section.strips[1].rows == {"a": [(10, 0.0), (20, 0.0)]}
    assert layers_section([{"step": 1, "loss": 1.0}]) == []
