"""The vanilla decoder: every brick is a setting, so that any two can be compared with all else equal.

As it comes it is a decoder like GPT-2 (Radford et al. 2019). Its presets are the rungs from a single attention head to
a small modern model.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from legollm.architectures.checks import check_divides, check_dropout, check_positive, check_rotary
from legollm.architectures.weight_map import HuggingFace, Row
from legollm.components.attention import Attention
from legollm.components.blocks import ParallelBlock, PostNormBlock, PreNormBlock, SandwichNormBlock
from legollm.components.decoder import Decoder
from legollm.components.feedforward import GLU, MLP, GeGLU, ReGLU, SwiGLU, gelu, gelu_tanh, relu, relu_squared
from legollm.components.init import init_weights
from legollm.components.moe import MoE
from legollm.components.norm import LayerNorm, RMSNorm
from legollm.components.positions import (
    Alibi,
    LearnedPositionEmbedding,
    NoPositions,
    RotaryEmbedding,
    ScaledTokenEmbedding,
    SinusoidalPositionEmbedding,
    T5Bias,
    TokenAndPositionEmbedding,
    TokenEmbedding,
)
from legollm.components.routing import Router, TopK
from legollm.errors import CheckpointError, ConfigError


@dataclass(frozen=True, kw_only=True)
class VanillaConfig:
    """Sizes, and which brick is in which place."""

    arch: Literal["vanilla"] = "vanilla"
    """Which architecture this is."""
    vocab_size: int = 50_257
    """Token ids."""
    max_seq_len: int = 256
    """Tokens it is trained to look at; with learned positions there are none beyond."""
    n_layers: int = 4
    """Blocks."""
    n_heads: int = 4
    """Query heads per block; a divisor of d_model."""
    n_kv_heads: int = 4
    """Key and value heads, each shared by n_heads / n_kv_heads query heads."""
    d_model: int = 128
    """Width of the residual stream."""
    d_ff: int = 512
    """Width inside the feed-forward, or inside each expert."""
    positions: Literal["learned", "sinusoidal", "rope", "alibi", "t5", "none"] = "learned"
    """How it knows where tokens stand: learned or sinusoidal vectors that are added, rotary turns of queries and keys,
    scores that fall with the distance (alibi) or get a learned number for it (t5), or by the causal mask alone."""
    norm: Literal["layernorm", "rmsnorm", "none"] = "layernorm"
    """What keeps the residual stream at a steady scale."""
    norm_placement: Literal["pre", "post", "sandwich", "parallel"] = "pre"
    """Before each half of a block, after it, both; or once before both halves side by side."""
    ffn: Literal["relu", "gelu", "gelu_tanh", "relu_squared", "glu", "swiglu", "geglu", "reglu", "moe", "none"] = (
        "gelu_tanh"
    )
    """The second half of a block: two matrices and an activation, three with a gate, experts (swiglu), or nothing."""
    n_experts: int = 4
    """ffn=moe: how many there are."""
    n_active: int = 2
    """ffn=moe: how many work on each token."""
    balance_loss: float = 0.01
    """ffn=moe: how much uneven use of the experts adds to the loss."""
    bias: bool = True
    """Whether linear maps add a vector: attention's output, an ungated feed-forward, the head."""
    qkv_bias: bool = False
    """Whether queries, keys and values do, too."""
    qk_norm: bool = False
    """Whether every query and key is normalised."""
    sinks: bool = False
    """Whether a head may attend to nothing: one learned score per head that has no value."""
    window: int | None = None
    """The nearest tokens a token sees, itself included; null is all before it."""
    dropout: float = 0.0
    """Share of numbers set to zero in training: of attention, of what each half of a block adds, of added positions."""
    norm_eps: float = 1e-5
    """Added to variances or mean squares before the square root."""
    rope_theta: float = 10_000.0
    """positions=rope: base of the frequencies."""
    tie_embeddings: bool = False
    """Whether the head shares its weights with the token embedding."""

    def __post_init__(self) -> None:
        check_positive(self, "vocab_size", "max_seq_len", "n_layers", "n_heads", "n_kv_heads", "d_model", "d_ff")
        check_positive(self, "n_experts", "n_active")
        check_divides(self, "n_heads", "d_model")
        check_divides(self, "n_kv_heads", "n_heads")
        check_dropout(self)
        if self.positions == "rope":
            check_rotary("n_heads", self.d_head)
        if self.positions == "sinusoidal" and self.d_model % 2:
            raise ConfigError(f"d_model: {self.d_model} is odd; sinusoidal positions need pairs of channels")
        if self.n_active > self.n_experts:
            raise ConfigError(f"n_active: {self.n_active} is more than n_experts = {self.n_experts}")
        if self.window is not None:
            check_positive(self, "window")

    @property
    def d_head(self) -> int:
        """Width of a head."""
        return self.d_model // self.n_heads


