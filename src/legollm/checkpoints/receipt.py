"""What a conversion leaves behind: how far the logits moved when the result was read again, and what was read.

Both models compute straight from the disk, a module at a time, so that proving a conversion takes no more memory than
the conversion.
"""

import platform
from functools import partial, partialmethod
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from legollm import __version__
from legollm.architectures import architecture
from legollm.checkpoints.huggingface import tied_names
from legollm.checkpoints.manifest import canonical, sha256
from legollm.components.encoder_decoder import EncoderDecoder
from legollm.components.positions import TokenEmbedding
from legollm.device import without_memory
from legollm.errors import CheckpointError

RECEIPT = "receipt.json"
N_TOKENS = 16
PIECE = 1 << 20
"""Numbers of a matrix that are in memory at a time."""


class Reader(Protocol):
    """Some rows of a parameter, by its name."""

    def __call__(self, name: str, start: int = 0, stop: int | None = None) -> Tensor: ...


class Receipt(NamedTuple):
    """How far a conversion moved the logits, both computed in float32."""

    max_difference: float
    max_logit: float
    """The largest magnitude before, to compare with."""


def write_receipt(folder: Path, source: Path, before: Tensor, after: Tensor, tokens: Tensor, **facts: str) -> Receipt:
    """Compare the logits and write receipt.json beside the files of `folder`.

    facts: what was done, such as format and dtype.

    Raises:
        CheckpointError: the result computes numbers that are not finite.
    """
    if not bool(torch.isfinite(after).all()):
        raise CheckpointError(f"{folder}: the converted model computes numbers that are not finite; nothing is kept")
    difference, largest = float((before - after).abs().max()), float(before.abs().max())
    document = {
        **facts,
        "max_abs_logit_difference": difference,
        "max_abs_logit": largest,
        "tokens": tokens[0].tolist(),
        "source": hashes(source),
        "files": hashes(folder),
        "versions": {"legollm": __version__, "torch": torch.__version__, "python": platform.python_version()},
    }
    (folder / RECEIPT).write_text(canonical(document), encoding="utf-8")
    return Receipt(difference, largest)


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of the files that make up a model."""
    parts = (".safetensors", ".gguf", "config.json", "tokenizer.json")
    return {path.name: sha256(path) for path in sorted(folder.iterdir()) if path.name.endswith(parts)}


def probe(vocab_size: int, max_seq_len: int) -> Tensor:
    """The same few tokens for every model of a size: (1, T)."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(vocab_size, (1, min(N_TOKENS, max_seq_len)), generator=generator)


@torch.inference_mode()
def logits_from_disk(arch: str, cfg: Any, read: Reader, tokens: Tensor) -> Tensor:
    """What the model computes with the weights that `read` finds: (B, T) -> (B, T, V), in float32 at least.

    It is built without memory; whoever asks one of its modules for a parameter has it read at that moment. Of matrices
    that are multiplied or looked up, only some rows are there at a time.
    """
    with without_memory():
        model = architecture(arch).build(cfg).eval()
    tied = tied_names(model)
    for prefix, module in model.named_modules():
        own = {leaf: f"{prefix}.{leaf}".removeprefix(".") for leaf, _ in module.named_parameters(recurse=False)}
        names = {leaf: tied.get(name, name) for leaf, name in own.items()}
        if not names:
            continue
        kind = type(module)
        found: dict[str, Any] = {leaf: property(partial(fetch, name, read)) for leaf, name in names.items()}
        if kind is nn.Linear:
            found["forward"] = partialmethod(linear, names["weight"], read)
        elif isinstance(module, TokenEmbedding):
            found["weight"] = property(attrgetter("table"))
            module.register_forward_pre_hook(partial(look_up, names["weight"], read))
        module.__class__ = type(kind.__name__, (kind,), found)
    logits: Tensor = model(tokens, tokens) if isinstance(model, EncoderDecoder) else model(tokens)
    return logits


def fetch(name: str, read: Reader, module: nn.Module) -> Tensor:
    """A parameter, in place of the one without memory."""
    return wide(read(name))


def wide(numbers: Tensor) -> Tensor:
    """In float32 at least."""
    return numbers if numbers.dtype == torch.float64 else numbers.float()


def linear(module: nn.Linear, name: str, read: Reader, x: Tensor) -> Tensor:
    """A linear layer some outputs at a time; its result is made first, or it would lie between pieces of memory."""
    n_out, step = module.out_features, max(1, PIECE // module.in_features)
    y = x.new_empty(*x.shape[:-1], n_out)
    for start in range(0, n_out, step):
        stop = min(start + step, n_out)
        y[..., start:stop] = F.linear(x, wide(read(name, start, stop)))
    return y if module.bias is None else y + module.bias


def look_up(name: str, read: Reader, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Before an embedding runs: a table of the tokens that occur, and their places in it."""
    tokens, *others = args
    found, places = torch.unique(tokens, return_inverse=True)
    object.__setattr__(module, "table", wide(torch.cat([read(name, i, i + 1) for i in found.tolist()])))
    return (places, *others)
