"""`legollm merge`: an adapter and the model it belongs to -> one model, as a folder like any other."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from legollm.checkpoints.convert import copy_tokenizer, special_ids
from legollm.checkpoints.huggingface import load_hf_folder, save_hf_folder
from legollm.checkpoints.loading import load, text_folder
from legollm.checkpoints.manifest import atomic_folder
from legollm.checkpoints.receipt import probe, write_receipt
from legollm.commands.quantize import arguments
from legollm.config import Resolved
from legollm.data.chat import end_of_turn
from legollm.errors import ConfigError
from legollm.transforms.lora import dissolve


@dataclass(frozen=True, kw_only=True)
class MergeRun:
    """Which adapter, and where to."""

    POSITIONAL: ClassVar[tuple[str, ...]] = ("adapter", "out")

    adapter: Path
    """A folder or run of adapters, ours or PEFT's."""
    out: Path
    """The folder to write; it must not exist."""
    base: Path | None = None
    """The model it belongs to, if that is no longer where it was."""


def merge_folder(run: Resolved[MergeRun]) -> None:
    """Write a model whose weights are those of a base with an adapter in them, and receipt.json with the proof.

    legollm merge runs/talk out=merged/talk
    """
    cfg = run.value
    if cfg.out.exists():
        raise ConfigError(f"out: {cfg.out} exists already; remove it, or choose another folder")
    lm = load(cfg.adapter, base=cfg.base, merged=False)
    if lm.base is None:
        raise ConfigError(f"adapter: {lm.folder} is a whole model already; give a folder with adapter_config.json")
    tokens = probe(lm.config.vocab_size, lm.config.max_seq_len)
    with torch.inference_mode():
        before = lm.model(*arguments(lm, tokens)).float()
    dissolve(lm.model, quantized=True)
    ids = special_ids(lm.base)
    if lm.chat_template:
        ids["eos_token_id"] = end_of_turn(lm.text_side(), lm.chat_template)
    with atomic_folder(cfg.out) as folder:
        save_hf_folder(folder, lm.arch, lm.config, lm.model, special_ids=ids)
        copy_tokenizer(text_folder(lm.folder, lm.base), folder)
        again = load_hf_folder(folder)[2].eval()
        with torch.inference_mode():
            after = again(*arguments(lm, tokens)).float()
        receipt = write_receipt(folder, lm.folder, before, after, tokens, format="merged", base=str(lm.base))
    print(f"{cfg.out}: logits differ by at most {receipt.max_difference:.3g} (largest {receipt.max_logit:.3g})")
