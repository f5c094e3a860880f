"""The page of an XRay: tokens by loss, heads and their maps, the logit lens, experts. One file, nothing is fetched."""

import html
import math
from collections.abc import Callable, Collection, Sequence

from legollm.commands.xray_style import SCRIPT, STYLE
from legollm.evaluation import experts
from legollm.evaluation.experts import Expert, Mixture
from legollm.evaluation.heads import RANKED_BY, Head, ranked, told
from legollm.evaluation.lens import Expectation
from legollm.evaluation.png import data_uri, png
from legollm.evaluation.report import Section, page, table_html, wide
from legollm.evaluation.xray import XRay

Shown = Callable[[int], str]
"""A token id as one can read it."""

BLUE = (31, 111, 235)
N_STANDING_OUT = 5


def xray_page(
    ray: XRay, title: str, about: str, shown: Shown, vocab_size: int, layers: Collection[int] | None = None
) -> str:
    """The page as text. about: the model and the text in a line. layers: the blocks whose maps are drawn; None: all."""
    sections = [Section("The text, token by token", about, markup=tokens_html(ray, shown, vocab_size))]
    if ray.heads:
        drawn = [block for block in ray.attention if layers is None or block in layers]
        sections.append(Section("Heads that stand out", HEADS_TEXT, markup=heads_html(ray)))
        sections.append(Section("Where each head looks", MAPS_TEXT, markup=maps_html(ray, drawn)))
    if ray.depths:
        sections.append(Section("What the model would say sooner", LENS_TEXT, markup=lens_html(ray, shown)))
    if ray.mixtures:
        sections.append(Section("Experts", EXPERTS_TEXT, markup=experts_html(ray, shown)))
        sections.append(Section("Who works on which token", WAYS_TEXT, markup=ways_html(ray, shown)))
    return page(title, sections, STYLE, SCRIPT)


HEADS_TEXT = (
    "Copying: weight on what came after earlier occurrences of the same token. Previous: weight on the token before. "
    "Sink: weight on the first token. Entropy: of where a token looks, in bits; at how many tokens that is, as it "
    "were."
)
MAPS_TEXT = (
    "A row is a token that looks, a column a token that is looked at; both start with the first token. The stronger "
    "the colour, the more weight (its square root, so that faint ones are seen). Tap a map to enlarge it and to follow "
    "its head through the text."
)
LENS_TEXT = (
    "What the model would expect after each token if it ended after that block: its first choice, the stronger the "
    "colour, the surer. Underlined: that is what came. The last row is what the model says. Tap a cell for more."
)
EXPERTS_TEXT = (
    "Specialisation: how many bits an expert tells about the kind of its tokens (digit, capital, letter, punctuation, "
    "space), times its share of the work. By chance: what 95 of 100 experts stay below if kinds are dealt out at "
    "random. Below that, how busy each expert is, and the kind it has most of, against its share of the text."
)
WAYS_TEXT = (
    "The experts of each token in each block, the first choice first; colours tell experts of one block apart, and "
    "stronger means more weight on the first choice."
)


def tokens_html(ray: XRay, shown: Shown, vocab_size: int) -> str:
    """The text, coloured by what each token cost, and all of it once more as a table."""
    spans, rows = [], []
    unsure = math.log(vocab_size)
    for i, token in enumerate(ray.ids):
        name = shown(token)
        before = ray.after[i - 1] if i else None
        facts = f"token {i}, {quoted(name)}, id {token}: " + (foretold(before, shown) if before else "the first token")
        loss = before.loss if before and before.loss is not None else 0.0
        end = "\n" if name.endswith("\\n") else ""
        spans.append(with_facts("span", "tok", f"--s:{min(1, loss / unsure):.2f}", name, facts) + end)
        if before:
            rows.append((i, quoted(name), token, loss, math.exp(-loss), before.rank or 0, choices(before, shown)))
    header = ("place", "token", "id", "loss in nats", "probability", "rank", "what was expected")
    key = legend("209 85 43 / 0", "209 85 43 / .7", "no loss", f"{unsure:.1f} nats, as unsure as among all tokens")
    return f'{key}\n<div class="cut">{"".join(spans)}</div>\n{details("All tokens as a table", header, rows)}'


