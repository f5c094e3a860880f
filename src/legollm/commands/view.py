"""What is on the screen while a run goes on: a live view on a terminal, one aligned line per event elsewhere."""

import math
import os
import re
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from legollm.training.metrics import Value, console_line

BARS = "▁▂▃▄▅▆▇█"


class View(Protocol):
    """Is told what happens; decides how to show it."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...
    def metrics(self, step: int, values: Mapping[str, Value]) -> None: ...
    def sample(self, text: str) -> None: ...
    def note(self, text: str) -> None: ...


def choose_view(max_steps: int, *, title: str = "", lines: Mapping[str, float] | None = None) -> View:
    """The live view where there is a terminal that can show it, else plain lines.

    lines: levels to compare bits per byte with, such as {"n-gram": 1.6}.
    """
    plain = not sys.stdout.isatty() or any(os.environ.get(name) for name in ("CI", "NO_COLOR", "LEGOLLM_PLAIN"))
    return PlainView(max_steps) if plain else LiveView(max_steps, title, lines or {})


class NoView:
    """Shows nothing: of several processes, one has the screen."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...
    def metrics(self, step: int, values: Mapping[str, Value]) -> None: ...
    def sample(self, text: str) -> None: ...
    def note(self, text: str) -> None: ...


class PlainView:
    """One line per event: readable in a log file, and by other programs."""

    def __init__(self, max_steps: int) -> None:
        self.max_steps = max_steps

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        sys.stdout.flush()

    def metrics(self, step: int, values: Mapping[str, Value]) -> None:
        print(console_line(step, self.max_steps, dict(values)), flush=True)

    def sample(self, text: str) -> None:
        print(f"  sample: {one_line(text)}", flush=True)

    def note(self, text: str) -> None:
        print(text, flush=True)


class LiveView:
    """Progress, loss, speed, time left and the latest sample, redrawn in place."""

    def __init__(self, max_steps: int, title: str, lines: Mapping[str, float]) -> None:
        self.max_steps, self.title, self.lines = max_steps, title, lines
        self.step, self.losses = 0, list[float]()
        self.latest: dict[str, Value] = {}
        self.text = ""
        self.live = Live(console=Console(), refresh_per_second=4, transient=False)

    def __enter__(self) -> Self:
        self.live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.live.update(self.picture(), refresh=True)
        self.live.stop()

    def metrics(self, step: int, values: Mapping[str, Value]) -> None:
        self.step = step
        self.latest |= values
        if isinstance(loss := values.get("loss"), float) and math.isfinite(loss):
            self.losses.append(loss)
        self.live.update(self.picture())

    def sample(self, text: str) -> None:
        self.text = one_line(text)
        self.live.update(self.picture())

    def note(self, text: str) -> None:
        self.live.console.print(text, markup=False, highlight=False)

    def picture(self) -> RenderableType:
        rows = Table.grid(padding=(0, 2))
        rows.add_row(
            *(Text(name, style="dim") for name in ("step", "loss", "val", "bits/byte", "tokens/s", "time left"))
        )
        rows.add_row(
            f"{self.step}/{self.max_steps}",
            shown(self.latest.get("loss"), ".3f"),
            shown(self.latest.get("val_loss"), ".3f"),
            shown(self.latest.get("val_bpb"), ".3f"),
            shown(self.latest.get("tokens_per_s"), ",.0f"),
            self.time_left(),
        )
        bar = Padding(ProgressBar(self.max_steps, self.step), 0)  # by itself it does not end its line
        parts: list[RenderableType] = [bar, rows]
        if len(self.losses) > 1:
            parts.append(Text(sparkline(self.losses, 76), style="cyan"))
        if self.lines:
            levels = "   ".join(f"{name} {level:.2f}" for name, level in self.lines.items())
            parts.append(Text(f"to beat, in bits per byte: {levels}", style="dim"))
        if self.text:
            parts.append(Text(self.text, style="italic"))
        return Panel(Group(*parts), title=self.title or None, width=min(100, self.live.console.width))

    def time_left(self) -> str:
        seconds = self.latest.get("seconds_left")
        return f"{int(float(seconds)) // 60}:{int(float(seconds)) % 60:02}" if seconds is not None else "-"


def one_line(text: str) -> str:
    """Text by a model, without what would move the cursor or change the terminal."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", "\N{REPLACEMENT CHARACTER}", " ".join(text.split()))


def shown(value: Value | None, form: str) -> str:
    return "-" if value is None else format(float(value), form)


def sparkline(values: list[float], width: int) -> str:
    """A curve in one line of block characters, the newest value to the right."""
    n = min(width, len(values))
    picked = [values[i * (len(values) - 1) // max(1, n - 1)] for i in range(n)]
    low, high = min(picked), max(picked)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[round((value - low) * scale)] for value in picked)
