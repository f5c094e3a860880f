"""Runs that are killed or interrupted at any moment and started again: as if nothing had happened, in every bit."""

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest

from legollm.checkpoints.manifest import latest, steps, verify
from legollm.training.metrics import read_rows

N_STEPS, SAVE_EVERY = 60, 5
PATIENCE_S = 600  # only so that a hang ends
TEXT = "".join(
    f"{name} put the {thing} {where}. Where is the {thing}? It is {where}.\n"
    for name in ("Mira", "Tom", "Ada", "Old Ben")
    for thing in ("key", "lamp", "red ball", "letter")
    for where in ("under the mat", "in the box", "on the shelf", "by the door")
)
SETTINGS = {
    "tokenizer": "char",
    "model.arch": "gpt2",
    "model.n_layers": 1,
    "model.d_model": 16,
    "model.n_heads": 2,
    "model.max_seq_len": 16,
    "model.dropout": 0.2,
    "optim.warmup_steps": 10,
    "train.max_steps": N_STEPS,
    "train.batch_size": 4,
    "train.grad_accum": 2,
    "train.save_every": SAVE_EVERY,
    "train.log_every": 1,
    "train.eval_every": 20,
    "train.precision": "float32",
    "resume": "auto",
}


SOAKED = [pytest.param(seed, marks=pytest.mark.soak) for seed in (2, 3, 4)]


def words(folder: Path) -> list[str]:
    """The command line of the run in `folder`."""
    text = folder.parent / "text.txt"
    text.write_text(TEXT)
    return [
        "train",
        f"run={folder}",
        f"data.source={text}",
        *(f"{key}={value}" for key, value in SETTINGS.items()),
    ]


