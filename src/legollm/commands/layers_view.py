"""What was seen in the layers of a run, as a section of a page."""

from collections.abc import Mapping, Sequence
from typing import Any

from legollm.evaluation.report import Section, Strips

FIGURES = {
    "grad_norm": "gradient norm",
    "update_ratio": "size of the move, of the weights' own",
    "output_rms": "scale of the output",
}


def layers_section(rows: Sequence[Mapping[str, Any]], title: str = "Layer by layer") -> list[Section]:
    """Strips for each figure of the rows of a metrics.jsonl; nothing if no layer was looked into."""
    strips: dict[str, dict[str, list[tuple[float, float]]]] = {figure: {} for figure in FIGURES}
    for row in rows:
        for layer, figures in row.get("layers", {}).items():
            for figure in figures.keys() & FIGURES.keys():
                if not isinstance(figures[figure], str):  # what is not finite stands as text in the file
                    strips[figure].setdefault(layer, []).append((row["step"], figures[figure]))
    if not any(strips.values()):
        return []
    text = "Each row is a layer, from where tokens come in to where they go out."
    return [Section(title, text, strips=[Strips(FIGURES[name], "step", layers) for name, layers in strips.items()])]
