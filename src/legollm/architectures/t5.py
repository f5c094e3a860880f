"""T5 (Raffel et al. 2019, arXiv:1910.10683): an encoder-decoder whose scores know how far apart two tokens are."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from legollm.architectures.checks import check_dropout, check_positive
from legollm.architectures.hf_keys import accept, need
from legollm.architectures.weight_map import HuggingFace, Row
from legollm.components.attention import Attention
from legollm.components.blocks import PreNormBlock
from legollm.components.cross_attention import CrossAttention
from legollm.components.encoder import Encoder
from legollm.components.encoder_decoder import EncoderDecoder, PreNormCrossBlock
from legollm.components.feedforward import MLP, GatedMLP, gelu_tanh, relu
from legollm.components.init import init_weights
from legollm.components.norm import RMSNorm
from legollm.components.positions import NoPositions, T5Bias, TokenEmbedding
from legollm.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class T5Config:
    """The sizes of a T5; the defaults make a small one that trains in minutes."""

    arch: Literal["t5"] = "t5"
    """Which architecture this is."""
    vocab_size: int = 32_128
    """Token ids, of sources and targets alike."""
    max_seq_len: int = 256
    """Tokens of a source or of a target it is trained with; positions are relative and go on beyond."""
    n_layers: int = 2
    """Blocks of the encoder."""
    n_decoder_layers: int = 2
    """Blocks of the decoder."""
    n_heads: int = 4
    """Attention heads per block."""
    d_model: int = 128
    """Width of the residual stream."""
    d_head: int = 32
    """Width of a head."""
    d_ff: int = 512
    """Width inside the feed-forward."""
    gated: bool = False
    """Whether the feed-forward is a gated GELU (version 1.1) or a ReLU."""
    n_buckets: int = 32
    """Classes of distances that are told apart, of both directions together in the encoder."""
    max_distance: int = 128
    """Tokens farther apart than this are all alike."""
    dropout: float = 0.0
    """Share of numbers set to zero in training: of attention and of what each part of a block adds."""
    norm_eps: float = 1e-6
    """Added to mean squares before the square root."""
    tie_embeddings: bool = True
    """Whether the head is the token table, its input then divided by sqrt(d_model), or has weights of its own (1.1)."""
    start_id: int = 0
    """The token before the first one of every target."""

    def __post_init__(self) -> None:
        check_positive(self, "vocab_size", "max_seq_len", "n_layers", "n_decoder_layers", "n_heads", "d_model")
        check_positive(self, "d_head", "d_ff", "n_buckets", "max_distance")
        check_dropout(self)
        if self.n_buckets < 4 or self.max_distance <= self.n_buckets // 2:
            raise ConfigError(
                f"max_distance: {self.max_distance} has to be above half of n_buckets = {self.n_buckets}, and that at "
                "least 4: half of the buckets are for one distance each, the others share those beyond"
            )


T5_SMALL = T5Config(
    max_seq_len=512, n_layers=6, n_decoder_layers=6, n_heads=8, d_model=512, d_head=64, d_ff=2048, dropout=0.1
)
T5_LARGE = replace(T5_SMALL, n_layers=24, n_decoder_layers=24, n_heads=16, d_model=1024, d_ff=4096)
V1_1_SMALL = replace(T5_SMALL, n_layers=8, n_decoder_layers=8, n_heads=6, d_ff=1024, gated=True, tie_embeddings=False)
V1_1_LARGE = replace(V1_1_SMALL, n_layers=24, n_decoder_layers=24, n_heads=16, d_model=1024, d_ff=2816)

PRESETS = {
    "t5-small": T5_SMALL,
    "t5-base": replace(T5_SMALL, n_layers=12, n_decoder_layers=12, n_heads=12, d_model=768, d_ff=3072),
    "t5-large": T5_LARGE,
    "t5-3b": replace(T5_LARGE, n_heads=32, d_head=128, d_ff=16_384),
    "t5-11b": replace(T5_LARGE, n_heads=128, d_head=128, d_ff=65_536),
    "t5-v1.1-small": V1_1_SMALL,
    "t5-v1.1-base": replace(V1_1_SMALL, n_layers=12, n_decoder_layers=12, n_heads=12, d_model=768, d_ff=2048),
    "t5-v1.1-large": V1_1_LARGE,
    "t5-v1.1-xl": replace(V1_1_LARGE, n_heads=32, d_model=2048, d_ff=5120),
    "t5-v1.1-xxl": replace(V1_1_LARGE, n_heads=64, d_model=4096, d_ff=10_240),
}


class Ungated(nn.Module):
    """An MLP one level deeper: T5's two kinds of feed-forward have different names for what would be one `up_proj`."""

    def __init__(self, mlp: MLP) -> None:
        super().__init__()
        self.mlp = mlp

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., D) -> (..., D)."""
        y: Tensor = self.mlp(x)
        return y


class ScaledHead(nn.Linear):
    """A head that is the token table: states are divided by sqrt(D) first, because the table's vectors are long."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., D) -> logits (..., V)."""
        return super().forward(x * self.in_features**-0.5)


