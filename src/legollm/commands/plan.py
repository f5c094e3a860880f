"""`legollm plan`: what a model and its training would cost, before anything is done."""

import contextlib
import json
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from operator import or_
from pathlib import Path
from textwrap import wrap
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import torch
from torch import nn

from legollm.architectures import ARCHITECTURES
from legollm.architectures.qwen3 import Qwen3Config
from legollm.checkpoints.huggingface import CONFIG, config_from_hf
from legollm.checkpoints.loading import resolve_folder
from legollm.checkpoints.reader import read_json
from legollm.commands import train
from legollm.commands.calibrate import calibrate, saving_seconds, seq_len_of
from legollm.commands.duration import duration, readable, shares
from legollm.commands.material import refuse_unused_size
from legollm.commands.plan_advice import TextSize, advice, text_size
from legollm.commands.train import TrainRun, given, of_size
from legollm.components.decoder import Decoder
from legollm.config import Resolved
from legollm.device import free_bytes, pick_device, pick_precision
from legollm.errors import ConfigError
from legollm.evaluation.cost import Cost, cost_of
from legollm.evaluation.peak import Peak, peak_of, plain_loss
from legollm.interfaces import Tokenizer
from legollm.tokenizers import ByteTokenizer, load_tokenizer
from legollm.training.linear_loss import linear_cross_entropy
from legollm.training.objective import in_parts
from legollm.training.optim import build_optimizer
from legollm.transforms.freeze import freeze
from legollm.transforms.lora import add_lora
from legollm.transforms.recompute import recompute

if TYPE_CHECKING:
    AnyConfig: TypeAlias = Any
else:  # the usual one comes first
    AnyConfig = reduce(or_, sorted((r.config for r in ARCHITECTURES.values()), key=lambda c: c is not Qwen3Config))


@dataclass(frozen=True, kw_only=True)
class PlanRun(TrainRun):
    """A run in the words of `legollm train`; nothing of it is fetched or written."""

    model: AnyConfig = field(default_factory=Qwen3Config)
    """Of any architecture, those included that learn from pairs; of encoder-decoders, a row is a source and a target of
    that many tokens each."""
    calibrate: bool = False
    """Take some real steps on this machine, for at most 20 seconds, and say how long the run takes."""
    json: bool = False
    """Print JSON."""


PRESETS: Mapping[type, Mapping[str, Any]] = {**train.PRESETS, PlanRun: train.PRESETS[TrainRun]}


def plan(run: Resolved[PlanRun]) -> None:
    """Print the parameters, arithmetic and memory of a model of any size and of its training, allocating none of it.

    Every matrix product of the model's own code is counted, and every tensor its backward pass needs is weighed. With
    calibrate=true the training loop takes some steps here, and the time of the run follows.

    legollm plan preset=small calibrate=true
    """
    start, cfg = time.process_time(), run.value  # so far, the program has started
    if ARCHITECTURES[cfg.model.arch].learns == "counts":
        raise ConfigError(f"model.arch: {cfg.model.arch} is counted out of a text, which decides its size; train it")
    refuse_unused_size(run)
    ids = vocab_size(run)
    if cfg.calibrate and (cfg.lora.rank or cfg.freeze):
        raise ConfigError("calibrate: steps are taken of models whose weights all learn; leave it out")
    if cfg.size and ARCHITECTURES[cfg.model.arch].learns == "pairs":
        raise ConfigError(f"size: {cfg.model.arch} learns from pairs, for which there is no rule; give its sizes")
    if cfg.calibrate and ARCHITECTURES[cfg.model.arch].learns == "pairs":
        raise ConfigError(f"calibrate: {cfg.model.arch} learns from pairs, whose lengths decide the time; leave it out")
    if cfg.size:
        tokenizer = cast(Tokenizer, SimpleNamespace(vocab_size=ids))  # all that a size wants to know of it
        with contextlib.redirect_stdout(sys.stderr):  # it says what it chose, which is no part of the figures
            cfg = cast(PlanRun, of_size(cfg, tokenizer, given(run)))
    cfg = replace(cfg, model=config_of(cfg.start_from) if cfg.start_from else replace(cfg.model, vocab_size=ids))
    text = text_size(cfg.data, cfg.tokenizer.kind) if ARCHITECTURES[cfg.model.arch].learns == "steps" else None
    figures = figures_of(cfg, text)
    figures["time"] = time_of(cfg, figures, text, start) if cfg.calibrate else None
    figures["advice"] = list(advice(cfg, figures, text)) if text else []
    print(json.dumps(figures, indent=1) if cfg.json else "\n".join(lines_of(figures)))


