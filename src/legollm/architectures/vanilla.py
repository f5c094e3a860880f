"""The vanilla decoder: every brick is a setting, so that any two can be compared with all else equal.

As it comes it is a decoder like GPT-2 (Radford et al. 2019). Its presets are the rungs from a single attention head to
a small modern model.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from legollm.architectures.checks import check_brick, check_divides, check_dropout, check_positive, check_rotary
from legollm.architectures.weight_map import SAME_NAMES, HuggingFace
from legollm.components.attention import Attention
from legollm.components.blocks import ParallelBlock, PostNormBlock, PreNormBlock, SandwichNormBlock
from legollm.components.decoder import Decoder
from legollm.components.feedforward import GLU, MLP, GeGLU, ReGLU, SwiGLU, gelu, gelu_tanh, relu, relu_squared
from legollm.components.init import init_weights, init_zero_outputs
from legollm.components.moe import MoE
from legollm.components.ngram_embedding import NgramEmbedding
from legollm.components.norm import LayerNorm, RMSNorm
from legollm.components.outside import positions_kind
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

NORMS: Mapping[str, Any] = {"layernorm": LayerNorm, "rmsnorm": RMSNorm, "none": nn.Identity}
ACTIVATIONS = {"relu": relu, "gelu": gelu, "gelu_tanh": gelu_tanh, "relu_squared": relu_squared}
GATED: Mapping[str, Any] = {"glu": GLU, "swiglu": SwiGLU, "geglu": GeGLU, "reglu": ReGLU}


@dataclass(frozen=True, kw_only=True)
class VanillaConfig:
    """Sizes, and which brick is in which place. A brick of one's own is named as module:Name, such as my_bricks:MyFFN:
    its module is imported, which runs it, and gets the sizes that it asks for by the names of these settings."""

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
    attention: str = "heads"
    """The first half of a block: heads, which all other settings of attention are about, or module:Name."""
    positions: str = "learned"
    """How it knows where tokens stand: learned or sinusoidal vectors that are added; rope, rotary turns of queries and
    keys; scores that fall with the distance (alibi) or get a learned number for it (t5); by the causal mask alone
    (none); or module:Name."""
    norm: str = "layernorm"
    """What keeps the residual stream at a steady scale: layernorm, rmsnorm, none or module:Name."""
    norm_placement: Literal["pre", "post", "sandwich", "parallel"] = "pre"
    """Before each half of a block, after it, both; or once before both halves side by side."""
    ffn: str = "gelu_tanh"
    """The second half of a block: two matrices and an activation (relu, gelu, gelu_tanh, relu_squared), three with a
    gate (glu, swiglu, geglu, reglu), experts of which each is a swiglu (moe), nothing (none), or module:Name."""
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
    ngram_rows: tuple[int, ...] = ()
    """Rows of a table with a vector for each pair of tokens, of one for triples, ...; a hash tells whose is which."""
    init: Literal["small", "zero"] = "small"
    """small: all weights start near zero, as GPT-2's. zero: embeddings start at 1, and what adds to the residual
    stream, the tables of n-grams and the head start at zero: every block learns from nothing what to add."""

    def __post_init__(self) -> None:
        check_positive(self, "vocab_size", "max_seq_len", "n_layers", "n_heads", "n_kv_heads", "d_model", "d_ff")
        check_positive(self, "n_experts", "n_active")
        check_divides(self, "n_heads", "d_model")
        check_divides(self, "n_kv_heads", "n_heads")
        check_dropout(self)
        check_brick(self, "attention", ["heads"])
        check_brick(self, "positions", ["learned", "sinusoidal", "rope", "alibi", "t5", "none"])
        check_brick(self, "norm", NORMS)
        check_brick(self, "ffn", [*ACTIVATIONS, *GATED, "moe", "none"])
        if self.positions == "rope":
            check_rotary("n_heads", self.d_head)
        if self.positions == "sinusoidal" and self.d_model % 2:
            raise ConfigError(f"d_model: {self.d_model} is odd; sinusoidal positions need pairs of channels")
        if self.n_active > self.n_experts:
            raise ConfigError(f"n_active: {self.n_active} is more than n_experts = {self.n_experts}")
        if self.window is not None:
            check_positive(self, "window")
        if any(rows < 1 for rows in self.ngram_rows):
            raise ConfigError(f"ngram_rows: a table has at least one row, found {list(self.ngram_rows)}")
        if self.init == "zero" and self.tie_embeddings:
            raise ConfigError("init: zero is for heads of their own; set tie_embeddings=false or init=small")

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


class NoFeedForward(nn.Module):
    """In the place of a feed-forward: the block only mixes."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., D) -> zeros (..., D)."""
        return torch.zeros_like(x)


