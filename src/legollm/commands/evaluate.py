"""`legollm eval`: a checkpoint and a text -> loss, perplexity and bits per byte over the whole text."""

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

from legollm.checkpoints.loading import load
from legollm.commands.material import DataConfig
from legollm.commands.run_folder import saved_config
from legollm.config import Resolved
from legollm.data.loader import TokenFile, validation_batches
from legollm.data.prepare import PrepareOptions, prepare
from legollm.data.sources import open_source
from legollm.device import Device, pick_device
from legollm.errors import ConfigError, DataError
from legollm.evaluation.loss import mean_loss
from legollm.training.objective import NextToken


@dataclass(frozen=True, kw_only=True)
class EvalRun:
    """A model and the text to measure it on."""

    POSITIONAL: ClassVar[tuple[str, ...]] = ("model",)

    model: Path = Path("runs/demo/checkpoint")
    """A checkpoint or run folder, or a Hugging Face folder."""
    data: DataConfig = field(default_factory=DataConfig)
    seq_len: int | None = None
    """Context length; null takes the length the model was trained at."""
    batch_size: int = 16
    """Rows at once; does not change the result."""
    device: Device = "auto"
    """cpu, cuda, mps, or auto."""
    json: bool = False
    """Print JSON."""

    def __post_init__(self) -> None:
        for name in ("seq_len", "batch_size"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ConfigError(f"{name}: must be at least 1, found {value}")


def evaluate(run: Resolved[EvalRun]) -> None:
    """Measure a model on the whole validation split of a text: every token is predicted once, in windows of seq_len.

    Where no text is named, it is the one that the model's run kept for validation, or else the built-in corpus.

    legollm eval runs/book
    legollm eval runs/book data.source=another.txt
    """
    cfg = run.value
    lm = load(cfg.model)
    lm.refuse_pairs()
    seq_len = cfg.seq_len or lm.config.max_seq_len
    if seq_len > lm.config.max_seq_len:
        raise ConfigError(f"seq_len: {seq_len} is more than the model's {lm.config.max_seq_len}")
    tokenizer = lm.text_side()
    model = lm.model.to(pick_device(cfg.device))
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
        start = time.perf_counter()
        batches = validation_batches(tokens.ids, batch_size=cfg.batch_size, seq_len=seq_len)
        loss = mean_loss(model, NextToken(), batches)
        seconds = time.perf_counter() - start
        figures = {
            "text": f"{folder}, the run's own validation split" if own else f"{cfg.data.prepared or cfg.data.source}",
            "loss": loss.nats,
            "perplexity": loss.perplexity,
            "bits_per_byte": loss.bits_per_byte(tokens.n_bytes),
            "n_tokens": loss.n_terms,
            "n_bytes": tokens.n_bytes,
            "seq_len": seq_len,
            "tokens_per_s": loss.n_terms / seconds,
        }
        del tokens, batches  # Windows cannot remove files that are mapped
    if cfg.json:
        print(json.dumps(figures, indent=1))
        return
    print(f"text           {figures['text']}")
    print(f"loss           {figures['loss']:.4f} nats per token")
    print(f"perplexity     {figures['perplexity']:.3f}")
    print(f"bits per byte  {figures['bits_per_byte']:.4f}")
    print(f"over           {loss.n_terms:,} tokens, {figures['n_bytes']:,} bytes, context {seq_len}")


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
