"""`legollm import`: a model from elsewhere -> a checkpoint folder that every other verb takes."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch

from legollm.checkpoints.adapter import refuse_adapter
from legollm.checkpoints.convert import convert
from legollm.config import Resolved

Dtype = Literal["stored", "float32", "bfloat16", "float16"]


@dataclass(frozen=True, kw_only=True)
class ImportRun:
    """A folder of weights, and where to put them."""

    POSITIONAL: ClassVar[tuple[str, ...]] = ("source", "target")

    source: Path
    """A Hugging Face folder: config.json, and safetensors in one file or in shards with an index."""
    target: Path
    """The checkpoint folder to write; it must not exist."""
    dtype: Dtype = "stored"
    """Of the weights: stored keeps what each tensor has."""
    tokenizer: bool = True
    """Whether the tokenizer's files come along; false for one that legollm cannot read."""


def import_folder(run: Resolved[ImportRun]) -> None:
    """Check a Hugging Face folder to the last byte and write it as a checkpoint, under manifest and receipt.

    legollm import downloads/Qwen3-0.6B runs/qwen dtype=bfloat16
    """
    cfg = run.value
    refuse_adapter(cfg.source)
    dtype = None if cfg.dtype == "stored" else getattr(torch, cfg.dtype)
    receipt = convert(cfg.source, cfg.target, dtype=dtype, tokenizer=cfg.tokenizer)
    print(f"{cfg.target}: logits differ by at most {receipt.max_difference:.3g} (largest {receipt.max_logit:.3g})")
