"""A model as a picture: one SVG that needs nothing else, drawn from the model's own modules."""

import textwrap
from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby
from typing import NamedTuple

from torch import nn

from legollm.components.attention import Attention
from legollm.components.encoder import Encoder
from legollm.components.quantized import QuantizedLinear
from legollm.components.routing import SigmoidTopK, TopK
from legollm.evaluation.anatomy import Part
from legollm.evaluation.wiring import ADD, levels, wiring

WIDTH = 400
"""Of the picture, as wide as a phone: there it is shown at its size, so that its letters can be read."""
LEFT, RIGHT = 62, 352
"""Where boxes that stand alone begin and end; skips pass on their right, what comes from elsewhere on their left."""
CENTER = (LEFT + RIGHT) / 2
GAP, LINE, LETTER = 24, 16, 6.2
"""Between boxes, between lines of text, and between letters on average, in pixels."""

STYLE = """
:root { color-scheme: light dark; --page: #fff; --ink: #1f2328; --quiet: #59636e; --line: #848d97;
  --box: #f6f8fa; --mix: #ddeeff; --think: #dcf5e3; --block: #fbfbfd; }
@media (prefers-color-scheme: dark) { :root { --page: #0d1117; --ink: #e6edf3; --quiet: #9da7b1; --line: #768390;
  --box: #1b222c; --mix: #12304f; --think: #143524; --block: #12171e; } }
text { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; fill: var(--ink); }
.quiet { fill: var(--quiet); font-size: 12px; } .name { font-weight: 600; } .n { text-anchor: end; }
.middle { text-anchor: middle; } .over { paint-order: stroke; stroke: var(--block); stroke-width: 5px; }
rect { fill: var(--box); stroke: var(--line); } rect.mix { fill: var(--mix); } rect.think { fill: var(--think); }
rect.block { fill: var(--block); stroke-dasharray: 4 3; } rect.page { fill: var(--page); stroke: none; }
path { fill: none; stroke: var(--line); stroke-width: 1.5; } path.head { fill: var(--line); stroke: none; }
circle { fill: var(--page); stroke: var(--line); stroke-width: 1.5; }
"""


class Place(NamedTuple):
    """Where something stands: its middle, its top and its bottom."""

    x: float
    top: float
    bottom: float


class Drawing:
    """Elements from top to bottom; frames are drawn first, so that they lie behind."""

    def __init__(self) -> None:
        self.y = 14.0
        self.behind: list[str] = []
        self.elements: list[str] = []

    def text(self, x: float, y: float, words: str, kind: str = "") -> None:
        self.elements.append(f'<text x="{x:g}" y="{y:g}" class="{kind}">{escape(words)}</text>')

    def caption(self, words: str) -> Place:
        """A line in the middle: what flows here."""
        self.text(CENTER, self.y + 12, words, "middle quiet")
        self.y += 18
        return Place(CENTER, self.y - 18, self.y)

    def line(self, points: Sequence[tuple[float, float]]) -> None:
        """Along these points, with the head of an arrow at the end."""
        way = " L".join(f"{x:g} {y:g}" for x, y in points)
        (x0, _), (x, y) = points[-2:]
        self.elements.append(f'<path d="M{way}"/>')
        if x == x0:
            self.elements.append(f'<path class="head" d="M{x:g} {y:g} l-4 -7 h8 z"/>')
        else:
            back = 7 if x0 > x else -7
            self.elements.append(f'<path class="head" d="M{x:g} {y:g} l{back} -4 v8 z"/>')

    def arrow(self, start: Place, stop: Place) -> None:
        """Down; with a bend in the middle where the two do not stand above one another."""
        if start.x == stop.x:
            self.line([(start.x, start.bottom), (stop.x, stop.top)])
        else:
            bend = stop.top - 10 if stop.x != CENTER else start.bottom + 10
            self.line([(start.x, start.bottom), (start.x, bend), (stop.x, bend), (stop.x, stop.top)])

    def box(self, part: Part, left: float, right: float) -> Place:
        """A brick and what is in it."""
        width, title, n = right - left, f"{times(part)}{part.kind}", f"{part.n_parameters:,}"
        said = list(lines_of(part))
        has_room = LETTER * (1.4 * len(title) + len(n)) + 30 < width
        if not has_room:
            said.insert(0, (0, f"{n} parameters"))
        lines = [
            (depth, words)
            for depth, line in said
            for words in textwrap.wrap(line, int((width - 20 - 10 * depth) / LETTER))
        ]
        height = 26 + LINE * len(lines)
        self.elements.append(frame(left, self.y, right, self.y + height, role(part)))
        self.text(left + 10, self.y + 17, title, "name")
        if has_room:
            self.text(right - 10, self.y + 17, n, "quiet n")
        for i, (depth, words) in enumerate(lines):
            self.text(left + 10 + 10 * depth, self.y + 34 + LINE * i, words, "quiet")
        return Place((left + right) / 2, self.y, self.y + height)

    def sum(self) -> Place:
        """A circle with a plus."""
        x, y, r = CENTER, self.y + 9, 9
        self.elements.append(f'<circle cx="{x:g}" cy="{y:g}" r="{r}"/>')
        self.elements.append(f'<path d="M{x - 5:g} {y:g} h10 M{x:g} {y - 5:g} v10"/>')
        return Place(CENTER, self.y, self.y + 2 * r)

    def svg(self, title: str) -> str:
        """All of it."""
        height = self.y + 14
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" '
                f'height="{height:g}" role="img">',
                f"<title>{escape(title)}</title>",
                f"<style>{STYLE}</style>",
                f'<rect class="page" width="{WIDTH}" height="{height:g}"/>',
                *self.behind,
                *self.elements,
                "</svg>\n",
            ]
        )