def environment() -> dict[str, str]:
    paths = [str(Path(__file__).parents[2] / "src"), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def legollm(folder: Path) -> subprocess.Popen[str]:
    """`python -m legollm train ...`, as a user starts it."""
    return subprocess.Popen(
        [sys.executable, "-m", "legollm", *words(folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )


def forked_main(arguments: list[str]) -> None:
    """The same in a process that has torch in its memory already, which saves seconds for each start."""
    import torch

    from legollm.cli import main

    torch.set_num_threads(1)
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    sys.exit(main(arguments))


@pytest.fixture(scope="session")
def forked() -> Iterator[Callable[[Path], ForkServerProcess]]:
    context = multiprocessing.get_context("forkserver")
    before = dict(os.environ)
    os.environ.update(environment())  # of the server, which is started with the first process
    context.set_forkserver_preload(["legollm.cli", "legollm.commands.train", "torch._dynamo"])
    started = list[ForkServerProcess]()

    def start(folder: Path) -> ForkServerProcess:
        process = context.Process(target=forked_main, args=(words(folder),))
        process.start()
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
    os.environ.clear()
    os.environ.update(before)


def ended(process: ForkServerProcess) -> int | None:
    process.join(timeout=PATIENCE_S)
    return process.exitcode


def curve(folder: Path) -> list[dict[str, Any]]:
    """Every row of the metrics, numbers as hex; without the one number that is a time."""
    rows = [{k: v for k, v in row.items() if k != "tokens_per_s"} for row in read_rows(folder / "metrics.jsonl")]
    return [{k: float.hex(v) if isinstance(v, float) else v for k, v in row.items()} for row in rows]


def weights(folder: Path) -> bytes:
    return (folder / "checkpoints" / f"step-{N_STEPS:08d}" / "model.safetensors").read_bytes()


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory, forked: Any) -> Path:
    """A run that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert ended(forked(folder)) == 0
    assert [row["step"] for row in curve(folder) if "loss" in row] == list(range(1, N_STEPS + 1))
    return folder


def assert_same(folder: Path, whole: Path) -> None:
    assert curve(folder) == curve(whole)
    assert weights(folder) == weights(whole)


def step_now(folder: Path) -> int:
    """The last step in the metrics, 0 if there are none yet."""
    path = folder / "metrics.jsonl"
    rows = read_rows(path) if path.exists() else []
    return rows[-1]["step"] if rows else 0


def wait_until(happened: Callable[[], bool], is_alive: Callable[[], bool]) -> None:
    """Until it happened, or until the process cannot make it happen any more."""
    deadline = time.monotonic() + PATIENCE_S
    while is_alive() and not happened() and time.monotonic() < deadline:
        time.sleep(0.001)


def assert_whole(root: Path) -> None:
    """No checkpoint under its final name is damaged or half there."""
    for path in steps(root).values():
        verify(path)


@pytest.mark.parametrize(
    ("seed", "n_kills"),
    [
        (0, 3),
        pytest.param(1, 10, marks=pytest.mark.slow),
        *(pytest.param(seed, 10, marks=pytest.mark.soak) for seed in (2, 3, 4, 5)),
    ],
)
def test_killed_again_and_again_equals_never_killed(
    tmp_path: Path, whole: Path, forked: Any, seed: int, n_kills: int
) -> None:
    """kill -9 at seeded steps, and a random while into each, until the run gets to its end."""
    folder, rng = tmp_path / "run", random.Random(seed)
    hit = 0
    for step in sorted(rng.sample(range(N_STEPS - 10), n_kills)):
        process = forked(folder)
        wait_until(lambda step=step: step_now(folder) >= step, process.is_alive)  # type: ignore[misc]
        time.sleep(rng.random() * 0.02)
        process.kill()
        hit += ended(process) == -signal.SIGKILL
        assert_whole(folder / "checkpoints")
    assert ended(forked(folder)) == 0
    assert hit >= n_kills - 1  # the last process may have been faster than the kill
    assert_same(folder, whole)


@pytest.mark.parametrize(
    "name", ["SIGTERM", *(pytest.param(each, marks=pytest.mark.soak) for each in ("SIGINT", "SIGHUP"))]
)
def test_a_signal_saves_ends_with_status_three_and_the_same_command_continues(
    tmp_path: Path, whole: Path, forked: Any, name: str
) -> None:
    folder = tmp_path / "run"
    process = legollm(folder)
    wait_until(lambda: step_now(folder) >= 13, lambda: process.poll() is None)
    process.send_signal(getattr(signal, name))
    _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 3, said
    assert said.startswith(f"legollm: {name} at step ")
    assert said.count("\n") == 1
    newest = latest(folder / "checkpoints")
    assert newest is not None
    stopped_at = json.loads((newest / "state.json").read_text())["step"]
    assert stopped_at == step_now(folder) >= 13
    assert ended(forked(folder)) == 0
    assert_same(folder, whole)


@pytest.mark.parametrize("seed", [pytest.param(0, marks=pytest.mark.slow), *SOAKED])
def test_signals_again_and_again_equal_no_signal(tmp_path: Path, whole: Path, forked: Any, seed: int) -> None:
    """Each of the three at ten seeded moments: within a step, a save, a look at the validation set."""
    folder, rng = tmp_path / "run", random.Random(seed)
    n_saved = 0
    for step in sorted(rng.sample(range(N_STEPS - 5), 10)):
        process = forked(folder)
        least = max(step, step_now(folder) + 1)  # before its first step there is nothing to save
        wait_until(lambda least=least: step_now(folder) >= least, process.is_alive)  # type: ignore[misc]
        time.sleep(rng.random() * 0.02)
        before = step_now(folder)
        os.kill(process.pid, rng.choice([signal.SIGTERM, signal.SIGINT, signal.SIGHUP]))
        status = ended(process)
        assert status in (3, 0), status
        if status == 0:  # faster than the signal
            break
        n_saved += 1
        newest = latest(folder / "checkpoints")
        assert newest is not None
        assert json.loads((newest / "state.json").read_text())["step"] == step_now(folder) <= before + 2
    assert n_saved >= 8
    assert ended(forked(folder)) == 0
    assert_same(folder, whole)


@pytest.mark.parametrize("seed", [pytest.param(seed, marks=pytest.mark.slow) for seed in (0, 1)] + SOAKED)
def test_a_second_signal_ends_at_once_and_leaves_whole_checkpoints(
    tmp_path: Path, whole: Path, forked: Any, seed: int
) -> None:
    folder, rng = tmp_path / "run", random.Random(seed)
    process = forked(folder)
    step = rng.randrange(SAVE_EVERY, N_STEPS - 20)
    wait_until(lambda: step_now(folder) >= step, process.is_alive)
    os.kill(process.pid, signal.SIGTERM)
    time.sleep(rng.random() * 0.01)
    os.kill(process.pid, rng.choice([signal.SIGTERM, signal.SIGINT, signal.SIGHUP]))
    assert ended(process) in (3, 130)  # 3 where the save was done before the second came
    assert_whole(folder / "checkpoints")
    assert not list((folder / "checkpoints").glob(".tmp-*"))
    assert ended(forked(folder)) == 0
    assert_same(folder, whole)


def save_for_ever(root: Path, told: Any) -> None:
    """Checkpoint after checkpoint, and a word to the outside after each."""
    import torch

    from legollm.architectures import ARCHITECTURES
    from legollm.architectures.gpt2 import GPT2Config
    from legollm.checkpoints.state import TrainingState, prepare_root, save_checkpoint

    torch.set_num_threads(1)
    prepare_root(root)
    step = next(iter(steps(root)), 0)
    config = GPT2Config(vocab_size=500, max_seq_len=8, n_layers=1, n_heads=2, d_model=64)
    model = ARCHITECTURES["gpt2"].build(config)
    state = TrainingState({}, {"x": torch.zeros(500_000)})
    while True:
        step += 1
        save_checkpoint(root, step, model=model, arch="gpt2", config=config, tokenizer=None, state=state)
        told.send(step)


@pytest.mark.parametrize(
    "n_kills", [pytest.param(25, marks=pytest.mark.slow), pytest.param(200, marks=pytest.mark.soak)]
)
def test_kills_while_saving(tmp_path: Path, forked: Any, n_kills: int) -> None:
    """No corrupt folder under a final name, nothing acknowledged is lost, and orphans go at the next start."""
    context, rng = multiprocessing.get_context("forkserver"), random.Random(0)
    root = tmp_path / "run" / "checkpoints"
    n_orphans = 0
    for _ in range(n_kills):
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=save_for_ever, args=(root, there))
        process.start()
        there.close()
        assert here.poll(PATIENCE_S)
        acknowledged = here.recv()
        time.sleep(rng.random() * 0.05)
        process.kill()
        process.join()
        while here.poll():
            try:
                acknowledged = here.recv()
            except EOFError:
                break
        assert_whole(root)
        assert next(iter(steps(root))) >= acknowledged
        assert latest(root) is not None
        orphans = len(list(root.glob(".tmp-*")))
        assert orphans <= 2  # earlier ones were removed when this process started
        n_orphans += orphans
    assert n_orphans > 0  # some kills did hit a save