ONE_BLOCK = VanillaConfig(vocab_size=65, max_seq_len=32, n_layers=1, d_model=64, d_ff=256, ffn="relu")
MODERN_TINY = VanillaConfig(
    n_heads=8, d_model=256, d_ff=704, positions="rope", norm="rmsnorm", ffn="swiglu", bias=False, sinks=True
)

PRESETS = {
    "one-head": replace(ONE_BLOCK, n_heads=1, n_kv_heads=1, ffn="none"),
    "multi-head": replace(ONE_BLOCK, ffn="none"),
    "one-block": ONE_BLOCK,
    "two-blocks": replace(ONE_BLOCK, n_layers=2),
    "decoder": replace(ONE_BLOCK, max_seq_len=64, n_layers=3, d_model=128, d_ff=512),
    "modern-tiny": MODERN_TINY,
    "modern-tiny-moe": replace(MODERN_TINY, ffn="moe", d_ff=352),
}

NORMS: Mapping[str, Any] = {"layernorm": LayerNorm, "rmsnorm": RMSNorm, "none": nn.Identity}
ACTIVATIONS = {"relu": relu, "gelu": gelu, "gelu_tanh": gelu_tanh, "relu_squared": relu_squared}
GATED: Mapping[str, Any] = {"glu": GLU, "swiglu": SwiGLU, "geglu": GeGLU, "reglu": ReGLU}


class NoFeedForward(nn.Module):
    """In the place of a feed-forward: the block only mixes."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., D) -> zeros (..., D)."""
        return torch.zeros_like(x)


def vanilla(cfg: VanillaConfig, seed: int = 0) -> Decoder:
    """A decoder out of the chosen bricks with freshly drawn weights."""
    rope = RotaryEmbedding(cfg.d_head, theta=cfg.rope_theta) if cfg.positions == "rope" else NoPositions()
    position_bias: nn.Module | None = None  # one for all layers, as in both papers
    if cfg.positions == "alibi":
        position_bias = Alibi(cfg.n_heads)
    elif cfg.positions == "t5":
        position_bias = T5Bias(cfg.n_heads, bidirectional=False)
    norm = partial(NORMS[cfg.norm], eps=cfg.norm_eps)

    def block() -> nn.Module:
        attn = Attention(
            cfg.d_model,
            n_heads=cfg.n_heads,
            n_kv_heads=cfg.n_kv_heads,
            d_head=cfg.d_head,
            rope=rope,
            head_norm=norm if cfg.qk_norm else nn.Identity,
            bias=cfg.qkv_bias,
            dropout=cfg.dropout,
            window=cfg.window,
            position_bias=position_bias,
            sinks=cfg.sinks,
        )
        attn.o_proj = nn.Linear(cfg.d_model, cfg.d_model, bias=cfg.bias)
        return placed(cfg, norm, attn, feed_forward(cfg))

    is_scaled = cfg.positions == "sinusoidal"  # waves are large beside freshly drawn vectors
    tokens = (ScaledTokenEmbedding if is_scaled else TokenEmbedding)(cfg.vocab_size, cfg.d_model)
    lm_head = nn.Linear(cfg.d_model, cfg.vocab_size, bias=cfg.bias)
    if cfg.tie_embeddings:
        lm_head.weight = tokens.weight
    model = Decoder(
        embed=with_positions(cfg, tokens),
        blocks=[block() for _ in range(cfg.n_layers)],
        norm=nn.Identity() if cfg.norm_placement == "post" else norm(cfg.d_model),  # the last block ends with one
        lm_head=lm_head,
        max_seq_len=cfg.max_seq_len if cfg.positions == "learned" else None,
    )
    init_weights(model, torch.Generator().manual_seed(seed))
    return model


