"""`legollm eval`: a checkpoint and a text -> loss, perplexity and bits per byte; or a test -> how many right."""

import dataclasses
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import tee
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from legollm.checkpoints.loading import Loaded, load
from legollm.commands.beginning import prompts_of
from legollm.commands.evaluate_tasks import TaskSettings, evaluate_task, print_task
from legollm.commands.material import DataConfig
from legollm.commands.run_folder import saved_config
from legollm.config import Resolved
from legollm.config.kinds import default_of
from legollm.data.loader import TokenFile
from legollm.data.prepare import PrepareOptions, prepare
from legollm.data.sources import open_source
from legollm.device import Device, pick_device
from legollm.errors import ConfigError, DataError
from legollm.evaluation.intervals import ratio_interval
from legollm.evaluation.likelihood import Continuation, in_turn
from legollm.evaluation.loss import Loss
from legollm.evaluation.windows import windows_apart, windows_of_documents


@dataclass(frozen=True, kw_only=True)
class EvalRun(TaskSettings):
    """A model, and the text or the test to measure it on."""

    POSITIONAL: ClassVar[tuple[str, ...]] = ("model",)

    model: Path = Path("runs/demo/checkpoint")
    """A checkpoint or run folder, or a Hugging Face folder."""
    data: DataConfig = field(default_factory=DataConfig)
    seq_len: int | None = None
    """Context length; null takes the length the model was trained at."""
    stride: int | None = None
    """Read each document by itself, in windows that overlap: this many tokens are new in each, and every token has at
    least seq_len - stride before it, as far as there are any. 1 is exact and slow. Null reads windows that do not
    overlap, one document after the other, as in training."""
    batch_size: int = 16
    """Rows at once; does not change the result."""
    device: Device = "auto"
    """cpu, cuda, mps, or auto."""
    json: bool = False
    """Print JSON."""

    def __post_init__(self) -> None:
        TaskSettings.__post_init__(self)
        for name in ("seq_len", "stride", "batch_size"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ConfigError(f"{name}: must be at least 1, found {value}")


def evaluate(run: Resolved[EvalRun]) -> None:
    """Measure a model on the whole validation split of a text, where every token is predicted once; or on a test.

    Where no text is named, it is the one that the model's run kept for validation, or else the built-in corpus.

    legollm eval runs/book
    legollm eval runs/book data.source=another.txt stride=64
    legollm eval runs/book task=mmlu source=mmlu/ n_items=20
    legollm eval runs/demo task=world output=answers.jsonl
    """
    cfg = run.value
    refuse_mixed(run)
    lm = load(cfg.model, engine=cfg.engine)
    lm.refuse_pairs()
    seq_len = cfg.seq_len or lm.config.max_seq_len
    if seq_len > lm.config.max_seq_len:
        raise ConfigError(f"seq_len: {seq_len} is more than the model's {lm.config.max_seq_len}")
    device = pick_device(cfg.device)
    lm.model.to(device)
    if cfg.task is not None:
        on_cpu = device.type == "cpu"
        figures = evaluate_task(cfg, lm, window=seq_len, batch_size=cfg.batch_size, on_cpu=on_cpu)
    else:
        figures = evaluate_text(run, lm, seq_len)
    if cfg.json:
        print(json.dumps(figures, indent=1))
    elif cfg.task is not None:
        print_task(figures, seq_len)
    else:
        print_text(figures)


def refuse_mixed(run: Resolved[EvalRun]) -> None:
    """
    Raises:
        ConfigError: settings of a test without one, or settings of a text with one.
    """
    cfg = run.value
    if cfg.task is None:
        for one in dataclasses.fields(TaskSettings):
            if getattr(cfg, one.name) != default_of(one):
                raise ConfigError(f"{one.name}: goes with task=...; the text to measure on is data.source=...")
    elif set_by_hand(run) or cfg.stride is not None:
        name = "data" if set_by_hand(run) else "stride"
        raise ConfigError(f"{name}: goes with a text, and task={cfg.task} is none; its file is source=...")


def evaluate_text(run: Resolved[EvalRun], lm: Loaded, seq_len: int) -> dict[str, Any]:
    """The figures of the validation split of a text.

    Raises:
        ConfigError: an overlap that is none.
        DataError: a text that another tokenizer wrote, or that is too short.
    """
    cfg = run.value
    if cfg.stride is not None and cfg.stride > seq_len:
        raise ConfigError(f"stride: {cfg.stride} is more than seq_len = {seq_len}; use at most that many")
    tokenizer = lm.text_side()
    own = None if set_by_hand(run) else own_data(lm.folder)
    with TemporaryDirectory() as temporary:
        folder = own or cfg.data.prepared or Path(temporary) / "data"
        if not own and not cfg.data.prepared:
            options = PrepareOptions(split=cfg.data.split, val_fraction=cfg.data.val_fraction)
            prepare(open_source(cfg.data.source, cfg.data.read), tokenizer, folder, options=options)
        tokens = TokenFile(folder, "val")
        written_by = tokens.meta["tokenizer"]["fingerprint"]
        if written_by != tokenizer.fingerprint:
            raise DataError(f"{folder}: written by another tokenizer ({written_by[:12]}) than the model's")
        if len(tokens) < 2:
            raise DataError(f"{len(tokens)} tokens to measure on, and at least 2 are needed; use a larger val_fraction")
        begin = prompts_of(lm).begin
        start = time.perf_counter()
        sums, counts = measured(lm, tokens, begin, seq_len, cfg)
        seconds = time.perf_counter() - start
        n_bytes = tokens.n_bytes
        if cfg.stride and begin is None:  # what begins a document was not predicted
            firsts = tokens.ids[tokens.document_starts.astype("int64")].tolist()
            n_bytes -= sum(len(tokenizer.token_bytes(token)) for token in firsts)
        unit = unit_of(tokens, cfg)
        del tokens  # Windows cannot remove files that are mapped
    nats, half = ratio_interval(sums, counts)
    loss = Loss(nats, sum(counts))
    return {
        "text": f"{folder}, the run's own validation split" if own else f"{cfg.data.prepared or cfg.data.source}",
        "loss": loss.nats,
        "loss_half_interval": half,
        "perplexity": loss.perplexity,
        "bits_per_byte": loss.bits_per_byte(n_bytes),
        "bits_per_byte_half_interval": Loss(half, loss.n_terms).bits_per_byte(n_bytes),
        "n_tokens": loss.n_terms,
        "n_bytes": n_bytes,
        f"n_{unit}": len(counts),
        "seq_len": seq_len,
        "stride": cfg.stride,
        "tokens_per_s": loss.n_terms / seconds,
    }


def measured(
    lm: Loaded, tokens: TokenFile, begin: int | None, seq_len: int, cfg: EvalRun
) -> tuple[list[float], list[int]]:
    """Nats and tokens of each part that is a unit of its own when it comes to how sure the mean is.

    With a stride that is a document; where there is one only, or no stride is given, seq_len tokens.
    """
    numbered: Iterator[tuple[int, Continuation]]
    if cfg.stride is None:
        numbered = enumerate(windows_apart(tokens.ids, seq_len=seq_len))
    else:
        starts = tokens.document_starts
        numbered = windows_of_documents(tokens.ids, starts, begin=begin, seq_len=seq_len, stride=cfg.stride)
    asked, known = tee(numbered)
    sums: dict[int, float] = {}
    counts: dict[int, int] = {}
    said, n_before = in_turn(lm.writer, (one for _, one in asked), batch_size=cfg.batch_size), 0
    for (number, one), found in zip(known, said, strict=True):
        unit = number if unit_of(tokens, cfg) == "documents" else n_before // seq_len
        sums[unit] = sums.get(unit, 0.0) - found.log_prob
        counts[unit] = counts.get(unit, 0) + len(one.ids)
        n_before += len(one.ids)
    return list(sums.values()), list(counts.values())


def unit_of(tokens: TokenFile, cfg: EvalRun) -> str:
    return "documents" if cfg.stride and len(tokens.document_starts) > 1 else "windows"


def print_text(figures: dict[str, Any]) -> None:
    unit = "documents" if "n_documents" in figures else "windows"
    half, bits = figures["loss_half_interval"], figures["bits_per_byte_half_interval"]
    sure = f"  +- {half:.4f} (95 %, over {figures[f'n_{unit}']:,} {unit})" if half else ""
    print(f"text           {figures['text']}")
    print(f"loss           {figures['loss']:.4f} nats per token{sure}")
    print(f"perplexity     {figures['perplexity']:.3f}")
    print(f"bits per byte  {figures['bits_per_byte']:.4f}{f'  +- {bits:.4f}' if half else ''}")
    overlap = f", {figures['stride']} new in each window" if figures["stride"] else ""
    print(
        f"over           {figures['n_tokens']:,} tokens, {figures['n_bytes']:,} bytes, "
        f"context {figures['seq_len']}{overlap}"
    )


def set_by_hand(run: Resolved[EvalRun]) -> bool:
    """Whether anything was said about the data."""
    return any(path.startswith("data") and origin != "default" for path, origin in run.origins.items())


def own_data(checkpoint: Path) -> Path | None:
    """The token files that the run of a checkpoint was trained with: its own, or those that its config.yaml names.

    Raises:
        ConfigError: there are several, of a mixture.
    """
    folder = checkpoint.resolve()
    for run in (folder, *folder.parents[:2]):  # a run, or RUN/checkpoints/step-N
        if (run / "data" / "meta.json").exists():
            return Path(os.path.relpath(run / "data"))
        said = saved_config(run / "config.yaml")
        if said.get("data.mixture"):
            there = [os.path.relpath(path.parent) for path in sorted((run / "data").glob("*/meta.json"))]
            ours = f" or data.prepared={', '.join(there)}" if there else ""
            raise ConfigError(f"data: the run read a mixture; say on which text to measure, data.source=...{ours}")
        if prepared := said.get("data.prepared"):
            return Path(prepared)
    return None