def diagram(model: Part, title: str, size: str | None = None) -> str:
    """The SVG of a model's parts: what flows goes down, sums are circles, arrows on the right skip what they pass.

    size: how large the model is, in words; null counts its parameters.
    """
    drawing = Drawing()
    drawing.text(14, 24, title, "name")
    drawing.text(WIDTH - 14, 24, size or f"{model.n_parameters:,} parameters", "quiet n")
    drawing.y = 40
    parts = list(model.children)
    if not parts or not isinstance(parts[0].module, Encoder):
        spine(drawing, parts, "ids (B, T)", "logits (B, T, V)")
        return drawing.svg(title)
    encoder, *rest = parts
    if not any("." in part.name for part in rest):  # no blocks of its own: it goes on with the encoder's states
        spine(drawing, [*encoder.children, *rest], "ids (B, T)", "scores")
        return drawing.svg(title)
    memory = spine(drawing, encoder.children, "source ids (B, S)", "states of the source (B, S, D)")
    drawing.y += GAP
    spine(drawing, rest, "target ids (B, T)", "logits (B, T, V)", memory)
    return drawing.svg(title)


def spine(drawing: Drawing, parts: Sequence[Part], start: str, stop: str, memory: Place | None = None) -> Place:
    """Parts one below the other, from what goes in to what comes out."""
    place = drawing.caption(start)
    for part in parts:
        drawing.y += GAP
        if "." in part.name and part.children:
            place = block(drawing, part, place, memory)
        else:
            above, place = place, drawing.box(part, LEFT, RIGHT)
            drawing.arrow(above, place)
        drawing.y = place.bottom
    drawing.y += GAP
    end = drawing.caption(stop)
    drawing.arrow(place, end)
    return end