Outside: TypeAlias = Callable[[str, str, Mapping[str, Any]], nn.Module]
"""module:Name, the place in the model and the values a brick may ask for -> the brick."""


def none_outside(path: str, stud: str, values: Mapping[str, Any]) -> nn.Module:
    """
    Raises:
        ConfigError: always; this file knows its own bricks only.
    """
    raise ConfigError(f"{path}: a brick from outside, which this file does not fetch; put its {stud} here by hand")


def vanilla(cfg: VanillaConfig, seed: int = 0, outside: Outside = none_outside) -> Decoder:
    """A decoder out of the chosen bricks with freshly drawn weights.

    outside: finds and builds the bricks that are named as module:Name.
    """
    own = outside(cfg.positions, "positions", sizes_of(cfg)) if ":" in cfg.positions else None
    kind = positions_kind(own) if own is not None else cfg.positions
    rope: nn.Module = NoPositions()
    position_bias: nn.Module | None = None  # one for all layers, as in both papers
    if cfg.positions == "rope":
        rope = RotaryEmbedding(cfg.d_head, theta=cfg.rope_theta)
    elif cfg.positions == "alibi":
        position_bias = Alibi(cfg.n_heads)
    elif cfg.positions == "t5":
        position_bias = T5Bias(cfg.n_heads, bidirectional=False)
    elif own is not None and kind == "rotary":
        rope = own
    elif own is not None and kind == "position_bias":
        position_bias = own

    def norm(width: int) -> nn.Module:
        if ":" in cfg.norm:
            return outside(cfg.norm, "norm", {**sizes_of(cfg), "d_model": width, "eps": cfg.norm_eps})
        made: nn.Module = NORMS[cfg.norm](width, eps=cfg.norm_eps)
        return made

    def attention() -> nn.Module:
        if ":" in cfg.attention:
            return outside(cfg.attention, "mixer", {**sizes_of(cfg), "rope": rope})
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
        return attn

    def block() -> nn.Module:
        ffn = outside(cfg.ffn, "ffn", sizes_of(cfg)) if ":" in cfg.ffn else feed_forward(cfg)
        return placed(cfg, norm, attention(), ffn)

    is_scaled = cfg.positions == "sinusoidal"  # waves are large beside freshly drawn vectors
    tokens = (ScaledTokenEmbedding if is_scaled else TokenEmbedding)(cfg.vocab_size, cfg.d_model)
    lm_head = nn.Linear(cfg.d_model, cfg.vocab_size, bias=cfg.bias)
    if cfg.tie_embeddings:
        lm_head.weight = tokens.weight
    table = NgramEmbedding(tokens, cfg.ngram_rows) if cfg.ngram_rows else tokens
    model = Decoder(
        embed=with_positions(cfg, table, own if kind == "positions" else None),
        blocks=[block() for _ in range(cfg.n_layers)],
        norm=nn.Identity() if cfg.norm_placement == "post" else norm(cfg.d_model),  # the last block ends with one
        lm_head=lm_head,
        max_seq_len=cfg.max_seq_len if cfg.positions == "learned" else None,
        n_before=len(cfg.ngram_rows),
    )
    (init_zero_outputs if cfg.init == "zero" else init_weights)(model, torch.Generator().manual_seed(seed))
    return model


def sizes_of(cfg: VanillaConfig) -> dict[str, Any]:
    """What a brick from outside may ask for: the numbers of the configuration."""
    numbers = {key: value for key, value in vars(cfg).items() if isinstance(value, int | float)}
    return numbers | {"d_head": cfg.d_head, "theta": cfg.rope_theta}


def with_positions(cfg: VanillaConfig, tokens: nn.Module, own: nn.Module | None) -> nn.Module:
    """Vectors of the tokens, with those of the positions where they are added; `own` are some from outside."""
    if own is not None:
        positions = own
    elif cfg.positions == "learned":
        positions = LearnedPositionEmbedding(cfg.max_seq_len, cfg.d_model)
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
    if missing := names - config.keys() - LATER:
        raise CheckpointError(f"config.json: {', '.join(sorted(missing))} is missing; vanilla models need it")
    values = {name: config[name] for name in names & config.keys()}
    return VanillaConfig(**values | {"ngram_rows": tuple(values.get("ngram_rows", ()))})


LATER = {"attention", "ngram_rows", "init"}
"""Settings that folders written by the first versions do not have: they mean what they were, the defaults."""


HUGGING_FACE = HuggingFace(
    model_type="legollm_vanilla",
    class_name="Vanilla",
    rows=[SAME_NAMES],  # bricks from outside call their weights as they like
    config_to_hf=lambda cfg: {key: value for key, value in asdict(cfg).items() if key != "arch"},
    config_from_hf=config_from_hf,
)
