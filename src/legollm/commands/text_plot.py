"""Curves over each other in plain characters."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

MARKS = "ox+*#@%&"
Points = Sequence[tuple[float, float]]


def plot(curves: Mapping[str, Points], *, width: int = 72, height: int = 14, x_label: str = "") -> list[str]:
    """The lines of a picture with a legend below; the earlier of two curves in one place is the one that is seen.

    width, height: of the field inside the axes, in characters. Nothing for curves without points.
    """
    drawn = {name: sorted(points) for name, points in curves.items() if points}
    if not drawn:
        return []
    xs, ys = ([point[i] for points in drawn.values() for point in points] for i in (0, 1))
    x_low, x_high, y_low, y_high = min(xs), max(xs), min(ys), max(ys)

    def row_of(y: float) -> int:
        return round((y_high - y) / ((y_high - y_low) or 1.0) * (height - 1))

    field = [[" "] * width for _ in range(height)]
    for i, points in reversed(list(enumerate(drawn.values()))):
        for column, y in enumerate(columns(points, x_low, x_high, width)):
            if math.isfinite(y):
                field[row_of(y)][column] = MARKS[i % len(MARKS)]
    labels = {row_of(y): f"{y:.4g}" for y in (y_high, (y_high + y_low) / 2, y_low)}
    wide = max(map(len, labels.values()))
    lines = [f"{labels.get(i, ''):>{wide}} |{''.join(row)}".rstrip() for i, row in enumerate(field)]
    ends = f"{x_low:.3g}", f"{x_high:.3g} {x_label}".rstrip()
    lines += [f"{'':>{wide}} +{'-' * width}", f"{'':>{wide}}  {ends[0]}{ends[1].rjust(width - len(ends[0]))}"]
    return lines + [
        f"{'':>{wide}}  {MARKS[i % len(MARKS)]} {name}  {points[-1][1]:.3f}"
        for i, (name, points) in enumerate(drawn.items())
    ]


def columns(points: Points, x_low: float, x_high: float, width: int) -> list[float]:
    """The mean of a curve's points in each column, in between what a line would have; NaN before and after it."""
    x, y = np.array(points, dtype=float).T
    place = np.rint((x - x_low) / ((x_high - x_low) or 1.0) * (width - 1)).astype(int)
    there = np.unique(place)
    means = [y[place == column].mean() for column in there]
    return [float(y) for y in np.interp(np.arange(width), there, means, left=math.nan, right=math.nan)]
