"""The folder of a run: opened, checked against the run that it holds, and the step that training goes on from."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml

from legollm.checkpoints.manifest import latest, steps, verify
from legollm.checkpoints.state import prepare_root
from legollm.commands.run_lock import locked
from legollm.config import to_tree, to_yaml
from legollm.device import keep_freed_memory
from legollm.errors import CheckpointError, ConfigError, IntegrityError
from legollm.team import ALONE, Team
from legollm.training.track import check_installed
from legollm.whole_file import write_whole

log = logging.getLogger(__name__)

Resume = Literal["auto", "never"] | int


def open_run(folder: Path, config: Any, resume: Resume, team: Team = ALONE) -> None:
    """Make the run's folder, or check that what it holds is the run that `config` describes, before any work.

    team: the processes that call this; its leader does it.

    Raises:
        ConfigError: it holds another run, or any run and resume is never, or not the step to resume; or another
            process trains in it; or a package of train.track is not installed.
    """
    keep_freed_memory()
    check_installed(config.train.track)

    def opened() -> str:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            open_alone(folder, config, resume)
        return str(folder)

    team.tell(opened)


def open_alone(folder: Path, config: Any, resume: Resume) -> None:
    """`open_run`, in a folder that no other process uses."""
    root = folder / "checkpoints"
    prepare_root(root)
    found = steps(root)
    if resume == "never" and found:
        raise ConfigError(
            f"run: {folder} holds a run already (step {next(iter(found))}); resume=auto continues it, "
            "run=ANOTHER_FOLDER starts a new one"
        )
    if isinstance(resume, int) and resume not in found:
        there = ", ".join(map(str, found)) or "none"
        raise ConfigError(f"resume: {folder} has no checkpoint of step {resume}; there are: {there}")
    path = folder / "config.yaml"
    before = saved_config(path)
    now = flat(to_tree(config))
    changed = [key for key in now if key in before and before[key] != now[key] and not key.startswith(CHANGEABLE)]
    if changed and found:
        key = changed[0]
        more = f" (and {len(changed) - 1} more keys differ)" if len(changed) > 1 else ""
        raise ConfigError(
            f"{key}: {folder} was started with {before[key]!r}, now it is {now[key]!r}{more}; "
            "run=ANOTHER_FOLDER starts a new run"
        )
    if changed:  # nothing was trained yet: what was made from the text is made again
        (folder / "tokenizer.json").unlink(missing_ok=True)
    save_config(folder, config)


def save_config(folder: Path, config: Any) -> None:
    """Write config.yaml at once: a killed process leaves the old file or the new one."""
    write_whole(folder / "config.yaml", to_yaml(config))


CHANGEABLE = (
    *("train.", "optim.", "resume", "run", "model.vocab_size"),
    *("data.prefetch", "data.n_workers", "data.shard_bytes"),
)
"""What may differ between a run and its continuation: all but the model, its text, its seed and its prompt.

The size of the vocabulary is the tokenizer's, and a checkpoint of another size does not load.
"""


def saved_config(path: Path) -> dict[str, Any]:
    """What an earlier start of the run wrote, with dotted keys; nothing if this is the first.

    Raises:
        ConfigError: somebody has changed the file into something else.
    """
    if not path.exists():
        return {}
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path}: not YAML any more ({' '.join(str(error).split())}); restore or remove it"
        ) from error
    if not isinstance(tree, Mapping):
        raise ConfigError(f"{path}: holds no settings any more; restore or remove it")
    return flat(tree)


def starting_point(resume: Resume, root: Path) -> Path | None:
    """The checkpoint to continue from, None for a new run; what was saved after it is set aside.

    Raises:
        CheckpointError: there are checkpoints, and none of them is whole.
        IntegrityError: the step that was asked for is damaged.
    """
    found = steps(root)
    if isinstance(resume, int):
        start: Path | None = found[resume]
        try:
            verify(found[resume])
        except IntegrityError as error:
            raise IntegrityError(f"{error}; resume=auto continues the newest checkpoint that is whole") from error
    else:
        start = latest(root)
        if found and not start:
            raise CheckpointError(f"{root}: none of {len(found)} checkpoints is whole; run=ANOTHER_FOLDER starts anew")
    for path in found.values():  # newest first
        if path == start:
            break
        aside = set_aside(path)
        log.warning("%s is set aside as %s", path, aside.name)
    return start


def set_aside(path: Path) -> Path:
    """Rename a checkpoint that the run does not continue, or it would be taken for the newest one."""
    name = path.name.replace("step-", "abandoned-")
    aside = path.with_name(name)
    while aside.exists():
        aside = aside.with_name(f"{aside.name}-again")
    return path.rename(aside)


def flat(tree: Mapping[str, Any], at: str = "") -> dict[str, Any]:
    items: dict[str, Any] = {}
    for key, value in tree.items():
        items |= flat(value, f"{at}{key}.") if isinstance(value, Mapping) else {at + key: value}
    return items
