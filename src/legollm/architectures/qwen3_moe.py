"""Qwen 3 MoE (Yang et al. 2025, arXiv:2505.09388): Qwen 3 whose feed-forwards are mixtures of many small experts."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import nn

from legollm.architectures.checks import check_divides, check_experts, check_positive, check_rotary
from legollm.architectures.hf_keys import accept, need, rope_from_hf, rope_to_hf
from legollm.architectures.weight_map import HuggingFace, Row
from legollm.components.attention import Attention
from legollm.components.blocks import PreNormBlock
from legollm.components.decoder import Decoder
from legollm.components.feedforward import SwiGLU
from legollm.components.init import init_weights
from legollm.components.moe import MoE
from legollm.components.norm import RMSNorm
from legollm.components.positions import RotaryEmbedding, TokenEmbedding
from legollm.components.routing import Router, TopK
from legollm.errors import CheckpointError, ConfigError


@dataclass(frozen=True, kw_only=True)
class Qwen3MoEConfig:
    """The sizes of a Qwen 3 MoE; the defaults make a small one that trains in minutes."""

    arch: Literal["qwen3_moe"] = "qwen3_moe"
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
    n_experts: int = 8
    """Experts of a block."""
    n_active: int = 2
    """Experts that work on each token."""
    d_expert: int = 192
    """Width inside an expert; n_active * d_expert = d_ff costs as much arithmetic as a dense block."""
    normalise: bool = True
    """Whether the weights of a token's experts are scaled to sum to one."""
    dense_layers: tuple[int, ...] = ()
    """Blocks, from 0, with one feed-forward instead of experts."""
    d_ff: int = 384
    """Width inside the feed-forward of dense blocks."""
    balance_loss: float = 0.01
    """How much uneven use of the experts counts in the training loss, per block."""
    z_loss: float = 0.0
    """How much large scores of the router count in the training loss, per block."""
    norm_eps: float = 1e-6
    """Added to mean squares before the square root."""
    rope_theta: float = 1_000_000.0
    """Base of the rotary frequencies: the larger, the farther apart positions stay distinct."""
    tie_embeddings: bool = False
    """Whether the head shares its weights with the token embedding."""
    window: int | None = None
    """The nearest tokens a token sees, itself included; null for all before it."""

    def __post_init__(self) -> None:
        check_positive(self, "vocab_size", "max_seq_len", "n_layers", "n_heads", "n_kv_heads", "d_model", "d_head")
        check_positive(self, "n_experts", "n_active", "d_expert", "d_ff")
        check_divides(self, "n_kv_heads", "n_heads")
        check_rotary("d_head", self.d_head)
        check_experts(self)
        if self.window is not None:
            check_positive(self, "window")
        for i in self.dense_layers:
            if not 0 <= i < self.n_layers:
                raise ConfigError(f"dense_layers: blocks are 0 to {self.n_layers - 1}, found {i}")


QWEN3_30B_A3B = Qwen3MoEConfig(
    max_seq_len=40_960,
    n_layers=48,
    n_heads=32,
    n_kv_heads=4,
    d_model=2048,
    d_head=128,
    n_experts=128,
    n_active=8,
    d_expert=768,
    d_ff=6144,
    balance_loss=0.001,
)
PRESETS = {
    "qwen3-30b-a3b": QWEN3_30B_A3B,
    "qwen3-235b-a22b": replace(QWEN3_30B_A3B, n_layers=94, n_heads=64, d_model=4096, d_expert=1536, d_ff=12_288),
}


def qwen3_moe(cfg: Qwen3MoEConfig, seed: int = 0) -> Decoder:
    """A Qwen 3 MoE with freshly drawn weights."""
    rope = RotaryEmbedding(cfg.d_head, theta=cfg.rope_theta)
    norm = partial(RMSNorm, eps=cfg.norm_eps)

    def ffn(i: int) -> nn.Module:
        if i in cfg.dense_layers:
            return SwiGLU(cfg.d_model, cfg.d_ff)
        rule = TopK(cfg.n_active, normalise=cfg.normalise)
        router = Router(cfg.d_model, cfg.n_experts, rule, balance_loss=cfg.balance_loss, z_loss=cfg.z_loss)
        return MoE(router=router, experts=[SwiGLU(cfg.d_model, cfg.d_expert) for _ in range(cfg.n_experts)])

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
                window=cfg.window,
            ),
            norm2=norm(cfg.d_model),
            ffn=ffn(i),
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


