"""`legollm ladder`: from counting pairs of characters to a modern decoder, all rungs at one budget on one text."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, cast

from legollm.architectures import ARCHITECTURES
from legollm.checkpoints.loading import load
from legollm.commands.material import TrainData
from legollm.commands.past_runs import read_run
from legollm.commands.run_presets import LADDER
from legollm.commands.runs import aligned
from legollm.commands.text_plot import plot
from legollm.commands.train import PRESETS, TrainRun, given, pretrain
from legollm.config import Resolved, read, resolve
from legollm.data.sources import open_source
from legollm.errors import ConfigError, DataError
from legollm.evaluation.cost import cost_of
from legollm.evaluation.report import Chart, Curve, Section, markdown_table, write_report
from legollm.generation.cache import GenerativeModel
from legollm.generation.complete import Decoding
from legollm.generation.sampling import Sampling
from legollm.generation.text import generate_text
from legollm.whole_file import write_whole

CHOICE = "tiny_shakespeare"
"""The text of the published figures; where it was not fetched, the built-in world is read."""
SAMPLE = 200
"""Characters that each rung writes in the end."""
HEADER = ("rung", "loss", "bits/byte", "parameters", "FLOPs per character", "seconds")


@dataclass(frozen=True, kw_only=True)
class LadderRun:
    """Which rungs, on which text, for how long."""

    POSITIONAL: ClassVar[tuple[str, ...]] = ("data",)

    run: Path = Path("runs/ladder")
    """Folder of all runs, of results.json, note.md and report.html."""
    seed: int = 1337
    """The first weights, the order of the text and the luck of the samples, the same for each rung."""
    data: TrainData = field(default_factory=TrainData)
    rungs: tuple[str, ...] = tuple(LADDER)
    """From the lowest to the highest; each is a preset of `legollm train`."""
    max_steps: int = 3000
    """Steps of each rung, of 1,024 characters; the first one counts its text once instead."""
    prompt: str | None = None
    """What the samples continue; null takes the start of the validation text."""
    json: bool = False
    """Print JSON."""

    def __post_init__(self) -> None:
        if unknown := [rung for rung in self.rungs if rung not in LADDER]:
            raise ConfigError(f"rungs: {unknown[0]!r} is none of {', '.join(LADDER)}")
        if not self.rungs or len(set(self.rungs)) < len(self.rungs):
            raise ConfigError(f"rungs: one or more of {', '.join(LADDER)}, each once")
        if self.max_steps < 1:
            raise ConfigError(f"max_steps: must be at least 1, found {self.max_steps}")


def ladder(run: Resolved[LadderRun]) -> None:
    """Train every rung from the count of pairs to a modern decoder; one table, one page: loss, size, cost, a sample.

    The text is Tiny Shakespeare where `legollm data get tiny_shakespeare` has fetched it, else the built-in world. A
    ladder that was stopped goes on where it was.

    legollm ladder
    legollm ladder tinyshakespeare.txt
    legollm ladder book.txt max_steps=300 run=runs/book-ladder
    """
    cfg = run.value
    if "data.source" not in given(run) and not (cfg.data.prepared or cfg.data.mixture):
        cfg = replace(cfg, data=replace(cfg.data, source=usual_text()))
    rows = []
    for name in cfg.rungs:
        if not cfg.json:
            print(f"\n{name}", flush=True)
        rows.append(climbed(rung_of(cfg, name), name))
    results = {"source": cfg.data.source, "max_steps": cfg.max_steps, "seed": cfg.seed, "rungs": rows}
    write_whole(cfg.run / "results.json", json.dumps(results, indent=1) + "\n")
    write_whole(cfg.run / "note.md", note(cfg, rows))
    write_report(cfg.run / "report.html", "The ladder", sections(cfg, rows))
    if cfg.json:
        print(json.dumps(results, indent=1))
        return
    curves = {row["rung"]: row["curve"] for row in rows if len(row["curve"]) > 1}
    print("", *aligned([HEADER, *map(cells, rows)], n_words=1), sep="\n")
    print("", "validation loss, nats per character", *plot(curves, x_label="steps"), sep="\n")
    print(f"\npage: {cfg.run / 'report.html'}   table: {cfg.run / 'note.md'}")


def usual_text() -> str:
    try:
        open_source(CHOICE, TrainData().read)
    except DataError:
        return TrainData().source
    return CHOICE


def rung_of(cfg: LadderRun, name: str) -> TrainRun:
    """The run of one rung: its preset at the ladder's budget, with a look at the validation text ten times."""
    words = [f"preset={name}", f"train.max_steps={cfg.max_steps}", f"train.eval_every={max(1, cfg.max_steps // 10)}"]
    words += ["train.save_every=0", "train.precision=float32"]  # the same sums on every machine
    made = resolve(TrainRun, read(None, words), presets=PRESETS).value
    return replace(made, run=cfg.run / name, seed=cfg.seed, data=cfg.data, prompt=cfg.prompt)


