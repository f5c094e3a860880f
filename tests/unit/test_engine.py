"""Which engine runs a model: what auto reckons, what is refused, and that text comes out the same."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("numba")

from legollm.architectures import build
from legollm.checkpoints.loading import load
from legollm.checkpoints.state import save_model
from legollm.errors import ConfigError, LoweringError
from legollm.lowering import engine as engines
from legollm.lowering.decoder import LoweredDecoder
from legollm.lowering.engine import Engine, is_sooner, lowering_for
from legollm.lowering.weights import Precision
from legollm.tokenizers import ByteTokenizer
from tiny_models import tiny_config, tiny_model

SIZES = {"vocab_size": 256, "max_seq_len": 40}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny"
    save_model(path, tiny_model("llama3", **SIZES), "llama3", tiny_config("llama3", **SIZES), ByteTokenizer())
    return path


def test_all_engines_write_the_same_text(folder: Path) -> None:
    texts = {
        load(folder, engine=engine).generate("a", temperature=0.7, seed=5, max_new_tokens=30)
        for engine in ("auto", "torch", "cpu")
    }
    assert len(texts) == 1
    assert isinstance(lowering_for(load(folder).model, "cpu", "float32", 1), LoweredDecoder)


@pytest.mark.parametrize("precision", ["bfloat16", "int8", "int4"])
def test_other_precisions_write(folder: Path, precision: Precision) -> None:
    lm = load(folder, engine="cpu", precision=precision)
    assert list(lm.stream("a", temperature=0, max_new_tokens=5, as_ids=True))
    assert next(lm.model.parameters()).dtype == torch.float32  # the readable model stays what it was


def test_torch_in_bfloat16_writes_with_a_copy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = load(folder, precision="bfloat16")
    monkeypatch.setattr(engines, "is_sooner", lambda *_: False)
    in_torch = lm.generate("a", temperature=0, max_new_tokens=5)
    assert {name: next(one.parameters()).dtype for name, one in lm.writers.items()} == {"torch": torch.bfloat16}
    assert next(lm.model.parameters()).dtype == torch.float32
    monkeypatch.setattr(engines, "is_sooner", lambda *_: True)  # a longer text, for which kernels pay
    assert lm.generate("a", temperature=0, max_new_tokens=5) == in_torch
    assert isinstance(lm.writers["cpu"], LoweredDecoder)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"engine": "gpu"}, "engine: 'gpu' is none of auto, torch, cpu"),
        ({"precision": "int3"}, "precision: 'int3' is none of float32, bfloat16, int8, int4"),
        ({"engine": "torch", "precision": "int8"}, "precision: int8 is there with engine=cpu"),
    ],
)
def test_what_cannot_be_is_refused(folder: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(folder, **settings).generate("a", max_new_tokens=1)


def test_without_a_lowering_auto_stays_in_torch_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(engines, "is_sooner", lambda *_: True)
    model = build("mlp_lm", vocab_size=11)
    with caplog.at_level(logging.INFO, "legollm"):
        assert lowering_for(model, "auto", "float32", 100) is None
    assert [record.message for record in caplog.records] == [
        "engine: torch, because there is no lowering for legollm.architectures.mlp_lm.WindowBlock; engine=torch runs it"
    ]
    with pytest.raises(LoweringError, match="WindowBlock"):
        lowering_for(model, "cpu", "float32", 100)


def test_without_numba_torch_runs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda _: None)
    monkeypatch.setattr(engines, "is_sooner", lambda *_: True)
    model = tiny_model("llama3")
    assert lowering_for(model, "auto", "float32", 100) is None
    with pytest.raises(LoweringError, match="numba, which is not installed"):
        lowering_for(model, "cpu", "float32", 100)


def test_auto_counts_what_it_costs_to_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama3")
    monkeypatch.setitem(engines.sys.modules, "legollm.kernels.steps", None)
    engine: Engine = "auto"
    assert isinstance(lowering_for(model, engine, "float32", 1000), LoweredDecoder)
    monkeypatch.delitem(engines.sys.modules, "legollm.kernels.steps")
    monkeypatch.setattr(engines, "is_compiled", lambda *_: True)
    assert not is_sooner(model, "float32", 100)  # 0.06 s in torch
    assert is_sooner(model, "float32", 10_000)
    monkeypatch.setattr(engines, "is_compiled", lambda *_: False)
    assert not is_sooner(model, "float32", 10_000)


@pytest.mark.parametrize("wish", ["2", "2,1"])
def test_torch_keeps_one_thread_while_kernels_work(wish: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", wish)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = [lowering_for(tiny_model("gpt2"), "cpu", "float32", 1) for _ in range(2)]
        assert [one.team.n_threads for one in found if one] == [2, 2]
        assert torch.get_num_threads() == 1
        del found
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
