"""Bars beside each other as one SVG file; no scripts, no network, on any background."""

import html
from collections.abc import Mapping, Sequence

from legollm.evaluation.report import COLOURS, ticks

WIDTH, HEIGHT = 860, 360
LEFT, RIGHT, TOP, BOTTOM = 62, 16, 56, 52
GAP = 0.25
"""Share of a group's width that stays free between groups."""
CHARACTER = 7.5
"""Width of a letter in the legend, about."""
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328; } .quiet { fill: #656d76; } .title { font-weight: 600; }
.line { stroke: #d0d7de; } .page { fill: #ffffff; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; } .quiet { fill: #9198a1; } .line { stroke: #3d444d; } .page { fill: #0d1117; }
}
"""


def bars(title: str, x_label: str, y_label: str, groups: Sequence[str], series: Mapping[str, Sequence[float]]) -> str:
    """A group of bars for each name in `groups`; `series`: name -> its bar in each group, none below zero.

    One series alone needs no legend: title and labels say what it is.
    """
    y_ticks = ticks(0.0, max(max(values) for values in series.values()))
    step = (WIDTH - LEFT - RIGHT) / len(groups)
    thickness = step * (1 - GAP) / len(series)

    def y_at(y: float) -> float:
        return TOP + (y_ticks[-1] - y) / y_ticks[-1] * (HEIGHT - TOP - BOTTOM)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{html.escape(title)}</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="page" width="{WIDTH}" height="{HEIGHT}"/>',
        f'<text class="title" x="{LEFT}" y="20">{html.escape(title)}</text>',
        f'<text class="quiet" transform="translate(16 {(TOP + HEIGHT - BOTTOM) / 2:.0f}) rotate(-90)" '
        f'text-anchor="middle">{html.escape(y_label)}</text>',
        f'<text class="quiet" x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 8}" text-anchor="middle">'
        f"{html.escape(x_label)}</text>",
        *(legend(list(series)) if len(series) > 1 else ()),
    ]
    for y in y_ticks:
        out.append(f'<line class="line" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y_at(y):.1f}" y2="{y_at(y):.1f}"/>')
        out.append(f'<text class="quiet" x="{LEFT - 8}" y="{y_at(y) + 4:.1f}" text-anchor="end">{y:g}</text>')
    for i, group in enumerate(groups):
        start = LEFT + i * step + step * GAP / 2
        for j, (name, values) in enumerate(series.items()):
            y = y_at(values[i])
            out.append(
                f'<rect x="{start + j * thickness:.1f}" y="{y:.1f}" width="{thickness * 0.92:.1f}" '
                f'height="{HEIGHT - BOTTOM - y:.1f}" fill="{COLOURS[j % len(COLOURS)]}">'
                f"<title>{html.escape(f'{group}, {name}: {values[i]:,.2f}')}</title></rect>"
            )
        out.append(group_label(group, LEFT + (i + 0.5) * step, step))
    return "\n".join([*out, "</svg>", ""])


def legend(names: Sequence[str]) -> list[str]:
    """A square in each series' colour and its name, from left to right below the title."""
    out = []
    x = float(LEFT)
    for i, name in enumerate(names):
        out.append(f'<rect x="{x:.0f}" y="33" width="10" height="10" fill="{COLOURS[i % len(COLOURS)]}"/>')
        out.append(f'<text x="{x + 15:.0f}" y="43">{html.escape(name)}</text>')
        x += 30 + CHARACTER * len(name)
    return out


def group_label(name: str, x: float, room: float) -> str:
    """Below the group; slanted where there is no room for it."""
    if len(name) * CHARACTER <= room:
        return f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{html.escape(name)}</text>'
    place = f"translate({x:.1f} {HEIGHT - BOTTOM + 14}) rotate(-30)"
    return f'<text transform="{place}" text-anchor="end">{html.escape(name)}</text>'
