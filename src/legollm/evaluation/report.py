"""One page that shows a run: curves, samples, tables. A single file of HTML and SVG; no network, no script needed."""

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from legollm.whole_file import write_whole

COLOURS = ("#1f6feb", "#d1552b", "#2da44e", "#8250df", "#9a6700", "#1b7c83", "#bf3989", "#57606a")
STYLE = """
:root { --text: #1f2328; --quiet: #656d76; --line: #d0d7de; --grid: #eaeef2; --page: #ffffff; --box: #f6f8fa; }
.c0 { color: #1f6feb; } .c1 { color: #d1552b; } .c2 { color: #2da44e; } .c3 { color: #8250df; } .c4 { color: #9a6700; }
.c5 { color: #1b7c83; } .c6 { color: #bf3989; } .c7 { color: #57606a; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6edf3; --quiet: #9198a1; --line: #3d444d; --grid: #21262d; --page: #0d1117; --box: #161b22; }
  .c0 { color: #58a6ff; } .c1 { color: #ff8a5c; } .c2 { color: #3fb950; } .c3 { color: #bc8cff; }
  .c4 { color: #d29922; } .c5 { color: #39c5cf; } .c6 { color: #f778ba; } .c7 { color: #b1bac4; }
}
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
body { color: var(--text); background: var(--page); }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
figure { margin: 0; overflow-x: auto; }
table { border-collapse: collapse; } td, th { padding: .2rem .9rem .2rem 0; text-align: left; vertical-align: top; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
tr + tr td { border-top: 1px solid var(--line); }
svg { width: 100%; min-width: 40rem; height: auto; fill: var(--text); } .quiet { fill: var(--quiet); }
text[class^="c"] { fill: currentColor; }
.grid { stroke: var(--grid); } .level { stroke: var(--quiet); stroke-dasharray: 5 4; }
code, pre { font: 14px/1.5 ui-monospace, monospace; background: var(--box); }
pre { padding: .8rem; overflow-x: auto; } .note { color: var(--quiet); }
"""
"""Light or dark as the reader's system is; wide pictures and tables scroll by themselves on a narrow screen."""


@dataclass(frozen=True)
class Curve:
    """A line through points."""

    name: str
    points: Sequence[tuple[float, float]]
    beside: Sequence[Sequence[tuple[float, float]]] = ()
    """Lines it is the mean of, drawn thin in its colour."""


