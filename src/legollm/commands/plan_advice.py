"""What is worth saying about a run before it starts: each piece of advice names the setting to change."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from legollm.architectures.sizes import TOKENS_PER_PARAMETER, usual_lr
from legollm.commands.duration import DAY_S, readable
from legollm.commands.material import MANY_EPOCHS, TrainData, is_prepared, size_of
from legollm.commands.train import TrainRun
from legollm.data.loader import read_meta
from legollm.data.sources import open_source

BYTES_PER_TOKEN = 3.5
"""Of text that is not prepared: the built-in corpus with 2,048 ids has 3.6, other tokenizers and text have others."""
UNITS = ("byte", "char")
"""Tokenizers that make a token of each byte, or nearly."""


@dataclass(frozen=True)
class TextSize:
    """What is known of a run's text without reading it."""

    n_tokens: int
    """To learn from: counted where the text is prepared, otherwise guessed from its bytes."""
    n_documents: int | None
    """None where only reading would tell."""
    n_val_tokens: int
    """To look at, which the end of a run does with all of them."""


def text_size(data: TrainData, tokenizer: str) -> TextSize:
    """
    Raises:
        DataError: no such source.
    """
    words = [str(data.prepared)] if data.prepared else [word for _, word in data.weighted_sources()] or [data.source]
    n_tokens = n_documents = n_val_tokens = 0
    for word in words:
        if data.prepared or is_prepared(word):
            splits = read_meta(Path(word))["splits"]
            n_tokens += splits["train"]["n_tokens"]
            n_documents += splits["train"]["n_documents"]
            n_val_tokens += splits["val"]["n_tokens"]
        else:
            source = open_source(word, data.read)
            share = 0.0 if source.splits else data.val_fraction
            in_all = size_of(source) / (1 if tokenizer in UNITS else BYTES_PER_TOKEN)
            n_tokens += int(in_all * (1 - share))
            n_val_tokens += int(in_all * share)
    return TextSize(n_tokens, n_documents or None, n_val_tokens)


def advice(cfg: TrainRun, figures: Mapping[str, Any], text: TextSize) -> Iterator[str]:
    """Lines about a run, of which `plan` has found the figures."""
    run, memory, seq_len = figures["run"], figures["peak_bytes"], figures["seq_len"]
    most, train = memory["max_batch_size"], cfg.train
    if most is not None and most < 1:
        yield "memory: not even one row fits; give train.recompute=full, a smaller train.seq_len or a smaller model"
    elif most is not None and most < train.batch_size:
        accum = math.ceil(train.batch_size * train.grad_accum / most)
        yield f"memory: does not fit; train.batch_size={most} train.grad_accum={accum} does, with as many rows per step"
    if run["epochs"] and run["epochs"] > MANY_EPOCHS:
        yield (
            f"text: read {run['epochs']:,.0f} times, and more than {MANY_EPOCHS} teaches little; give more text, or "
            f"train.max_steps={max(1, int(run['steps'] * MANY_EPOCHS / run['epochs']))}"
        )
    per_parameter = run["tokens_per_parameter"]
    steps = math.ceil(run["steps"] * TOKENS_PER_PARAMETER / per_parameter)
    if per_parameter < TOKENS_PER_PARAMETER / 4:
        yield (
            f"length: {per_parameter:.2g} tokens per parameter; a smaller model would be as good, or the usual "
            f"{TOKENS_PER_PARAMETER} with train.max_steps={steps}"
        )
    elif per_parameter > TOKENS_PER_PARAMETER * 25:
        yield (
            f"length: {per_parameter:,.0f} tokens per parameter; a larger model would use them better, or "
            f"train.max_steps={steps}"
        )
    rule = usual_lr(figures["parameters"]["total"])
    if cfg.optim.name == "adamw" and not rule / 10 <= cfg.optim.lr <= rule * 10:
        yield f"rate: optim.lr={cfg.optim.lr:g} is unusual for a model of this size; about {rule:.1g} is usual"
    if cfg.optim.warmup_steps > run["steps"] / 2:
        yield (
            f"rate: {cfg.optim.warmup_steps} of {run['steps']} steps are warm-up; give "
            f"optim.warmup_steps={max(1, run['steps'] // 10)}"
        )
    yield from advice_on_time(cfg, figures["time"])
    if text.n_tokens and text.n_tokens < 100 * figures["vocab_size"]:
        yield (
            f"vocabulary: the text has {text.n_tokens / figures['vocab_size']:.0f} tokens for each of "
            f"{figures['vocab_size']:,} ids, too few to learn them; give a smaller tokenizer.vocab_size, or more text"
        )
    if cfg.data.packing == "windows" and text.n_documents and text.n_tokens < text.n_documents * seq_len:
        yield (
            f"rows: {seq_len} tokens, and a document has {text.n_tokens // text.n_documents}; data.packing=best_fit "
            "keeps attention within each document"
        )


def advice_on_time(cfg: TrainRun, time: Mapping[str, Any] | None) -> Iterator[str]:
    """What takes too long, as measured, or as far as it is known without."""
    train = cfg.train
    if time is None:  # a pass without a gradient is a third of one with
        ratio = train.eval_batches / (3 * train.eval_every * train.grad_accum) if train.eval_every else 0.0
    else:
        ratio = (time["evaluation"] - time["last_look"]) / time["training"]
    if train.eval_every and ratio / (1 + ratio) > 0.1:
        every = math.ceil(round(9 * train.eval_every * ratio, 6))
        if every < train.max_steps:
            yield f"evaluation: takes {100 * ratio / (1 + ratio):.0f} % of the time; give train.eval_every={every}"
    if time is None:
        return
    if train.save_every and time["saving"] > 0.1 * time["total"]:
        every = math.ceil(train.save_every * 9 * time["saving"] / time["training"])
        if every < train.max_steps:
            share = 100 * time["saving"] / time["total"]
            yield f"saving: takes {share:.0f} % of the time; give train.save_every={every}"
    if time["total"] > DAY_S:
        steps = max(1, int(train.max_steps * DAY_S / time["total"]))
        yield f"time: {readable(time['total'])}; train.max_steps={steps} takes one day, and a smaller size= learns more"
