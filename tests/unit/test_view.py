"""What is on the screen: plain lines for logs, a picture for terminals, and nothing a model says moves the cursor."""

import io
import math

import pytest
from rich.console import Console

from legollm.commands import view
from legollm.commands.view import BARS, LiveView, PlainView, choose_view, sparkline

VALUES = {"loss": 2.5, "lr": 1e-3, "grad_norm": 0.7, "tokens": 12_000, "tokens_per_s": 34_567.8, "seconds_left": 125.0}


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """A terminal of 90 columns whose screen can be read."""
    screen = io.StringIO()
    monkeypatch.setattr(view, "Console", lambda: Console(file=screen, force_terminal=True, width=90, no_color=True))
    return screen


def test_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with PlainView(100) as plain:
        plain.note("continuing [b]runs/x[/b]")
        plain.metrics(10, VALUES)
        plain.metrics(20, {"val_loss": 2.25, "val_bpb": math.nan})
        plain.sample("One morning,\n  Mira \x1b[2J\x07 left.")
    out, err = capsys.readouterr()
    assert err == ""
    first, second, third, fourth = out.splitlines()
    assert first == "continuing [b]runs/x[/b]"
    assert second.startswith("step  10/100  loss  2.5000  lr 1.00e-03")
    assert second.endswith("34,568 tokens/s    2:05 left")
    assert third == "step  20/100  val_loss  2.2500  val_bpb     nan"
    assert fourth == "  sample: One morning, Mira \N{REPLACEMENT CHARACTER}[2J\N{REPLACEMENT CHARACTER} left."


def test_live_view_shows_the_run(terminal: io.StringIO) -> None:
    with LiveView(100, "pre-training", {"4-gram": 1.5, "entropy": 0.9}) as live:
        live.note("continuing [b]runs/x[/b] [/nothing]")
        for step in (10, 20, 30):
            live.metrics(step, VALUES | {"loss": 5.0 - step / 10})
        live.metrics(40, {"val_loss": 2.25, "val_bpb": 1.75})
        live.metrics(50, {"loss": math.nan})
        live.sample("Mira\nput [red]the key[/red] \x1b[2J away")
    shown = terminal.getvalue()
    assert "continuing [b]runs/x[/b] [/nothing]" in shown
    last = shown[shown.rindex("pre-training") :]
    for text in (
        "bits/byte",
        "tokens/s",
        "time left",
        "50/100",
        "nan",
        "2.250",
        "1.750",
        "34,568",
        "2:05",
        "█",
        "4-gram 1.50   entropy 0.90",
    ):
        assert text in last
    assert "Mira put [red]the key[/red] \N{REPLACEMENT CHARACTER}[2J away" in last
    assert "\x1b[2J" not in shown


def test_live_view_before_anything_happened(terminal: io.StringIO) -> None:
    with LiveView(5, "", {}):
        pass
    assert "0/5" in terminal.getvalue()
    assert "to beat" not in terminal.getvalue()


def test_live_view_leaves_the_last_picture_when_the_run_fails(terminal: io.StringIO) -> None:
    live = LiveView(5, "", {})

    def fail() -> None:
        with live:
            live.metrics(3, {"loss": 1.125})
            raise ArithmeticError

    with pytest.raises(ArithmeticError):
        fail()
    assert "1.125" in terminal.getvalue()
    assert not live.live.is_started


@pytest.mark.parametrize("name", ["CI", "NO_COLOR", "LEGOLLM_PLAIN"])
def test_the_live_view_is_for_terminals(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("CI", "NO_COLOR", "LEGOLLM_PLAIN"):
        monkeypatch.delenv(variable, raising=False)
    assert isinstance(choose_view(5), PlainView)  # standard output is captured here
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert isinstance(choose_view(5, lines={"x": 1.0}), LiveView)
    monkeypatch.setenv(name, "1")
    assert isinstance(choose_view(5), PlainView)


def test_sparkline() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == BARS
    assert sparkline([7, 0], 8) == "█▁"
    assert sparkline([3, 3, 3], 8) == "▁▁▁"
    assert sparkline([3], 8) == "▁"
    falling = sparkline([float(-i) for i in range(1000)], 10)
    assert len(falling) == 10
    assert (falling[0], falling[-1]) == ("█", "▁")  # the first value and the newest one
    assert list(falling) == sorted(falling, reverse=True)