def vocab_size(run: Resolved[PlanRun]) -> int:
    """As asked for, or that of a published model; otherwise the tokenizer's, as `legollm train` has it.

    Raises:
        ConfigError: it depends on a text.
    """
    cfg = run.value
    if cfg.start_from:
        return int(config_of(cfg.start_from).vocab_size)
    if run.origins.get("model.vocab_size", "default") != "default":
        return int(cfg.model.vocab_size)
    if cfg.data.prepared:
        return load_tokenizer(cfg.data.prepared).vocab_size
    if cfg.tokenizer.kind == "char":
        raise ConfigError("model.vocab_size: a char tokenizer has as many ids as the text has characters; say how many")
    if cfg.tokenizer.kind == "byte":
        return ByteTokenizer().vocab_size
    if Path(cfg.tokenizer.kind).exists():
        return load_tokenizer(Path(cfg.tokenizer.kind)).vocab_size
    return cfg.tokenizer.vocab_size


def config_of(folder: Path) -> Any:
    """The configuration of the model in a folder."""
    return config_from_hf(read_json(resolve_folder(folder) / CONFIG))[1]


def figures_of(cfg: TrainRun, text: TextSize | None = None) -> dict[str, Any]:
    """All figures by name; bytes, floating-point operations and counts, exact, but for what training needs beside."""
    seq_len = seq_len_of(cfg)
    device = pick_device(cfg.train.device)
    precision = pick_precision(cfg.train.precision, device)
    floats = replace(cfg, lora=replace(cfg.lora, quantize="none"))  # products with rounded weights are as many
    build = partial(built, floats)
    cost = cost_of(build, seq_len, batch_size=cfg.train.batch_size, precision=precision)
    peak = peak_at(cfg, cfg.train.batch_size, precision)
    n_tokens = cfg.train.batch_size * cfg.train.grad_accum * seq_len * cfg.train.max_steps
    return {
        "arch": cfg.model.arch,
        "vocab_size": cfg.model.vocab_size,
        "seq_len": seq_len,
        "precision": precision,
        "parameters": {
            "total": cost.n_parameters,
            "active": cost.n_active,
            "looked_up": cost.n_looked_up,
            "trained": cost.n_trained,
        },
        "weights_bytes": {"float32": 4 * cost.n_parameters, "bfloat16": 2 * cost.n_parameters},
        "kv_bytes_per_token": {"float32": 4 * cost.kv_values(1), "bfloat16": 2 * cost.kv_values(1)},
        "flops_per_token": {
            "forward": cost.forward_flops / seq_len,
            "attention": cost.attention_flops / seq_len,
            "training": cost.training_flops / seq_len,
            "rule_6n": cost.rule_flops / seq_len,
        },
        "training_bytes": training_bytes(cost, peak.optimizer),
        "peak_bytes": peak_bytes(peak, precision, device),
        "run": {
            "steps": cfg.train.max_steps,
            "tokens": n_tokens,
            "tokens_per_parameter": n_tokens / cost.n_parameters,
            "epochs": n_tokens / text.n_tokens if text and text.n_tokens else None,
            "flops": cost.training_flops // seq_len * n_tokens,
        },
    }


def built(cfg: TrainRun, model: Any = None) -> nn.Module:
    """The model of a run, or another one in its place, as training would have it."""
    model = model or cfg.model
    made = cast(nn.Module, ARCHITECTURES[model.arch].build(model))
    if cfg.lora.rank:
        add_lora(made, cfg.lora)
    freeze(made, cfg.freeze)
    recompute(made, cfg.train.recompute)
    return made


def peak_at(cfg: TrainRun, n_rows: int, precision: str, model: Any = None) -> Peak:
    """The peak of a step of n_rows rows of a micro-batch."""
    return peak_of(
        partial(built, cfg, model),
        lambda model: build_optimizer(model, cfg.optim),
        seq_len_of(cfg),
        batch_size=n_rows,
        grad_accum=cfg.train.grad_accum,
        precision=precision,
        loss_of=next_token_loss,
    )


def time_of(cfg: PlanRun, figures: Mapping[str, Any], text: TextSize | None, start: float) -> dict[str, Any]:
    """Seconds of the run and of its parts; start: what the program took to start."""
    precision, device = figures["precision"], pick_device(cfg.train.device)

    def flops_of(model: Any) -> float:
        if model is cfg.model:
            return float(seq_len_of(cfg) * figures["flops_per_token"]["training"])
        return cost_of(partial(built, cfg, model), seq_len_of(cfg), precision=precision).training_flops

    def fits(model: Any, n_rows: int) -> bool:
        most = figures["peak_bytes"]["max_batch_size"]
        if model is not cfg.model:
            most = peak_bytes(peak_at(cfg, n_rows, precision, model), precision, device)["max_batch_size"]
        return most is None or most >= n_rows

    pace = calibrate(cfg, precision, flops_of=flops_of, fits=fits)
    memory = figures["training_bytes"]
    save = saving_seconds(memory["weights"] + memory["optimizer"])
    return duration(cfg, pace, save=save, start=start, n_val_tokens=text.n_val_tokens if text else 0)


