"""The page: whole HTML that shows what models said and runs none of it, charts whose every number is finite."""

import math
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from legollm.evaluation.report import (
    Chart,
    Curve,
    Section,
    Strips,
    page,
    shown,
    spread,
    strips_svg,
    svg,
    ticks,
    write_report,
)

HOSTILE = "</pre></td><script src='http://x.example/a.js'>alert(\"1\")</script><img onerror=x> &amp; <!-- ]]>"
VOID = {"meta"}


class Balanced(HTMLParser):
    """Refuses an end tag that ends something else; keeps what the page consists of."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.text = list[str](), set[str](), ""
        self.attributes = dict[str, list[str]]()
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            self.attributes.setdefault(name, []).append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def chart(*curves: list[tuple[float, float]], **levels: float) -> Chart:
    named = [Curve(f"curve {i}", points) for i, points in enumerate(curves)]
    return Chart("loss", "tokens", "bits", named, levels)


def everywhere(text: str) -> list[Section]:
    """A text at every place where one can stand."""
    drawn = Chart(text, text, text, [Curve(text, [(0, 1), (1, 2)])], {text: 1.5})
    return [Section(text, text, drawn, header=(text, text), rows=[(text, 1), (text, 2)], code=text)]


def test_what_models_and_users_write_is_shown_and_nothing_else() -> None:
    text = page(HOSTILE, everywhere(HOSTILE))
    parsed = Balanced(text)
    assert parsed.tags == Balanced(page("x", everywhere("x"))).tags
    assert parsed.text.count(HOSTILE) == 13
    assert parsed.attributes.keys().isdisjoint({"src", "href", "onerror", "style", "xlink:href"})
    assert f"\N{HORIZONTAL ELLIPSIS}{HOSTILE[-13:]} 2.00" in parsed.text  # the name of a curve


def test_nothing_is_fetched_and_nothing_runs() -> None:
    text = page("run", everywhere("x")).lower()
    assert not re.search(r"https?:|//|src=|href=|@import|url\(|<script|<link|<iframe|javascript:", text)


def test_what_is_empty_is_left_out() -> None:
    parsed = Balanced(page("run", [Section("title only"), Section("no points", chart=chart([], [(1, math.nan)]))]))
    assert parsed.tags.isdisjoint({"p", "table", "svg", "pre"})
    assert "title only" in parsed.text
    assert Balanced(page("nothing", [])).tags == {"html", "head", "meta", "title", "style", "body", "h1"}


def test_numbers_stand_to_the_right_and_text_to_the_left() -> None:
    rows = [("one", 1234, 0.5), ("two", 2, 1234.5678)]
    parsed = Balanced(page("t", [Section("s", rows=rows, header=("name", "n", "share"))]))
    assert parsed.attributes["class"] == ["n"] * 6  # of two columns: heads and cells
    assert [cell in parsed.text for cell in ("1,234", "0.500", "1,234.568")] == [True] * 3
    assert Balanced(page("t", [Section("s", rows=rows)])).text.count("one") == 1
    assert (shown(7), shown(math.nan), shown("<b>")) == ("7", "nan", "<b>")


FLOATS = st.one_of(st.floats(-1e6, 1e6), st.sampled_from([math.nan, math.inf, -math.inf, 0.0]))
POINTS = st.lists(st.tuples(FLOATS, FLOATS), max_size=5)


def numbers_in(picture: str) -> list[float]:
    root = ET.fromstring(picture)
    found = [root.attrib["viewBox"]]
    for element in root.iter():
        found += [element.attrib[key] for key in ("x", "y", "x1", "x2", "y1", "y2", "points") if key in element.attrib]
    return [float(number) for text in found for number in re.split(r"[ ,]", text)]


@settings(max_examples=60, deadline=None)
@given(st.lists(POINTS, max_size=4), st.dictionaries(st.sampled_from("abc"), FLOATS))
def test_charts_of_anything_are_finite_and_stay_on_the_page(
    curves: list[list[tuple[float, float]]], levels: dict[str, float]
) -> None:
    picture = svg(chart(*curves, **levels))
    usable = [[point for point in points if all(map(math.isfinite, point))] for points in curves]
    if not any(usable):
        assert picture == ""
        return
    numbers = numbers_in(picture)
    assert all(map(math.isfinite, numbers))
    assert all(-1 <= number <= 861 for number in numbers)
    lines = ET.fromstring(picture).findall("polyline")
    assert len(lines) == sum(map(bool, usable))
    assert "nan" not in picture


def test_a_chart_is_drawn_to_scale() -> None:
    picture = svg(chart([(0, 1), (5, 2), (10, 3)], low=1.0), width=1000, height=300)
    (line,) = ET.fromstring(picture).findall("polyline")
    (x0, y0), (x1, y1), (x2, y2) = ([float(v) for v in point.split(",")] for point in line.attrib["points"].split())
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.2)
    assert y0 > y2  # more is higher
    (dashed,) = [e for e in ET.fromstring(picture).findall("line") if e.attrib["class"] == "level"]
    assert float(dashed.attrib["y1"]) == pytest.approx(y0)
    assert "curve 0 3.00" in picture
    assert "low 1.00" in picture


@given(st.dictionaries(st.sampled_from("abc<"), POINTS))
def test_strips_of_anything_are_finite_and_stay_on_the_page(rows: dict[str, list[tuple[float, float]]]) -> None:
    picture = strips_svg(Strips("<t>", "<x>", rows))
    if picture:
        root = ET.fromstring(picture)
        cells = root.findall("rect")
        assert len(cells) <= sum(map(len, rows.values()))
        for cell in cells:
            x, w, shade = (float(cell.attrib[key]) for key in ("x", "width", "fill-opacity"))
            assert 132 <= x <= x + w <= 845
            assert 0.08 <= shade <= 1.0
    else:
        assert not any(0 < y < math.inf and math.isfinite(x) for points in rows.values() for x, y in points)


def test_cells_are_stronger_the_larger_by_factors() -> None:
    rows = {"a": [(0, 1.0), (1, 10.0)], "b": [(0, 100.0), (1, 0.0)]}
    cells = ET.fromstring(strips_svg(Strips("t", "x", rows))).findall("rect")
    assert [cell.attrib["fill-opacity"] for cell in cells] == ["0.08", "0.54", "1.00"]
    assert [cell[0].text for cell in cells] == ["a: 1", "a: 10", "b: 100"]


def test_a_long_name_shows_its_end() -> None:
    picture = svg(Chart("", "x", "y", [Curve("runs/one-name", [(0, 1)]), Curve("runs/a-long-name-b", [(1, 2)])]))
    assert "runs/one-name 1.00" in picture
    assert "\N{HORIZONTAL ELLIPSIS}a-long-name-b 2.00" in picture


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6), st.integers(2, 10))
def test_ticks_are_few_round_evenly_spaced_and_enclose(low: float, span: float, n: int) -> None:
    found = ticks(low, low + span, n)
    assert 1 <= len(found) <= n + 2
    tolerance = 1e-6 * max(span, abs(low), 1)
    assert found[0] <= low + tolerance
    assert found[-1] >= low + span - tolerance
    steps = [b - a for a, b in pairwise(found)]
    assert all(step == pytest.approx(steps[0], rel=1e-3, abs=1e-9) for step in steps)


def test_ticks_one_would_choose() -> None:
    assert ticks(0, 10) == [0, 2, 4, 6, 8, 10]
    assert ticks(0.9, 3.4) == [0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5]
    assert ticks(3, 3) == [3]
    assert ticks(0, 0) == [0]


@given(st.lists(st.floats(0, 300), max_size=12), st.floats(1, 20))
@example([290.0, 300.0, 300.0], 15.0)
def test_labels_never_cover_each_other_and_stay_on_the_page(heights: list[float], gap: float) -> None:
    labels = [(y, f"{i}", "red") for i, y in enumerate(heights)]
    placed = spread(labels, gap, bottom=300)
    assert [label[1] for label in placed] == [label[1] for label in sorted(labels)]
    assert all(b[0] - a[0] >= gap - 1e-9 for a, b in pairwise(placed))
    assert all(y <= 300 for y, _, _ in placed)
    if all(b - a >= gap for a, b in pairwise(sorted(heights))):
        assert placed == sorted(labels)  # nothing moves without need


def test_a_page_replaces_the_earlier_one_at_once(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_report(path, "ü", [Section("one")])
    write_report(path, "ü", [Section("日本 \N{REPLACEMENT CHARACTER} \x00")])
    assert "日本" in path.read_text(encoding="utf-8")
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