def t5(cfg: T5Config, seed: int = 0) -> EncoderDecoder:
    """A T5 with freshly drawn weights."""

    def norm() -> RMSNorm:
        return RMSNorm(cfg.d_model, eps=cfg.norm_eps)

    def bias(*, bidirectional: bool) -> T5Bias:
        return T5Bias(cfg.n_heads, n_buckets=cfg.n_buckets, max_distance=cfg.max_distance, bidirectional=bidirectional)

    def attention(position_bias: T5Bias) -> Attention:
        return Attention(
            cfg.d_model,
            n_heads=cfg.n_heads,
            n_kv_heads=cfg.n_heads,
            d_head=cfg.d_head,
            rope=NoPositions(),
            dropout=cfg.dropout,
            position_bias=position_bias,
            scale=1.0,
        )

    def cross_attention() -> CrossAttention:
        return CrossAttention(
            cfg.d_model,
            n_heads=cfg.n_heads,
            n_kv_heads=cfg.n_heads,
            d_head=cfg.d_head,
            dropout=cfg.dropout,
            scale=1.0,
        )

    def feedforward() -> nn.Module:
        if cfg.gated:
            return GatedMLP(cfg.d_model, cfg.d_ff, activation=gelu_tanh)
        return Ungated(MLP(cfg.d_model, cfg.d_ff, activation=relu, bias=False))

    def encoder_block() -> PreNormBlock:
        return PreNormBlock(
            norm1=norm(), attn=attention(encoder_bias), norm2=norm(), ffn=feedforward(), dropout=cfg.dropout
        )

    def decoder_block() -> PreNormCrossBlock:
        return PreNormCrossBlock(
            norm1=norm(),
            attn=attention(decoder_bias),
            cross_norm=norm(),
            cross_attn=cross_attention(),
            norm2=norm(),
            ffn=feedforward(),
            dropout=cfg.dropout,
        )

    encoder_bias, decoder_bias = bias(bidirectional=True), bias(bidirectional=False)  # one table for all layers of each
    embed = TokenEmbedding(cfg.vocab_size, cfg.d_model)
    if cfg.tie_embeddings:
        lm_head: nn.Linear = ScaledHead(cfg.d_model, cfg.vocab_size, bias=False)
        lm_head.weight = embed.weight
    else:
        lm_head = nn.Linear(cfg.d_model, cfg.vocab_size, bias=False)
    model = EncoderDecoder(
        encoder=Encoder(embed=embed, blocks=[encoder_block() for _ in range(cfg.n_layers)], norm=norm()),
        embed=embed,
        blocks=[decoder_block() for _ in range(cfg.n_decoder_layers)],
        norm=norm(),
        lm_head=lm_head,
    )
    init_weights(model, torch.Generator().manual_seed(seed))
    return model


def config_to_hf(cfg: T5Config) -> dict[str, Any]:
    """The keys of a T5Config in config.json."""
    return {
        "is_encoder_decoder": True,
        "vocab_size": cfg.vocab_size,
        "n_positions": cfg.max_seq_len,
        "num_layers": cfg.n_layers,
        "num_decoder_layers": cfg.n_decoder_layers,
        "num_heads": cfg.n_heads,
        "d_model": cfg.d_model,
        "d_kv": cfg.d_head,
        "d_ff": cfg.d_ff,
        "feed_forward_proj": "gated-gelu" if cfg.gated else "relu",
        "relative_attention_num_buckets": cfg.n_buckets,
        "relative_attention_max_distance": cfg.max_distance,
        "dropout_rate": cfg.dropout,
        "layer_norm_epsilon": cfg.norm_eps,
        "tie_word_embeddings": cfg.tie_embeddings,
        "pad_token_id": cfg.start_id,
        "decoder_start_token_id": cfg.start_id,
    }


