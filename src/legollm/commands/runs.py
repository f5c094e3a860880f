"""`legollm runs`: what was trained, what came of it, and where runs differ."""

import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from legollm.commands.layers_view import layers_section
from legollm.commands.past_runs import PastRun, differences, is_run, read_run, runs_below
from legollm.commands.text_plot import Points, plot
from legollm.config import Resolved
from legollm.errors import ConfigError
from legollm.evaluation.report import Chart, Curve, Section, write_report

log = logging.getLogger(__name__)

Sort = Literal["val_bpb", "val_loss", "run", "parameters", "tokens", "seconds", "tokens_per_s"]
CURVES = {
    "val_bpb": "bits per byte of held-out text",
    "val_loss": "validation loss, nats per token",
    "loss": "training loss, nats per token",
}
"""What is drawn, the most comparable first."""
POINTS = 400
"""Of a curve on the page, at most: more are averaged."""


@dataclass(frozen=True, kw_only=True)
class RunsRun:
    """Folders to look into."""

    REST: ClassVar[str] = "folders"

    folders: tuple[Path, ...] = (Path("runs"),)
    """Runs, which are compared, or folders of runs, which are listed."""
    sort: Sort = "val_bpb"
    """What the list is sorted by, the best, smallest or fastest first; runs that do not have it come last."""
    html: Path | None = None
    """A page to write: the list, the curves over each other and the settings that differ."""
    json: bool = False
    """Print JSON."""


def runs(run: Resolved[RunsRun]) -> None:
    """List the runs in a folder, or compare those that are named: settings that differ, curves over each other.

    The validation loss is the best of each run, val_bpb the bits per byte of that moment. Time is that of training.

    legollm runs
    legollm runs runs/a runs/b html=compared.html
    """
    cfg = run.value
    found = sorted(read_all(cfg.folders), key=lambda past: place(past, cfg.sort))
    compares = all(is_run(folder) for folder in cfg.folders)
    if cfg.json:
        differing = {
            key: {str(past.folder): past.config[key] for past in found if key in past.config}
            for key in differences(found)
        }
        print(json.dumps({"runs": [past.figures() for past in found], "differences": differing}, indent=1))
    else:
        print("\n".join(table([past.figures() for past in found])))
        if compares:
            print("\n".join(compared(found)))
    if cfg.html is not None:
        write_report(cfg.html, "legollm runs", sections(found))


def read_all(folders: Sequence[Path]) -> Iterator[PastRun]:
    """Every run once; one that cannot be read is only warned of.

    Raises:
        ConfigError: a folder that is not there, or no run at all.
    """
    paths: dict[Path, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"folders: {folder} is no folder; give runs or folders of runs")
        for path in [folder] if is_run(folder) else runs_below(folder):
            paths.setdefault(path.resolve(), path)
    if not paths:
        raise ConfigError(f"folders: no run in {', '.join(map(str, folders))}; legollm train run=FOLDER makes one")
    for path in paths.values():
        try:
            yield read_run(path)
        except ConfigError as error:
            log.warning("%s", error)


def place(past: PastRun, key: Sort) -> tuple[float, float, str]:
    """Where in the list a run stands."""
    figures = past.figures()
    if key == "run":
        return 0.0, 0.0, str(past.folder)
    value, loss = (math.inf if figures[name] is None else float(figures[name]) for name in (key, "val_loss"))
    return -value if key == "tokens_per_s" and figures[key] else value, loss, str(past.folder)


HEADER = ("run", "state", "model", "parameters", "steps", "tokens", "val loss", "bits/byte", "time", "tokens/s")


def cells(figures: Mapping[str, Any]) -> list[str]:
    """A row as one reads it."""
    loss, bpb, rate = figures["val_loss"], figures["val_bpb"], figures["tokens_per_s"]
    is_done = figures["state"] == "done" or figures["max_steps"] is None
    return [
        figures["run"],
        figures["state"],
        figures["arch"] or "-",
        "-" if figures["parameters"] is None else short(figures["parameters"]),
        f"{figures['steps']}" if is_done else f"{figures['steps']}/{figures['max_steps']}",
        short(figures["tokens"]),
        "-" if loss is None else f"{loss:.4f}",
        "-" if bpb is None else f"{bpb:.4f}",
        clock(figures["seconds"]),
        "-" if rate is None else f"{rate:,.0f}",
    ]


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Aligned lines under a header; words to the left, numbers to the right."""
    return aligned([HEADER, *map(cells, rows)], n_words=3)


def aligned(lines: Sequence[Sequence[str]], n_words: int) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            f"{cell:<{width}}" if i < n_words else f"{cell:>{width}}"
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


def compared(found: Sequence[PastRun]) -> Iterator[str]:
    """Below the table: what differs, and the most comparable curve that all of them have."""
    if len(found) > 1:
        yield ""
        differing = differences(found)
        names = [str(past.folder) for past in found]
        yield from aligned([("setting", *names), *((key, *values) for key, values in differing.items())], n_words=99)
        if not differing:
            yield "no setting differs"
    key = next((key for key in CURVES if all(len(past.curve(key)) > 1 for past in found)), "loss")
    if lines := plot(curves_of(found, key), x_label="M tokens"):
        yield from ("", CURVES[key], *lines)


def curves_of(found: Sequence[PastRun], key: str) -> dict[str, Points]:
    return {str(past.folder): past.curve(key) for past in found}


def sections(found: Sequence[PastRun]) -> list[Section]:
    """The page."""
    names = [str(past.folder) for past in found]
    charts = [
        Chart("", "million tokens read", title, [Curve(name, thinned(points)) for name, points in curves.items()])
        for key, title in CURVES.items()
        if any(map(len, (curves := curves_of(found, key)).values()))
    ]
    settings = differences(found)
    if len(found) == 1:
        settings = {key: [json.dumps(value)] for key, value in found[0].config.items()}
    return [
        Section("Runs", header=HEADER, rows=[cells(past.figures()) for past in found]),
        *(Section(chart.y_label[0].upper() + chart.y_label[1:], chart=chart) for chart in charts),
        *(part for past in found for part in layers_section(past.rows, f"Layers of {past.folder}")),
        Section(
            "What differs" if len(found) > 1 else "Settings",
            header=("setting", *names),
            rows=[(key, *values) for key, values in settings.items()],
        ),
    ]


def thinned(points: Points) -> list[tuple[float, float]]:
    """A curve of at most POINTS points, each the mean of its neighbours."""
    n = math.ceil(len(points) / POINTS)
    groups = [points[i : i + n] for i in range(0, len(points), n or 1)]
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups]


def short(n: int) -> str:
    """Three digits: 123, 4.56k, 78.9M."""
    for unit, size in (("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if n >= 0.9995 * size:
            return f"{n / size:.{max(0, 2 - int(math.log10(max(n / size, 1))))}f}{unit}"
    return str(n)


def clock(seconds: float) -> str:
    """h:mm:ss, or m:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"
