"""A comparison for the eye: two tables, a note in Markdown, a page with curves over each other."""

import statistics
from collections.abc import Iterator, Sequence

from legollm.commands.compare_outcome import Outcome, Points, SideOutcome
from legollm.commands.runs import aligned
from legollm.evaluation.report import Chart, Curve, Section, markdown_table

COSTS = ("side", "mean", "parameters", "FLOPs/token", "step time", "peak MiB", "steps")
SAID = ("variant", "figure", "base", "variant", "difference, 95 % interval")


def costs(outcome: Outcome) -> list[list[str]]:
    """A row for each side: its first figure and what it costs."""
    rows = []
    for side in outcome.sides:
        name = next(iter(side.runs[0].figures))
        parts = {"active": side.active, "trained": side.trained}
        more = "".join(f", {n:,} {what}" for what, n in parts.items() if n != side.parameters)
        rows.append(
            [
                side.name,
                f"{statistics.fmean(run.figures[name] for run in side.runs):.4f}",
                f"{side.parameters:,}{more}",
                f"{side.flops_per_token:,.0f}",
                f"{outcome.time_ratio(side):.2f}x",
                f"{side.peak_bytes / 2**20:.0f}",
                f"{side.steps:,}",
            ]
        )
    return rows


def verdicts(outcome: Outcome) -> list[list[str]]:
    """A row for each variant and figure."""
    sides = {side.name: side for side in outcome.sides}

    def mean(side: SideOutcome, name: str) -> str:
        values = [run.figures[name] for run in side.runs if name in run.figures]
        return f"{statistics.fmean(values):.4f}" if values else "-"

    return [
        [side, name, mean(outcome.base, name), mean(sides[side], name), str(found) if found else "one of them has none"]
        for side, name, found in outcome.differences()
    ]


def table(outcome: Outcome) -> list[str]:
    """For the terminal."""
    return [
        *aligned([COSTS, *costs(outcome)], n_words=1),
        "",
        *aligned([SAID, *verdicts(outcome)], n_words=5),
    ]


def note(outcome: Outcome) -> str:
    """What was compared, what came out, and how to read it."""
    return "\n\n".join(
        [
            *paragraphs(outcome),
            markdown_table(COSTS, costs(outcome)),
            markdown_table(SAID, verdicts(outcome)) + "\n",
        ]
    )


def paragraphs(outcome: Outcome) -> Iterator[str]:
    seeds = outcome.seeds
    for side in outcome.sides[1:]:
        what = ", ".join(f"{key}={value}" for key, value in side.swapped.items())
        yield f"`{side.name}` is the base with {what}{f'; {side.matched}' if side.matched else ''}."
    yield (
        f"{len(seeds)} {'seeds' if len(seeds) > 1 else 'seed'}, from {seeds[0]}; runs of one seed read the same "
        f"rows in the same order; matched by {outcome.match}. Differences are variant less base, less is better; "
        "step time depends on the machine and on what else it does."
    )
    found = [found for *_, found in outcome.differences() if found and found.n > 1]
    if found and found[0].half:
        ratio = found[0].half_unpaired / found[0].half
        yield f"Without shared seeds the first interval would be {ratio:.1f} times as wide."
    if len(found) > 1:
        yield f"Of {len(found)} intervals without any effect behind them, {0.05 * len(found):.2g} would leave zero out."


def sections(outcome: Outcome) -> list[Section]:
    """The page."""
    return [
        Section("Verdict", " ".join(paragraphs(outcome)).replace("`", ""), header=SAID, rows=verdicts(outcome)),
        Section("Sides", header=COSTS, rows=costs(outcome)),
        Section(
            "Curves",
            "Means over the seeds, each run thin behind them. The last point of a run is over the whole split.",
            chart=Chart("", "million tokens read", outcome.y_label, [*curves(outcome, "curve")]),
        ),
        *(
            Section(
                "By place in the row",
                "The loss of tokens that stand so far into a row.",
                chart=Chart("", "place", "nats per token", [*curves(outcome, "by_place")]),
            )
            for _ in range(any(run.by_place for side in outcome.sides for run in side.runs))
        ),
        Section("Every run", header=("seed", "side", "figure", "value"), rows=[*every_run(outcome)]),
    ]


def curves(outcome: Outcome, kind: str) -> Iterator[Curve]:
    for side in outcome.sides:
        lines: list[Points] = [getattr(run, kind) for run in side.runs]
        yield Curve(side.name, mean_line(lines), lines)


def mean_line(lines: Sequence[Points]) -> list[tuple[float, float]]:
    """The mean of the first points, of the second ones, ..., as far as all go.

    Rows at the end of a text are shorter, so runs have not read exactly as much at each look.
    """
    looks = zip(*lines, strict=False)
    return [(statistics.fmean(x for x, _ in look), statistics.fmean(y for _, y in look)) for look in looks]


def every_run(outcome: Outcome) -> Iterator[tuple[str, str, str, float]]:
    for i, seed in enumerate(outcome.seeds):
        for side in outcome.sides:
            yield from ((str(seed), side.name, name, value) for name, value in side.runs[i].figures.items())