def with_positions(cfg: VanillaConfig, tokens: nn.Module) -> nn.Module:
    """Vectors of the tokens, with those of the positions where they are added."""
    if cfg.positions == "learned":
        positions: nn.Module = LearnedPositionEmbedding(cfg.max_seq_len, cfg.d_model)
    elif cfg.positions == "sinusoidal":
        positions = SinusoidalPositionEmbedding(cfg.d_model)
    else:
        return tokens
    return TokenAndPositionEmbedding(tokens=tokens, positions=positions, dropout=cfg.dropout)


def feed_forward(cfg: VanillaConfig) -> nn.Module:
    """The half of a block in which tokens think for themselves."""
    if cfg.ffn == "none":
        return NoFeedForward()
    if cfg.ffn == "moe":
        router = Router(cfg.d_model, cfg.n_experts, TopK(cfg.n_active), balance_loss=cfg.balance_loss)
        return MoE(router=router, experts=[SwiGLU(cfg.d_model, cfg.d_ff) for _ in range(cfg.n_experts)])
    if cfg.ffn in GATED:
        gated: nn.Module = GATED[cfg.ffn](cfg.d_model, cfg.d_ff)
        return gated
    return MLP(cfg.d_model, cfg.d_ff, activation=ACTIVATIONS[cfg.ffn], bias=cfg.bias)


def placed(cfg: VanillaConfig, norm: Any, attn: nn.Module, ffn: nn.Module) -> nn.Module:
    """Both halves as a block, with norms where the configuration says; around nothing there are none."""
    width, dropout = cfg.d_model, cfg.dropout
    around_ffn = nn.Identity if cfg.ffn == "none" else norm
    if cfg.norm_placement == "parallel":
        return ParallelBlock(norm=norm(width), attn=attn, ffn=ffn, dropout=dropout)
    if cfg.norm_placement == "sandwich":
        return SandwichNormBlock(
            norm1=norm(width),
            attn=attn,
            attn_norm=norm(width),
            norm2=around_ffn(width),
            ffn=ffn,
            ffn_norm=around_ffn(width),
            dropout=dropout,
        )
    block = PostNormBlock if cfg.norm_placement == "post" else PreNormBlock
    return block(norm1=norm(width), attn=attn, norm2=around_ffn(width), ffn=ffn, dropout=dropout)


def config_from_hf(config: Mapping[str, Any]) -> VanillaConfig:
    """The configuration this package wrote: the model has no class elsewhere."""
    names = set(VanillaConfig.__dataclass_fields__) - {"arch"}
    if missing := names - config.keys():
        raise CheckpointError(f"config.json: {', '.join(sorted(missing))} is missing; vanilla models need it")
    return VanillaConfig(**{name: config[name] for name in names})


LINEAR = [f"attn.{part}_proj" for part in "qkvo"] + [f"ffn.{part}_proj" for part in ("up", "gate", "down")]
NORMALISING = ["norm", "norm1", "norm2", "attn_norm", "ffn_norm", "attn.q_norm", "attn.k_norm"]
IN_BLOCKS = [
    *(f"{part}.{kind}" for part in LINEAR + NORMALISING for kind in ("weight", "bias")),
    *("attn.position_bias.weight", "attn.sinks", "ffn.router.proj.weight"),
    *(f"ffn.experts.{{}}.{part}_proj.weight" for part in ("up", "gate", "down")),
]
AROUND = [
    *("embed.weight", "embed.tokens.weight", "embed.positions.weight"),
    *(f"{part}.{kind}" for part in ("norm", "lm_head") for kind in ("weight", "bias")),
]

HUGGING_FACE = HuggingFace(
    model_type="legollm_vanilla",
    class_name="Vanilla",
    rows=[Row(name, (name,)) for name in [*AROUND, *(f"blocks.{{}}.{name}" for name in IN_BLOCKS)]],
    config_to_hf=lambda cfg: {key: value for key, value in asdict(cfg).items() if key != "arch"},
    config_from_hf=config_from_hf,
)
