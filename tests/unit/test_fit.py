"""A run folder: what is refused, what a continuation does, what is left behind when something goes wrong."""

import contextlib
import json
import logging
import math
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from legollm.checkpoints import state as state_module
from legollm.checkpoints.manifest import latest, steps, verify
from legollm.checkpoints.state import load_state
from legollm.commands import fit as fit_module
from legollm.commands.fit import fit
from legollm.commands.run_folder import open_run
from legollm.commands.signals import Signals
from legollm.errors import CheckpointError, ConfigError, DivergedError, IntegrityError, Interrupted
from legollm.interfaces import Batch
from legollm.training.metrics import read_rows
from legollm.training.objective import NextToken
from legollm.training.train import TrainState
from tiny_run import LOOP, TinyRun, go, open_job, tiny_run

TIMES = ("tokens_per_s",)  # the only numbers that may differ between two runs


@pytest.fixture(autouse=True)
def no_disk_to_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def rows(folder: Path) -> list[dict[str, Any]]:
    """The metrics, numbers as hex so that equal means equal in every bit."""
    shown = [{k: v for k, v in row.items() if k not in TIMES} for row in read_rows(folder / "metrics.jsonl")]
    return [{k: float.hex(v) if isinstance(v, float) else v for k, v in row.items()} for row in shown]


def final_bytes(folder: Path) -> bytes:
    return (folder / "checkpoint" / "model.safetensors").read_bytes()


def saved_steps(folder: Path) -> list[int]:
    return list(steps(folder / "checkpoints"))


class Acts(NextToken):
    """An objective that does something when it is asked for the n-th time, counted from 1."""

    def __init__(self, n: int, action: Callable[[], None]) -> None:
        self.left, self.action = n, action

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        if model.training:
            self.left -= 1
            if self.left == 0:
                self.action()
        return super().__call__(model, batch)


class Diverges(NextToken):
    """NextToken for n steps and NaN from then on."""

    def __init__(self, n: int) -> None:
        self.left = n

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        self.left -= model.training
        return super().__call__(model, batch) * (math.nan if self.left < 0 else 1.0)


def interrupted_at(folder: Path, step: int, **settings: Any) -> None:
    """Run until SIGTERM comes during that step."""
    with pytest.raises(Interrupted):
        go(folder, job={"objective": Acts(step, lambda: os.kill(os.getpid(), signal.SIGTERM))}, **settings)


# a run and its continuation


def test_a_run_leaves_config_metrics_and_checkpoints(tmp_path: Path) -> None:
    state = go(tmp_path / "run")
    assert state.step == 12
    found = rows(tmp_path / "run")
    assert [row["step"] for row in found if "loss" in row] == list(range(1, 13))
    assert [row["step"] for row in found if "val_loss" in row] == [5, 10, 12]
    assert found[-1]["val_tokens"] == 99  # at the end, the whole split
    assert float.fromhex(found[-1]["val_bpb"]) == pytest.approx(float.fromhex(found[-1]["val_loss"]) / math.log(2))
    assert saved_steps(tmp_path / "run") == [12, 10]
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["train"]["max_steps"] == 12
    assert not (tmp_path / "run" / "diverged.json").exists()


@pytest.mark.parametrize("stop", [1, 4, 5, 7, 10, 11])
def test_interrupted_and_continued_equals_never_stopped_in_every_bit(tmp_path: Path, stop: int) -> None:
    go(tmp_path / "whole")
    interrupted_at(tmp_path / "parts", stop)
    assert saved_steps(tmp_path / "parts")[0] == stop
    state = go(tmp_path / "parts")
    assert state.step == 12
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")
    assert final_bytes(tmp_path / "parts") == final_bytes(tmp_path / "whole")
    a, b = (load_state(tmp_path / name / "checkpoint") for name in ("parts", "whole"))
    assert a.tensors.keys() == b.tensors.keys()
    assert all(torch.equal(a.tensors[name], b.tensors[name]) for name in a.tensors)


