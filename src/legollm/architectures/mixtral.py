"""Mixtral (Jiang et al. 2024, arXiv:2401.04088): LLaMA's blocks with eight feed-forwards, two of them per token."""

from collections.abc import Mapping
from dataclasses import dataclass
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
class MixtralConfig:
    """The sizes of a Mixtral; the defaults make a small one that trains in minutes."""

    arch: Literal["mixtral"] = "mixtral"
    """Which architecture this is."""
    vocab_size: int = 32_000
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
    d_ff: int = 192
    """Width inside an expert; n_active of them work on a token."""
    n_experts: int = 8
    """Experts of a block."""
    n_active: int = 2
    """Experts that work on each token."""
    balance_loss: float = 0.01
    """How much uneven use of the experts counts in the training loss, per block."""
    z_loss: float = 0.0
    """How much large scores of the router count in the training loss, per block."""
    jitter: float = 0.0
    """In training, what a router reads is multiplied by a number drawn from 1 - jitter to 1 + jitter."""
    norm_eps: float = 1e-5
    """Added to mean squares before the square root."""
    rope_theta: float = 1_000_000.0
    """Base of the rotary frequencies: the larger, the farther apart positions stay distinct."""
    tie_embeddings: bool = False
    """Whether the head shares its weights with the token embedding."""
    window: int | None = None
    """The nearest tokens a token sees, itself included; null for all before it."""

    def __post_init__(self) -> None:
        check_positive(self, "vocab_size", "max_seq_len", "n_layers", "n_heads", "n_kv_heads", "d_model", "d_ff")
        check_positive(self, "n_experts", "n_active")
        check_divides(self, "n_heads", "d_model")
        check_divides(self, "n_kv_heads", "n_heads")
        check_rotary("n_heads", self.d_head)
        check_experts(self)
        if self.window is not None:
            check_positive(self, "window")
        if not 0 <= self.jitter < 1:
            raise ConfigError(f"jitter: a share from 0 to below 1, found {self.jitter}")

    @property
    def d_head(self) -> int:
        """Width of a head."""
        return self.d_model // self.n_heads


MIXTRAL_8X7B = MixtralConfig(
    max_seq_len=32_768, n_layers=32, n_heads=32, n_kv_heads=8, d_model=4096, d_ff=14_336, balance_loss=0.02
)
MIXTRAL_8X22B = MixtralConfig(
    max_seq_len=65_536, n_layers=56, n_heads=48, n_kv_heads=8, d_model=6144, d_ff=16_384, balance_loss=0.001
)
PRESETS = {"mixtral-8x7b": MIXTRAL_8X7B, "mixtral-8x22b": MIXTRAL_8X22B}


