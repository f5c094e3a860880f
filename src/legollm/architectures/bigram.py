"""The bigram model (Shannon 1948): the next token depends on the current one and nothing else."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import nn

from legollm.architectures.checks import check_positive
from legollm.architectures.weight_map import HuggingFace, Row
from legollm.components.decoder import Decoder
from legollm.components.init import init_weights
from legollm.components.positions import TokenEmbedding
from legollm.errors import CheckpointError


@dataclass(frozen=True, kw_only=True)
class BigramConfig:
    """A table of vocab_size x vocab_size numbers."""

    arch: Literal["bigram"] = "bigram"
    """Which architecture this is."""
    vocab_size: int = 256
    """Token ids; the model has their square in parameters, so characters or bytes suit it best."""
    max_seq_len: int = 256
    """Tokens per training sequence; the model itself never looks back."""

    def __post_init__(self) -> None:
        check_positive(self, "vocab_size", "max_seq_len")


PRESETS: Mapping[str, BigramConfig] = {}


def bigram(cfg: BigramConfig, seed: int = 0) -> Decoder:
    """A decoder without blocks whose embedding of a token is the logits of the next one.

    Trained to the end, row t of the table is, up to a constant, the logarithm of how often each token followed t.
    """
    model = Decoder(
        embed=TokenEmbedding(cfg.vocab_size, cfg.vocab_size),
        blocks=[],
        norm=nn.Identity(),
        lm_head=nn.Identity(),
    )
    init_weights(model, torch.Generator().manual_seed(seed))
    return model


def config_from_hf(config: Mapping[str, Any]) -> BigramConfig:
    """The configuration this package wrote: the model has no class elsewhere."""
    names = set(BigramConfig.__dataclass_fields__) - {"arch"}
    if missing := names - config.keys():
        raise CheckpointError(f"config.json: {', '.join(sorted(missing))} is missing; bigram models need it")
    return BigramConfig(**{name: config[name] for name in names})


HUGGING_FACE = HuggingFace(
    model_type="legollm_bigram",
    class_name="Bigram",
    rows=[Row("embed.weight", ("embed.weight",))],
    config_to_hf=lambda cfg: {key: value for key, value in asdict(cfg).items() if key != "arch"},
    config_from_hf=config_from_hf,
)