def config_from_hf(config: Mapping[str, Any]) -> T5Config:
    """The inverse; absent keys mean what they mean in transformers.

    Raises:
        CheckpointError: it computes something else than T5 does.
    """
    accept(config, "feed_forward_proj", "relu", "gated-gelu")
    n_layers = need(config, "num_layers")
    start_id = config.get("decoder_start_token_id")
    return T5Config(
        vocab_size=need(config, "vocab_size"),
        max_seq_len=config.get("n_positions") or 512,
        n_layers=n_layers,
        n_decoder_layers=config.get("num_decoder_layers") or n_layers,
        n_heads=need(config, "num_heads"),
        d_model=need(config, "d_model"),
        d_head=need(config, "d_kv"),
        d_ff=need(config, "d_ff"),
        gated=config.get("feed_forward_proj", "relu") == "gated-gelu",
        n_buckets=config.get("relative_attention_num_buckets", 32),
        max_distance=config.get("relative_attention_max_distance", 128),
        dropout=config.get("dropout_rate", 0.1),
        norm_eps=config.get("layer_norm_epsilon", 1e-6),
        # Version 5 of transformers writes that all are tied, and keeps what the file had said under another name.
        tie_embeddings=config.get("scale_decoder_outputs", config.get("tie_word_embeddings", True)),
        start_id=start_id if start_id is not None else config.get("pad_token_id") or 0,
    )


def rows_of_side(theirs: str, ours: str, n_parts: int) -> list[Row]:
    """What encoder and decoder blocks have in common. n_parts: attention layers of a block, before its feed-forward."""
    attention, ffn = f"{theirs}.block.{{}}.layer.0", f"{theirs}.block.{{}}.layer.{n_parts}"
    block = f"{ours}blocks.{{}}"
    return [
        *(Row(f"{attention}.SelfAttention.{part}.weight", (f"{block}.attn.{part}_proj.weight",)) for part in "qkvo"),
        Row(f"{attention}.SelfAttention.relative_attention_bias.weight", (f"{block}.attn.position_bias.weight",)),
        Row(f"{attention}.layer_norm.weight", (f"{block}.norm1.weight",)),
        Row(f"{ffn}.DenseReluDense.wi.weight", (f"{block}.ffn.mlp.up_proj.weight",)),
        Row(f"{ffn}.DenseReluDense.wi_0.weight", (f"{block}.ffn.gate_proj.weight",)),
        Row(f"{ffn}.DenseReluDense.wi_1.weight", (f"{block}.ffn.up_proj.weight",)),
        Row(f"{ffn}.DenseReluDense.wo.weight", (f"{block}.ffn.mlp.down_proj.weight",)),
        Row(f"{ffn}.DenseReluDense.wo.weight", (f"{block}.ffn.down_proj.weight",)),
        Row(f"{ffn}.layer_norm.weight", (f"{block}.norm2.weight",)),
        Row(f"{theirs}.final_layer_norm.weight", (f"{ours}norm.weight",)),
    ]


CROSS = "decoder.block.{}.layer.1"

HUGGING_FACE = HuggingFace(
    model_type="t5",
    class_name="T5ForConditionalGeneration",
    rows=[
        Row("shared.weight", ("encoder.embed.weight",)),
        Row("decoder.embed_tokens.weight", ("embed.weight",)),
        Row("lm_head.weight", ("lm_head.weight",)),
        *rows_of_side("encoder", "encoder.", 1),
        *rows_of_side("decoder", "", 2),
        *(
            Row(f"{CROSS}.EncDecAttention.{part}.weight", (f"blocks.{{}}.cross_attn.{part}_proj.weight",))
            for part in "qkvo"
        ),
        Row(f"{CROSS}.layer_norm.weight", ("blocks.{}.cross_norm.weight",)),
    ],
    config_to_hf=config_to_hf,
    config_from_hf=config_from_hf,
    leftovers=(
        "encoder.embed_tokens.weight",
        "decoder.block.{}.layer.{}.EncDecAttention.relative_attention_bias.weight",  # old files; it was never used
    ),
)
