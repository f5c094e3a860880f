"""GPT-2 (Radford et al. 2019): LayerNorm first, learned positions, multi-head attention, GELU, biases, tied head."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import nn

from legollm.architectures.checks import check_divides, check_dropout, check_positive
from legollm.architectures.hf_keys import accept, need
from legollm.architectures.weight_map import HuggingFace, Row
from legollm.components.attention import Attention
from legollm.components.blocks import PreNormBlock
from legollm.components.decoder import Decoder
from legollm.components.feedforward import MLP, gelu_tanh
from legollm.components.init import init_weights
from legollm.components.norm import LayerNorm
from legollm.components.positions import (
    LearnedPositionEmbedding,
    NoPositions,
    TokenAndPositionEmbedding,
    TokenEmbedding,
)


@dataclass(frozen=True, kw_only=True)
class GPT2Config:
    """The sizes of a GPT-2; the defaults make a small one that trains in minutes."""

    arch: Literal["gpt2"] = "gpt2"
    """Which architecture this is."""
    vocab_size: int = 50_257
    """Token ids."""
    max_seq_len: int = 256
    """Tokens it can look at; there are no positions beyond."""
    n_layers: int = 4
    """Blocks."""
    n_heads: int = 4
    """Attention heads per block; a divisor of d_model."""
    d_model: int = 128
    """Width of the residual stream; the feed-forward is four times as wide."""
    dropout: float = 0.0
    """Share of numbers set to zero in training: of the embeddings, of attention, of what each half of a block adds."""
    norm_eps: float = 1e-5
    """Added to variances before the square root."""
    tie_embeddings: bool = True
    """Whether the head shares its weights with the token embedding."""

    def __post_init__(self) -> None:
        check_positive(self, "vocab_size", "max_seq_len", "n_layers", "n_heads", "d_model")
        check_divides(self, "n_heads", "d_model")
        check_dropout(self)

    @property
    def d_head(self) -> int:
        """Width of a head."""
        return self.d_model // self.n_heads


GPT2_SMALL = GPT2Config(max_seq_len=1024, n_layers=12, n_heads=12, d_model=768)
GPT3_SMALL = replace(GPT2_SMALL, max_seq_len=2048)

# GPT-3 is GPT-2 with a longer context (Brown et al. 2020, arXiv:2005.14165, table 2.1; every second layer of theirs
# sees a band of tokens only, which changes no weight). Where that table is at odds with itself, d_model = n_heads *
# d_head decides: 16 heads, not 24, for 1.3 B, and a width of 5120, not 5140, for 13 B.
PRESETS = {
    "gpt2": GPT2_SMALL,
    "gpt2-medium": replace(GPT2_SMALL, n_layers=24, n_heads=16, d_model=1024),
    "gpt2-large": replace(GPT2_SMALL, n_layers=36, n_heads=20, d_model=1280),
    "gpt2-xl": replace(GPT2_SMALL, n_layers=48, n_heads=25, d_model=1600),
    "gpt3-125m": GPT3_SMALL,
    "gpt3-350m": replace(GPT3_SMALL, n_layers=24, n_heads=16, d_model=1024),
    "gpt3-760m": replace(GPT3_SMALL, n_layers=24, n_heads=16, d_model=1536),
    "gpt3-1.3b": replace(GPT3_SMALL, n_layers=24, n_heads=16, d_model=2048),
    "gpt3-2.7b": replace(GPT3_SMALL, n_layers=32, n_heads=32, d_model=2560),
    "gpt3-6.7b": replace(GPT3_SMALL, n_layers=32, n_heads=32, d_model=4096),
    "gpt3-13b": replace(GPT3_SMALL, n_layers=40, n_heads=40, d_model=5120),
    "gpt3-175b": replace(GPT3_SMALL, n_layers=96, n_heads=96, d_model=12_288),
}


def gpt2(cfg: GPT2Config, seed: int = 0) -> Decoder:
    """A GPT-2 with freshly drawn weights."""

    def block() -> PreNormBlock:
        return PreNormBlock(
            norm1=LayerNorm(cfg.d_model, eps=cfg.norm_eps),
            attn=Attention(
                cfg.d_model,
                n_heads=cfg.n_heads,
                n_kv_heads=cfg.n_heads,
                d_head=cfg.d_head,
                rope=NoPositions(),  # they are in the embedding
                bias=True,
                dropout=cfg.dropout,
            ),
            norm2=LayerNorm(cfg.d_model, eps=cfg.norm_eps),
            ffn=MLP(cfg.d_model, 4 * cfg.d_model, activation=gelu_tanh),
            dropout=cfg.dropout,
        )

    tokens = TokenEmbedding(cfg.vocab_size, cfg.d_model)
    lm_head = nn.Linear(cfg.d_model, cfg.vocab_size, bias=False)
    if cfg.tie_embeddings:
        lm_head.weight = tokens.weight
    model = Decoder(
        embed=TokenAndPositionEmbedding(
            tokens=tokens,
            positions=LearnedPositionEmbedding(cfg.max_seq_len, cfg.d_model),
            dropout=cfg.dropout,
        ),
        blocks=[block() for _ in range(cfg.n_layers)],
        norm=LayerNorm(cfg.d_model, eps=cfg.norm_eps),
        lm_head=lm_head,
        max_seq_len=cfg.max_seq_len,
    )
    init_weights(model, torch.Generator().manual_seed(seed))
    return model


def config_to_hf(cfg: GPT2Config) -> dict[str, Any]:
    """The keys of a GPT2Config in config.json."""
    return {
        "vocab_size": cfg.vocab_size,
        "n_positions": cfg.max_seq_len,
        "n_layer": cfg.n_layers,
        "n_head": cfg.n_heads,
        "n_embd": cfg.d_model,
        "n_inner": None,
        "activation_function": "gelu_new",
        "embd_pdrop": cfg.dropout,
        "attn_pdrop": cfg.dropout,
        "resid_pdrop": cfg.dropout,
        "layer_norm_epsilon": cfg.norm_eps,
        "tie_word_embeddings": cfg.tie_embeddings,
    }


def config_from_hf(config: Mapping[str, Any]) -> GPT2Config:
    """The inverse; absent keys mean what they mean in transformers.

    Raises:
        CheckpointError: it computes something else than GPT-2 does.
    """
    width = need(config, "n_embd")
    accept(config, "activation_function", "gelu_new", "gelu_pytorch_tanh")
    accept(config, "n_inner", None, 4 * width)
    accept(config, "scale_attn_weights", True)
    accept(config, "scale_attn_by_inverse_layer_idx", False)
    accept(config, "add_cross_attention", False)
    dropout = config.get("resid_pdrop", 0.1)
    accept(config, "embd_pdrop", dropout)
    accept(config, "attn_pdrop", dropout)
    return GPT2Config(
        vocab_size=need(config, "vocab_size"),
        max_seq_len=need(config, "n_positions"),
        n_layers=need(config, "n_layer"),
        n_heads=need(config, "n_head"),
        d_model=width,
        dropout=dropout,
        norm_eps=config.get("layer_norm_epsilon", 1e-5),
        tie_embeddings=config.get("tie_word_embeddings", True),
    )


def rows_of_layer(kind: Literal["weight", "bias"]) -> list[Row]:
    """Weights are stored as (inputs, outputs), and the three projections of attention as one tensor."""
    ours, theirs, flip = "blocks.{}", "transformer.h.{}", kind == "weight"
    return [
        Row(f"{theirs}.ln_1.{kind}", (f"{ours}.norm1.{kind}",)),
        Row(f"{theirs}.attn.c_attn.{kind}", tuple(f"{ours}.attn.{part}_proj.{kind}" for part in "qkv"), flip),
        Row(f"{theirs}.attn.c_proj.{kind}", (f"{ours}.attn.o_proj.{kind}",), flip),
        Row(f"{theirs}.ln_2.{kind}", (f"{ours}.norm2.{kind}",)),
        Row(f"{theirs}.mlp.c_fc.{kind}", (f"{ours}.ffn.up_proj.{kind}",), flip),
        Row(f"{theirs}.mlp.c_proj.{kind}", (f"{ours}.ffn.down_proj.{kind}",), flip),
    ]


HUGGING_FACE = HuggingFace(
    model_type="gpt2",
    class_name="GPT2LMHeadModel",
    rows=[
        Row("transformer.wte.weight", ("embed.tokens.weight",)),
        Row("transformer.wpe.weight", ("embed.positions.weight",)),
        *rows_of_layer("weight"),
        *rows_of_layer("bias"),
        Row("transformer.ln_f.weight", ("norm.weight",)),
        Row("transformer.ln_f.bias", ("norm.bias",)),
        Row("lm_head.weight", ("lm_head.weight",)),
    ],
    config_to_hf=config_to_hf,
    config_from_hf=config_from_hf,
    base="transformer.",
    leftovers=("transformer.h.{}.attn.bias", "transformer.h.{}.attn.masked_bias"),
)