def test_metrics_of_steps_that_a_kill_took_back_are_rewound(tmp_path: Path) -> None:
    """A kill after step 8 leaves rows up to 8, a half-written one, and the checkpoint of step 5."""
    go(tmp_path / "whole")
    with pytest.raises(ZeroDivisionError):
        go(tmp_path / "parts", job={"objective": Acts(9, lambda: 1 // 0)})  # type: ignore[arg-type]
    metrics = tmp_path / "parts" / "metrics.jsonl"
    assert rows(tmp_path / "parts")[-1]["step"] == 8
    with metrics.open("a") as file:
        file.write('{"step": 9, "lo')
    assert saved_steps(tmp_path / "parts") == [5]
    go(tmp_path / "parts")
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")
    assert final_bytes(tmp_path / "parts") == final_bytes(tmp_path / "whole")


def test_a_finished_run_does_nothing(tmp_path: Path) -> None:
    go(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    job = {"objective": Acts(1, lambda: pytest.fail("trained"))}
    assert go(tmp_path, job=job).step == 12
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_finished_run_goes_on_when_more_steps_are_asked_for(tmp_path: Path) -> None:
    go(tmp_path)
    assert go(tmp_path, max_steps=14).step == 14
    assert [row["step"] for row in rows(tmp_path) if "loss" in row] == list(range(1, 15))


class Worsens(NextToken):
    """The validation loss is best at the first look and worse each time after."""

    n_looks = 0

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        loss = super().__call__(model, batch)
        if not model.training:
            self.n_looks += 1
            return loss.detach() * 0 + self.n_looks
        return loss


@pytest.mark.parametrize(
    ("eval_every", "save_every", "expected"), [(4, 2, [12, 10, 4]), (4, 5, [12, 10, 4]), (3, 0, [12])]
)
def test_the_best_step_is_kept_beside_the_newest_also_where_no_save_was_due(
    tmp_path: Path, eval_every: int, save_every: int, expected: list[int]
) -> None:
    loop = {"eval_every": eval_every, "save_every": save_every}
    state = go(tmp_path, job={"objective": Worsens()}, keep=2, **loop)
    assert state.best_step == eval_every
    assert saved_steps(tmp_path) == expected
    assert load_state(tmp_path / "checkpoint").values["loop"]["best_step"] == eval_every


class WorsensUpToTheEnd(Worsens, Acts):
    """Worse at each of three looks, and best at the closing one, which comes too late to count; it acts, besides.

    A continuation gets the same one.
    """

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        loss = super().__call__(model, batch)
        return loss if model.training or self.n_looks <= 3 * LOOP["eval_batches"] else loss * 0


@pytest.mark.parametrize("stop", [1, 3, 5, 6])
def test_a_run_that_is_out_of_patience_ends_there_also_when_it_was_interrupted(tmp_path: Path, stop: int) -> None:
    loop = {"patience": 2, "eval_every": 2, "save_every": 5}
    state = go(tmp_path / "whole", job={"objective": WorsensUpToTheEnd(0, lambda: None)}, **loop)
    assert (state.step, state.best_step) == (6, 2)
    assert saved_steps(tmp_path / "whole") == [6, 5, 2]
    looks = [row for row in rows(tmp_path / "whole") if "val_loss" in row]
    assert [row["step"] for row in looks] == [2, 4, 6, 6]
    assert [row.get("val_tokens") for row in looks] == [None, None, None, 99]  # the last one reads the whole split
    objective = WorsensUpToTheEnd(stop, lambda: os.kill(os.getpid(), signal.SIGTERM))
    if stop < 6:
        with pytest.raises(Interrupted):
            go(tmp_path / "parts", job={"objective": objective}, **loop)
    for _ in range(2):  # the second one finds that it has ended
        assert go(tmp_path / "parts", job={"objective": objective}, **loop).step == 6
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")
    assert final_bytes(tmp_path / "parts") == final_bytes(tmp_path / "whole")
    assert go(tmp_path / "parts", job={"objective": objective}, **(loop | {"patience": 0})).step == 12


def test_a_run_that_died_before_its_closing_look_takes_it_when_called_again(tmp_path: Path) -> None:
    loop = {"eval_every": 2, "save_every": 2, "target_loss": 99.0}
    assert go(tmp_path, **loop).step == 2
    *before, closing = (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    assert "val_tokens" in closing
    (tmp_path / "metrics.jsonl").write_text("".join(before), encoding="utf-8")
    whole = [*rows(tmp_path), json.loads(closing)]
    saved = final_bytes(tmp_path)
    for _ in range(2):
        assert go(tmp_path, **loop).step == 2
        assert [row["step"] for row in rows(tmp_path)] == [row["step"] for row in whole]
        assert rows(tmp_path)[-1]["val_tokens"] == json.loads(closing)["val_tokens"]
        assert final_bytes(tmp_path) == saved


def test_a_run_that_has_reached_its_target_ends_there_also_when_it_is_called_again(tmp_path: Path) -> None:
    loop = {"eval_every": 2, "save_every": 0}
    whole = go(tmp_path / "whole", **loop)
    looks = [row for row in rows(tmp_path / "whole") if "val_loss" in row and "val_tokens" not in row]
    losses = [float.fromhex(row["val_loss"]) for row in looks]
    assert losses == sorted(losses, reverse=True)
    assert whole.step == LOOP["max_steps"]
    for _ in range(2):
        assert go(tmp_path / "part", target_loss=losses[2], **loop).step == 6
    looks = [row for row in rows(tmp_path / "part") if "val_loss" in row]
    assert [(row["step"], row.get("val_tokens")) for row in looks] == [(2, None), (4, None), (6, None), (6, 99)]
    assert go(tmp_path / "part", target_loss=losses[2] - 1, **loop).step == whole.step
    assert final_bytes(tmp_path / "part") == final_bytes(tmp_path / "whole")


@pytest.mark.parametrize("name", ["patience", "target_loss"])
def test_what_looks_at_the_validation_set_is_refused_without_looks(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}: 3 looks at the validation set, and eval_every = 0 takes none"):
        tiny_run(tmp_path, **{name: 3}, eval_every=0)


def test_patience_below_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="patience: must not be negative"):
        tiny_run(tmp_path, patience=-1)


# what is refused, before any work


def test_another_run_in_the_same_folder_is_refused_with_the_key(tmp_path: Path) -> None:
    go(tmp_path)
    before = (tmp_path / "config.yaml").read_bytes()
    with pytest.raises(ConfigError, match=r"^seed: .* was started with 7, now it is 8; run=ANOTHER_FOLDER"):
        go(tmp_path, seed=8)
    other_model = TinyRun(run=tmp_path, model=replace(tiny_run(tmp_path).model, d_model=16, n_layers=2))
    with pytest.raises(ConfigError, match=r"^model\.n_layers: .*was started with 1, now it is 2 \(and 1 more keys"):
        open_run(tmp_path, other_model, "auto")
    assert (tmp_path / "config.yaml").read_bytes() == before


def test_before_anything_was_trained_the_settings_may_change(tmp_path: Path) -> None:
    open_run(tmp_path, tiny_run(tmp_path), "auto")
    (tmp_path / "tokenizer.json").write_text("of the other text")
    open_run(tmp_path, tiny_run(tmp_path), "auto")
    assert (tmp_path / "tokenizer.json").exists()
    open_run(tmp_path, tiny_run(tmp_path, seed=8), "auto")
    assert not (tmp_path / "tokenizer.json").exists()
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["seed"] == 8


@pytest.mark.parametrize("content", ["", "- a\n- b\n", "a: [", "\x00"])
def test_a_config_that_is_none_any_more_is_one_line(tmp_path: Path, content: str) -> None:
    go(tmp_path)
    (tmp_path / "config.yaml").write_text(content)
    with pytest.raises(ConfigError, match=r"config\.yaml: .*restore or remove it$") as caught:
        go(tmp_path)
    assert "\n" not in str(caught.value)
    (tmp_path / "config.yaml").unlink()
    assert go(tmp_path).step == 12


def test_resume_never_refuses_a_folder_with_a_run(tmp_path: Path) -> None:
    assert go(tmp_path, resume="never").step == 12
    with pytest.raises(ConfigError, match=r"holds a run already \(step 12\); resume=auto continues it"):
        go(tmp_path, resume="never")


def test_resume_of_a_step_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no checkpoint of step 5; there are: none"):
        go(tmp_path, resume=5)
    go(tmp_path)
    with pytest.raises(ConfigError, match="no checkpoint of step 7; there are: 12, 10"):
        go(tmp_path, resume=7)


# going back


def test_resume_of_a_step_sets_later_ones_aside_as_often_as_wished(tmp_path: Path) -> None:
    go(tmp_path)
    whole, curve = final_bytes(tmp_path), rows(tmp_path)
    root = tmp_path / "checkpoints"
    for n in range(3):
        state = go(tmp_path, resume=10)
        assert state.step == 12
        assert rows(tmp_path) == curve
        assert final_bytes(tmp_path) == whole
        assert saved_steps(tmp_path) == [12, 10]
        assert len(list(root.glob("abandoned-00000012*"))) == n + 1
    for path in root.glob("abandoned-*"):
        verify(path)  # nothing of them was lost


def test_damaged_checkpoints_are_set_aside_and_the_run_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    go(tmp_path)
    whole, curve = final_bytes(tmp_path), rows(tmp_path)
    path = tmp_path / "checkpoints" / "step-00000012" / "optim.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with caplog.at_level(logging.WARNING):
        assert go(tmp_path).step == 12
    assert "damaged" in caplog.text
    assert "set aside as abandoned-00000012" in caplog.text
    assert final_bytes(tmp_path) == whole
    assert rows(tmp_path) == curve
    assert saved_steps(tmp_path) == [12, 10]


def test_only_damaged_ones_left_is_an_error_and_nothing_is_touched(tmp_path: Path) -> None:
    go(tmp_path)
    for path in (tmp_path / "checkpoints").glob("*/state.json"):
        path.write_text("{}")
    with pytest.raises(CheckpointError, match="none of 2 checkpoints is whole"):
        go(tmp_path)
    assert saved_steps(tmp_path) == [12, 10]


def test_a_damaged_step_that_was_asked_for_is_an_integrity_error(tmp_path: Path) -> None:
    go(tmp_path)
    (tmp_path / "checkpoints" / "step-00000010" / "state.json").write_text("{}")
    with pytest.raises(IntegrityError, match=r"state\.json: damaged.*resume=auto continues the newest checkpoint that"):
        go(tmp_path, resume=10)
    assert saved_steps(tmp_path) == [12, 10]


# what is remembered and what is asked for


def test_precision_that_was_measured_is_kept_and_one_that_is_asked_for_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit_module, "pick_precision", lambda wish, device: "bfloat16" if wish == "auto" else wish)
    go(tmp_path, max_steps=2, precision="auto")
    monkeypatch.setattr(fit_module, "pick_precision", lambda wish, device: "float32" if wish == "auto" else wish)
    go(tmp_path, max_steps=3, precision="auto")
    assert load_state(tmp_path / "checkpoint").values["precision"] == "bfloat16"
    go(tmp_path, max_steps=4, precision="float32")
    assert load_state(tmp_path / "checkpoint").values["precision"] == "float32"


def test_another_number_of_threads_is_mentioned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    go(tmp_path, max_steps=2)
    n_threads = torch.get_num_threads()
    monkeypatch.setattr(torch, "get_num_threads", lambda: n_threads + 3)
    go(tmp_path, max_steps=3)
    assert f"saved with {n_threads} threads, continued with {n_threads + 3}" in caplog.text


# divergence


def test_divergence_leaves_a_report_and_the_last_good_step(tmp_path: Path) -> None:
    with pytest.raises(DivergedError):
        go(tmp_path, job={"objective": Diverges(7)})
    report = json.loads((tmp_path / "diverged.json").read_text())
    assert report["step"] == 10
    assert report["loss"] == "nan"
    assert set(report["grad_norms"]) == {name for name, _ in open_job(tiny_run(tmp_path)).model.named_parameters()}
    assert report["batches"]["cursor"] == 20  # ten steps of two rows
    assert saved_steps(tmp_path) == [5]
    assert [row["skipped"] for row in rows(tmp_path) if "skipped" in row] == [1, 2, 3]
    newest = latest(tmp_path / "checkpoints")
    assert newest is not None
    go(tmp_path / "fresh", job={}, max_steps=12)
    assert go(tmp_path).step == 12  # the objective is sound again
    assert final_bytes(tmp_path) == final_bytes(tmp_path / "fresh")
    assert not (tmp_path / "diverged.json").exists()


class Spoils(NextToken):
    """NextToken that puts a number that is none into a weight or the optimizer's memory, once."""

    def __init__(self, step: int, spoil: Callable[[nn.Module], None]) -> None:
        self.left, self.spoil = step, spoil

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        loss = super().__call__(model, batch)
        self.left -= model.training
        if self.left == 0 and model.training:
            self.spoil(model)
        return loss


def test_weights_that_are_spoiled_right_before_a_save_are_not_saved(tmp_path: Path) -> None:
    """In step 10, where a save is due: nobody would notice before it is on the disk."""

    def spoil(model: nn.Module) -> None:
        model.get_parameter("blocks.0.ffn.up_proj.bias").data[3] = math.nan

    with pytest.raises(
        DivergedError, match=r"step-00000010: not saved, 1 tensors hold .* first blocks\.0\.ffn"
    ) as caught:
        go(tmp_path, job={"objective": Spoils(10, spoil)})
    assert caught.value.exit_status == 4
    assert json.loads((tmp_path / "diverged.json").read_text())["not_finite"] == ["blocks.0.ffn.up_proj.bias"]
    assert saved_steps(tmp_path) == [5]
    go(tmp_path / "fresh")
    assert go(tmp_path).step == 12
    assert final_bytes(tmp_path) == final_bytes(tmp_path / "fresh")


# signals


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_stops_after_its_step_and_saves(tmp_path: Path, name: str) -> None:
    before = [signal.getsignal(getattr(signal, each)) for each in Signals.NAMES]
    objective = Acts(7, lambda: os.kill(os.getpid(), getattr(signal, name)))
    with pytest.raises(Interrupted, match=rf"^{name} at step 7: saved in .*the same command continues it") as caught:
        go(tmp_path, job={"objective": objective})
    assert caught.value.exit_status == 3
    assert saved_steps(tmp_path) == [7, 5]
    assert [signal.getsignal(getattr(signal, each)) for each in Signals.NAMES] == before


def test_a_signal_in_the_last_step_finds_a_finished_run(tmp_path: Path) -> None:
    state = go(tmp_path, job={"objective": Acts(12, lambda: os.kill(os.getpid(), signal.SIGTERM))})
    assert state.step == 12


def test_a_second_signal_ends_at_once_and_nothing_half_written_is_left(tmp_path: Path) -> None:
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, job={"objective": Acts(7, twice)})
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000005"]
    assert go(tmp_path).step == 12


def test_a_second_signal_during_the_save_of_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    n_saves = [0]

    def save_file(*args: Any) -> None:
        n_saves[0] += 1
        if n_saves[0] == 2:  # the first is that of step 5
            os.kill(os.getpid(), signal.SIGTERM)
        original(*args)

    original = state_module.__dict__["save_file"]
    monkeypatch.setitem(state_module.__dict__, "save_file", save_file)
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, job={"objective": Acts(7, lambda: os.kill(os.getpid(), signal.SIGTERM))})
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000005"]
    assert go(tmp_path).step == 12


def test_a_signal_during_a_save_does_not_write_the_same_step_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writing it again would first have to remove it: for a moment the acknowledged step would not be there."""
    saved = list[int]()

    def save_checkpoint(root: Path, step: int, **parts: Any) -> Path:
        saved.append(step)
        if saved == [5]:
            os.kill(os.getpid(), signal.SIGTERM)
        return state_module.save_checkpoint(root, step, **parts)

    monkeypatch.setattr(fit_module, "save_checkpoint", save_checkpoint)
    with pytest.raises(Interrupted, match="at step 5"):
        go(tmp_path)
    assert saved == [5]


def test_a_signal_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    """`nohup legollm train` is to survive the end of its terminal."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert go(tmp_path, job={"objective": Acts(3, lambda: os.kill(os.getpid(), signal.SIGHUP))}).step == 12
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_errors_put_the_handlers_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with contextlib.suppress(DivergedError):
        go(tmp_path, job={"objective": Diverges(0)})
    assert signal.getsignal(signal.SIGTERM) == before


def test_samples_and_bits_per_byte_are_logged_when_there_are_any(tmp_path: Path) -> None:
    go(tmp_path, job={"sample": lambda model: f"training: {model.training}", "bytes_per_token": None})
    evaluated = [row for row in rows(tmp_path) if "val_loss" in row]
    assert {row["sample"] for row in evaluated} == {"training: False"}
    assert not any("val_bpb" in row for row in evaluated)


def test_the_state_of_a_run_counts_all_its_processes(tmp_path: Path) -> None:
    interrupted_at(tmp_path, 6)
    state: TrainState = fit(open_job(tiny_run(tmp_path)))
    assert state.n_tokens == sum_of_targets(tmp_path)
    assert state.seconds > 0
    assert state.best_loss is not None
    assert LOOP["max_steps"] == state.step


def sum_of_targets(folder: Path) -> int:
    last = [row for row in read_rows(folder / "metrics.jsonl") if "tokens" in row][-1]
    job = open_job(tiny_run(folder))
    n_targets = sum(job.objective.n_terms(next(job.batches)) for _ in range(12))
    assert last["tokens"] == n_targets
    return n_targets
