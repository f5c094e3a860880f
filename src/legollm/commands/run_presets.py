"""Whole training runs by name: `legollm train preset=NAME`; any single key given besides overrides it."""

from typing import Any

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {
        "model": {"n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "d_model": 64, "d_head": 16, "d_ff": 176}
        | {"max_seq_len": 64},
        "train": {"max_steps": 1600, "batch_size": 16},
        "optim": {"lr": 3e-3, "warmup_steps": 30},
    },
    "small": {
        "model": {"n_layers": 4, "n_heads": 6, "n_kv_heads": 2, "d_model": 192, "d_head": 32, "d_ff": 512}
        | {"max_seq_len": 256},
        "train": {"max_steps": 900, "batch_size": 16},
        "optim": {"lr": 2e-3, "warmup_steps": 50},
    },
    "base": {
        "model": {"n_layers": 6, "n_heads": 6, "n_kv_heads": 2, "d_model": 384, "d_head": 64, "d_ff": 1024}
        | {"max_seq_len": 256},
        "train": {"max_steps": 2000, "batch_size": 16},
        "optim": {"lr": 1e-3, "warmup_steps": 100},
    },
}
"""About 1, 5 and 30 minutes on two cores; `benchmarks/bench_presets.py` measures them."""

GPT2_124M: dict[str, Any] = {
    "tokenizer": {"vocab_size": 50_257},
    "model": {"preset": "gpt2"},
    "train": {"max_steps": 19_073, "batch_size": 32, "grad_accum": 16, "precision": "bfloat16"}
    | {"eval_every": 250, "save_every": 1000},
    "optim": {"lr": 6e-4, "warmup_steps": 700},
}
"""For a GPU: 0.5 million tokens a step, 10 billion in all."""


def rung(model: dict[str, Any], lr: float, batch_size: int) -> dict[str, Any]:
    """A step of the ladder: 3,000 steps of 1,024 characters each, whatever the model."""
    return {
        "tokenizer": {"kind": "char"},
        "model": model,
        "train": {"max_steps": 3000, "batch_size": batch_size, "eval_every": 1000, "save_every": 1000},
        "optim": {"lr": lr, "weight_decay": 0.01},
    }


MODERN = {"positions": "rope", "norm": "rmsnorm", "ffn": "swiglu", "d_ff": 344, "bias": False, "qk_norm": True}
MUON = {"name": "muon", "schedule": "wsd", "warmup_steps": 50, "decay_fraction": 0.5, "min_lr_ratio": 0.0}

LADDER: dict[str, dict[str, Any]] = {
    "count-bigram": {"tokenizer": {"kind": "char"}, "model": {"arch": "ngram", "order": 2, "max_seq_len": 32}},
    "bigram": rung({"arch": "bigram", "max_seq_len": 32}, 5e-2, 32),
    "mlp": rung({"arch": "mlp_lm", "window": 2, "d_model": 16, "d_ff": 128, "max_seq_len": 32}, 3e-3, 32),
    "one-head": rung({"preset": "one-head"}, 2e-2, 32),
    "multi-head": rung({"preset": "multi-head"}, 1e-2, 32),
    "one-block": rung({"preset": "one-block"}, 1e-2, 32),
    "decoder": rung({"preset": "decoder"}, 3e-3, 16),
    "modern-decoder": rung({"preset": "decoder", **MODERN}, 6e-3, 16) | {"optim": {**MUON, "lr": 6e-3}},
}
"""From a table of pairs to a modern decoder: on the same text, each rung reads better than the one before. All but the
first, which counts its text once, take 3,000 steps of 1,024 characters."""

MODERN_TINY = {
    "model": {"preset": "modern-tiny"},
    "train": {"max_steps": 1000, "batch_size": 8},
    "optim": {"name": "muon", "lr": 3e-3, "schedule": "wsd", "warmup_steps": 50},
}


def speedrun(model: dict[str, Any], optim: dict[str, Any], **train: Any) -> dict[str, Any]:
    """A run to a loss on Tiny Shakespeare by characters, with nothing on the way that costs time: no look at the
    validation text but the last, one checkpoint."""
    usual = {"arch": "vanilla", "n_heads": 4, "n_kv_heads": 4, "d_model": 128, "d_ff": 512, "bias": False}
    bricks = {"positions": "rope", "ffn": "relu_squared", "qk_norm": True, "init": "zero"}
    steps = {"name": "muon", "momentum": 0.9, "schedule": "wsd", "warmup_steps": 0, "min_lr_ratio": 0.0}
    return {
        "tokenizer": {"kind": "char"},
        "model": {**usual, **bricks, **model},
        "optim": {**steps, "decay_fraction": 0.5, "weight_decay": 0.0, **optim},
        "train": {"eval_every": 0, "save_every": 0, "log_every": 50, "compile": "never", **train},
    }


SMALL_TABLES = {"ngram_rows": [4356, 16_381, 16_381, 16_381]}
LARGE_TABLES = {"ngram_rows": [4356, 32_749, 65_537, 65_537, 65_537]}
"""Of 2, 3, ... characters. Each of 66 x 66 pairs has a row of its own, all else shares; more rows cost only memory."""
SHORT, LONG = {"max_seq_len": 64, **SMALL_TABLES}, {"max_seq_len": 128, **LARGE_TABLES}

SPEEDRUNS: dict[str, dict[str, Any]] = {
    "speedrun-1.91": speedrun({"n_layers": 2, **SHORT}, {"lr": 0.013}, max_steps=50, batch_size=16),
    "speedrun-1.88": speedrun({"n_layers": 2, **SHORT}, {"lr": 0.013}, max_steps=60, batch_size=16),
    "speedrun-1.60": speedrun({"n_layers": 2, **LONG}, {"lr": 0.012}, max_steps=290, batch_size=8),
    "speedrun-1.50": speedrun({"n_layers": 4, **LONG}, {"lr": 0.012}, max_steps=860, batch_size=8),
}
"""NAME-LOSS: the fastest known way to that loss over the whole validation split; `legollm bench speedrun` times it."""

RUNS: dict[str, dict[str, Any]] = {**SIZES, "gpt2-124m": GPT2_124M, **LADDER, "modern-tiny": MODERN_TINY, **SPEEDRUNS}