@dataclass(frozen=True)
class Chart:
    """Curves over a common axis, and levels to compare them with."""

    title: str
    x_label: str
    y_label: str
    curves: Sequence[Curve]
    levels: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Strips:
    """A figure of several things over time as strips of cells, the stronger the larger, on a logarithmic scale."""

    title: str
    x_label: str
    rows: Mapping[str, Sequence[tuple[float, float]]]
    """Name -> (time, value)."""


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it; what is empty is left out."""

    title: str
    text: str = ""
    chart: Chart | None = None
    strips: Sequence[Strips] = ()
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str | int | float]] = ()
    code: str = ""
    markup: str = ""
    """HTML that is put on the page as it is: whoever makes it has escaped what came from a text."""


def write_report(path: Path, title: str, sections: Sequence[Section]) -> None:
    """Write the page, replacing an earlier one in one step."""
    write_whole(path, page(title, sections))


def page(title: str, sections: Sequence[Section], style: str = "", script: str = "") -> str:
    """The page as text. Everything that comes from a model or a user is escaped.

    style: CSS beside the page's own. script: what makes it more convenient; a page says all it has to say without.
    """
    body = "\n".join(section_html(section) for section in sections)
    ending = f"<script>{script}</script>\n" if script else ""
    name = html.escape(title)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{name}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{STYLE}{style}</style>\n'
        f"</head>\n<body>\n<h1>{name}</h1>\n{body}\n{ending}</body>\n</html>\n"
    )


def section_html(section: Section) -> str:
    parts = [f"<h2>{html.escape(section.title)}</h2>"]
    if section.text:
        parts.append(f'<p class="note">{html.escape(section.text)}</p>')
    if section.chart:
        parts.append(wide(svg(section.chart)))
    parts += [wide(strips_svg(strips)) for strips in section.strips]
    if section.rows:
        parts.append(wide(table_html(section.header, section.rows)))
    if section.code:
        parts.append(f"<pre>{html.escape(section.code)}</pre>")
    if section.markup:
        parts.append(section.markup)
    return "\n".join(parts)


def wide(element: str) -> str:
    return f"<figure>\n{element}\n</figure>" if element else ""


def table_html(header: Sequence[str], rows: Sequence[Sequence[str | int | float]]) -> str:
    numeric = [all(not isinstance(row[i], str) for row in rows) for i in range(len(rows[0]))]
    classes = [' class="n"' if is_number else "" for is_number in numeric]
    head = "".join(f"<th{kind}>{html.escape(name)}</th>" for kind, name in zip(classes, header, strict=False))
    lines = [f"<tr>{head}</tr>"] if header else []
    for row in rows:
        cells = "".join(f"<td{kind}>{html.escape(shown(cell))}</td>" for kind, cell in zip(classes, row, strict=True))
        lines.append(f"<tr>{cells}</tr>")
    return "<table>\n" + "\n".join(lines) + "\n</table>"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str | int | float]]) -> str:
    """The same table in Markdown."""
    lines = [header, ["---"] * len(header), *([shown(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def shown(value: str | int | float) -> str:
    return f"{value:,.3f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value


def svg(chart: Chart, width: int = 860, height: int = 340) -> str:
    """A line chart; levels are dashed, each named at its right end."""
    left, right, top, bottom = 62, 150, 34, 46
    curves = {curve.name: whole_points(curve.points) for curve in chart.curves}
    beside = {curve.name: [whole_points(line) for line in curve.beside] for curve in chart.curves}
    points = [p for line in [*curves.values(), *(line for lines in beside.values() for line in lines)] for p in line]
    if not points:
        return ""
    x_low, x_high = min(x for x, _ in points), max(x for x, _ in points)
    levels = {name: level for name, level in chart.levels.items() if math.isfinite(level)}
    y_values = [y for _, y in points] + list(levels.values())
    y_ticks = ticks(min(y_values), max(y_values))
    x_ticks = ticks(x_low, x_high)
    y_low, y_high = y_ticks[0], y_ticks[-1]

    def x_at(x: float) -> float:
        return left + (x - x_low) / max(x_high - x_low, 1e-12) * (width - left - right)

    def y_at(y: float) -> float:
        return top + (y_high - y) / (y_high - y_low or 1.0) * (height - top - bottom)  # one tick: all lie on it

    out = [f'<svg viewBox="0 0 {width} {height}" role="img" font-size="13" font-family="system-ui, sans-serif">']
    out.append(f'<text x="{left}" y="18" font-weight="600">{html.escape(chart.title)}</text>')
    for y in y_ticks:
        out.append(f'<line x1="{left}" x2="{width - right}" y1="{y_at(y):.1f}" y2="{y_at(y):.1f}" class="grid"/>')
        out.append(f'<text x="{left - 8}" y="{y_at(y) + 4:.1f}" text-anchor="end" class="quiet">{y:g}</text>')
    for x in x_ticks:
        if x_low <= x <= x_high:
            place = f'x="{x_at(x):.1f}" y="{height - bottom + 18}"'
            out.append(f'<text {place} text-anchor="middle" class="quiet">{x:g}</text>')
    middle = left + (width - left - right) / 2
    label = f'<text x="{middle:.0f}" y="{height - 8}" text-anchor="middle" class="quiet">'
    out.append(f"{label}{html.escape(chart.x_label)}</text>")
    out.append(
        f'<text transform="translate(14 {top + (height - top - bottom) / 2:.0f}) rotate(-90)" text-anchor="middle" '
        f'class="quiet">{html.escape(chart.y_label)}</text>'
    )
    named = [(y_at(level), f"{name} {level:.2f}", "quiet") for name, level in levels.items()]
    for level in levels.values():
        place = f'x1="{left}" x2="{width - right}" y1="{y_at(level):.1f}" y2="{y_at(level):.1f}"'
        out.append(f'<line {place} class="level"/>')
    for i, (name, line) in enumerate(curves.items()):
        hue = f"c{i % len(COLOURS)}"
        for thick, one in (*((0.6, thin) for thin in beside[name]), (2, line)):
            path = " ".join(f"{x_at(x):.1f},{y_at(y):.1f}" for x, y in one)
            kind = f'fill="none" stroke="currentColor" stroke-width="{thick}" class="{hue}"'
            out += [f'<polyline points="{path}" {kind}/>'] * bool(one)
        if line:
            named.append((y_at(line[-1][1]), f"{clipped(name)} {line[-1][1]:.2f}", hue))
    for y, name, kind in spread(named, 15, height - 15):
        out.append(f'<text x="{width - right + 8}" y="{y + 4:.1f}" class="{kind}">{html.escape(name)}</text>')
    return "\n".join([*out, "</svg>"])


def whole_points(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those that are numbers."""
    return [point for point in points if all(map(math.isfinite, point))]


