"""The first transformer (Vaswani et al. 2017, arXiv:1706.03762): an encoder reads, a decoder writes."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import nn

from legollm.architectures.checks import check_divides, check_dropout, check_positive
from legollm.architectures.weight_map import HuggingFace, Row
from legollm.components.attention import Attention
from legollm.components.blocks import PostNormBlock, PreNormBlock
from legollm.components.cross_attention import CrossAttention
from legollm.components.encoder import Encoder
from legollm.components.encoder_decoder import EncoderDecoder, PostNormCrossBlock, PreNormCrossBlock
from legollm.components.feedforward import MLP, relu
from legollm.components.init import init_weights
from legollm.components.norm import LayerNorm
from legollm.components.positions import (
    NoPositions,
    ScaledTokenEmbedding,
    SinusoidalPositionEmbedding,
    TokenAndPositionEmbedding,
)
from legollm.errors import CheckpointError


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """The sizes of a transformer; the defaults make a small one that trains in minutes."""

    arch: Literal["transformer"] = "transformer"
    """Which architecture this is."""
    vocab_size: int = 37_000
    """Token ids, of sources and targets alike."""
    max_seq_len: int = 256
    """Tokens of a source or of a target it is trained with; its positions go on beyond."""
    n_layers: int = 2
    """Blocks of the encoder, and as many of the decoder."""
    n_heads: int = 4
    """Attention heads per block; a divisor of d_model."""
    d_model: int = 128
    """Width of the residual stream."""
    d_ff: int = 512
    """Width inside the feed-forward."""
    dropout: float = 0.0
    """Share of numbers set to zero in training: of the embeddings, of attention, of what each part of a block adds."""
    pre_norm: bool = False
    """Whether norms come before what they feed, which trains at any depth, or after the sum as in the paper."""
    norm_eps: float = 1e-5
    """Added to variances before the square root."""
    tie_embeddings: bool = True
    """Whether source, target and head share one table (section 3.4 of the paper), or have one each."""
    start_id: int = 0
    """The token before the first one of every target."""

    def __post_init__(self) -> None:
        check_positive(self, "vocab_size", "max_seq_len", "n_layers", "n_heads", "d_model", "d_ff")
        check_divides(self, "n_heads", "d_model")
        check_dropout(self)

    @property
    def d_head(self) -> int:
        """Width of a head."""
        return self.d_model // self.n_heads


PRESETS = {
    "transformer-base": TransformerConfig(n_layers=6, n_heads=8, d_model=512, d_ff=2048, dropout=0.1),
    "transformer-big": TransformerConfig(n_layers=6, n_heads=16, d_model=1024, d_ff=4096, dropout=0.3),
}


def transformer(cfg: TransformerConfig, seed: int = 0) -> EncoderDecoder:
    """A transformer with freshly drawn weights."""

    def norm() -> LayerNorm:
        return LayerNorm(cfg.d_model, eps=cfg.norm_eps)

    def attention() -> Attention:
        return Attention(
            cfg.d_model,
            n_heads=cfg.n_heads,
            n_kv_heads=cfg.n_heads,
            d_head=cfg.d_head,
            rope=NoPositions(),  # they are in the embedding
            dropout=cfg.dropout,
        )

    def encoder_block() -> nn.Module:
        kind = PreNormBlock if cfg.pre_norm else PostNormBlock
        ffn = MLP(cfg.d_model, cfg.d_ff, activation=relu)
        return kind(norm1=norm(), attn=attention(), norm2=norm(), ffn=ffn, dropout=cfg.dropout)

    def decoder_block() -> nn.Module:
        kind = PreNormCrossBlock if cfg.pre_norm else PostNormCrossBlock
        return kind(
            norm1=norm(),
            attn=attention(),
            cross_norm=norm(),
            cross_attn=CrossAttention(
                cfg.d_model, n_heads=cfg.n_heads, n_kv_heads=cfg.n_heads, d_head=cfg.d_head, dropout=cfg.dropout
            ),
            norm2=norm(),
            ffn=MLP(cfg.d_model, cfg.d_ff, activation=relu),
            dropout=cfg.dropout,
        )

    def embedding(tokens: nn.Module) -> nn.Module:
        positions = SinusoidalPositionEmbedding(cfg.d_model)
        return TokenAndPositionEmbedding(tokens=tokens, positions=positions, dropout=cfg.dropout)

    def last_norm() -> nn.Module:
        return norm() if cfg.pre_norm else nn.Identity()  # after post-norm blocks there is nothing left to normalise

    sources = ScaledTokenEmbedding(cfg.vocab_size, cfg.d_model)
    targets = sources if cfg.tie_embeddings else ScaledTokenEmbedding(cfg.vocab_size, cfg.d_model)
    lm_head = nn.Linear(cfg.d_model, cfg.vocab_size, bias=False)
    if cfg.tie_embeddings:
        lm_head.weight = sources.weight
    model = EncoderDecoder(
        encoder=Encoder(
            embed=embedding(sources), blocks=[encoder_block() for _ in range(cfg.n_layers)], norm=last_norm()
        ),
        embed=embedding(targets),
        blocks=[decoder_block() for _ in range(cfg.n_layers)],
        norm=last_norm(),
        lm_head=lm_head,
    )
    init_weights(model, torch.Generator().manual_seed(seed))
    return model


def config_from_hf(config: Mapping[str, Any]) -> TransformerConfig:
    """The configuration this package wrote: the model has no class elsewhere."""
    names = set(TransformerConfig.__dataclass_fields__) - {"arch"}
    if missing := names - config.keys():
        raise CheckpointError(f"config.json: {', '.join(sorted(missing))} is missing; transformer models need it")
    return TransformerConfig(**{name: config[name] for name in names})


def rows_of_block(side: str, *parts: str) -> list[Row]:
    """Matrices and vectors of one kind of block, under the names they have here."""
    names = [f"{side}blocks.{{}}.{part}" for part in parts]
    return [Row(name, (name,)) for name in names]


ATTENTION = tuple(f"{part}_proj.weight" for part in "qkvo")
LAYER_PARTS = (
    *(f"attn.{name}" for name in ATTENTION),
    *(f"{norm}.{kind}" for norm in ("norm1", "norm2") for kind in ("weight", "bias")),
    *(f"ffn.{name}_proj.{kind}" for name in ("up", "down") for kind in ("weight", "bias")),
)
CROSS_PARTS = (*(f"cross_attn.{name}" for name in ATTENTION), "cross_norm.weight", "cross_norm.bias")
OTHERS = (
    "encoder.embed.tokens.weight",
    "embed.tokens.weight",
    "encoder.norm.weight",
    "encoder.norm.bias",
    "norm.weight",
    "norm.bias",
    "lm_head.weight",
)

HUGGING_FACE = HuggingFace(
    model_type="legollm_transformer",
    class_name="EncoderDecoder",
    rows=[
        *(Row(name, (name,)) for name in OTHERS),
        *rows_of_block("encoder.", *LAYER_PARTS),
        *rows_of_block("", *LAYER_PARTS, *CROSS_PARTS),
    ],
    config_to_hf=lambda cfg: {key: value for key, value in asdict(cfg).items() if key != "arch"},
    config_from_hf=config_from_hf,
)
