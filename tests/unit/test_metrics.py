"""The metrics file: one object a line, always parseable, rewound after a kill."""

import json
import math
from pathlib import Path

from legollm.training.metrics import JsonLines, console_line, read_rows


def test_every_row_is_json_that_any_reader_parses(tmp_path: Path) -> None:
    log = JsonLines(tmp_path / "new" / "metrics.jsonl")
    log(1, loss=0.1 + 0.2, lr=1e-3, note="ü\n")
    log(2, loss=math.nan, grad_norm=math.inf)
    lines = log.path.read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line, parse_constant=lambda name: 1 / 0) for line in lines]  # NaN is no JSON
    assert rows == [
        {"step": 1, "loss": 0.1 + 0.2, "lr": 1e-3, "note": "ü\n"},
        {"step": 2, "loss": "nan", "grad_norm": "inf"},
    ]
    assert float.hex(rows[0]["loss"]) == float.hex(0.1 + 0.2)


def test_rewind_drops_what_will_be_run_again(tmp_path: Path) -> None:
    log = JsonLines(tmp_path / "metrics.jsonl")
    for step in (1, 2, 2, 3, 4):
        log(step, loss=float(step))
    log.rewind(2)
    assert [row["step"] for row in read_rows(log.path)] == [1, 2, 2]
    log(3, loss=3.5)
    assert [row["loss"] for row in read_rows(log.path)] == [1.0, 2.0, 2.0, 3.5]


def test_a_line_cut_off_by_a_kill_is_dropped_at_every_length(tmp_path: Path) -> None:
    log = JsonLines(tmp_path / "metrics.jsonl")
    log(1, loss=1.0)
    log(2, loss=2.0)
    whole = log.path.read_bytes()
    first = whole.index(b"\n") + 1
    for n in range(first, len(whole) - 1):
        log.path.write_bytes(whole[:n])
        assert [row["step"] for row in read_rows(log.path)] == [1]
        log.rewind(5)
        assert log.path.read_bytes() == whole[:first]


def test_no_file_yet_is_no_rows(tmp_path: Path) -> None:
    log = JsonLines(tmp_path / "metrics.jsonl")
    assert read_rows(log.path) == []
    log.rewind(0)
    assert log.path.read_text() == ""


def test_console_line_is_aligned() -> None:
    values = {"loss": 1.5, "lr": 1e-3, "tokens": 2_500_000, "tokens_per_s": 12345.6, "seconds_left": 65.2}
    line = console_line(7, 1000, dict(values))
    assert line == "step    7/1000  loss  1.5000  lr 1.00e-03     2.50 M tokens    12,346 tokens/s    1:05 left"
    assert len(console_line(800, 1000, dict(values))) == len(line)
    assert "skipped 2" in console_line(1, 10, {"skipped": 2})