def block(drawing: Drawing, part: Part, above: Place, memory: Place | None) -> Place:
    """A frame around the bricks of a block, wired as its own code wires them."""
    top = drawing.y
    drawing.y += 30
    entry = Place(CENTER, drawing.y, drawing.y)
    drawing.elements.append(f'<path d="M{CENTER:g} {above.bottom:g} V{entry.top:g}"/>')
    drawing.text(LEFT - 12, top + 17, f"{times(part)}{part.kind}", "name over")
    drawing.text(RIGHT + 22, top + 17, f"{part.n_parameters:,}{' in all' if part.times > 1 else ''}", "quiet n over")
    maps = [inner.module for _, inner in part.walk() if isinstance(inner.module, nn.Linear | QuantizedLinear)]
    if maps:
        drawing.text(CENTER + 8, top - 8, f"(B, T, {maps[0].in_features})", "quiet")
    bricks = {child.name: child for child in part.children}
    steps = wiring(part.module)
    places: dict[int, Place] = {0: entry}
    level_of = levels(steps)
    numbers = sorted(range(1, len(steps)), key=lambda i: level_of[i])
    for level, group in groupby(numbers, key=lambda i: level_of[i]):
        side_by_side = list(group)
        drawing.y += GAP
        for n, i in enumerate(side_by_side):
            left, right = column(n, len(side_by_side))
            places[i] = drawing.sum() if steps[i].name == ADD else drawing.box(bricks[steps[i].name], left, right)
            for source in steps[i].inputs:
                if level_of[source] == level - 1:
                    drawing.arrow(places[source], places[i])
                else:
                    skip(drawing, places[source], places[i])
            if steps[i].reads_memory and memory is not None:
                look(drawing, memory, places[i])
        drawing.y = max(places[i].bottom for i in side_by_side)
    drawing.y += 14
    drawing.behind.append(frame(LEFT - 22, top, RIGHT + 32, drawing.y, "block"))
    last = places[len(steps) - 1]
    drawing.elements.append(f'<path d="M{CENTER:g} {last.bottom:g} V{drawing.y:g}"/>')
    return Place(CENTER, top, drawing.y)


def frame(left: float, top: float, right: float, bottom: float, kind: str) -> str:
    """A box with round corners."""
    size = f'width="{right - left:g}" height="{bottom - top:g}"'
    return f'<rect class="{kind}" x="{left:g}" y="{top:g}" {size} rx="7"/>'


def column(n: int, of: int) -> tuple[float, float]:
    """Where the n-th of several boxes side by side begins and ends."""
    width = (RIGHT - LEFT - 10 * (of - 1)) / of
    return LEFT + n * (width + 10), LEFT + n * (width + 10) + width


def skip(drawing: Drawing, start: Place, stop: Place) -> None:
    """Past everything between the two, on the right."""
    y, x, middle = start.bottom + 7, RIGHT + 16, (stop.top + stop.bottom) / 2
    drawing.line([(start.x, y), (x, y), (x, middle), (stop.x + 9, middle)])


def look(drawing: Drawing, memory: Place, stop: Place) -> None:
    """From the other text, on the left."""
    x, middle = LEFT - 40, (stop.top + stop.bottom) / 2
    y = (memory.top + memory.bottom) / 2 + 1
    drawing.line([(CENTER - 100, y), (x, y), (x, middle), (LEFT, middle)])


def lines_of(part: Part) -> Iterator[tuple[int, str]]:
    """What a box says below its title, each line with how far it is indented."""
    if isinstance(part.module, Attention):
        n_kv_heads, d_head = part.module.kv_shape
        n_heads = part.module.q_proj.out_features // d_head
        yield 0, f"{n_heads} heads of {d_head}" + (f", {n_kv_heads} of keys and values" if n_kv_heads < n_heads else "")
        if part.module.window is not None:
            yield 0, f"sees the nearest {part.module.window:,} tokens"
        if part.module.sinks is not None:
            yield 0, "a sink per head"
    if "x" in part.shape or "->" in part.shape:
        yield 0, written(part.shape)
    if part.shared_with:
        yield 0, f"the weights of {part.shared_with}"
    for depth, child in part.walk():
        if not depth:
            continue
        if isinstance(child.module, nn.Linear | QuantizedLinear):
            yield depth - 1, f"{child.name} {written(child.shape)}"
        elif isinstance(child.module, TopK | SigmoidTopK):
            yield depth - 1, f"{child.name}: {child.kind}, {child.module.n_active} per token"
        else:
            yield depth - 1, f"{child.name}: {times(child)}{child.kind} {written(child.shape)}".rstrip()


def times(part: Part) -> str:
    return f"{part.times} \u00d7 " if part.times > 1 else ""


def written(shape: str) -> str:
    """768 -> 3072 and 50257 x 768 with the signs that mean them, never broken at the end of a line."""
    return shape.replace(" -> ", "\u00a0\u2192\u00a0").replace(" x ", "\u00a0\u00d7\u00a0")


def role(part: Part) -> str:
    """Attention mixes tokens, feed-forwards think about each; each has its colour."""
    if any(child.name == "q_proj" for child in part.children):
        return "mix"
    return "think" if part.name == "ffn" else ""
