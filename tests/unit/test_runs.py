"""The list of runs and their comparison: every figure against the run's own files, pictures against their points."""

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from legollm.checkpoints.state import load_state
from legollm.cli import main
from legollm.commands.past_runs import PastRun, differences, read_run, runs_below
from legollm.commands.run_lock import LOCK, is_locked
from legollm.commands.runs import clock, short, thinned
from legollm.commands.text_plot import MARKS, plot
from legollm.errors import DivergedError, Interrupted
from legollm.training.metrics import JsonLines
from legollm.training.objective import NextToken
from tiny_run import MODEL, go

HOLD = "import fcntl, sys; file = open(sys.argv[1], 'w'); fcntl.lockf(file, fcntl.LOCK_EX); print(); sys.stdin.read()"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs, one of them within another folder."""
    root = tmp_path_factory.mktemp("runs")
    go(root / "a")
    go(root / "more" / "b", seed=8, max_steps=6)
    return root


def said(capsys: pytest.CaptureFixture[str], *words: Any) -> str:
    assert main(["runs", *map(str, words)]) == 0
    return capsys.readouterr().out


def test_figures_are_those_of_the_run(folders: Path) -> None:
    figures = read_run(folders / "a").figures()
    loop = load_state(folders / "a" / "checkpoint").values["loop"]
    rows = [json.loads(line) for line in (folders / "a" / "metrics.jsonl").read_text().splitlines()]
    best = min((row for row in rows if "val_loss" in row), key=lambda row: row["val_loss"])
    own = MODEL.d_model * (MODEL.vocab_size + MODEL.max_seq_len) + 12 * MODEL.d_model**2 + 13 * MODEL.d_model
    assert figures == {
        "run": str(folders / "a"),
        "state": "done",
        "arch": "gpt2",
        "parameters": own + 2 * MODEL.d_model,
        "steps": 12,
        "max_steps": 12,
        "tokens": loop["n_tokens"],
        "val_loss": loop["best_loss"],
        "val_bpb": best["val_bpb"],
        "seconds": pytest.approx(loop["seconds"], abs=1e-3),
        "tokens_per_s": pytest.approx(loop["n_tokens"] / loop["seconds"]),
    }


def test_all_runs_are_found_sorted_and_each_once(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    header, *lines = said(capsys, folders, folders / "more").splitlines()
    assert header.split()[:4] == ["run", "state", "model", "parameters"]
    assert [line.split()[0] for line in lines] == [str(folders / "a"), str(folders / "more" / "b")]  # 12 steps are more
    by_name = said(capsys, folders, "sort=tokens").splitlines()
    assert by_name[1].startswith(str(folders / "more" / "b"))
    assert list(runs_below(folders)) == [folders / "a", folders / "more" / "b"]


def test_named_runs_are_compared(folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b, page = folders / "a", folders / "more" / "b", tmp_path / "page.html"
    out = said(capsys, a, b, f"html={page}")
    assert differences([read_run(a), read_run(b)]) == {"seed": ["7", "8"], "train.max_steps": ["12", "6"]}
    lines = [line.split() for line in out.splitlines()]
    assert ["seed", "7", "8"] in lines
    assert ["train.max_steps", "12", "6"] in lines
    assert "bits per byte of held-out text" in out
    text = page.read_text(encoding="utf-8")
    assert text.count("<polyline") == 6  # three charts, two runs
    assert "train.max_steps" in text
    answer = json.loads(said(capsys, a, b, "json=true"))
    assert answer["differences"]["seed"] == {str(a): 7, str(b): 8}
    assert [row["run"] for row in answer["runs"]] == [str(a), str(b)]


@pytest.fixture
def held(folders: Path) -> Iterator[Path]:
    """A run that another process trains."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folders / "a" / LOCK)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        yield folders / "a"
        other.kill()


def test_the_state_of_a_run(folders: Path, tmp_path: Path) -> None:
    assert read_run(folders / "a").state == "done"

    class Stops(NextToken):
        def __call__(self, model: Any, batch: Any) -> Any:
            if self.left == 0:
                raise KeyboardInterrupt
            self.left -= 1
            return super().__call__(model, batch) * self.factor

        left, factor = 3, 1.0

    with pytest.raises((KeyboardInterrupt, Interrupted)):
        go(tmp_path / "stopped", job={"objective": Stops()})
    assert read_run(tmp_path / "stopped").state == "stopped"
    assert read_run(tmp_path / "stopped").figures()["parameters"] is None  # there is no checkpoint yet
    broken = Stops()
    broken.left, broken.factor = 9, math.nan
    with pytest.raises(DivergedError):
        go(tmp_path / "diverged", job={"objective": broken})
    assert read_run(tmp_path / "diverged").state == "diverged"