def mixtral(cfg: MixtralConfig, seed: int = 0) -> Decoder:
    """A Mixtral with freshly drawn weights."""
    rope = RotaryEmbedding(cfg.d_head, theta=cfg.rope_theta)

    def ffn() -> MoE:
        router = Router(
            cfg.d_model,
            cfg.n_experts,
            TopK(cfg.n_active),
            jitter=cfg.jitter,
            balance_loss=cfg.balance_loss,
            z_loss=cfg.z_loss,
        )
        return MoE(router=router, experts=[SwiGLU(cfg.d_model, cfg.d_ff) for _ in range(cfg.n_experts)])

    def block() -> PreNormBlock:
        return PreNormBlock(
            norm1=RMSNorm(cfg.d_model, eps=cfg.norm_eps),
            attn=Attention(
                cfg.d_model,
                n_heads=cfg.n_heads,
                n_kv_heads=cfg.n_kv_heads,
                d_head=cfg.d_head,
                rope=rope,
                window=cfg.window,
            ),
            norm2=RMSNorm(cfg.d_model, eps=cfg.norm_eps),
            ffn=ffn(),
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


def config_to_hf(cfg: MixtralConfig) -> dict[str, Any]:
    """The keys of a MixtralConfig in config.json; router_z_loss_coef is ours and ignored elsewhere."""
    return {
        "vocab_size": cfg.vocab_size,
        "max_position_embeddings": cfg.max_seq_len,
        "num_hidden_layers": cfg.n_layers,
        "num_attention_heads": cfg.n_heads,
        "num_key_value_heads": cfg.n_kv_heads,
        "hidden_size": cfg.d_model,
        "head_dim": cfg.d_head,
        "intermediate_size": cfg.d_ff,
        "num_local_experts": cfg.n_experts,
        "num_experts_per_tok": cfg.n_active,
        "router_aux_loss_coef": cfg.balance_loss,
        "router_z_loss_coef": cfg.z_loss,
        "router_jitter_noise": cfg.jitter,
        "hidden_act": "silu",
        "sliding_window": cfg.window,
        "rms_norm_eps": cfg.norm_eps,
        "tie_word_embeddings": cfg.tie_embeddings,
        **rope_to_hf(cfg.rope_theta, None),
    }


def config_from_hf(config: Mapping[str, Any]) -> MixtralConfig:
    """The inverse; absent keys mean what they mean in transformers.

    Raises:
        CheckpointError: it computes something else than Mixtral does.
    """
    theta, scaling = rope_from_hf(config)
    if scaling:
        raise CheckpointError("config.json: rope_type is 'llama3', and only 'default' is supported for mixtral")
    n_heads = need(config, "num_attention_heads")
    cfg = MixtralConfig(
        vocab_size=need(config, "vocab_size"),
        max_seq_len=need(config, "max_position_embeddings"),
        n_layers=need(config, "num_hidden_layers"),
        n_heads=n_heads,
        n_kv_heads=config.get("num_key_value_heads") or n_heads,
        d_model=need(config, "hidden_size"),
        d_ff=need(config, "intermediate_size"),
        n_experts=need(config, "num_local_experts"),
        n_active=need(config, "num_experts_per_tok"),
        balance_loss=config.get("router_aux_loss_coef", 0.001),
        z_loss=config.get("router_z_loss_coef", 0.0),
        jitter=config.get("router_jitter_noise", 0.0),
        norm_eps=config.get("rms_norm_eps", 1e-5),
        rope_theta=theta,
        tie_embeddings=config.get("tie_word_embeddings", False),
        window=config.get("sliding_window"),
    )
    accept(config, "hidden_act", "silu", "swish")
    accept(config, "head_dim", cfg.d_head, None)
    return cfg


HUGGING_FACE = HuggingFace(
    model_type="mixtral",
    class_name="MixtralForCausalLM",
    rows=[
        Row("model.embed_tokens.weight", ("embed.weight",)),
        Row("model.layers.{}.input_layernorm.weight", ("blocks.{}.norm1.weight",)),
        Row("model.layers.{}.self_attn.q_proj.weight", ("blocks.{}.attn.q_proj.weight",)),
        Row("model.layers.{}.self_attn.k_proj.weight", ("blocks.{}.attn.k_proj.weight",)),
        Row("model.layers.{}.self_attn.v_proj.weight", ("blocks.{}.attn.v_proj.weight",)),
        Row("model.layers.{}.self_attn.o_proj.weight", ("blocks.{}.attn.o_proj.weight",)),
        Row("model.layers.{}.post_attention_layernorm.weight", ("blocks.{}.norm2.weight",)),
        Row("model.layers.{}.block_sparse_moe.gate.weight", ("blocks.{}.ffn.router.proj.weight",)),
        Row("model.layers.{}.block_sparse_moe.experts.{}.w1.weight", ("blocks.{}.ffn.experts.{}.gate_proj.weight",)),
        Row("model.layers.{}.block_sparse_moe.experts.{}.w3.weight", ("blocks.{}.ffn.experts.{}.up_proj.weight",)),
        Row("model.layers.{}.block_sparse_moe.experts.{}.w2.weight", ("blocks.{}.ffn.experts.{}.down_proj.weight",)),
        Row("model.norm.weight", ("norm.weight",)),
        Row("lm_head.weight", ("lm_head.weight",)),
    ],
    config_to_hf=config_to_hf,
    config_from_hf=config_from_hf,
    base="model.",
    leftovers=("model.layers.{}.self_attn.rotary_emb.inv_freq",),
)
