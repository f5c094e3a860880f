"""How far training a tokenizer is: a bar for each stage, with the time left, on a terminal; nothing elsewhere."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

Show = Callable[[str, int, int], None]
"""Called with the stage, what is done of it, and what there is to do."""


@contextmanager
def bars() -> Iterator[Show]:
    """What draws a stage when it is told of it; on standard error, so that results can be piped."""
    if not sys.stderr.isatty():
        yield lambda stage, done, total: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        stages: dict[str, TaskID] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in stages:
                for before in stages.values():  # a stage ends when the next one begins
                    progress.update(before, completed=progress.tasks[before].total)
                stages[stage] = progress.add_task(stage, total=total)
            progress.update(stages[stage], completed=min(done, total))

        yield show
