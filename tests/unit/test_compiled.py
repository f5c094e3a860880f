"""Compiled blocks: the same gradients, decided once, and only where it pays and can be done."""

import logging
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from legollm.architectures import ARCHITECTURES
from legollm.cli import main
from legollm.device import autocast
from legollm.errors import ConfigError
from legollm.interfaces import Batch
from legollm.team import ALONE, Team
from legollm.training import compilation
from legollm.training.compilation import Compilation
from legollm.training.metrics import read_rows
from legollm.training.objective import NextToken
from legollm.transforms import compiled
from legollm.transforms.compiled import Compiled, compile_blocks, uncompile_blocks
from legollm.transforms.recompute import Forgetful, Recompute, blocks, recompute
from tiny_models import tiny_config

VOCAB = 11


def built(name: str = "llama3") -> nn.Module:
    model: nn.Module = ARCHITECTURES[name].build(tiny_config(name))
    return model.train()


@pytest.fixture
def marked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The functions that were given to the compiler, which leaves them as they are."""
    given: list[Any] = []

    def mark(function: Any) -> Any:
        given.append(function)
        return lambda *args, **kwargs: function(*args, **kwargs)

    monkeypatch.setattr(torch, "compile", mark)
    monkeypatch.setattr(compiled, "compiler_works", lambda device: True)
    return given


def decided(one: Compilation, *seconds: float, alike: bool = True) -> list[bool | None]:
    """What is said after each step that takes so long."""
    return [one.after_step(step, took, (8, 16 if alike else step)) for step, took in enumerate(seconds, 1)]


def is_compiled(model: nn.Module) -> bool:
    return all(isinstance(block.forward, Compiled) for block in blocks(model))


WRITTEN, TRIED = [9.0, 1.0, 1.0, 1.0], [30.0, 20.0]
"""Steps before compiling and while it is done."""


@pytest.mark.parametrize(("later", "kept"), [(0.8, True), (1.0, False), (1.2, False)])
def test_a_long_run_tries_and_keeps_what_is_shorter(marked: list[Any], later: float, kept: bool) -> None:
    one = Compilation(built(), "auto", 3000, ALONE)
    assert one.start(None) is None
    assert decided(one, *WRITTEN) == [None] * len(WRITTEN)
    assert is_compiled(one.model)
    assert decided(one, *TRIED, *[later] * compilation.LOOKS)[-2:] == [None, kept]
    assert is_compiled(one.model) == kept
    assert len(marked) == len(list(blocks(one.model)))


@pytest.mark.parametrize(("n_steps", "seconds", "alike"), [(900, 1.0, True), (3000, 0.1, True), (100_000, 1.0, False)])
def test_what_is_not_worth_it_is_not_tried(marked: list[Any], n_steps: int, seconds: float, alike: bool) -> None:
    one = Compilation(built(), "auto", n_steps, ALONE)
    assert one.start(None) is None
    assert decided(one, 1000.0, seconds, seconds, seconds, alike=alike)[-1] is False
    assert marked == []


def test_a_decision_is_not_made_twice(marked: list[Any]) -> None:
    assert Compilation(built(), "auto", 10, ALONE).start(False) is False
    assert marked == []
    assert Compilation(built(), "auto", 10, ALONE).start(True) is True
    assert marked != []


def test_never_and_always(marked: list[Any]) -> None:
    assert Compilation(built(), "never", 100_000, ALONE).start(True) is False
    assert marked == []
    assert Compilation(built(), "always", 1, ALONE).start(None) is True
    with pytest.raises(ConfigError, match="no blocks"):
        Compilation(nn.Linear(2, 2), "always", 1, ALONE).start(None)


def test_routed_layers_are_not_compiled_unasked(marked: list[Any]) -> None:
    assert Compilation(built("mixtral"), "auto", 100_000, ALONE).start(None) is False
    assert Compilation(built("mixtral"), "always", 100_000, ALONE).start(None) is True


def test_many_processes_are_not_compiled_unasked(marked: list[Any]) -> None:
    team = Team(rank=0, size=2)
    assert Compilation(built(), "auto", 100_000, team).start(None) is False
    assert Compilation(built(), "always", 100_000, team).start(None) is True


def test_only_training_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function: lambda *args: "compiled")
    block = Compiled(lambda x: "as written")
    assert block(1) == "compiled"
    with torch.no_grad():
        assert block(1) == "as written"


def test_what_forgets_is_compiled_within(marked: list[Any]) -> None:
    model = built()
    recompute(model, "full")
    for change, is_so in ((compile_blocks, True), (uncompile_blocks, False)):
        change(model)
        for block in blocks(model):
            assert isinstance(block.forward, Forgetful)
            assert isinstance(block.forward.compute, Compiled) == is_so


def test_nothing_is_compiled_twice(marked: list[Any]) -> None:
    model = built()
    assert compile_blocks(model)
    assert compile_blocks(model)
    assert len(marked) == len(list(blocks(model)))


def test_where_no_compiler_works_one_line_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(function: Any) -> Any:
        raise RuntimeError("\nno such compiler\nand a long story")

    monkeypatch.setattr(torch, "compile", fails)
    model = built()
    assert Compilation(model, "always", 1, ALONE).start(None) is False
    assert not any(isinstance(block.forward, Compiled) for block in blocks(model))
    assert [(record.levelno, "(no such compiler)" in record.message) for record in caplog.records] == [
        (logging.WARNING, True)
    ]


def gradients(model: nn.Module, precision: str) -> dict[str, Tensor]:
    """After two micro-batches."""
    rng = torch.Generator().manual_seed(3)
    for _ in range(2):
        tokens = torch.randint(VOCAB, (3, 12), generator=rng)
        with autocast(precision, torch.device("cpu")):
            loss = NextToken()(model, Batch(tokens, tokens.roll(-1, 1)))
        loss.backward()  # type: ignore[no-untyped-call]
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # those of the compiler
@pytest.mark.parametrize(("name", "precision", "within"), [("gpt2", "bfloat16", 0.05), ("llama3", "float32", 1e-5)])
def test_gradients_are_those_of_the_model_as_written(name: str, precision: str, within: float) -> None:
    as_written = gradients(built(name), precision)
    size = max(float(grad.abs().max()) for grad in as_written.values())
    which: tuple[Recompute, ...] = ("none", "full")
    for forgets in which:
        model = built(name)
        recompute(model, forgets)
        assert compile_blocks(model)
        found = [gradients(model, precision) for _ in range(2)]
        for key, grad in as_written.items():
            assert float((found[0][key] - grad).abs().max()) <= within * size, key
        assert all(torch.equal(a[key], b[key]) for a, b in pairwise(found) for key in a), "not the same twice"


RUN = (
    "train tokenizer=byte model.n_layers=2 model.d_model=32 model.n_heads=2 model.n_kv_heads=1 model.max_seq_len=16 "
    "train.batch_size=4 train.log_every=1 train.eval_every=0 train.precision=float32"
)


def losses(folder: Path, text: Path, *steps: int, compile: str) -> list[Any]:
    """Of a run that stops and goes on at each of `steps`."""
    for n in steps:
        words = [
            *RUN.split(),
            f"data.source={text}",
            f"run={folder}",
            f"train.max_steps={n}",
            f"train.compile={compile}",
        ]
        assert main([*words, "optim.schedule=constant", "optim.warmup_steps=0"]) == 0
    return [row["loss"] for row in read_rows(folder / "metrics.jsonl") if "loss" in row]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_run_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("What is said is said, and what is not is not. " * 200, encoding="utf-8")
    whole = losses(tmp_path / "whole", text, 6, compile="always")
    assert whole == losses(tmp_path / "parts", text, 3, 6, compile="always")
    assert whole == pytest.approx(losses(tmp_path / "written", text, 6, compile="never"), rel=1e-4)
