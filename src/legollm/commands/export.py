"""`legollm export`: a model of ours -> a folder for other programs."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch

from legollm.checkpoints.convert import convert
from legollm.checkpoints.gguf_models import export_gguf
from legollm.checkpoints.loading import resolve_folder
from legollm.checkpoints.manifest import MANIFEST, verify
from legollm.config import Resolved
from legollm.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ExportRun:
    """What to export, and as what."""

    POSITIONAL: ClassVar[tuple[str, ...]] = ("model", "target")

    model: Path
    """A checkpoint or run folder, or a Hugging Face folder."""
    target: Path
    """The folder to write; it must not exist."""
    format: Literal["hf", "gguf"] = "hf"
    """hf: config.json and safetensors, for transformers and what reads its folders; gguf: one file, model.gguf."""
    dtype: Literal["stored", "float32", "bfloat16", "float16", "q8_0"] = "stored"
    """Of the weights; stored keeps what they have. q8_0, for gguf only: 8 bits, and 16 for a block of 32."""
    tokenizer: bool = True
    """Whether the tokenizer comes along."""


def export(run: Resolved[ExportRun]) -> None:
    """Write a model as a folder that other programs open, and receipt.json with the proof.

    legollm export runs/book exported/book dtype=bfloat16
    """
    cfg = run.value
    if cfg.dtype == "q8_0" and cfg.format != "gguf":
        raise ConfigError("dtype: q8_0 is a format of GGUF; give format=gguf, or dtype=bfloat16")
    source = resolve_folder(cfg.model)
    if (source / MANIFEST).exists():
        verify(source)
    encoding = None if cfg.dtype == "stored" else cfg.dtype
    if cfg.format == "gguf":
        receipt = export_gguf(source, cfg.target, encoding=encoding, tokenizer=cfg.tokenizer)
    else:
        dtype = getattr(torch, encoding) if encoding else None
        receipt = convert(source, cfg.target, dtype=dtype, tokenizer=cfg.tokenizer)
    print(f"{cfg.target}: logits differ by at most {receipt.max_difference:.3g} (largest {receipt.max_logit:.3g})")
