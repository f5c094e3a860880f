"""The first neural language model (Bengio et al. 2003): vectors of the last few tokens side by side, then an MLP."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from legollm.architectures.checks import check_positive
from legollm.architectures.weight_map import HuggingFace, Row
from legollm.components.decoder import Decoder
from legollm.components.init import init_weights
from legollm.components.positions import TokenEmbedding
from legollm.errors import CheckpointError
from legollm.interfaces import LayerCache, Mask


@dataclass(frozen=True, kw_only=True)
class MlpLmConfig:
    """How many tokens it looks at, and its two widths."""

    arch: Literal["mlp_lm"] = "mlp_lm"
    """Which architecture this is."""
    vocab_size: int = 256
    """Token ids."""
    max_seq_len: int = 256
    """Tokens per training sequence; the model itself never looks back farther than its window."""
    window: int = 8
    """Tokens that decide the next one, the current one included."""
    d_model: int = 32
    """Width of a token's vector."""
    d_ff: int = 256
    """Width of the hidden layer."""

    def __post_init__(self) -> None:
        check_positive(self, "vocab_size", "max_seq_len", "window", "d_model", "d_ff")


PRESETS: Mapping[str, MlpLmConfig] = {}


class FixedWindow(nn.Module):
    """tanh of a linear map of the last `window` vectors; where a text is shorter than that, zeros stand for them."""

    def __init__(self, d_model: int, d_ff: int, *, window: int) -> None:
        super().__init__()
        self.window, self.kv_shape = window, (1, d_model)
        self.up_proj = nn.Linear(window * d_model, d_ff)

    def forward(self, x: Tensor, positions: Tensor, mask: Mask, cache: LayerCache | None = None) -> Tensor:
        """x: (B, T, D), positions: (T,) or (B, T) -> (B, T, d_ff). A cache keeps the vectors, once as keys."""
        n_new, seen = x.size(1), x
        if cache is not None:
            seen = cache.append(x[:, None], x[:, None])[0][:, 0]  # (B, S, D)
        seen = F.pad(seen, (0, 0, self.window, 0))
        last = seen.size(1)
        parts = []
        for back in range(self.window):  # the vectors that stand so many tokens before each new one
            part = seen[:, last - back - n_new : last - back]
            parts.append(torch.where((positions >= back).unsqueeze(-1), part, 0.0))
        hidden: Tensor = self.up_proj(torch.cat(parts, -1))
        return hidden.tanh()


class WindowBlock(nn.Module):
    """A block that is nothing but its window: no residual stream, no norms."""

    def __init__(self, attn: nn.Module) -> None:
        super().__init__()
        self.attn = attn

    def forward(self, x: Tensor, positions: Tensor, mask: Mask, cache: LayerCache | None = None) -> Tensor:
        """x: (B, T, D), positions: (T,) or (B, T) -> (B, T, d_ff)."""
        y: Tensor = self.attn(x, positions, mask, cache)
        return y


def mlp_lm(cfg: MlpLmConfig, seed: int = 0) -> Decoder:
    """Bengio's model, without the optional direct connections, with freshly drawn weights."""
    model = Decoder(
        embed=TokenEmbedding(cfg.vocab_size, cfg.d_model),
        blocks=[WindowBlock(FixedWindow(cfg.d_model, cfg.d_ff, window=cfg.window))],
        norm=nn.Identity(),
        lm_head=nn.Linear(cfg.d_ff, cfg.vocab_size),
    )
    init_weights(model, torch.Generator().manual_seed(seed))
    return model


def config_from_hf(config: Mapping[str, Any]) -> MlpLmConfig:
    """The configuration this package wrote: the model has no class elsewhere."""
    names = set(MlpLmConfig.__dataclass_fields__) - {"arch"}
    if missing := names - config.keys():
        raise CheckpointError(f"config.json: {', '.join(sorted(missing))} is missing; MLP language models need it")
    return MlpLmConfig(**{name: config[name] for name in names})


NAMES = ("embed.weight", "blocks.{}.attn.up_proj.weight", "blocks.{}.attn.up_proj.bias", "lm_head.weight")

HUGGING_FACE = HuggingFace(
    model_type="legollm_mlp_lm",
    class_name="MlpLm",
    rows=[Row(name, (name,)) for name in (*NAMES, "lm_head.bias")],
    config_to_hf=lambda cfg: {key: value for key, value in asdict(cfg).items() if key != "arch"},
    config_from_hf=config_from_hf,
)
