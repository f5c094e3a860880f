"""`legollm eject NAME`: an architecture as one file that needs nothing but torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from legollm.architectures import ARCHITECTURES
from legollm.config import Resolved
from legollm.eject import eject as eject_source
from legollm.eject import write_pages
from legollm.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class EjectRun:
    """What to eject, and where to."""

    POSITIONAL: ClassVar[tuple[str, ...]] = ("name", "out")

    name: str = "all"
    """An architecture, or all: the pages of docs/onefile/."""
    out: Path | None = None
    """The file to write, or the folder of the pages; null prints one architecture, or writes docs/onefile/."""


def eject(run: Resolved[EjectRun]) -> None:
    """Write an architecture as one self-contained file: its recipe with every brick it uses copied above it."""
    cfg = run.value
    if cfg.name == "all":
        folder = cfg.out or Path("docs/onefile")
        write_pages(folder)
        print(f"{folder}: {', '.join(ARCHITECTURES)}")
        return
    if ":" in cfg.name:
        raise ConfigError(
            f"name: {cfg.name} is a brick from outside, whose file is yours; eject vanilla, and put it there"
        )
    if cfg.name not in ARCHITECTURES:
        raise ConfigError(f"name: {cfg.name!r} is none of {', '.join(ARCHITECTURES)}, all")
    source = eject_source(cfg.name)
    if cfg.out is None:
        print(source, end="")
    else:
        cfg.out.write_text(source, encoding="utf-8")
        print(f"{cfg.out}: {len(source.splitlines())} lines")
