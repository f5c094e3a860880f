"""Comparisons by name: `legollm compare preset=NAME`; docs/comparisons.md says what each of them came to."""

from typing import Any

SMALL: dict[str, Any] = {
    "data": {"source": "world", "read": {"world_bytes": 1_000_000}},
    "tokenizer": {"kind": "bpe", "vocab_size": 512},
    "train": {"max_steps": 300, "batch_size": 8, "log_every": 50, "eval_every": 60, "eval_batches": 10}
    | {"save_every": 0, "precision": "float32", "compile": "never"},
    "optim": {"lr": 3e-3, "warmup_steps": 20},
}
"""What all of them share: a text that is there without a network, and few enough steps that ten runs take minutes."""
MODEL: dict[str, Any] = {"arch": "vanilla", "n_layers": 2, "n_heads": 4, "n_kv_heads": 4, "d_model": 64, "d_ff": 256}
MODERN = {
    **MODEL,
    "max_seq_len": 64,
    "positions": "rope",
    "norm": "rmsnorm",
    "ffn": "swiglu",
    "d_ff": 168,
    "bias": False,
}
PLAIN = {**MODEL, "max_seq_len": 64, "positions": "rope", "bias": False}


def comparison(model: dict[str, Any], *swaps: str, **more: Any) -> dict[str, Any]:
    """The small run with this model, and its variants; `more` lies over its settings."""
    parts = {key: {**SMALL[key], **more.pop(key, {})} for key in SMALL}
    return {**parts, "model": model, "swap": swaps, **more}


COMPARISONS: dict[str, dict[str, Any]] = {
    "rope": comparison({**PLAIN, "positions": "learned"}, "positions:rope", beyond=3),
    "norm": comparison(PLAIN, "norm:rmsnorm"),
    "ffn": comparison(PLAIN, "ffn:swiglu", match="params"),
    "moe": comparison(MODERN, "ffn:moe,n_experts:4,n_active:2", match="flops"),
    "sinks": comparison(MODERN, "sinks:true", stream=4000),
    "placement": comparison({**PLAIN, "n_layers": 6}, "norm_placement:post", "norm_placement:sandwich"),
    "gqa": comparison(MODERN, "n_kv_heads:2", "n_kv_heads:1", match="params"),
    "tied": comparison(MODERN, "tie_embeddings:true", match="params"),
    "optimizer": comparison(
        MODERN,
        *(f"lr:{lr}" for lr in ("6e-3", "1.2e-2")),
        *(f"optim.name:muon,lr:{lr}" for lr in ("3e-3", "6e-3", "1.2e-2")),
    ),
    "tokens": comparison(
        {**MODERN, "max_seq_len": 48},
        "tokenizer:char,max_seq_len:128",
        "tokenizer:word,tokenizer.vocab_size:4000,max_seq_len:32",
    ),
    "lora": comparison(
        MODERN, "lora.rank:4,lr:2e-2", "lora.rank:16,lr:2e-2", data={"source": "stdlib", "val_fraction": 0.01}
    ),
}
"""What each comparison differs in, and what is made equal in it."""
