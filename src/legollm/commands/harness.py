"""`legollm lm-eval`: the tasks of lm-evaluation-harness on a model of ours, as it lies."""

import difflib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from legollm.checkpoints.loading import load
from legollm.commands.harness_model import harness_class
from legollm.config import Resolved
from legollm.device import Device
from legollm.errors import ConfigError, DataError, LegoLLMError
from legollm.whole_file import write_whole

OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
"""What the libraries that fetch data look at, once, when they are imported."""


@dataclass(frozen=True, kw_only=True)
class HarnessRun:
    """A model, and the names of tasks."""

    POSITIONAL: ClassVar[tuple[str, ...]] = ("model",)

    model: Path = Path("runs/demo/checkpoint")
    """A checkpoint or run folder, or a Hugging Face folder."""
    tasks: tuple[str, ...]
    """Names that lm_eval knows, such as arc_easy, or those of your own files."""
    include: Path | None = None
    """A folder with task files (.yaml) of your own; data_files in them may name local files."""
    n_shots: int | None = None
    """Worked examples before each question; null is what each task says."""
    n_items: int | None = None
    """The first so many of each task; null is all."""
    seq_len: int | None = None
    """Context length; null takes the length the model was trained at."""
    batch_size: int = 16
    """Rows at once; does not change the result."""
    device: Device = "auto"
    """cpu, cuda, mps, or auto."""
    allow_download: bool = False
    """Whether tasks may fetch their data; otherwise only what lies on this machine is read."""
    output: Path | None = None
    """A .json file for everything that lm_eval returns, every question included; null writes none."""
    json: bool = False
    """Print the results as JSON instead of as a table."""

    def __post_init__(self) -> None:
        for name in ("n_items", "seq_len", "batch_size"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ConfigError(f"{name}: must be at least 1, found {value}")
        if self.n_shots is not None and self.n_shots < 0:
            raise ConfigError(f"n_shots: must be at least 0, found {self.n_shots}")
        if not self.tasks:
            raise ConfigError("tasks: found none; give names that lm_eval knows, such as tasks=[arc_easy,piqa]")
        if self.include is not None and not self.include.is_dir():
            raise ConfigError(f"include: {self.include} is no folder; give the one with your task files")


def lm_eval(run: Resolved[HarnessRun]) -> None:
    """Take tests of lm-evaluation-harness, which asks the model through its own interface.

    It is an extra, `lm-eval`. Nothing is fetched unless allow_download says so.

    legollm lm-eval runs/book tasks=[my_task] include=tasks/
    legollm lm-eval runs/book tasks=[arc_easy,hellaswag] n_items=100 allow_download=true
    """
    cfg = run.value
    if not cfg.allow_download:
        os.environ.update(dict.fromkeys(OFFLINE, "1"))
    found = results_of(cfg)
    if cfg.output is not None:
        write_whole(cfg.output, json.dumps(found, indent=1, default=str, ensure_ascii=False))
    if cfg.json:
        print(json.dumps(found["results"], indent=1, default=str))
        return
    from lm_eval.utils import make_table

    print(make_table(found))


def results_of(cfg: HarnessRun) -> dict[str, Any]:
    """Everything that lm_eval returns.

    Raises:
        ConfigError: lm_eval is missing, or knows no such task.
        DataError: it cannot read a task or its data, or refuses to run it.
    """
    kind = harness_class()
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=None if cfg.include is None else str(cfg.include))
    for name in cfg.tasks:
        if name not in manager.all_tasks:
            near = difflib.get_close_matches(name, manager.all_tasks, n=1)
            hint = f"; did you mean {near[0]}?" if near else "; for one of your own, include=FOLDER"
            raise ConfigError(f"tasks: lm_eval knows no {name!r}{hint}")
    model = kind(load(cfg.model), batch_size=cfg.batch_size, device=cfg.device, max_length=cfg.seq_len)
    try:
        found: dict[str, Any] = simple_evaluate(
            model=model,
            tasks=list(cfg.tasks),
            num_fewshot=cfg.n_shots,
            limit=cfg.n_items,
            task_manager=manager,
            bootstrap_iters=1000,
        )
    except LegoLLMError:
        raise
    except (OSError, ValueError) as error:  # a data set that is not here, a task file that says impossible things
        said = str(error).partition("\n")[0][:200]
        hint = "" if cfg.allow_download else "; what is not on this machine is fetched with allow_download=true"
        raise DataError(f"tasks: lm_eval stopped with {type(error).__name__}: {said}{hint}") from error
    return found