def heads_html(ray: XRay) -> str:
    """The first by each figure, and a table of all."""
    lists = []
    for figure, words in RANKED_BY.items():
        found = ranked(ray.heads, figure)[:N_STANDING_OUT]
        line = f"{told(found, figure, ray.by_chance)}." if found else "no token of this text comes back."
        lists.append(f"<li><b>Most {html.escape(words)}</b>: {html.escape(line)}</li>")
    header = ("block", "head", "copying", "previous", "sink", "entropy", "tokens", "nothing")
    rows = [(h.block, h.head, *head_figures(h)) for h in ray.heads]
    chance = [(block, "chance", *head_figures(head)) for block, head in ray.by_chance.items()]
    body = [tuple(str(x) if isinstance(x, int) else x for x in row) for row in [*rows, *chance]]
    table = details("All heads as a table; by chance is a head that looks alike at all it can see", header, body)
    return f"<ul>{''.join(lists)}</ul>\n{table}"


def head_figures(head: Head) -> tuple[str | float, ...]:
    return "-" if head.copy is None else head.copy, head.previous, head.sink, head.entropy, head.effective, head.nothing


def maps_html(ray: XRay, blocks: Collection[int]) -> str:
    """A picture for each head of these blocks."""
    of_head = {(head.block, head.head): head for head in ray.heads}
    drawn = [place for place in of_head if place[0] in blocks]
    if not drawn:
        return ""
    first = max(drawn, key=lambda place: of_head[place].copy or 0.0)
    parts = [f'<div id="follow" data-first="{drawn.index(first)}" hidden></div>']
    for block in blocks:
        pictures = []
        for i, weights in enumerate(ray.attention[block]):
            name, facts = f"Block {block} head {i}", told_of(of_head[block, i])
            image = f'<img src="{data_uri(png(weights.sqrt(), BLUE))}" alt="{name}: {facts}">'
            tip = f'<span class="tip">{name}: {facts}</span>'
            pictures.append(f'<div class="map" tabindex="0" data-name="{name}">{image}head {i}{tip}</div>')
        parts.append(f'<h3>Block {block}</h3>\n<div class="maps">{"".join(pictures)}</div>')
    return "<div>\n" + "\n".join(parts) + "\n</div>"  # what sticks to the window's top does so within it


def told_of(head: Head) -> str:
    copy = "-" if head.copy is None else f"{head.copy:.2f}"
    return (
        f"copying {copy}, previous {head.previous:.2f}, sink {head.sink:.2f}, entropy {head.entropy:.2f} bits "
        f"(as {head.effective:.1f} tokens)"
    )


def lens_html(ray: XRay, shown: Shown) -> str:
    """A row for each depth, the last first as a page is read; a column for each token."""
    lines = ["".join(f"<td>{html.escape(clipped(shown(token)))}</td>" for token in ray.ids)]
    heads = ["after the token"]
    for depth in ray.depths:
        heads.append(f"{depth.name} ({depth.loss:.2f})")
        cells = []
        for i, one in enumerate(depth.after):
            facts = f"{depth.name}, after token {i}, {quoted(shown(ray.ids[i]))}: {expected(one, shown)}"
            first = one.guesses[0]
            style = f"--s:{first.probability:.2f}"
            kind = "cell hit" if one.is_right else "cell"
            cells.append(with_facts("td", kind, style, clipped(shown(first.id)), facts))
        lines.append("".join(cells))
    key = legend("31 111 235 / 0", "31 111 235 / .55", "probability 0", "1 of the first choice")
    body = "\n".join(
        f'<tr><th scope="row">{html.escape(h)}</th>{line}</tr>' for h, line in zip(heads, lines, strict=True)
    )
    note = '<p class="note">In brackets: the loss in nats per token if the model ended there.</p>'
    return f'{key}\n{note}\n{wide(f"""<table class="grid">{body}</table>""")}'


def experts_html(ray: XRay, shown: Shown) -> str:
    """The most specialised, then every block's load."""
    found = [one for one in experts.ranked(ray.mixtures) if one.specialisation > one.by_chance][:N_STANDING_OUT]
    rows = [(str(one.block), *expert_row(one, shown)) for one in found]
    none = "<p>No expert keeps to a kind of token more than chance would have it.</p>"
    parts = [wide(table_html(("block", *EXPERT_HEADER), rows)) if rows else none]
    for mixture in ray.mixtures:
        n = len(mixture.experts)
        told = (
            f"Block {mixture.block}: balance {mixture.balance:.2f} of {math.log2(n):.2f} bits, as if "
            f"{mixture.effective:.1f} of {n} experts were at work"
        )
        parts.append(f"<details open><summary>{told}</summary>\n{wide(load_html(mixture, shown))}</details>")
    return "\n".join(parts)


