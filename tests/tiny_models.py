"""Every architecture at a size that runs in milliseconds: one row per architecture, the suites run over all rows."""

from typing import Any

import torch
from torch import Tensor

from legollm.architectures import ARCHITECTURES
from legollm.components.decoder import Decoder
from legollm.components.positions import Llama3Scaling

VOCAB = 97
TINY: dict[str, dict[str, Any]] = {
    "bigram": {"vocab_size": VOCAB},
    "vanilla": {"vocab_size": VOCAB, "max_seq_len": 40, "n_layers": 2, "n_heads": 4, "d_model": 32, "d_ff": 64},
    "gpt2": {"vocab_size": VOCAB, "max_seq_len": 40, "n_layers": 2, "n_heads": 4, "d_model": 32},
    "llama3": {
        "vocab_size": VOCAB,
        "n_layers": 2,
        "n_heads": 4,
        "n_kv_heads": 2,
        "d_model": 32,
        "d_ff": 64,
        "rope_scaling": Llama3Scaling(original_max_seq_len=32),
    },
    "qwen3": {
        "vocab_size": VOCAB,
        "n_layers": 2,
        "n_heads": 4,
        "n_kv_heads": 2,
        "d_model": 32,
        "d_head": 16,
        "d_ff": 64,
    },
    "moe": {
        "vocab_size": VOCAB,
        "n_layers": 2,
        "n_heads": 4,
        "n_kv_heads": 2,
        "d_model": 32,
        "d_head": 16,
        "d_ff": 64,
        "n_experts": 4,
        "d_expert": 24,
        "d_shared": 8,
        "dense_layers": (0,),
    },
    "mixtral": {
        "vocab_size": VOCAB,
        "n_layers": 2,
        "n_heads": 4,
        "n_kv_heads": 2,
        "d_model": 32,
        "d_ff": 24,
        "n_experts": 4,
    },
    "qwen3_moe": {
        "vocab_size": VOCAB,
        "n_layers": 2,
        "n_heads": 4,
        "n_kv_heads": 2,
        "d_model": 32,
        "d_head": 16,
        "d_ff": 64,
        "n_experts": 4,
        "d_expert": 24,
        "dense_layers": (1,),
    },
}


def tiny_config(name: str, **changes: Any) -> Any:
    return ARCHITECTURES[name].config(**{**TINY[name], **changes})


def tiny_model(name: str, *, dtype: torch.dtype = torch.float32, seed: int = 0, **changes: Any) -> Decoder:
    """With weights large enough that every part of it matters to the logits, norms and biases included."""
    model = ARCHITECTURES[name].build(tiny_config(name, **changes), seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model.to(dtype).eval()


def some_tokens(*shape: int, seed: int = 0, vocab_size: int = VOCAB) -> Tensor:
    return torch.randint(vocab_size, shape, generator=torch.Generator().manual_seed(seed))
