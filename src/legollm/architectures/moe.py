"""Every kind of mixture of experts (Shazeer et al. 2017, arXiv:1701.06538) on Qwen 3's blocks, to compare them.

Published ones are mixtral and qwen3_moe.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import nn

from legollm.architectures.checks import check_divides, check_experts, check_positive, check_rotary
from legollm.architectures.hf_keys import need
from legollm.architectures.weight_map import HuggingFace, Row
from legollm.components.attention import Attention
from legollm.components.blocks import PreNormBlock
from legollm.components.decoder import Decoder
from legollm.components.feedforward import SwiGLU
from legollm.components.init import init_weights
from legollm.components.moe import MoE
from legollm.components.norm import RMSNorm
from legollm.components.positions import RotaryEmbedding, TokenEmbedding
from legollm.components.routing import Router, Rule, SigmoidTopK, Soft, StraightThrough, Switch, TopK
from legollm.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class MoEConfig:
    """The sizes of a mixture; the defaults make a small one that trains in minutes."""

    arch: Literal["moe"] = "moe"
    """Which architecture this is."""
    vocab_size: int = 256
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
    rule: Literal["switch", "top_k", "soft", "straight_through", "sigmoid"] = "top_k"
    """Who works on a token: switch, its best expert times its probability; top_k, its n_active best; soft, all of them;
    straight_through, its best one, with the gradient of soft; sigmoid, its n_active best, balanced by a bias."""
    n_experts: int = 8
    """Experts of a block."""
    n_active: int = 2
    """top_k and sigmoid: experts that work on each token."""
    d_expert: int = 192
    """Width inside an expert."""
    d_shared: int = 0
    """Width inside one more expert that works on every token; 0 is none."""
    dense_layers: tuple[int, ...] = ()
    """Blocks, from 0, with one feed-forward instead of experts."""
    d_ff: int = 384
    """Width inside the feed-forward of dense blocks."""
    capacity: float | None = None
    """In training, the most tokens of an expert, as a multiple of an even share; null drops none."""
    temperature: float = 1.0
    """Above 1 makes experts more alike to the router, below 1 its choice sharper."""
    jitter: float = 0.0
    """In training, what a router reads is multiplied by a number drawn from 1 - jitter to 1 + jitter."""
    balance_loss: float = 0.01
    """How much uneven use of the experts counts in the training loss, per block."""
    z_loss: float = 0.0
    """How much large scores of the router count in the training loss, per block."""
    norm_eps: float = 1e-6
    """Added to mean squares before the square root."""
    rope_theta: float = 10_000.0
    """Base of the rotary frequencies: the larger, the farther apart positions stay distinct."""
    tie_embeddings: bool = True
    """Whether the head shares its weights with the token embedding."""

    def __post_init__(self) -> None:
        check_positive(self, "vocab_size", "max_seq_len", "n_layers", "n_heads", "n_kv_heads", "d_model", "d_head")
        check_positive(self, "n_experts", "n_active", "d_expert", "d_ff")
        check_divides(self, "n_kv_heads", "n_heads")
        check_rotary("d_head", self.d_head)
        check_experts(self)
        for i in self.dense_layers:
            if not 0 <= i < self.n_layers:
                raise ConfigError(f"dense_layers: blocks are 0 to {self.n_layers - 1}, found {i}")
        if self.temperature <= 0 or (self.capacity is not None and self.capacity <= 0):
            raise ConfigError(f"temperature, capacity: must be above 0, found {self.temperature} and {self.capacity}")
        if not 0 <= self.jitter < 1:
            raise ConfigError(f"jitter: a share from 0 to below 1, found {self.jitter}")
        if self.d_shared < 0:
            raise ConfigError(f"d_shared: must not be negative, found {self.d_shared}")


PRESETS: Mapping[str, MoEConfig] = {}


def rule_of(cfg: MoEConfig) -> Rule:
    """The rule of that name."""
    match cfg.rule:
        case "switch":
            return Switch()
        case "top_k":
            return TopK(cfg.n_active)
        case "soft":
            return Soft()
        case "straight_through":
            return StraightThrough()
        case "sigmoid":
            return SigmoidTopK(cfg.n_experts, cfg.n_active)


def moe(cfg: MoEConfig, seed: int = 0) -> Decoder:
    """A mixture with freshly drawn weights."""
    rope = RotaryEmbedding(cfg.d_head, theta=cfg.rope_theta)
    norm = partial(RMSNorm, eps=cfg.norm_eps)

    def ffn(i: int) -> nn.Module:
        if i in cfg.dense_layers:
            return SwiGLU(cfg.d_model, cfg.d_ff)
        router = Router(
            cfg.d_model,
            cfg.n_experts,
            rule_of(cfg),
            temperature=cfg.temperature,
            jitter=cfg.jitter,
            balance_loss=cfg.balance_loss,
            z_loss=cfg.z_loss,
        )
        return MoE(
            router=router,
            experts=[SwiGLU(cfg.d_model, cfg.d_expert) for _ in range(cfg.n_experts)],
            shared=SwiGLU(cfg.d_model, cfg.d_shared) if cfg.d_shared else None,
            capacity=cfg.capacity,
        )

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


def config_to_hf(cfg: MoEConfig) -> dict[str, Any]:
    """The fields as they are: the model has no class elsewhere."""
    return {key: value for key, value in asdict(cfg).items() if key != "arch"}


def config_from_hf(config: Mapping[str, Any]) -> MoEConfig:
    """The configuration this package wrote.

    Raises:
        CheckpointError: a field is missing.
    """
    names = set(MoEConfig.__dataclass_fields__) - {"arch", "capacity", "dense_layers"}
    values = {name: need(config, name) for name in names}
    return MoEConfig(**values, capacity=config.get("capacity"), dense_layers=tuple(config.get("dense_layers") or ()))


GLU_WEIGHTS = ("gate_proj", "up_proj", "down_proj")
WEIGHTS = (
    "embed.weight",
    "norm.weight",
    "lm_head.weight",
    "blocks.{}.norm1.weight",
    *(f"blocks.{{}}.attn.{name}.weight" for name in ("q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm")),
    "blocks.{}.norm2.weight",
    "blocks.{}.ffn.router.proj.weight",
    "blocks.{}.ffn.router.rule.bias",
    *(f"blocks.{{}}.ffn.experts.{{}}.{name}.weight" for name in GLU_WEIGHTS),
    *(f"blocks.{{}}.ffn.shared.{name}.weight" for name in GLU_WEIGHTS),
    *(f"blocks.{{}}.ffn.{name}.weight" for name in GLU_WEIGHTS),
)
HUGGING_FACE = HuggingFace(
    model_type="legollm_moe",
    class_name="MoE",
    rows=[Row(name, (name,)) for name in WEIGHTS],
    config_to_hf=config_to_hf,
    config_from_hf=config_from_hf,
)
