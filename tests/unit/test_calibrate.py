"""Real steps of a run, or of a part of it from which the whole follows."""

import json
from typing import Any

import pytest

from legollm.cli import main
from legollm.commands import calibrate as module
from legollm.commands.calibrate import Part, Seconds, calibrate, fewer_layers, measured, pace, saving_seconds, smaller
from legollm.commands.train import TrainRun
from legollm.errors import ConfigError
from legollm.training.optim import OptimConfig
from legollm.training.train import TrainConfig
from tiny_models import tiny_config


def invented(cfg: TrainRun, part: Part, precision: str, limit_s: float) -> tuple[Seconds, int]:
    """A machine whose times are known: layers and rows for a pass, layers for the rest of a step."""
    n = part.model.n_layers
    micro_batch = 0.01 * part.n_rows * (5 + 2 * n)
    step = part.n_micro_batches * micro_batch + 0.3 + 0.1 * n
    return Seconds(step, micro_batch, micro_batch / 3, 0.02 + 0.01 * n), 7


def run_of(n_layers: int, n_rows: int, n_micro_batches: int, **model: Any) -> TrainRun:
    loop = TrainConfig(batch_size=n_rows, grad_accum=n_micro_batches, precision="float32", device="cpu")
    return TrainRun(model=tiny_config("qwen3", n_layers=n_layers, **model), train=loop)


@pytest.mark.parametrize(("n_layers", "n_rows", "n_micro_batches"), [(12, 8, 4), (5, 8, 1), (12, 1, 3), (3, 64, 2)])
def test_a_whole_follows_from_each_of_its_parts(
    n_layers: int, n_rows: int, n_micro_batches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "measured", invented)
    cfg = run_of(n_layers, n_rows, n_micro_batches)
    whole = Part(cfg.model, n_rows, n_micro_batches)
    least = Part(fewer_layers(cfg.model, 1), max(1, n_rows // 4), min(n_micro_batches, 2))
    expected = invented(cfg, whole, "float32", 0)[0]
    ways = list(smaller(whole, least))
    assert len(ways) > 1
    assert ways[-1][-1].n_rows == least.n_rows
    for parts in ways:
        if parts[-1].n_rows == n_rows or n_micro_batches > 1:  # one micro-batch does not tell what an update takes
            found = pace(cfg, "float32", parts, 1.0)
            assert vars(found.seconds) == pytest.approx(vars(expected))
            assert found.n_steps == 7


def test_what_takes_too_long_is_measured_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "measured", invented)
    cfg = run_of(12, 8, 4)

    def how(fits: bool, budget_s: float) -> str:
        def flops_of(model: Any) -> float:
            return 1e15 * (5 + 2 * model.n_layers)

        return calibrate(
            cfg, "float32", flops_of=flops_of, fits=lambda model, n: fits or model.n_layers < 5, budget_s=budget_s
        ).how

    assert how(True, 1000) == ""
    assert how(True, 40) == "2 of 4 micro-batches"
    assert how(True, 24) == "1 and 4 of 12 layers, 2 of 4 micro-batches"
    assert how(False, 1000) == "1 and 4 of 12 layers, 2 of 4 micro-batches"
    with pytest.raises(ConfigError, match="not even one layer has room"):
        calibrate(cfg, "float32", flops_of=lambda model: 1e15, fits=lambda model, n: False)


def test_layers_that_differ_are_not_left_out() -> None:
    model = tiny_config("qwen3", n_layers=4, local_layers=(1, 3), window=4)
    assert fewer_layers(model, 1) is model
    assert fewer_layers(tiny_config("qwen3", n_layers=4), 2).n_layers == 2
    for parts in smaller(Part(model, 8, 4), Part(model, 2, 2)):
        assert [part.model for part in parts] == [model]


@pytest.mark.parametrize("arch", ["gpt2", "mixtral", "bigram"])
def test_steps_are_real_ones(arch: str) -> None:
    cfg = TrainRun(
        model=tiny_config(arch),
        train=TrainConfig(batch_size=2, grad_accum=2, precision="float32", device="cpu"),
        optim=OptimConfig(lr=9.0),
    )
    found, n_steps = measured(cfg, Part(cfg.model, 2, 2), "float32", 0.0)
    assert n_steps == 1
    assert found.step > found.micro_batch > 0
    assert found.evaluation > 0
    assert found.sample > 0


def test_saving_takes_longer_the_more_there_is() -> None:
    assert saving_seconds(1 << 40) > saving_seconds(1 << 20) > 0


def test_the_plan_tells_the_time(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUICK_S", 0.0)
    words = ["plan", "preset=tiny", "model.n_layers=1", "train.precision=float32", "train.device=cpu"]
    assert main([*words, "calibrate=true", "train.max_steps=100_000_000", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["time"]["training"] == 1e8 * figures["time"]["step"]
    assert any(line.startswith("time: ") and "takes one day" in line for line in figures["advice"])
    assert main([*words, "calibrate=true"]) == 0
    assert "tokens per second" in capsys.readouterr().out
    assert main(["plan", "model.arch=t5", "calibrate=true"]) == 2
    assert "calibrate: t5 learns from pairs" in capsys.readouterr().err
