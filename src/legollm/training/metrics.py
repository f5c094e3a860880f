"""Where the numbers of a run go: one JSON object a line, and one aligned line for the eye."""

import contextlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from legollm.errors import CheckpointError
from legollm.whole_file import write_whole

Value = float | int | str
Layers = Mapping[str, Mapping[str, float]]
"""Layer -> figure -> value."""


class JsonLines:
    """A MetricLog that appends to a file and can take back what a killed run wrote after its last checkpoint."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    def __call__(self, step: int, **values: Value | Layers) -> None:
        """
        Raises:
            CheckpointError: the disk refused; nothing of the row is left.
        """
        row = {"step": step} | {key: finite(value) for key, value in values.items()}
        size = self.path.stat().st_size if self.path.exists() else 0
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            with contextlib.suppress(OSError):  # half a row would hide all that come after it
                os.truncate(self.path, size)
            raise CheckpointError(f"{self.path}: could not be written ({error.strerror}); make room") from error

    def rewind(self, step: int) -> None:
        """Drop every row after `step`: the steps will be run again, and a line cut off by a kill goes, too."""
        rows = [row for row in read_rows(self.path) if row["step"] <= step]
        write_whole(self.path, "".join(json.dumps(row) + "\n" for row in rows))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics file; a last line that was cut off is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def finite(value: Any) -> Any:
    """JSON has no NaN: numbers that are not finite are written as text, so that every reader can parse the file."""
    if isinstance(value, Mapping):
        return {key: finite(inner) for key, inner in value.items()}
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def console_line(step: int, max_steps: int, values: dict[str, Value]) -> str:
    """One aligned line: step, then every value in its usual form."""
    shown = []
    for key, value in values.items():
        if key == "tokens_per_s":
            shown.append(f"{float(value):>8,.0f} tokens/s")
        elif key == "seconds_left":
            shown.append(f"{int(float(value)) // 60:>3}:{int(float(value)) % 60:02} left")
        elif key == "lr":
            shown.append(f"lr {float(value):.2e}")
        elif key == "tokens":
            shown.append(f"{float(value) / 1e6:7.2f} M tokens")
        elif isinstance(value, float):
            shown.append(f"{key} {value:7.4f}")
        else:
            shown.append(f"{key} {value}")
    return f"step {step:>{len(str(max_steps))}}/{max_steps}  " + "  ".join(shown)