EXPERT_HEADER = ("expert", "specialisation", "by chance", "kind", "of its work", "of the text", "most frequent tokens")


def expert_row(expert: Expert, shown: Shown) -> tuple[str | int | float, ...]:
    favourites = " ".join(f"{quoted(shown(token))} {times}" for token, times in expert.favourites)
    shares = (f"{expert.share:.0%}", f"{expert.share_in_text:.0%}")
    return str(expert.expert), expert.specialisation, expert.by_chance, expert.kind, *shares, favourites


def load_html(mixture: Mixture, shown: Shown) -> str:
    """A bar for each expert; as long as the column is what the busiest does."""
    most = max(expert.load for expert in mixture.experts)
    rows = []
    for expert in mixture.experts:
        bar = f'<span class="bar" style="width:{60 * expert.load / most:.0f}%"></span>{expert.load:.0%}'
        told = f"{expert.kind} {expert.share:.0%} (text {expert.share_in_text:.0%})" if expert.n_tokens else "idle"
        rows.append(f'<tr><th scope="row">expert {expert.expert}</th><td class="bars">{bar}</td><td>{told}</td></tr>')
    return f"<table>{''.join(rows)}</table>"


def ways_html(ray: XRay, shown: Shown) -> str:
    """A row for each block, a column for each token: its experts."""
    lines = ["".join(f"<td>{html.escape(clipped(shown(token)))}</td>" for token in ray.ids)]
    heads = ["token"]
    for mixture in ray.mixtures:
        chosen, weights = (part.tolist() for part in ray.chosen[mixture.block])
        heads.append(f"block {mixture.block}")
        cells = []
        for i, (ones, counts) in enumerate(zip(chosen, weights, strict=True)):
            parts = ", ".join(f"expert {one} {count:.0%}" for one, count in zip(ones, counts, strict=True))
            style = f"--h:{360 * ones[0] // len(mixture.experts)};--s:{min(1.0, counts[0]):.2f}"
            facts = f"block {mixture.block}, token {i}, {quoted(shown(ray.ids[i]))}: {parts}"
            cells.append(with_facts("td", "way", style, " ".join(map(str, ones[:MOST_EXPERTS])), facts))
        lines.append("".join(cells))
    body = "\n".join(f'<tr><th scope="row">{h}</th>{line}</tr>' for h, line in zip(heads, lines, strict=True))
    return wide(f'<table class="grid">{body}</table>')


MOST_EXPERTS = 3
"""Of a token, that are written into its cell."""


def foretold(one: Expectation, shown: Shown) -> str:
    """How a token was expected before it came."""
    if one.loss is None:
        return expected(one, shown)
    return (
        f"loss {one.loss:.2f} nats, probability {math.exp(-one.loss):.1%}, rank {one.rank}; expected were "
        f"{choices(one, shown)}"
    )


def expected(one: Expectation, shown: Shown) -> str:
    """What is expected, and how likely what came was."""
    told = choices(one, shown)
    return told if one.loss is None else f"{told}; what came: {math.exp(-one.loss):.1%}, rank {one.rank}"


def choices(one: Expectation, shown: Shown) -> str:
    return ", ".join(f"{quoted(shown(guess.id))} {guess.probability:.1%}" for guess in one.guesses)


def quoted(name: str) -> str:
    return f"'{name}'"


def clipped(name: str, n: int = 12) -> str:
    return name if len(name) <= n else f"{name[: n - 1]}\N{HORIZONTAL ELLIPSIS}"


def with_facts(tag: str, kind: str, style: str, text: str, facts: str) -> str:
    """An element whose facts stand at the foot of the window while one points at it, taps it or has tabbed to it."""
    tip = f'<span class="tip">{html.escape(facts)}</span>'
    return f'<{tag} class="{kind}" tabindex="0" style="{style}">{html.escape(text)}{tip}</{tag}>'


def legend(low: str, high: str, low_means: str, high_means: str) -> str:
    """A bar from faint to strong, between what both ends mean."""
    bar = f'<span class="key" style="background:linear-gradient(90deg, rgb({low}), rgb({high}))"></span>'
    return f'<p class="note">{html.escape(low_means)} {bar} {html.escape(high_means)}</p>'


def details(title: str, header: Sequence[str], rows: Sequence[Sequence[str | int | float]]) -> str:
    return f"<details><summary>{html.escape(title)}</summary>\n{wide(table_html(header, rows))}\n</details>"
