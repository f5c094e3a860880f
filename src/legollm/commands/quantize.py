"""`legollm quantize`: a checkpoint -> a folder with weights of 8 or 4 bits, for every verb that uses a model."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from legollm.checkpoints.convert import copy_tokenizer, special_ids
from legollm.checkpoints.huggingface import CONFIG, refuse_quantized
from legollm.checkpoints.loading import Loaded, load, resolve_folder
from legollm.checkpoints.manifest import atomic_folder
from legollm.checkpoints.quantized import load_quantized, save_quantized
from legollm.checkpoints.reader import read_json
from legollm.checkpoints.receipt import probe, write_receipt
from legollm.commands.evaluate import own_data
from legollm.components.encoder_decoder import EncoderDecoder
from legollm.config import Resolved
from legollm.data.loader import TokenFile
from legollm.data.prepare import PrepareOptions, prepare
from legollm.data.readers import SourceOptions
from legollm.data.sources import open_source
from legollm.errors import ConfigError, DataError
from legollm.transforms.quantize import QuantizeConfig, quantize


@dataclass(frozen=True, kw_only=True)
class QuantizeRun(QuantizeConfig):
    """A model, the folder to write, and how its weights are rounded."""

    POSITIONAL: ClassVar[tuple[str, ...]] = ("model", "target")

    model: Path
    """A checkpoint or run folder, or a Hugging Face folder."""
    target: Path
    """The folder to write; it must not exist."""
    calibration: str | None = None
    """gptq, awq: the text to look at, a corpus, file or folder as in data.source; null is what the run was trained on,
    or else the built-in corpus."""
    read: SourceOptions = field(default_factory=SourceOptions)
    samples: int = 128
    """gptq, awq: stretches of that text."""
    seq_len: int = 256
    """Tokens of a stretch, at most as many as the model was trained at."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("samples", "seq_len"):
            if (value := getattr(self, name)) < 1:
                raise ConfigError(f"{name}: must be at least 1, found {value}")


def quantize_folder(run: Resolved[QuantizeRun]) -> None:
    """Write a model with weights of 8 or 4 bits: smaller on the disk and in memory, and faster with engine=cpu.

    legollm quantize runs/demo quantised/demo precision=int4 method=gptq
    legollm generate quantised/demo "Mira put the key"
    """
    cfg = run.value
    if cfg.target.exists():
        raise ConfigError(f"target: {cfg.target} exists already; remove it, or choose another folder")
    lm = load(resolve_folder(cfg.model))
    refuse_quantized(lm.folder, read_json(lm.folder / CONFIG))
    model = lm.model
    tokens = probe(lm.config.vocab_size, lm.config.max_seq_len)
    with torch.inference_mode():
        before = model(*arguments(lm, tokens)).float()
    texts = [] if cfg.method == "rtn" else [arguments(lm, one) for one in stretches(cfg, lm)]
    wanted = QuantizeConfig(**{one.name: getattr(cfg, one.name) for one in fields(QuantizeConfig)})
    quantize(model, wanted, texts)
    with atomic_folder(cfg.target) as folder:
        save_quantized(folder, lm.arch, lm.config, model, wanted, special_ids(lm.folder))
        copy_tokenizer(lm.folder, folder)
        again = load_quantized(folder, wanted)[2].eval()
        with torch.inference_mode():
            after = again(*arguments(lm, tokens)).float()
        facts = {"format": "quantised", "dtype": cfg.precision, "method": cfg.method}
        receipt = write_receipt(folder, lm.folder, before, after, tokens, **facts)
    sizes = [sum(file.stat().st_size for file in one.glob("model*.safetensors")) for one in (lm.folder, cfg.target)]
    print(f"{cfg.target}: {sizes[1] / 1e6:,.1f} MB of weights instead of {sizes[0] / 1e6:,.1f}")
    print(f"logits differ by at most {receipt.max_difference:.3g} (largest {receipt.max_logit:.3g})")


def arguments(lm: Loaded, tokens: Tensor) -> tuple[Tensor, ...]:
    """What the model is called with to read tokens (1, T); source and target are the same text."""
    return (tokens, tokens) if isinstance(lm.model, EncoderDecoder) else (tokens,)


def stretches(cfg: QuantizeRun, lm: Loaded) -> list[Tensor]:
    """Stretches of the calibration text, evenly spread: (1, T) each.

    Raises:
        DataError: the text is too short for one, or was written by another tokenizer than the model's.
    """
    tokenizer = lm.text_side()
    own = own_data(lm.folder) if cfg.calibration is None else None
    with TemporaryDirectory() as temporary:
        folder = own or Path(temporary) / "data"
        if not own:
            options = PrepareOptions(split="tail", val_fraction=0.0)
            prepare(open_source(cfg.calibration or "world", cfg.read), tokenizer, folder, options=options)
        file = TokenFile(folder, "train")
        if file.meta["tokenizer"]["fingerprint"] != tokenizer.fingerprint:
            raise DataError(f"{folder}: written by another tokenizer than the model's; give calibration=TEXT")
        length = min(cfg.seq_len, lm.config.max_seq_len)
        n = min(cfg.samples, len(file) // length)
        if not n:
            raise DataError(f"calibration: {len(file)} tokens, and a stretch has {length}; give a longer text")
        starts = np.linspace(0, len(file) - length, n).astype(int)
        found = [torch.from_numpy(file.ids[start : start + length].astype(np.int64))[None] for start in starts]
        del file  # Windows cannot remove files that are mapped
    return found
