"""`legollm compare`: a base and variants of it, trained with the same seeds on the same rows, and what differs."""

import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from legollm.architectures import ARCHITECTURES
from legollm.commands import train
from legollm.commands.compare_match import Match, Matched, of_equal_cost
from legollm.commands.compare_measures import measures
from legollm.commands.compare_outcome import Outcome, RunFigures, SideOutcome, in_turns
from legollm.commands.compare_page import note, sections, table
from legollm.commands.compare_presets import COMPARISONS
from legollm.commands.compare_sides import BASE, Side, sides_of
from legollm.commands.material import gather
from legollm.commands.past_runs import read_run
from legollm.commands.plan import figures_of
from legollm.commands.run_folder import flat, saved_config
from legollm.commands.run_presets import RUNS
from legollm.commands.train import TrainRun, as_started, fitted, given, pretrain, start_of
from legollm.config import Resolved, to_tree, to_yaml
from legollm.errors import ConfigError
from legollm.evaluation.report import write_report
from legollm.tokenizers import load_tokenizer
from legollm.whole_file import write_whole


@dataclass(frozen=True, kw_only=True)
class CompareRun(TrainRun):
    """A base in the words of `legollm train`, and what differs from it."""

    run: Path = Path("runs/compare")
    """Folder of all runs, of results.json, note.md and report.html."""
    swap: tuple[str, ...] = ()
    """What a variant has in place of the base's: ffn:swiglu, or several at once: norm:rmsnorm,ffn:swiglu. A list of
    swaps is a list of variants."""
    match: Match = "none"
    """What is made equal: params and flops (per token, in training) choose the width match_by; time chooses the number
    of steps by what they take on this machine now."""
    match_by: str = "model.d_ff"
    """The width that is free."""
    seeds: int = 5
    """Runs of each side; the first has the seed `seed`, the next ones follow."""
    beyond: int = 0
    """Measure the loss also at each place of rows of so many training lengths; 0 does not."""
    stream: int = 0
    """Measure the loss also along so many tokens read in one go, with a memory of one training length; 0 does not."""
    json: bool = False
    """Print JSON."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.seeds < 1:
            raise ConfigError(f"seeds: must be at least 1, found {self.seeds}")
        if self.beyond == 1 or self.beyond < 0:
            raise ConfigError(f"beyond: 0, or 2 training lengths or more, found {self.beyond}")
        if self.stream < 0:
            raise ConfigError(f"stream: must not be negative, found {self.stream}")
        if self.resume != "auto":
            raise ConfigError("resume: a comparison goes on by itself; run=ANOTHER_FOLDER starts a new one")
        if self.size:
            raise ConfigError("size: a comparison wants its sizes written down; legollm plan size=... shows them")


PRESETS: Mapping[type, Mapping[str, Any]] = {**train.PRESETS, CompareRun: {**RUNS, **COMPARISONS}}
GROWS = ("run", "resume", "seeds", "swap", "beyond", "stream", "json")
"""What may differ when a comparison is called again: there are more seeds, more variants or more measures then."""


def compare(run: Resolved[CompareRun]) -> None:
    """Train a base and its variants several times over, with the same seeds on the same rows, and say what differs.

    A comparison that was stopped goes on where it was; more seeds add to those that are there.

    legollm compare configs/vanilla.yaml swap=ffn:swiglu match=params
    legollm compare preset=rope
    legollm compare preset=tiny swap=[optim.name:muon,optim.name:lion] seeds=3
    """
    cfg = run.value
    base = TrainRun(**{field.name: getattr(cfg, field.name) for field in fields(TrainRun)})
    keys = given(run) & flat(to_tree(base)).keys()
    sides = list(sides_of(base, cfg.swap))
    opened(cfg, sides)
    sides = [with_text(side, cfg.run, keys) for side in sides]
    matched = remembered(cfg, sides)
    ready = [replace(side, run=matched[side.name].applied(side.run)) for side in sides]

    def tell(line: str) -> None:
        if not cfg.json:
            print(line, flush=True)

    for name, one in matched.items():
        if one.said:
            tell(f"{name}: {one.said}")
    by_loss = len({load_tokenizer(text_of(side)).fingerprint for side in ready}) == 1
    seeds = list(range(cfg.seed, cfg.seed + cfg.seeds))
    found = in_turns(ready, seeds, partial(trained, cfg, by_loss=by_loss), tell)
    label = "validation loss, nats per token" if by_loss else "bits per byte of held-out text"
    done = [side_outcome(side, matched[side.name], found[side.name]) for side in ready]
    outcome = Outcome(match=cfg.match, y_label=label, seeds=seeds, sides=done)
    write_whole(cfg.run / "results.json", json.dumps(outcome.as_dict(), indent=1) + "\n")
    write_whole(cfg.run / "note.md", note(outcome))
    write_report(cfg.run / "report.html", f"Compared: {cfg.run.name}", sections(outcome))
    if cfg.json:
        print(json.dumps(outcome.as_dict(), indent=1))
    tell("\n" + "\n".join(table(outcome)))
    tell(f"\npage: {cfg.run / 'report.html'}   note: {cfg.run / 'note.md'}")


def opened(cfg: CompareRun, sides: list[Side]) -> None:
    """Make the folder, or check that it holds this comparison, before anything is trained.

    Raises:
        ConfigError: it holds another one; or a side that cannot take part.
    """
    for side in sides:
        if ARCHITECTURES[side.run.model.arch].learns == "counts":
            raise ConfigError(
                f"model.arch: {side.run.model.arch} counts its text, without seeds; legollm ladder has it"
            )
        if (cfg.beyond or cfg.stream) and side.run.data.mixture:
            raise ConfigError("data.mixture: beyond and stream read one text; give data.source")
    path = cfg.run / "comparison.yaml"
    now, before = flat(to_tree(cfg)), saved_config(path)
    changed = [key for key in now if key in before and before[key] != now[key] and key.split(".")[0] not in GROWS]
    if changed:
        raise ConfigError(
            f"{changed[0]}: {cfg.run} compares with {before[changed[0]]!r}, now it is {now[changed[0]]!r}; "
            "run=ANOTHER_FOLDER starts a new comparison"
        )
    cfg.run.mkdir(parents=True, exist_ok=True)
    write_whole(path, to_yaml(cfg))


def with_text(side: Side, folder: Path, keys: set[str]) -> Side:
    """The side with its text ready, once for all seeds and for all sides that read the same, and as many ids as that
    has."""
    run, said = side.run, keys | side.swapped.keys()
    if start := start_of(run):
        run = as_started(run, start, said)
    is_own = any(key.partition(".")[0] in ("data", "tokenizer") for key in side.swapped)
    place = folder / "data" / (side.name if is_own else BASE)
    tokenizer = gather(run.data, run.tokenizer, place).tokenizer
    if not (run.data.prepared or run.data.mixture):
        run = replace(run, data=replace(run.data, prepared=place / "data"))
    model = run.model if start else fitted(run.model, tokenizer, "model.vocab_size" in said)
    return replace(side, run=replace(run, model=model))


def text_of(side: Side) -> Path:
    """Where its tokenizer lies."""
    data = side.run.data
    return data.prepared if data.prepared else Path(side.run.tokenizer.kind)


def remembered(cfg: CompareRun, sides: list[Side]) -> dict[str, Matched]:
    """What makes each side equal to the base; kept, because time is measured and would not come out the same again."""
    path = cfg.run / "matched.json"
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    found = {
        side.name: Matched(**kept[side.name])
        if side.name in kept
        else of_equal_cost(sides[0].run, side, cfg.match, cfg.match_by)
        for side in sides
    }
    write_whole(path, json.dumps(kept | {name: asdict(one) for name, one in found.items()}, indent=1) + "\n")
    return found


def trained(cfg: CompareRun, side: Side, seed: int, *, by_loss: bool) -> RunFigures:
    """One run, unless it is there already -> its figures. What training prints goes to train.log beside it."""
    folder = cfg.run / side.name / f"seed-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    run = replace(side.run, run=folder, seed=seed, resume="auto")
    with (folder / "train.log").open("a", encoding="utf-8") as file, contextlib.redirect_stdout(file):
        state = pretrain(run, given=("model.vocab_size",))
    past = read_run(folder)
    last = next(row for row in reversed(past.rows) if "val_tokens" in row)
    name, key = ("validation loss", "val_loss") if by_loss else ("bits per byte", "val_bpb")
    more = measures(folder, run, beyond=cfg.beyond, stream=cfg.stream)
    return RunFigures(
        figures={name: float(last[key]), **more.figures},
        steps=state.step,
        seconds_per_step=state.seconds / max(1, state.step),
        curve=past.curve(key),
        by_place=more.by_place,
    )


def side_outcome(side: Side, matched: Matched, runs: list[RunFigures]) -> SideOutcome:
    costs = figures_of(side.run)
    return SideOutcome(
        name=side.name,
        swapped=side.swapped,
        matched=matched.said,
        steps=max(one.steps for one in runs),
        parameters=costs["parameters"]["total"],
        active=costs["parameters"]["active"],
        trained=costs["parameters"]["trained"],
        flops_per_token=costs["flops_per_token"]["training"],
        peak_bytes=costs["peak_bytes"]["tensors"],
        runs=runs,
    )
