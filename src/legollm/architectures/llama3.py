"""LLaMA 3 (Grattafiori et al. 2024, arXiv:2407.21783): RMSNorm, rotary positions, grouped queries, SwiGLU.

LLaMA 2 (Touvron et al. 2023, arXiv:2307.09288) is the same model in other sizes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import nn

from legollm.architectures.checks import check_divides, check_positive, check_rotary
from legollm.architectures.hf_keys import accept, need, rope_from_hf, rope_to_hf
from legollm.architectures.weight_map import HuggingFace, Row
from legollm.components.attention import Attention
from legollm.components.blocks import PreNormBlock
from legollm.components.decoder import Decoder
from legollm.components.feedforward import SwiGLU
from legollm.components.init import init_weights
from legollm.components.norm import RMSNorm
from legollm.components.positions import Llama3Scaling, RopeScaling, RotaryEmbedding, TokenEmbedding


@dataclass(frozen=True, kw_only=True)
class Llama3Config:
    """The sizes of a LLaMA 3; the defaults make a small one that trains in minutes."""

    arch: Literal["llama3"] = "llama3"
    """Which architecture this is."""
    vocab_size: int = 128_256
    """Token ids."""
    max_seq_len: int = 256
    """Tokens it is trained to look at; rotary positions go on beyond, with worse and worse results."""
    n_layers: int = 4
    """Blocks."""
    n_heads: int = 4
    """Query heads per block; a divisor of d_model."""
    n_kv_heads: int = 2
    """Key and value heads, each shared by n_heads / n_kv_heads query heads."""
    d_model: int = 128
    """Width of the residual stream."""
    d_ff: int = 384
    """Width inside the feed-forward; 8/3 * d_model weighs as much as GPT-2's."""
    norm_eps: float = 1e-5
    """Added to mean squares before the square root."""
    rope_theta: float = 500_000.0
    """Base of the rotary frequencies: the larger, the farther apart positions stay distinct."""
    rope_scaling: RopeScaling | None = None
    """How frequencies are stretched for texts longer than those first trained on: llama3 (3.1 and 3.2), yarn, ..."""
    tie_embeddings: bool = False
    """Whether the head shares its weights with the token embedding."""

    def __post_init__(self) -> None:
        check_positive(self, "vocab_size", "max_seq_len", "n_layers", "n_heads", "n_kv_heads", "d_model", "d_ff")
        check_divides(self, "n_heads", "d_model")
        check_divides(self, "n_kv_heads", "n_heads")
        check_rotary("n_heads", self.d_head)

    @property
    def d_head(self) -> int:
        """Width of a head."""
        return self.d_model // self.n_heads


LLAMA_2_7B = Llama3Config(
    vocab_size=32_000,
    max_seq_len=4096,
    n_layers=32,
    n_heads=32,
    n_kv_heads=32,
    d_model=4096,
    d_ff=11_008,
    rope_theta=10_000.0,
)
LLAMA_3_8B = Llama3Config(max_seq_len=8192, n_layers=32, n_heads=32, n_kv_heads=8, d_model=4096, d_ff=14_336)
LLAMA_3_70B = replace(LLAMA_3_8B, n_layers=80, n_heads=64, d_model=8192, d_ff=28_672)
LLAMA_3_405B = replace(LLAMA_3_8B, n_layers=126, n_heads=128, d_model=16_384, d_ff=53_248)
LLAMA_3_1B = replace(LLAMA_3_8B, n_layers=16, d_model=2048, d_ff=8192, tie_embeddings=True)
LLAMA_3_3B = replace(LLAMA_3_8B, n_layers=28, n_heads=24, d_model=3072, d_ff=8192, tie_embeddings=True)

PRESETS = {
    "llama-2-7b": LLAMA_2_7B,
    "llama-2-13b": replace(LLAMA_2_7B, n_layers=40, n_heads=40, n_kv_heads=40, d_model=5120, d_ff=13_824),
    "llama-2-70b": replace(LLAMA_2_7B, n_layers=80, n_heads=64, n_kv_heads=8, d_model=8192, d_ff=28_672),
    "llama-3-8b": LLAMA_3_8B,
    "llama-3-70b": LLAMA_3_70B,
    "llama-3.1-8b": replace(LLAMA_3_8B, max_seq_len=131_072, rope_scaling=Llama3Scaling()),
    "llama-3.1-70b": replace(LLAMA_3_70B, max_seq_len=131_072, rope_scaling=Llama3Scaling()),
    "llama-3.1-405b": replace(LLAMA_3_405B, max_seq_len=131_072, rope_scaling=Llama3Scaling()),
    "llama-3.2-1b": replace(LLAMA_3_1B, max_seq_len=131_072, rope_scaling=Llama3Scaling(factor=32.0)),
    "llama-3.2-3b": replace(LLAMA_3_3B, max_seq_len=131_072, rope_scaling=Llama3Scaling(factor=32.0)),
}