def climbed(run: TrainRun, name: str) -> dict[str, Any]:
    """Train a rung, unless its folder has it already -> its figures."""
    pretrain(run, given=("train.max_steps",), title=name)
    past = read_run(run.run)
    last: Mapping[str, Any] = next(row for row in reversed(past.rows) if "val_tokens" in row)
    return {
        "rung": name,
        "val_loss": last["val_loss"],
        "val_bpb": last["val_bpb"],
        "parameters": past.n_parameters,
        "flops_per_token": flops_of(run),
        "seconds": round(past.seconds, 1),
        "sample": written(run, last["sample"]),
        "curve": [(row["step"], row["val_loss"]) for row in past.rows if "val_loss" in row],
    }


def written(run: TrainRun, shown: str) -> str:
    """A sample long enough to be judged: what was shown while training begins with the same start."""
    lm = load(run.run / "checkpoint")
    tokenizer = lm.text_side()
    start = tokenizer.encode(run.prompt) if run.prompt else tokenizer.encode(shown)[:8]
    sampling = Sampling(temperature=0.8, max_new_tokens=SAMPLE, seed=run.seed)
    decoding = Decoding(window=lm.config.max_seq_len, on_overflow="re-prefill")
    model = cast(GenerativeModel, lm.model.eval())
    return tokenizer.decode(start) + generate_text(model, tokenizer, start, sampling, decoding=decoding).text


def flops_of(run: TrainRun) -> float | None:
    """Of training, per character; none for a model that counts."""
    built = resolve(TrainRun, read(run.run / "config.yaml", []), presets=PRESETS).value.model  # with the text's ids
    row = ARCHITECTURES[built.arch]
    if row.learns == "counts":
        return None
    n_tokens: int = built.max_seq_len
    return cost_of(partial(row.build, built), n_tokens).training_flops / n_tokens


def cells(row: Mapping[str, Any]) -> list[str]:
    flops = row["flops_per_token"]
    return [
        row["rung"],
        f"{row['val_loss']:.3f}",
        f"{row['val_bpb']:.3f}",
        f"{row['parameters']:,}",
        "-" if flops is None else f"{flops:,.0f}",
        f"{row['seconds']:.1f}",
    ]


def note(cfg: LadderRun, rows: Sequence[Mapping[str, Any]]) -> str:
    """The table for a document, written by the run itself."""
    return (
        f"`{cfg.data.source}`, {cfg.max_steps:,} steps, seed {cfg.seed}; loss in nats per character over the whole "
        f"validation split, seconds of training on the machine that ran it.\n\n"
        f"{markdown_table(HEADER, list(map(cells, rows)))}\n"
    )


def sections(cfg: LadderRun, rows: Sequence[Mapping[str, Any]]) -> list[Section]:
    """The page."""
    counted = {row["rung"]: row["val_loss"] for row in rows if len(row["curve"]) == 1}
    curves = [Curve(row["rung"], row["curve"]) for row in rows if len(row["curve"]) > 1]
    said = f"{cfg.data.source}, {cfg.max_steps:,} steps of each rung, seed {cfg.seed}."
    return [
        Section("Rungs", said, header=HEADER, rows=[cells(row) for row in rows]),
        Section(
            "How they learn",
            "The loss on the first validation batches on the way, on the whole split at the end.",
            chart=Chart("validation loss", "steps", "nats per character", curves, levels=counted),
        ),
        *(Section(row["rung"], code=row["sample"]) for row in rows),
    ]
