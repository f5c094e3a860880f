"""A decoder that gives a few numbers in place of words: labels of a text, a reward, a value at each token.

The head over the vocabulary makes way for a linear map to n outputs; everything else, and with it every cache, mask
and transform, is the decoder's. On disk it is what transformers calls XForSequenceClassification.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from legollm.architectures.hf_keys import accept, labels_from_hf, labels_to_hf
from legollm.architectures.weight_map import HuggingFace, Row
from legollm.components.decoder import Decoder
from legollm.device import generator
from legollm.errors import ConfigError

SUFFIX = "+score"
"""What the name of a decoder with such a head ends with: llama3+score."""
CLASS = "ForSequenceClassification"
REWARD = ("reward",)
"""The one output of a model that says how good an answer is."""


@dataclass(frozen=True, kw_only=True)
class ScoredConfig:
    """A decoder's configuration, and what its outputs mean."""

    base: Any
    """The configuration of the decoder."""
    labels: tuple[str, ...] = REWARD
    """A name for each output."""
    pad_id: int | None = None
    """An id that no text ends with: other programs find the last token of a padded row by it. None: one row at once."""
    per_token: bool = False
    """Whether the outputs are of every token, such as tags of words, and not of a whole text."""

    def __post_init__(self) -> None:
        if not self.labels or len(set(self.labels)) < len(self.labels):
            raise ConfigError(f"labels: expected one or more different names, found {list(self.labels)}")

    @property
    def arch(self) -> str:
        return f"{self.base.arch}{SUFFIX}"

    @property
    def vocab_size(self) -> int:
        return int(self.base.vocab_size)

    @property
    def max_seq_len(self) -> int:
        return int(self.base.max_seq_len)


def with_scores(model: Decoder, n_outputs: int, seed: int = 0) -> Decoder:
    """The same model with a fresh map to n outputs for its head; its other weights stay as they are.

    Its outputs at every position are `model(tokens)`, (B, T, n), those of whole rows `last_scores`.

    Raises:
        ConfigError: a model whose head is no matrix.
    """
    head = model.lm_head
    if not isinstance(head, nn.Linear):
        raise ConfigError("a model without states before its head cannot score; take one with layers")
    score = nn.Linear(head.in_features, n_outputs, bias=False, device=head.weight.device, dtype=head.weight.dtype)
    if not score.weight.is_meta:
        drawn = torch.empty(score.weight.shape).normal_(std=0.02, generator=generator(seed, "score"))
        score.weight.data.copy_(drawn)
    model.lm_head = score
    return model


def last_scores(model: nn.Module, tokens: Tensor, lengths: Tensor) -> Tensor:
    """tokens: (B, T), padded on the right, lengths: (B,) -> the outputs at each row's last token, (B, n).

    Causal attention does not see what stands to the right, so the padding changes nothing.
    """
    columns = torch.arange(tokens.size(1), device=tokens.device)
    scores: Tensor = model(tokens, at=columns == lengths[:, None] - 1)
    return scores


def scored_hugging_face(base: HuggingFace) -> HuggingFace:
    """How transformers knows a decoder with such a head."""

    def config_to_hf(cfg: ScoredConfig) -> dict[str, Any]:
        return (
            base.config_to_hf(cfg.base)
            | labels_to_hf(cfg.labels)
            | {"pad_token_id": cfg.pad_id, "per_token": cfg.per_token}
        )

    def config_from_hf(config: Mapping[str, Any]) -> ScoredConfig:
        accept(config, "problem_type", None, "single_label_classification", "regression")
        return ScoredConfig(
            base=base.config_from_hf(config),
            labels=labels_from_hf(config),
            pad_id=config.get("pad_token_id"),
            per_token=config.get("per_token", False),
        )

    return replace(
        base,
        class_name=re.sub("ForCausalLM$|LMHeadModel$", "", base.class_name) + CLASS,
        rows=[
            *(row for row in base.rows if not row.ours[0].startswith("lm_head.")),
            Row("score.weight", ("lm_head.weight",)),
        ],
        config_to_hf=config_to_hf,
        config_from_hf=config_from_hf,
    )
