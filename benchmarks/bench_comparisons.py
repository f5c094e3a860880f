"""Every comparison that has a name, each with five seeds, and the table of docs/comparisons.md.

A comparison that is there already is only read, so the table can be printed again at no cost.

    python benchmarks/bench_comparisons.py [NAME ...] [--runs runs/compare]
"""

import argparse
import json
from pathlib import Path

from legollm.cli import main as legollm
from legollm.commands.compare_presets import COMPARISONS
from legollm.evaluation.report import markdown_table

HEADER = ("preset", "variant", "figure", "base", "variant", "difference, 95 % interval")


def rows_of(folder: Path) -> list[list[str]]:
    """One for each variant and figure of a finished comparison."""
    found = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    base, *variants = found["sides"]
    rows = []
    for said in found["differences"]:
        side = next(one for one in variants if one["name"] == said["variant"])
        name = said["figure"]
        means = []
        for one in (base, side):
            values = [run["figures"][name] for run in one["runs"] if name in run["figures"]]
            means.append(f"{sum(values) / len(values):.3f}" if values else "-")
        verdict = "one of them has none"
        if "mean" in said:
            verdict = f"{said['mean']:+.3f}, {said['low']:+.3f} to {said['high']:+.3f}"
            verdict = f"**{verdict}**" if said["is_seen"] else verdict
        swapped = ", ".join(f"{key.rpartition('.')[2]}={value}" for key, value in side["swapped"].items())
        rows.append([f"`{folder.name}`", swapped, name, *means, verdict])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=[name for name in COMPARISONS if name != "lora"])
    parser.add_argument("--runs", type=Path, default=Path("runs/compare"))
    given = parser.parse_args()
    rows = []
    for name in given.names:
        folder = given.runs / name
        if not (folder / "results.json").exists() and legollm(["compare", f"preset={name}", f"run={folder}"]):
            raise SystemExit(f"{name} did not end")
        rows += rows_of(folder)
    print(markdown_table(HEADER, rows))


if __name__ == "__main__":
    main()
