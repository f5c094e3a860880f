"""Trackers get every number in their own words, and whatever they do, the run is the same."""

import importlib.machinery
import logging
import sys
import threading
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from legollm.cli import main
from legollm.errors import ConfigError
from legollm.training import track as module
from legollm.training.metrics import read_rows
from legollm.training.track import TRACKERS, Aside, Tracked, plain, tracking
from tiny_run import go


def rows(folder: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "tokens_per_s"} for row in read_rows(folder / "metrics.jsonl")]


class Fake:
    """What a tracker's package is asked to do, in order."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **named: self.calls.append((name, *args, *([named] if named else [])))


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts a package in place that is not installed."""

    def put(name: str, **parts: Any) -> None:
        for full in {name, name.split(".")[-1]}:
            fake = ModuleType(full)
            fake.__spec__ = importlib.machinery.ModuleSpec(full, None)
            vars(fake).update(parts)
            monkeypatch.setitem(sys.modules, full, fake)

    return put


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run without trackers."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    go(folder)
    return folder


def test_tensorboard_gets_every_row(tmp_path: Path, package: Any) -> None:
    fake, made = Fake(), []
    package("torch.utils.tensorboard", SummaryWriter=lambda folder, **more: made.append((folder, more)) or fake)
    go(tmp_path / "run", track=("tensorboard",), max_steps=6, inspect_every=3)
    go(tmp_path / "run", track=("tensorboard",))
    assert made == [(tmp_path / "run" / "tensorboard", {"purge_step": step}) for step in (None, 7)]
    scalars = [call[1:] for call in fake.calls if call[0] == "add_scalar"]
    wanted = [(k, v, row["step"]) for row in read_rows(tmp_path / "run" / "metrics.jsonl") for k, v in plain(row)]
    flushed = [entry for entry in wanted if entry[0] != "step"]
    assert sorted(scalars) == sorted(flushed)
    assert ("layers/blocks.0/grad_norm", 3) in [(key, step) for key, _, step in scalars]
    assert fake.calls[0][:2] == ("add_text", "config")
    assert "    train.max_steps: 6\n" in fake.calls[0][2]
    assert [call[0] for call in fake.calls].count("close") == 2


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_wandb_and_trackio_get_every_row_and_go_on_with_the_same_run(tmp_path: Path, package: Any, name: str) -> None:
    fake, made = Fake(), []
    package(name, init=lambda **more: made.append(more) or fake, Settings=SimpleNamespace)
    go(tmp_path / "run", track=(name,), max_steps=6)
    go(tmp_path / "run", track=(name,))
    assert made[0]["config"]["train.max_steps"] == 6
    assert {key: made[0][key] for key in ("project", "resume")} == {"project": "legollm", "resume": "allow"}
    assert [made[0].get(key) for key in ("id", "name")] == [made[1].get(key) for key in ("id", "name")]
    logged = [(call[1], call[2]["step"]) for call in fake.calls if call[0] == "log"]
    there = [(row, row.pop("step")) for row in read_rows(tmp_path / "run" / "metrics.jsonl")]
    assert logged == there
    assert fake.calls[-1] == ("finish",)


def test_real_event_files(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra `track` is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    go(tmp_path / "run", track=("tensorboard",))
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    losses = [(event.step, event.value) for event in events.Scalars("loss")]
    assert losses == [(r["step"], pytest.approx(r["loss"])) for r in rows(tmp_path / "run") if "loss" in r]


def broken(at: str) -> Any:
    class Breaks:
        def __init__(self, run: Tracked) -> None:
            self.do("open")

        def write(self, step: int, values: Any) -> None:
            self.do("write")

        def close(self) -> None:
            self.do("close")

        def do(self, what: str) -> None:
            if what == at:
                raise RuntimeError(f"no\nnetwork at {at}")

    return Breaks


@pytest.mark.parametrize("at", ["open", "write", "close"])
def test_a_tracker_that_raises_is_one_warning_and_the_run_is_the_same(
    tmp_path: Path,
    alone: Path,
    package: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    at: str,
) -> None:
    package("wandb")
    monkeypatch.setitem(TRACKERS, "wandb", broken(at))
    with caplog.at_level(logging.WARNING, "legollm.training.track"):
        go(tmp_path / "run", track=("wandb",))
    assert [record.getMessage() for record in caplog.records] == [
        f"train.track: wandb gets no more numbers (RuntimeError: no network at {at}); training goes on"
    ]
    assert rows(tmp_path / "run") == rows(alone)
    weights = [(folder / "checkpoint" / "model.safetensors").read_bytes() for folder in (tmp_path / "run", alone)]
    assert weights[0] == weights[1]


def test_a_tracker_that_hangs_is_not_waited_for(
    tmp_path: Path, alone: Path, package: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    package("wandb")
    never = threading.Event()
    monkeypatch.setitem(
        TRACKERS, "wandb", lambda run: SimpleNamespace(write=never.wait, close=never.wait, _=never.wait())
    )
    monkeypatch.setattr(module, "CLOSING_S", 0.05)
    go(tmp_path / "run", track=("wandb",))
    assert rows(tmp_path / "run") == rows(alone)
    assert "wandb gets no more numbers (not done" in caplog.text
    never.set()


def test_rows_do_not_pile_up(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 3)
    begins = threading.Event()
    aside = Aside("slow", lambda: begins.wait() or SimpleNamespace())  # type: ignore[arg-type]
    for step in range(10):
        aside.put((step, {}))
    assert aside.rows.qsize() == 3
    assert caplog.text.count("3 rows wait for it") == 1
    begins.set()


def test_a_missing_package_is_one_line_before_anything_is_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="trackio is not installed; pip install trackio"):
        go(tmp_path / "run", track=("trackio",))
    words = [f"run={tmp_path / 'cli'}", "data.source=world", "tokenizer=char", "train.track=[wandb]"]
    assert main(["train", "preset=tiny", *words]) == 2
    assert (
        capsys.readouterr().err == "legollm: train.track: wandb is not installed; pip install wandb, or leave it out\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_nobody_is_told_where_nobody_asked(tmp_path: Path) -> None:
    n_threads = threading.active_count()
    with tracking((), tmp_path, {}, 0) as track:
        track(1, {"loss": 1.0})
        assert threading.active_count() == n_threads
    assert list(tmp_path.iterdir()) == []


def test_plain_values() -> None:
    nested = {"a": 1, "b": {"c": {"d": 0.5, "e": float("nan")}}, "f": float("inf"), "g": "text"}
    assert dict(plain(nested)) == {"a": 1, "b/c/d": 0.5, "g": "text"}
