"""What was probably meant: near misses of settings and values, and the names other projects have for ours."""

import difflib
from collections.abc import Collection, Sequence
from typing import Any

from legollm.config.kinds import paths_of
from legollm.config.tree import join

SYNONYMS = {
    "learning_rate": "lr", "max_lr": "lr", "min_learning_rate": "min_lr",
    "n_layer": "n_layers", "num_layers": "n_layers", "num_hidden_layers": "n_layers", "depth": "n_layers",
    "n_head": "n_heads", "num_heads": "n_heads", "num_attention_heads": "n_heads",
    "n_kv_head": "n_kv_heads", "num_key_value_heads": "n_kv_heads",
    "n_embd": "d_model", "hidden_size": "d_model", "dim": "d_model", "width": "d_model",
    "intermediate_size": "d_ff", "head_dim": "d_head", "block_size": "max_seq_len", "context": "max_seq_len",
    "context_length": "max_seq_len", "n_ctx": "max_seq_len", "max_position_embeddings": "max_seq_len",
    "max_iters": "max_steps", "steps": "max_steps", "iterations": "max_steps", "n_steps": "max_steps",
    "batch": "batch_size", "micro_batch_size": "batch_size", "bs": "batch_size",
    "gradient_accumulation_steps": "grad_accum", "accumulate": "grad_accum",
    "max_grad_norm": "grad_clip", "clip": "grad_clip", "dtype": "precision", "warmup": "warmup_steps",
    "warmup_iters": "warmup_steps", "log_interval": "log_every", "eval_interval": "eval_every",
    "save_interval": "save_every", "max_length": "max_new_tokens", "max_tokens": "max_new_tokens",
    "architecture": "arch", "model_type": "arch", "out_dir": "run", "output_dir": "run", "dataset": "source",
    "file": "source", "input": "source", "random_seed": "seed",
    "target": "model", "target_model": "model", "draft_model": "draft", "num_beams": "beams",
}  # fmt: skip


def near_miss(names: Sequence[str], root: type, key: str, at: str) -> str | None:
    """The setting that was probably meant by `key`: one of its neighbours `names`, or one elsewhere below `root`."""
    plain = key.replace("-", "_").lower()
    wishes = [plain, SYNONYMS.get(plain, "")]
    elsewhere: dict[str, str] = {}
    for path in paths_of(root):
        elsewhere.setdefault(path.rpartition(".")[2], path)
    for wish in wishes:
        if wish in names:
            return join(at, wish)
    for wish in wishes:
        if wish in elsewhere:
            return elsewhere[wish]
    if close := difflib.get_close_matches(plain, names, n=1, cutoff=0.7):
        return join(at, close[0])
    if close := difflib.get_close_matches(plain, elsewhere, n=1, cutoff=0.7):
        return elsewhere[close[0]]
    if close := difflib.get_close_matches(plain, names, n=1, cutoff=0.5):
        return join(at, close[0])
    return None


def none_of(found: Any, possible: Collection[Any]) -> str:
    """That `found` is not possible, what is, and what was probably meant."""
    names = [str(name) for name in possible]
    close = difflib.get_close_matches(str(found), names, n=1, cutoff=0.6)
    return f"{shown(found)} is none of {', '.join(names)}" + (f"; did you mean {close[0]}?" if close else "")


def shown(value: Any) -> str:
    """A value as it stands in a message."""
    text = "null" if value is None else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