def training_bytes(cost: Cost, optimizer: int) -> dict[str, int]:
    """What is in memory at the end of a forward pass: the least that training needs."""
    parts = {
        "weights": 4 * cost.n_parameters,
        "gradients": 4 * cost.n_trained,
        "optimizer": optimizer,
        "activations": cost.kept_bytes,
    }
    return parts | {"total": sum(parts.values())}


def next_token_loss(model: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """The loss as `NextToken` takes it, which asks what the targets are: here they have no numbers, and all count."""
    if isinstance(model, Decoder) and in_parts(model.lm_head, tokens.numel()):
        hidden, head = model.hidden(tokens).flatten(0, 1), model.lm_head  # (B * T, D)
        return linear_cross_entropy(hidden, head.weight, head.bias, tokens.flatten())
    return plain_loss(model, tokens)


def peak_bytes(peak: Peak, precision: str, device: torch.device) -> dict[str, int | None]:
    """The most memory at once, and how many rows of a micro-batch the memory of this machine allows."""
    is_cpu, free = device.type == "cpu", free_bytes(device)
    room = None if free is None else peak.tensor_bytes(free, precision) if is_cpu else free
    return {
        "tensors": peak.most,
        "backward": peak.backward,
        "update": peak.update,
        "total": peak.process_bytes(precision) if is_cpu else peak.most,
        "free": free,
        "max_batch_size": None if room is None else peak.rows_within(room),
    }


def lines_of(figures: Mapping[str, Any]) -> Iterator[str]:
    """The figures as an aligned table."""
    parameters, flops = figures["parameters"], figures["flops_per_token"]
    weights, kv, memory, run = (
        figures[key] for key in ("weights_bytes", "kv_bytes_per_token", "training_bytes", "run")
    )
    seq_len, peak, epochs = figures["seq_len"], figures["peak_bytes"], run["epochs"]
    rows = [
        ("model", f"{figures['arch']}, {figures['vocab_size']:,} ids, rows of {seq_len:,} tokens"),
        ("parameters", f"{parameters['total']:,}"),
        ("  of a token", f"{parameters['active']:,}") if parameters["active"] != parameters["total"] else None,
        ("  trained", f"{parameters['trained']:,}") if parameters["trained"] != parameters["total"] else None,
        ("  looked up", f"{parameters['looked_up']:,}, in tables that nothing is multiplied with"),
        ("weights", f"{size(weights['float32'])} in float32, {size(weights['bfloat16'])} in bfloat16"),
        ("KV cache", f"{size(kv['float32'])} per token in float32, {size(seq_len * kv['float32'])} per row"),
        ("  bfloat16", f"{size(kv['bfloat16'])} per token, {size(seq_len * kv['bfloat16'])} per row"),
        ("FLOPs", f"{count(flops['forward'])} per token forward, {count(flops['attention'])} of them in attention"),
        ("  training", f"{count(flops['training'])} per token; the rule 6 N says {count(flops['rule_6n'])}"),
        ("memory", f"{size(memory['total'])} for training with {figures['precision']} products, at least:"),
        *((f"  {part}", size(memory[part])) for part in ("weights", "gradients", "optimizer", "activations")),
        ("peak", f"{size(peak['total'])} of the process, {size(peak['tensors'])} of them tensors"),
        ("  here", f"{size(peak['free'])} are free; train.batch_size={peak['max_batch_size']} at most")
        if peak["free"] is not None
        else None,
        ("run", f"{run['steps']:,} steps, {run['tokens']:,} tokens, {count(run['flops'])} FLOPs"),
        (
            "  reads",
            f"{run['tokens_per_parameter']:.3g} tokens per parameter"
            + (f", the text about {epochs:.2g} times" if epochs else ""),
        ),
        *time_lines(figures["time"]),
        *(("" if i else "advice", line) for advised in figures["advice"] for i, line in enumerate(wrap(advised, 80))),
    ]
    for row in rows:
        if row is not None:
            yield f"{row[0]:<13}  {row[1]}"


def time_lines(time: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    """What is known of the time."""
    if time is None:
        yield "time", "not measured; calibrate=true takes some steps here, for at most 20 s"
        return
    yield "time", f"{readable(time['step'])} per step, {count(time['tokens_per_s'])} tokens per second"
    part = f" of a part: {time['measured_part']}" if time["measured_part"] else ""
    yield "  measured", f"{time['measured_steps']} steps{part}"
    yield "  total", f"{readable(time['total'])}: {shares(time)}"


def size(n_bytes: float) -> str:
    """Bytes as one reads them: 1,536 is 1.5 KiB."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if n_bytes < 1024:
            return f"{n_bytes:.4g} {unit}"
        n_bytes /= 1024
    return f"{n_bytes:,.4g} TiB"


def count(n: float) -> str:
    """Three digits and a power of ten: 2.85e+08; small numbers as they are."""
    return f"{n:,.0f}" if n < 1e5 else f"{n:.3g}"
