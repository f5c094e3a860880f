"""Runs of several processes: continued by more or fewer, killed, stopped, hung, interrupted, started wrongly."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import legollm
from legollm.checkpoints.manifest import steps, verify
from legollm.checkpoints.state import load_state
from legollm.training.metrics import read_rows
from processes import PATIENCE_S, command, ended, start

TEXT = "".join(
    f"{name} put the {thing} {where}. Where is the {thing}? It is {where}.\n"
    for name in ("Mira", "Tom", "Ada", "Old Ben")
    for thing in ("key", "lamp", "red ball", "letter")
    for where in ("under the mat", "in the box", "on the shelf", "by the door")
)
MODEL = ["model.n_layers=2", "model.d_model=16", "model.n_heads=2", "model.max_seq_len=16", "model.dropout=0"]
LOOP = ["optim.warmup_steps=3", "optim.schedule=constant", "train.precision=float32", "train.log_every=1"]
GLOBAL_BATCH = 6


def words(folder: Path, size: int, *more: str, n_steps: int = 4) -> list[str]:
    """The command line of a run in `folder` that shares batches of 6 rows among `size` processes."""
    text = folder.parent / "text.txt"
    text.write_text(TEXT)
    how = [f"train.batch_size={GLOBAL_BATCH // size}", f"train.max_steps={n_steps}", "train.save_every=2"]
    return [
        "train",
        f"run={folder}",
        f"data.source={text}",
        "tokenizer=char",
        "model.arch=gpt2",
        *MODEL,
        *LOOP,
        *how,
        *more,
    ]


def run(folder: Path, size: int, *more: str, **settings: Any) -> None:
    """Such a run to its end."""
    processes = start(size, command, words(folder, size, *more, **settings), folder.parent / "said")
    assert ended(processes) == [0] * size, said(folder, size)


def said(folder: Path, size: int) -> list[str]:
    return [(folder.parent / f"said-{rank}").read_text() for rank in range(size)]


def losses(folder: Path) -> dict[int, float]:
    return {row["step"]: row["loss"] for row in read_rows(folder / "metrics.jsonl") if "loss" in row}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return legollm.load(folder).model.state_dict()


def wait_for(folder: Path, step: int) -> None:
    path, deadline = folder / "metrics.jsonl", time.monotonic() + PATIENCE_S
    while not (path.exists() and any(row["step"] >= step for row in read_rows(path))):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.slow
def test_a_run_is_divided_between_two_processes_continued_by_one_and_then_by_three(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run(folder, 1, n_steps=2)
    run(folder, 2, "train.parallel=fsdp", n_steps=4)
    assert len(list((folder / "checkpoint").glob("model-*-of-00002.safetensors"))) == 2
    run(folder, 1, n_steps=6)
    assert (folder / "checkpoint" / "model.safetensors").exists()
    run(folder, 3, "train.parallel=fsdp", n_steps=8)
    run(tmp_path / "one", 1, n_steps=8)
    assert losses(folder) == pytest.approx(losses(tmp_path / "one"), abs=1e-6)
    memory, alone = (load_state(one / "checkpoint").tensors for one in (folder, tmp_path / "one"))
    assert memory.keys() - {"rng.cpu.1", "rng.cpu.2"} == alone.keys()
    for name in alone.keys() - {"rng.cpu"}:
        torch.testing.assert_close(memory[name], alone[name], rtol=0, atol=1e-6, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_continued_by_as_many_equals_never_stopped_in_every_bit(tmp_path: Path, parallel: str) -> None:
    """With dropout, which each process draws for its own rows."""
    more = ["model.dropout=0.2", f"train.parallel={parallel}", "train.grad_accum=2"]
    run(tmp_path / "parts", 2, *more, n_steps=2)
    run(tmp_path / "parts", 2, *more, n_steps=5)
    run(tmp_path / "whole", 2, *more, n_steps=5)
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    mine, whole = weights(tmp_path / "parts"), weights(tmp_path / "whole")
    assert all(torch.equal(mine[name], whole[name]) for name in whole)


LONG = ["train.eval_every=0", "train.save_every=0"]


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_when_one_is_killed_the_other_says_so_and_ends(tmp_path: Path, victim: int) -> None:
    folder = tmp_path / "run"
    processes = start(2, command, words(folder, 2, *LONG, n_steps=10**6), tmp_path / "said")
    wait_for(folder, 5)
    processes[victim].kill()
    killed_at = time.monotonic()
    statuses = ended(processes)
    assert time.monotonic() - killed_at < 30
    assert statuses == [-9 if rank == victim else 1 for rank in (0, 1)]
    complaints = [line for line in said(folder, 2)[1 - victim].splitlines() if line.startswith("legollm:")]
    assert len(complaints) == 1
    assert "is gone" in complaints[0]
    assert complaints[0].endswith("the same command continues from its newest checkpoint")


def impatient(line: Sequence[str], said: Path, hanging: str) -> None:
    """A command line with a watch that waits seconds; process 1 hangs in its twentieth step if that is asked for."""
    from legollm.data.loader import RowBatches
    from legollm.training import watch

    watch.BEAT_S, watch.SILENCE_S, watch.STANDSTILL_S = 0.2, 2.0, 2.0
    read: Callable[[Any], Any] = RowBatches.__next__
    n_read = 0

    def hang(batches: Any) -> Any:
        nonlocal n_read
        n_read += 1
        if n_read == 20:
            time.sleep(PATIENCE_S)
        return read(batches)

    if hanging == os.environ["RANK"]:
        RowBatches.__next__ = hang  # type: ignore[method-assign]
    command(line, said)


@pytest.mark.slow
@pytest.mark.parametrize(("hanging", "complaint"), [("1", "a process hangs; process 1"), ("", "gave no sign of life")])
def test_one_that_hangs_or_is_stopped_does_not_hold_the_other_for_ever(
    tmp_path: Path, hanging: str, complaint: str
) -> None:
    folder = tmp_path / "run"
    line = words(folder, 2, *LONG, "data.prefetch=0", n_steps=10**6)
    processes = start(2, impatient, line, tmp_path / "said", hanging)
    wait_for(folder, 10)
    if not hanging:
        os.kill(processes[1].pid, signal.SIGSTOP)
    processes[0].join(PATIENCE_S)
    processes[1].kill()
    assert processes[0].exitcode == 1
    assert complaint in said(folder, 2)[0].splitlines()[-1]
    processes[1].join()


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_signal_at_one_of_them_saves_once_and_ends_all_with_status_three(tmp_path: Path, parallel: str) -> None:
    folder = tmp_path / "run"
    more = ["train.eval_every=0", "train.save_every=0", f"train.parallel={parallel}"]
    processes = start(2, command, words(folder, 2, *more, n_steps=10**6), tmp_path / "said")
    wait_for(folder, 5)
    os.kill(processes[1].pid, signal.SIGTERM)
    assert ended(processes) == [3, 3]
    (newest,) = steps(folder / "checkpoints").values()
    verify(newest)
    assert sum("continues it" in text for text in said(folder, 2)) == 1


@pytest.mark.slow
def test_processes_with_different_settings_are_refused_in_one_line(tmp_path: Path) -> None:
    lines = [words(tmp_path / "run", 2, f"train.grad_accum={1 + rank}") for rank in (0, 1)]
    processes = start(2, one_of, lines, tmp_path / "said")
    assert ended(processes) == [2, 2]
    assert "".join(said(tmp_path / "run", 2)) == (
        "legollm: train.grad_accum: process 0 has 1, process 1 has 2; start all processes with the same command line "
        "and the same versions\n"
    )
    assert not (tmp_path / "run").exists()


def one_of(lines: Sequence[Sequence[str]], said: Path) -> None:
    command(lines[int(os.environ["RANK"])], said)


def with_a_full_disk(line: Sequence[str], said: Path, victim: int) -> None:
    """A command line; the disk of one process refuses its part of the first checkpoint."""
    from legollm.checkpoints import divided

    write, n_written = divided.write_tensors, 0

    def refuse(path: Path, *parts: Any) -> None:
        nonlocal n_written
        n_written += 1
        if os.environ["RANK"] == str(victim) and n_written == 1:
            raise OSError(28, "No space left on device")
        write(path, *parts)

    divided.write_tensors = refuse
    command(line, said)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_what_one_cannot_write_none_of_them_has_written(tmp_path: Path, victim: int) -> None:
    """And with train.on_save_failure=warn all of them train on."""
    folder = tmp_path / "run"
    line = words(folder, 2, "train.parallel=fsdp", "train.on_save_failure=warn", n_steps=4)
    processes = start(2, with_a_full_disk, line, tmp_path / "said", victim)
    assert ended(processes) == [0, 0], said(folder, 2)
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step-00000004"]
    assert "WARNING: step 2:" in said(folder, 2)[0]
    assert list(losses(folder)) == [1, 2, 3, 4]


@pytest.mark.slow
def test_the_other_verbs_share_their_work(tmp_path: Path) -> None:
    small = [
        "tokenizer=char",
        "train.max_steps=4",
        "train.batch_size=4",
        "train.parallel=fsdp",
        "train.precision=float32",
    ]
    pairs = tmp_path / "pairs.jsonl"
    rows = [{"source": f"w{i}", "target": f"{i}w", "text": f"w{i}", "label": "ab"[i % 2]} for i in range(80)]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = ["model.n_layers=1", "model.d_model=16", "model.n_heads=2"]
    for name in ("seq2seq", "classify"):
        line = [name, "train", f"data.source={pairs}", *model]
        processes = start(2, command, [*line, *small, f"run={tmp_path / name}"], tmp_path / "said")
        assert ended(processes) == [0, 0], said(tmp_path / name, 2)
        assert legollm.load(tmp_path / name).arch


@pytest.mark.slow
def test_preferences_are_learned_by_two_processes_as_by_one(tmp_path: Path) -> None:
    """And KTO of judged answers, whose point of comparison is that of each process's own rows, comes to its end."""
    run(tmp_path / "base", 1, "model.max_seq_len=96", "tokenizer=bpe", "tokenizer.vocab_size=270", n_steps=2)
    asked = [f"where is {i}" for i in range(16)]
    rows = {
        "pairs": [{"prompt": prompt, "chosen": "in it", "rejected": "it is " + prompt} for prompt in asked],
        "judged": [{"prompt": prompt, "completion": "in it", "label": i % 3 > 0} for i, prompt in enumerate(asked)],
    }
    for name, of in rows.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in of))
    for verb, source, more in (
        ("dpo", "pairs", ["lora.rank=2", "n_answers=2"]),
        ("reward", "pairs", ["train.parallel=fsdp"]),
        ("dpo", "judged", ["dpo.loss=kto", "n_answers=0"]),
    ):
        for size in (1, 2):
            folder = tmp_path / f"{verb}-{source}-{size}"
            line = [
                verb,
                f"model={tmp_path / 'base'}",
                f"data.source={tmp_path / source}.jsonl",
                f"run={folder}",
                *LOOP,
            ]
            line += ["data.n_val=3", "train.max_steps=3", f"train.batch_size={4 // size}", "optim.lr=0.01", *more]
            assert ended(start(size, command, line, tmp_path / "said")) == [0] * size, said(folder, size)
        assert "held-out" in said(folder, 1)[0]
        assert said(folder, 2)[1] == ""
        if source == "pairs":
            alone, both = losses(tmp_path / f"{verb}-{source}-1"), losses(folder)
            assert both == pytest.approx(alone, abs=1e-6)
            assert len(both) == 3


@pytest.mark.slow
def test_torchrun_itself(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "legollm"]
    paths = os.pathsep.join([str(Path(legollm.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    done = subprocess.run([*launcher, *words(folder, 2)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert f"next: legollm generate {folder}/checkpoint" in done.stdout.splitlines()
    assert len(losses(folder)) == 4