def config_to_hf(cfg: Qwen3MoEConfig) -> dict[str, Any]:
    """The keys of a Qwen3MoeConfig in config.json; router_z_loss_coef is ours and ignored elsewhere."""
    return {
        "vocab_size": cfg.vocab_size,
        "max_position_embeddings": cfg.max_seq_len,
        "num_hidden_layers": cfg.n_layers,
        "num_attention_heads": cfg.n_heads,
        "num_key_value_heads": cfg.n_kv_heads,
        "hidden_size": cfg.d_model,
        "head_dim": cfg.d_head,
        "num_experts": cfg.n_experts,  # version 4 of transformers; version 5 writes num_local_experts
        "num_local_experts": cfg.n_experts,
        "num_experts_per_tok": cfg.n_active,
        "moe_intermediate_size": cfg.d_expert,
        "norm_topk_prob": cfg.normalise,
        "decoder_sparse_step": 1,
        "mlp_only_layers": list(cfg.dense_layers),
        "intermediate_size": cfg.d_ff,
        "router_aux_loss_coef": cfg.balance_loss,
        "router_z_loss_coef": cfg.z_loss,
        "hidden_act": "silu",
        "attention_bias": False,
        "use_sliding_window": cfg.window is not None,
        "sliding_window": cfg.window,
        "rms_norm_eps": cfg.norm_eps,
        "tie_word_embeddings": cfg.tie_embeddings,
        **rope_to_hf(cfg.rope_theta, None),
    }


def config_from_hf(config: Mapping[str, Any]) -> Qwen3MoEConfig:
    """The inverse; absent keys mean what they mean in transformers.

    Raises:
        CheckpointError: it computes something else than Qwen 3 MoE does.
    """
    theta, scaling = rope_from_hf(config)
    if scaling:
        raise CheckpointError("config.json: rope_type is 'llama3', and only 'default' is supported for qwen3_moe")
    accept(config, "hidden_act", "silu", "swish")
    accept(config, "attention_bias", False)
    n_layers, n_heads, d_model = (need(config, k) for k in ("num_hidden_layers", "num_attention_heads", "hidden_size"))
    n_experts = config.get("num_experts", config.get("num_local_experts", 128))
    every, dense = config.get("decoder_sparse_step", 1), config.get("mlp_only_layers") or ()
    return Qwen3MoEConfig(
        vocab_size=need(config, "vocab_size"),
        max_seq_len=need(config, "max_position_embeddings"),
        n_layers=n_layers,
        n_heads=n_heads,
        n_kv_heads=need(config, "num_key_value_heads"),
        d_model=d_model,
        d_head=config.get("head_dim") or d_model // n_heads,
        n_experts=n_experts,
        n_active=need(config, "num_experts_per_tok"),
        d_expert=need(config, "moe_intermediate_size"),
        normalise=config.get("norm_topk_prob", False),
        dense_layers=tuple(i for i in range(n_layers) if i in dense or (i + 1) % every),
        d_ff=need(config, "intermediate_size"),
        balance_loss=config.get("router_aux_loss_coef", 0.001),
        z_loss=config.get("router_z_loss_coef", 0.0),
        norm_eps=config.get("rms_norm_eps", 1e-6),
        rope_theta=theta,
        tie_embeddings=config.get("tie_word_embeddings", False),
        window=config.get("sliding_window") if config.get("use_sliding_window", False) else None,
    )


HUGGING_FACE = HuggingFace(
    model_type="qwen3_moe",
    class_name="Qwen3MoeForCausalLM",
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
        Row("model.layers.{}.mlp.gate.weight", ("blocks.{}.ffn.router.proj.weight",)),
        Row("model.layers.{}.mlp.experts.{}.gate_proj.weight", ("blocks.{}.ffn.experts.{}.gate_proj.weight",)),
        Row("model.layers.{}.mlp.experts.{}.up_proj.weight", ("blocks.{}.ffn.experts.{}.up_proj.weight",)),
        Row("model.layers.{}.mlp.experts.{}.down_proj.weight", ("blocks.{}.ffn.experts.{}.down_proj.weight",)),
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