def llama3(cfg: Llama3Config, seed: int = 0) -> Decoder:
    """A LLaMA 3 with freshly drawn weights."""
    rope = RotaryEmbedding(cfg.d_head, theta=cfg.rope_theta, scaling=cfg.rope_scaling)

    def block() -> PreNormBlock:
        return PreNormBlock(
            norm1=RMSNorm(cfg.d_model, eps=cfg.norm_eps),
            attn=Attention(cfg.d_model, n_heads=cfg.n_heads, n_kv_heads=cfg.n_kv_heads, d_head=cfg.d_head, rope=rope),
            norm2=RMSNorm(cfg.d_model, eps=cfg.norm_eps),
            ffn=SwiGLU(cfg.d_model, cfg.d_ff),
        )

    embed = TokenEmbedding(cfg.vocab_size, cfg.d_model)
    lm_head = nn.Linear(cfg.d_model, cfg.vocab_size, bias=False)
    if cfg.tie_embeddings:
        lm_head.weight = embed.weight
    model = Decoder(
        embed=embed,
        blocks=[block() for _ in range(cfg.n_layers)],
        norm=RMSNorm(cfg.d_model, eps=cfg.norm_eps),
        lm_head=lm_head,
    )
    init_weights(model, torch.Generator().manual_seed(seed))
    return model


def config_to_hf(cfg: Llama3Config) -> dict[str, Any]:
    """The keys of a LlamaConfig in config.json."""
    return {
        "vocab_size": cfg.vocab_size,
        "max_position_embeddings": cfg.max_seq_len,
        "num_hidden_layers": cfg.n_layers,
        "num_attention_heads": cfg.n_heads,
        "num_key_value_heads": cfg.n_kv_heads,
        "hidden_size": cfg.d_model,
        "head_dim": cfg.d_head,
        "intermediate_size": cfg.d_ff,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "rms_norm_eps": cfg.norm_eps,
        "tie_word_embeddings": cfg.tie_embeddings,
        **rope_to_hf(cfg.rope_theta, cfg.rope_scaling, cfg.d_head),
    }


def config_from_hf(config: Mapping[str, Any]) -> Llama3Config:
    """The inverse; absent keys mean what they mean in transformers.

    Raises:
        CheckpointError: it computes something else than LLaMA 3 does.
    """
    theta, scaling = rope_from_hf(config)
    heads = need(config, "num_attention_heads")
    cfg = Llama3Config(
        vocab_size=need(config, "vocab_size"),
        max_seq_len=need(config, "max_position_embeddings"),
        n_layers=need(config, "num_hidden_layers"),
        n_heads=heads,
        n_kv_heads=config.get("num_key_value_heads") or heads,
        d_model=need(config, "hidden_size"),
        d_ff=need(config, "intermediate_size"),
        norm_eps=config.get("rms_norm_eps", 1e-6),
        rope_theta=theta,
        rope_scaling=scaling,
        tie_embeddings=config.get("tie_word_embeddings", False),
    )
    accept(config, "hidden_act", "silu", "swish")
    accept(config, "head_dim", cfg.d_head, None)
    accept(config, "attention_bias", False)
    accept(config, "mlp_bias", False)
    return cfg


HUGGING_FACE = HuggingFace(
    model_type="llama",
    class_name="LlamaForCausalLM",
    rows=[
        Row("model.embed_tokens.weight", ("embed.weight",)),
        Row("model.layers.{}.input_layernorm.weight", ("blocks.{}.norm1.weight",)),
        Row("model.layers.{}.self_attn.q_proj.weight", ("blocks.{}.attn.q_proj.weight",)),
        Row("model.layers.{}.self_attn.k_proj.weight", ("blocks.{}.attn.k_proj.weight",)),
        Row("model.layers.{}.self_attn.v_proj.weight", ("blocks.{}.attn.v_proj.weight",)),
        Row("model.layers.{}.self_attn.o_proj.weight", ("blocks.{}.attn.o_proj.weight",)),
        Row("model.layers.{}.post_attention_layernorm.weight", ("blocks.{}.norm2.weight",)),
        Row("model.layers.{}.mlp.gate_proj.weight", ("blocks.{}.ffn.gate_proj.weight",)),
        Row("model.layers.{}.mlp.up_proj.weight", ("blocks.{}.ffn.up_proj.weight",)),
        Row("model.layers.{}.mlp.down_proj.weight", ("blocks.{}.ffn.down_proj.weight",)),
        Row("model.norm.weight", ("norm.weight",)),
        Row("lm_head.weight", ("lm_head.weight",)),
    ],
    config_to_hf=config_to_hf,
    config_from_hf=config_from_hf,
    base="model.",
    leftovers=("model.layers.{}.self_attn.rotary_emb.inv_freq",),
)