CELLS = 80
"""Of a strip, at most: what falls into one cell is averaged, as exponents are."""


def strips_svg(strips: Strips, width: int = 860) -> str:
    """Strips below each other over a common time; what is zero or not finite leaves its cell empty."""
    usable = {
        name: [(x, math.log10(y)) for x, y in points if math.isfinite(x) and math.isfinite(y) and y > 0]
        for name, points in strips.rows.items()
    }
    found = [point for points in usable.values() for point in points]
    if not found:
        return ""
    left, right, top, thick = 132, 16, 28, 17
    (x_low, x_high), (low, high) = ((min(values), max(values)) for values in zip(*found, strict=True))
    n = min(CELLS, len({x for x, _ in found}))
    step, bottom = (width - left - right) / n, top + thick * len(usable)
    out = [f'<svg viewBox="0 0 {width} {bottom + 40}" role="img" font-size="13" font-family="system-ui, sans-serif">']
    scale = f"{10**low:.2g} (faint) to {10**high:.2g} (strong)" if high > low else f"{10**low:.2g}"
    out.append(f'<text x="{left}" y="16" font-weight="600">{html.escape(strips.title)}: {scale}</text>')
    for i, (name, points) in enumerate(usable.items()):
        y = top + i * thick
        label = html.escape(clipped(name))
        out.append(f'<text x="{left - 8}" y="{y + 13}" text-anchor="end" class="quiet">{label}</text>')
        cells: dict[int, list[float]] = {}
        for x, value in points:
            cells.setdefault(min(n - 1, int((x - x_low) / max(x_high - x_low, 1e-12) * n)), []).append(value)
        for at, values in cells.items():
            mean = sum(values) / len(values)
            shade = 0.08 + 0.92 * (mean - low) / ((high - low) or 1.0)
            place = f'x="{left + at * step:.1f}" y="{y}" width="{step:.2f}" height="{thick - 2}"'
            hint = f"<title>{html.escape(name)}: {10**mean:.3g}</title>"
            out.append(f'<rect {place} class="c0" fill="currentColor" fill-opacity="{shade:.2f}">{hint}</rect>')
    for x, anchor, at in ((x_low, "start", left), (x_high, "end", width - right)):
        out.append(f'<text x="{at}" y="{bottom + 18}" text-anchor="{anchor}" class="quiet">{x:g}</text>')
    middle = (left + width - right) / 2
    label = html.escape(strips.x_label)
    out.append(f'<text x="{middle:.0f}" y="{bottom + 18}" text-anchor="middle" class="quiet">{label}</text>')
    return "\n".join([*out, "</svg>"])


def clipped(name: str, n: int = 14) -> str:
    """A name that fits beside a chart: of a long one the end, where paths differ."""
    return name if len(name) <= n else f"\N{HORIZONTAL ELLIPSIS}{name[1 - n :]}"


def spread(labels: list[tuple[float, str, str]], gap: float, bottom: float) -> list[tuple[float, str, str]]:
    """Labels moved down just so far that none covers another, and up again where the last would fall off the page."""
    placed: list[tuple[float, str, str]] = []
    for y, name, colour in sorted(labels):
        placed.append((max(y, placed[-1][0] + gap) if placed else y, name, colour))
    n = len(placed)
    return [(min(y, bottom - gap * (n - 1 - i)), name, colour) for i, (y, name, colour) in enumerate(placed)]


def ticks(low: float, high: float, n: int = 5) -> list[float]:
    """About n round numbers that enclose low and high."""
    span = max(high - low, abs(high) * 1e-3, 1e-9)
    step = 10 ** math.floor(math.log10(span / n))
    step *= next(factor for factor in (1, 2, 2.5, 5, 10) if span / (step * factor) <= n)
    first = math.floor(low / step + 1e-9)
    return [round(i * step, 10) for i in range(first, math.ceil(high / step - 1e-9) + 1)]
