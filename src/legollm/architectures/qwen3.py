"""Qwen 3 (Yang et al. 2025, arXiv:2505.09388): LLaMA's blocks, a free head width, RMSNorm on every query and key."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
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
from legollm.components.positions import RopeScaling, RotaryEmbedding, TokenEmbedding
from legollm.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Qwen3Config:
    """The sizes of a Qwen 3; the defaults make a small one that trains in minutes."""

    arch: Literal["qwen3"] = "qwen3"
    """Which architecture this is."""
    vocab_size: int = 151_936
    """Token ids."""
    max_seq_len: int = 256
    """Tokens it is trained to look at; rotary positions go on beyond, with worse and worse results."""
    n_layers: int = 4
    """Blocks."""
    n_heads: int = 4
    """Query heads per block."""
    n_kv_heads: int = 2
    """Key and value heads, each shared by n_heads / n_kv_heads query heads."""
    d_model: int = 128
    """Width of the residual stream."""
    d_head: int = 32
    """Width of a head; n_heads * d_head need not be d_model."""
    d_ff: int = 384
    """Width inside the feed-forward; 8/3 * d_model weighs as much as GPT-2's."""
    norm_eps: float = 1e-6
    """Added to mean squares before the square root."""
    rope_theta: float = 1_000_000.0
    """Base of the rotary frequencies: the larger, the farther apart positions stay distinct."""
    rope_scaling: RopeScaling | None = None
    """How frequencies are stretched for texts longer than those first trained on: yarn (as published), linear, ..."""
    tie_embeddings: bool = True
    """Whether the head shares its weights with the token embedding."""
    local_layers: tuple[int, ...] = ()
    """Blocks, from 0, whose attention sees only the nearest tokens; the others see all."""
    window: int = 4096
    """Tokens that local blocks see, the token itself included."""

    def __post_init__(self) -> None:
        check_positive(
            self, "vocab_size", "max_seq_len", "n_layers", "n_heads", "n_kv_heads", "d_model", "d_head", "d_ff"
        )
        check_divides(self, "n_kv_heads", "n_heads")
        check_rotary("d_head", self.d_head)
        check_positive(self, "window")
        for i in self.local_layers:
            if not 0 <= i < self.n_layers:
                raise ConfigError(f"local_layers: blocks are 0 to {self.n_layers - 1}, found {i}")


published = partial(Qwen3Config, max_seq_len=40_960, n_kv_heads=8, d_head=128)
PRESETS = {
    "qwen3-0.6b": published(n_layers=28, n_heads=16, d_model=1024, d_ff=3072),
    "qwen3-1.7b": published(n_layers=28, n_heads=16, d_model=2048, d_ff=6144),
    "qwen3-4b": published(n_layers=36, n_heads=32, d_model=2560, d_ff=9728),
    "qwen3-8b": published(n_layers=36, n_heads=32, d_model=4096, d_ff=12_288, tie_embeddings=False),
}


def qwen3(cfg: Qwen3Config, seed: int = 0) -> Decoder:
    """A Qwen 3 with freshly drawn weights."""
    rope = RotaryEmbedding(cfg.d_head, theta=cfg.rope_theta, scaling=cfg.rope_scaling)
    norm = partial(RMSNorm, eps=cfg.norm_eps)

    def block(i: int) -> PreNormBlock:
        return PreNormBlock(
            norm1=norm(cfg.d_model),
            attn=Attention(
                cfg.d_model,
                n_heads=cfg.n_heads,
                n_kv_heads=cfg.n_kv_heads,
                d_head=cfg.d_head,
                rope=rope,
                head_norm=norm,
                window=cfg.window if i in cfg.local_layers else None,
            ),
            norm2=norm(cfg.d_model),
            ffn=SwiGLU(cfg.d_model, cfg.d_ff),
        )

    embed = TokenEmbedding(cfg.vocab_size, cfg.d_model)
    lm_head = nn.Linear(cfg.d_model, cfg.vocab_size, bias=False)
    if cfg.tie_embeddings:
        lm_head.weight = embed.weight
    model = Decoder(
        embed=embed,
        blocks=[block(i) for i in range(cfg.n_layers)],
        norm=norm(cfg.d_model),
        lm_head=lm_head,
    )
    init_weights(model, torch.Generator().manual_seed(seed))
    return model


GLOBAL = "full_attention"
LOCAL = "sliding_attention"


def config_to_hf(cfg: Qwen3Config) -> dict[str, Any]:
    """The keys of a Qwen3Config in config.json."""
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
        "use_sliding_window": bool(cfg.local_layers),
        "sliding_window": cfg.window if cfg.local_layers else None,
        "layer_types": [LOCAL if i in cfg.local_layers else GLOBAL for i in range(cfg.n_layers)],
        "rms_norm_eps": cfg.norm_eps,
        "tie_word_embeddings": cfg.tie_embeddings,
        **rope_to_hf(cfg.rope_theta, cfg.rope_scaling, cfg.d_head),
    }


def config_from_hf(config: Mapping[str, Any]) -> Qwen3Config:
    """The inverse; absent keys mean what they mean in transformers.

    Raises:
        CheckpointError: it computes something else than Qwen 3 does.
    """
    theta, scaling = rope_from_hf(config)
    accept(config, "hidden_act", "silu", "swish")
    accept(config, "attention_bias", False)
    n_layers = need(config, "num_hidden_layers")
    is_windowed = config.get("use_sliding_window", False)
    first = config.get("max_window_layers", 28)  # without layer_types, the blocks from here on are the local ones
    types = config.get("layer_types") or [GLOBAL if i < first else LOCAL for i in range(n_layers)]
    return Qwen3Config(
        vocab_size=need(config, "vocab_size"),
        max_seq_len=need(config, "max_position_embeddings"),
        n_layers=n_layers,
        n_heads=need(config, "num_attention_heads"),
        n_kv_heads=need(config, "num_key_value_heads"),
        d_model=need(config, "hidden_size"),
        d_head=config.get("head_dim") or 128,
        d_ff=need(config, "intermediate_size"),
        norm_eps=config.get("rms_norm_eps", 1e-6),
        rope_theta=theta,
        rope_scaling=scaling,
        tie_embeddings=config.get("tie_word_embeddings", False),
        local_layers=tuple(i for i, kind in enumerate(types) if is_windowed and kind == LOCAL),
        window=(config.get("sliding_window") or 4096) if is_windowed else 4096,
    )


HUGGING_FACE = HuggingFace(
    model_type="qwen3",
    class_name="Qwen3ForCausalLM",
    rows=[
        Row("model.embed_tokens.weight", ("embed.weight",)),
        Row("model.layers.{}.input_layernorm.weight", ("blocks.{}.norm1.weight",)),
        Row("model.layers.{}.self_attn.q_proj.weight", ("blocks.{}.attn.q_proj.weight",)),
        Row("model.layers.{}.self_attn.k_proj.weight", ("blocks.{}.attn.k_proj.weight",)),
        Row("model.layers.{}.self_attn.v_proj.weight", ("blocks.{}.attn.v_proj.weight",)),
        Row("model.layers.{}.self_attn.o_proj.weight", ("blocks.{}.attn.o_proj.weight",)),
        Row("model.layers.{}.self_attn.q_norm.weight", ("blocks.{}.attn.q_norm.weight",)),
        Row("model.layers.{}.self_attn.k_norm.weight", ("blocks.{}.attn.k_norm.weight",)),
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