def test_a_run_that_another_process_trains_is_running(held: Path) -> None:
    before = sorted(held.iterdir())
    assert read_run(held).state == "running"
    assert not is_locked(held.parent)
    assert sorted(held.iterdir()) == before


def test_wrong_words_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", str(tmp_path / "no")]) == 2
    assert "no is no folder" in capsys.readouterr().err
    assert main(["runs", str(tmp_path)]) == 2
    assert "no run in" in capsys.readouterr().err


def test_a_broken_run_does_not_hide_the_others(folders: Path, capsys: pytest.CaptureFixture[str], caplog: Any) -> None:
    broken = folders / "broken"
    broken.mkdir()
    (broken / "config.yaml").write_text("a: [")
    JsonLines(broken / "metrics.jsonl")(1, loss=1.0)
    try:
        assert len(said(capsys, folders).splitlines()) == 3
        assert "not YAML any more" in caplog.text
    finally:
        (broken / "config.yaml").unlink()


def a_run(rows: list[dict[str, Any]]) -> PastRun:
    return PastRun(Path("x"), "done", {}, rows, None, None)


def test_curves_leave_out_what_is_no_number_and_scale_tokens_to_the_step() -> None:
    rows = [
        {"step": 10, "loss": 2.0, "tokens": 1_000_000},
        {"step": 15, "val_loss": 3.0},
        {"step": 20, "loss": "nan", "tokens": 2_000_000},
        {"step": 20, "val_loss": "inf"},
    ]
    assert a_run(rows).curve("loss") == [(1.0, 2.0)]
    assert a_run(rows).curve("val_loss") == [(1.5, 3.0)]
    assert a_run(rows).best == rows[1]
    early = [{"step": 5, "val_loss": 3.0}, *rows]  # a look that was taken before the first line of the log
    assert a_run(early).curve("val_loss") == [(0.5, 3.0), (1.5, 3.0)]
    empty = a_run([])
    assert (empty.step, empty.n_tokens, empty.seconds, dict(empty.best)) == (0, 0, 0.0, {})
    assert replace(empty, config={"train.max_steps": 5}).figures()["tokens_per_s"] is None


def test_a_plot_is_drawn_to_scale() -> None:
    lines = plot({"down": [(0, 4), (10, 0)], "flat": [(5, 2), (10, 2)]}, width=11, height=5, x_label="M")
    field = [line.split("|")[1].ljust(11) for line in lines[:5]]
    for column in range(11):
        rows = [i for i, row in enumerate(field) if row[column] == "o"]
        assert rows == [round(column / 10 * 4)]
    assert field[2] == "    oooxxxx"  # from 5 to 10 but for where the other curve is
    assert [line.split("|")[0].strip() for line in lines[:5]] == ["4", "", "2", "", "0"]
    assert lines[-2:] == ["   o down  0.000", "   x flat  2.000"]


POINTS = st.lists(st.tuples(st.floats(0, 1e6), st.floats(-1e6, 1e6)), max_size=6)


@settings(max_examples=60, deadline=None)
@given(st.lists(POINTS, max_size=10), st.integers(2, 40), st.integers(2, 10))
def test_plots_of_anything_fit_their_field(curves: list[list[tuple[float, float]]], width: int, height: int) -> None:
    lines = plot({f"{i}": points for i, points in enumerate(curves)}, width=width, height=height)
    usable = [points for points in curves if points]
    assert len(lines) == (height + 2 + len(usable) if usable else 0)
    for line in lines[:height]:
        assert len(line.split("|")[1]) <= width
    if usable:
        assert MARKS[0] in "".join(lines[:height])


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 10)), max_size=2000))
def test_thinning_keeps_the_mean(points: list[tuple[float, float]]) -> None:
    few = thinned(points)
    assert len(few) <= 400
    if len(points) <= 400:
        assert few == points
    elif len(points) % math.ceil(len(points) / 400) == 0:
        assert sum(y for _, y in few) / len(few) == pytest.approx(sum(y for _, y in points) / len(points))


def test_short_numbers_and_clocks() -> None:
    assert [short(n) for n in (0, 999, 1000, 45_678, 999_600, 12_345_678, 10**11)] == [
        *("0", "999", "1.00k", "45.7k", "1.00M", "12.3M", "100B")
    ]
    assert [clock(s) for s in (0, 59.6, 3599, 3600, 90_061)] == ["0:00", "1:00", "59:59", "1:00:00", "25:01:01"]
