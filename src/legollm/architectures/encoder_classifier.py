"""An encoder that labels texts, as BERT does (Devlin et al. 2018, arXiv:1810.04805): it reads in both directions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from legollm.architectures.checks import check_divides, check_dropout, check_positive
from legollm.architectures.hf_keys import accept, labels_from_hf, labels_to_hf, need
from legollm.architectures.weight_map import HuggingFace, Row
from legollm.components.attention import Attention
from legollm.components.blocks import PostNormBlock
from legollm.components.encoder import Encoder, EncoderClassifier, SegmentedEmbedding
from legollm.components.feedforward import MLP, gelu
from legollm.components.init import init_weights
from legollm.components.norm import LayerNorm
from legollm.components.positions import LearnedPositionEmbedding, NoPositions, TokenEmbedding
from legollm.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class EncoderClassifierConfig:
    """The sizes of a BERT with a head for labels; the defaults make a small one that trains in minutes."""

    arch: Literal["encoder_classifier"] = "encoder_classifier"
    """Which architecture this is."""
    vocab_size: int = 30_522
    """Token ids."""
    labels: tuple[str, ...] = ("0", "1")
    """What a text can be, in the order of the logits; with a single one the output is a number."""
    max_seq_len: int = 256
    """Tokens it can look at; there are no positions beyond."""
    n_layers: int = 2
    """Blocks."""
    n_heads: int = 4
    """Attention heads per block; a divisor of d_model."""
    d_model: int = 128
    """Width of the residual stream."""
    d_ff: int = 512
    """Width inside the feed-forward."""
    n_segments: int = 2
    """Rows of the segment table; a text on its own is segment 0."""
    dropout: float = 0.0
    """Share of numbers set to zero in training: of the embeddings, of attention, of what each half of a block adds."""
    norm_eps: float = 1e-12
    """Added to variances before the square root."""

    def __post_init__(self) -> None:
        check_positive(self, "vocab_size", "max_seq_len", "n_layers", "n_heads", "d_model", "d_ff", "n_segments")
        check_divides(self, "n_heads", "d_model")
        check_dropout(self)
        if not self.labels or len(set(self.labels)) < len(self.labels):
            raise ConfigError(f"labels: expected one or more different names, found {list(self.labels)}")

    @property
    def d_head(self) -> int:
        """Width of a head."""
        return self.d_model // self.n_heads


PRESETS = {
    "bert-base": EncoderClassifierConfig(max_seq_len=512, n_layers=12, n_heads=12, d_model=768, d_ff=3072, dropout=0.1),
    "bert-large": EncoderClassifierConfig(
        max_seq_len=512, n_layers=24, n_heads=16, d_model=1024, d_ff=4096, dropout=0.1
    ),
}


def encoder_classifier(cfg: EncoderClassifierConfig, seed: int = 0) -> EncoderClassifier:
    """An encoder and a head with freshly drawn weights."""

    def norm() -> LayerNorm:
        return LayerNorm(cfg.d_model, eps=cfg.norm_eps)

    def block() -> PostNormBlock:
        return PostNormBlock(
            attn=Attention(
                cfg.d_model,
                n_heads=cfg.n_heads,
                n_kv_heads=cfg.n_heads,
                d_head=cfg.d_head,
                rope=NoPositions(),  # they are in the embedding
                bias=True,
                dropout=cfg.dropout,
            ),
            norm1=norm(),
            ffn=MLP(cfg.d_model, cfg.d_ff, activation=gelu),
            norm2=norm(),
            dropout=cfg.dropout,
        )

    embed = SegmentedEmbedding(
        tokens=TokenEmbedding(cfg.vocab_size, cfg.d_model),
        positions=LearnedPositionEmbedding(cfg.max_seq_len, cfg.d_model),
        n_segments=cfg.n_segments,
        norm=norm(),
        d_model=cfg.d_model,
        dropout=cfg.dropout,
    )
    model = EncoderClassifier(
        encoder=Encoder(embed=embed, blocks=[block() for _ in range(cfg.n_layers)], norm=nn.Identity()),
        pooler=nn.Linear(cfg.d_model, cfg.d_model),
        head=nn.Linear(cfg.d_model, len(cfg.labels)),
        dropout=cfg.dropout,
    )
    init_weights(model, torch.Generator().manual_seed(seed))
    return model


def config_to_hf(cfg: EncoderClassifierConfig) -> dict[str, Any]:
    """The keys of a BertConfig in config.json."""
    return {
        "vocab_size": cfg.vocab_size,
        **labels_to_hf(cfg.labels),
        "max_position_embeddings": cfg.max_seq_len,
        "num_hidden_layers": cfg.n_layers,
        "num_attention_heads": cfg.n_heads,
        "hidden_size": cfg.d_model,
        "intermediate_size": cfg.d_ff,
        "type_vocab_size": cfg.n_segments,
        "hidden_act": "gelu",
        "hidden_dropout_prob": cfg.dropout,
        "attention_probs_dropout_prob": cfg.dropout,
        "classifier_dropout": None,
        "layer_norm_eps": cfg.norm_eps,
        "pad_token_id": None,
    }


def config_from_hf(config: Mapping[str, Any]) -> EncoderClassifierConfig:
    """The inverse; absent keys mean what they mean in transformers.

    Raises:
        CheckpointError: it computes something else than a BERT with one label per text does.
    """
    dropout = config.get("hidden_dropout_prob", 0.1)
    accept(config, "hidden_act", "gelu")
    accept(config, "attention_probs_dropout_prob", dropout, 0.1)
    accept(config, "classifier_dropout", None, dropout)
    accept(config, "position_embedding_type", "absolute", None)
    accept(config, "problem_type", None, "single_label_classification", "regression")
    accept(config, "is_decoder", False)
    return EncoderClassifierConfig(
        vocab_size=need(config, "vocab_size"),
        labels=labels_from_hf(config),
        max_seq_len=need(config, "max_position_embeddings"),
        n_layers=need(config, "num_hidden_layers"),
        n_heads=need(config, "num_attention_heads"),
        d_model=need(config, "hidden_size"),
        d_ff=need(config, "intermediate_size"),
        n_segments=config.get("type_vocab_size", 2),
        dropout=dropout,
        norm_eps=config.get("layer_norm_eps", 1e-12),
    )


def rows_of_layer(kind: Literal["weight", "bias"]) -> list[Row]:
    """The matrices, or the vectors, of one block."""
    ours, theirs = "encoder.blocks.{}", "bert.encoder.layer.{}"
    names = {"q": "self.query", "k": "self.key", "v": "self.value", "o": "output.dense"}
    return [
        *(
            Row(f"{theirs}.attention.{name}.{kind}", (f"{ours}.attn.{part}_proj.{kind}",))
            for part, name in names.items()
        ),
        Row(f"{theirs}.attention.output.LayerNorm.{kind}", (f"{ours}.norm1.{kind}",)),
        Row(f"{theirs}.intermediate.dense.{kind}", (f"{ours}.ffn.up_proj.{kind}",)),
        Row(f"{theirs}.output.dense.{kind}", (f"{ours}.ffn.down_proj.{kind}",)),
        Row(f"{theirs}.output.LayerNorm.{kind}", (f"{ours}.norm2.{kind}",)),
        Row(f"bert.embeddings.LayerNorm.{kind}", (f"encoder.embed.norm.{kind}",)),
        Row(f"bert.pooler.dense.{kind}", (f"pooler.{kind}",)),
        Row(f"classifier.{kind}", (f"head.{kind}",)),
    ]


HUGGING_FACE = HuggingFace(
    model_type="bert",
    class_name="BertForSequenceClassification",
    rows=[
        Row("bert.embeddings.word_embeddings.weight", ("encoder.embed.tokens.weight",)),
        Row("bert.embeddings.position_embeddings.weight", ("encoder.embed.positions.weight",)),
        Row("bert.embeddings.token_type_embeddings.weight", ("encoder.embed.segments",)),
        *rows_of_layer("weight"),
        *rows_of_layer("bias"),
    ],
    config_to_hf=config_to_hf,
    config_from_hf=config_from_hf,
    leftovers=("bert.embeddings.position_ids",),
)
