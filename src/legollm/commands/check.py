"""`legollm check`: a brick or a model, of this package or from outside, against everything its like promises."""

import dataclasses
import importlib.util
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from legollm.architectures import ARCHITECTURES
from legollm.architectures.ngram import counted
from legollm.components.outside import brick_from, refuse_misfit
from legollm.config import Resolved
from legollm.contract import Outcome, Verdict, check_brick, check_model
from legollm.contract.models import same_bits
from legollm.contract.studs import make_part, seeded, stud_of, tiny_config
from legollm.contract.verdict import verdict
from legollm.eject import eject
from legollm.errors import ConfigError

Kind = Literal["auto", "mixer", "ffn", "norm", "rotary", "positions", "position_bias", "embedding", "block", "model"]


@dataclass(frozen=True, kw_only=True)
class CheckRun:
    """What to check."""

    POSITIONAL: ClassVar[tuple[str, ...]] = ("part",)

    part: str
    """module:Name of a class or of a function that makes a module, here or installed; or the name of an architecture.
    The module is imported, which runs it."""
    kind: Kind = "auto"
    """Where the part goes; auto tells by the names of what its forward takes."""
    json: bool = False
    """Print JSON."""


def check(run: Resolved[CheckRun]) -> int:
    """Build a part at a small size, run every check that its like has to pass, and print a card; 1 if one fails.

    legollm check my_bricks:MyAttention
    legollm check my_bricks:MyFFN kind=ffn
    legollm check llama3
    """
    cfg = run.value
    stud, found = check_outside(cfg.part, cfg.kind) if ":" in cfg.part else check_architecture(cfg.part)
    n_failed = sum(not verdict.passed for verdict in found)
    if cfg.json:
        checks = [verdict._asdict() for verdict in found]
        print(json.dumps({"part": cfg.part, "kind": stud, "passed": not n_failed, "checks": checks}, indent=1))
    else:
        print(card(f"{cfg.part}, checked as {stud}", found))
    return 1 if n_failed else 0


def check_outside(path: str, kind: Kind) -> tuple[str, list[Verdict]]:
    """Where the part goes, and what was found."""
    target = brick_from(path)
    make = seeded(lambda: make_part(target, path))
    part = make()
    stud = stud_of(part, target, path) if kind == "auto" else kind
    refuse_misfit(part, stud, path)
    return stud, check_model(part) if stud == "model" else check_brick(stud, make)


def check_architecture(name: str, **changes: Any) -> tuple[str, list[Verdict]]:
    """An architecture of this package at a small size, `changes` to it aside; also what `legollm eject` makes of it."""
    if name not in ARCHITECTURES:
        names = ", ".join(ARCHITECTURES)
        raise ConfigError(f"part: {name!r} is neither module:Name, such as my_bricks:MyFFN, nor one of {names}")
    row = ARCHITECTURES[name]
    cfg = tiny_config(row.config, **changes)
    model = row.build(cfg)
    if row.learns == "counts":
        cfg, model = counted(cfg, torch.randint(cfg.vocab_size, (2000,), generator=torch.Generator().manual_seed(0)))

    def ejected_equals_built(model: nn.Module) -> Outcome:
        return same_bits(model, ejected(name, cfg))

    return "model", [*check_model(model), verdict(ejected_equals_built, model)]


def ejected(name: str, cfg: Any) -> nn.Module:
    """The model of that configuration, built by the one file that `legollm eject` writes."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.py"
        path.write_text(eject(name), encoding="utf-8")
        spec = importlib.util.spec_from_file_location(f"ejected_{name}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # the file is gone in a moment
        try:
            spec.loader.exec_module(module)
        finally:
            sys.dont_write_bytecode = bytecode

    def in_file(value: Any) -> Any:
        """A configuration of the package as one of the file, which has its own classes."""
        if not dataclasses.is_dataclass(value):
            return value
        fields = {field.name: in_file(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return getattr(module, type(value).__name__)(**fields)

    model: nn.Module = getattr(module, name)(in_file(cfg))
    return model


def card(title: str, found: list[Verdict]) -> str:
    """A line per check: whether it holds, its name, what was measured."""
    width = max(len(verdict.name) for verdict in found)
    rows = [f"  {'holds' if v.passed else 'FAILS'}  {v.name:<{width}}  {v.measured}" for v in found]
    n_failed = sum(not verdict.passed for verdict in found)
    summary = f"{n_failed} of {len(found)} fail" if n_failed else f"all {len(found)} hold"
    return "\n".join([title, "", *rows, "", summary])
