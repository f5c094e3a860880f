"""An encoder-decoder and a decoder-only model of about the same size on the same pairs: `python benchmarks/...`.

Both learn to write words backwards, from the same batches, for the same number of steps, through the one loop; the
decoder-only model reads source and target as one text, and neither is asked to predict the source.

    python benchmarks/bench_encoder_decoder.py [steps] [longest word]
"""

import sys
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from legollm.architectures import build
from legollm.data.pairs import ShuffledBatches, SourceTarget, reversals, source_batch, split_pairs
from legollm.finetuning.sft import Example, padded
from legollm.generation.cache import kv_bytes_per_token
from legollm.generation.complete import Decoding, complete
from legollm.generation.sampling import Sampling
from legollm.generation.targets import write_targets
from legollm.interfaces import Batch, Objective
from legollm.tokenizers import CharTokenizer
from legollm.training.objective import NextToken
from legollm.training.optim import OptimConfig, build_optimizer
from legollm.training.pairs import NextGivenSource
from legollm.training.schedule import learning_rate
from legollm.training.train import TrainConfig, TrainState, train

END = "<|end|>"
D_MODEL, N_HEADS = 128, 4
LR, BATCH_SIZE = 2e-3, 64


def as_one_text(pairs: Sequence[SourceTarget]) -> Batch:
    """Sources and targets one after the other; only the targets count."""
    return padded([Example([*s, *t], [False] * len(s) + [True] * len(t)) for s, t in pairs])


def fit(model: nn.Module, objective: Objective, batches: Any, n_steps: int) -> float:
    """Seconds of training."""
    started = time.perf_counter()
    train(
        model,
        objective,
        batches,
        build_optimizer(model, OptimConfig(lr=LR)),
        TrainConfig(max_steps=n_steps, precision="float32", device="cpu"),
        learning_rate=lambda step: learning_rate(
            step, peak=LR, max_steps=n_steps, schedule="cosine", warmup_steps=100, min_ratio=0.1
        ),
        state=TrainState(),
        log=lambda step, **values: None,
        evaluate=lambda state: None,
        save=lambda state: None,
    )
    model.eval()
    return time.perf_counter() - started


def n_weights(*modules: nn.Module) -> int:
    """Numbers in matrices, tables left out: each is multiplied once per token that passes."""
    return sum(p.numel() for module in modules for p in module.parameters() if p.ndim >= 2)


def main(n_steps: int = 1000, max_chars: int = 12) -> None:
    texts = split_pairs(reversals(1337, 40_000, max_chars), 0.02)
    tokenizer = CharTokenizer()
    tokenizer.train("abcdefghijklmnopqrstuvwxyz", special_tokens=[END])
    end = tokenizer.special_tokens[END]
    pairs, val = (
        [SourceTarget([*tokenizer.encode(p.given), end], [*tokenizer.encode(p.wanted), end]) for p in part]
        for part in texts
    )
    sampling = Sampling(temperature=0, max_new_tokens=max_chars + 1)
    sizes = {"vocab_size": tokenizer.vocab_size, "d_model": D_MODEL, "n_heads": N_HEADS}
    print(f"{len(pairs):,} pairs, {n_steps} steps of {BATCH_SIZE}, words of up to {max_chars} letters")

    both: Any = build("transformer", n_layers=2, d_ff=4 * D_MODEL, pre_norm=True, **sizes)
    batches = ShuffledBatches(pairs, partial(source_batch, start_id=end), BATCH_SIZE, seed=1)
    seconds = fit(both, NextGivenSource(), batches, n_steps)
    written = write_targets(both, [pair.source for pair in val], end, sampling, stop_ids=[end])
    cross = [part for block in both.blocks for part in (block.cross_attn.k_proj, block.cross_attn.v_proj)]
    kept = [(N_HEADS, D_MODEL // N_HEADS)] * len(both.blocks)
    report(
        "encoder-decoder",
        model=both,
        reading=n_weights(both.encoder.blocks, *cross),
        writing=n_weights(both.blocks) - n_weights(*cross),
        kept=kv_bytes_per_token(kept, torch.float32),
        right=sum([*ids, end] == pair.target for ids, pair in zip(written, val, strict=True)) / len(val),
        seconds=seconds,
    )

    one = build("gpt2", n_layers=5, max_seq_len=2 * max_chars + 2, **sizes)
    seconds = fit(one, NextToken(), ShuffledBatches(pairs, as_one_text, BATCH_SIZE, seed=1), n_steps)
    done = complete(one, [pair.source for pair in val], sampling, stop_ids=[end], decoding=Decoding(batch_size=64))
    report(
        "decoder-only",
        model=one,
        reading=n_weights(one.blocks),
        writing=n_weights(one.blocks),
        kept=kv_bytes_per_token(one.kv_shapes, torch.float32),
        right=sum([*row.ids, end] == pair.target for row, pair in zip(done, val, strict=True)) / len(val),
        seconds=seconds,
    )


def report(name: str, *, model: nn.Module, reading: int, writing: int, kept: int, right: float, seconds: float) -> None:
    print(
        f"{name:16}{sum(p.numel() for p in model.parameters()):>10,} parameters, of which a source token passes "
        f"{reading:,} and a target token {writing:,}; {kept:,} bytes of keys and values a token; "
        f"{right:.1%} of held-out words exact after {seconds:.0f} s"
    )


if __name__ == "__main__":
    torch.manual_seed(0)
    main(*map(int, sys.argv[1:]))
