"""A model from one folder to another, in another dtype if asked for: piece by piece, whatever its size."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from legollm.architectures import architecture
from legollm.checkpoints import huggingface
from legollm.checkpoints.huggingface import CONFIG, GENERATION, Stored, open_hf_folder, write_config, write_json
from legollm.checkpoints.manifest import atomic_folder
from legollm.checkpoints.reader import DTYPES, inside, read_json
from legollm.checkpoints.receipt import Receipt, logits_from_disk, probe, write_receipt
from legollm.checkpoints.shards import Shape, write_shards
from legollm.errors import CheckpointError
from legollm.interfaces import Tokenizer
from legollm.tokenizers import load_tokenizer

VOCABULARIES = ("tokenizer.json", "vocab.json", "merges.txt", "vocab.txt", "encoder.json", "vocab.bpe")
TOKENIZER = (*VOCABULARIES, "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def convert(source: Path, target: Path, *, dtype: torch.dtype | None = None, tokenizer: bool = True) -> Receipt:
    """Write the model of a folder as a folder of its own: config.json, safetensors, tokenizer, receipt, manifest.

    dtype: of the weights; None keeps each as it is. tokenizer: whether its files come along.

    Raises:
        CheckpointError: a source that is no model, or does not fit itself; a target that exists; numbers too large
            for the dtype.
        TokenizerError: a tokenizer that cannot be read.
    """
    arch, cfg, _, stored = open_hf_folder(source)
    if dtype and architecture(arch).learns == "counts":
        raise CheckpointError(f"{source}: {arch} models hold counts, exact in float64 only; give dtype=stored")
    if tokenizer:
        fitting_tokenizer(source, cfg.vocab_size)
    stored_in = {name: DTYPES[stored.entry(name).dtype] for name in stored.shapes}
    shapes = {name: Shape(dtype or stored_in[name], shape) for name, shape in stored.shapes.items()}
    heaviest = max(shapes.values(), key=lambda one: one.n_bytes)
    with atomic_folder(target) as folder:
        write_config(folder, arch, cfg, heaviest.dtype, special_ids(source))
        if inside(source, GENERATION).exists():
            write_json(folder / GENERATION, read_json(source / GENERATION))
        write_shards(
            folder,
            shapes,
            lambda name: pieces(stored, name, shapes[name].dtype),
            max_bytes=huggingface.MAX_SHARD_BYTES,
        )
        if tokenizer:
            copy_tokenizer(source, folder)
        tokens = probe(cfg.vocab_size, cfg.max_seq_len)
        before = logits_from_disk(arch, cfg, stored.read, tokens)
        after = logits_from_disk(arch, cfg, open_hf_folder(folder).stored.read, tokens)
        name = str(dtype or "as stored").removeprefix("torch.")
        return write_receipt(folder, source, before, after, tokens, format="hf", dtype=name)


def pieces(stored: Stored, name: str, dtype: torch.dtype) -> Iterator[Tensor]:
    """A tensor by its canonical name, in another dtype, some rows at a time.

    Raises:
        CheckpointError: a number that is not finite, or not in that dtype.
    """
    for piece in stored.shards.pieces(stored.names[name], dtype):
        yield finite(piece, name)


def finite(piece: Tensor, name: str) -> Tensor:
    """The piece itself.

    Raises:
        CheckpointError: it holds what is no number.
    """
    if not bool(torch.isfinite(piece).all()):
        kind = str(piece.dtype).removeprefix("torch.")
        raise CheckpointError(f"{name}: holds numbers that are not finite in {kind}; use bfloat16 or float32")
    return piece


def special_ids(source: Path) -> dict[str, Any]:
    """The ids of control tokens that a folder's config.json names."""
    config = read_json(source / CONFIG)
    return {key: config[key] for key in IDS if config.get(key) is not None}


def fitting_tokenizer(source: Path, vocab_size: int) -> Tokenizer | None:
    """The tokenizer of a folder, if it has one, with no more ids than its model.

    Raises:
        CheckpointError: a link out of the folder, or more ids than the model has.
        TokenizerError: it cannot be read.
    """
    there = {name for name in TOKENIZER if inside(source, name).exists()}
    if not there.intersection(VOCABULARIES):
        return None
    found = load_tokenizer(source)
    if found.vocab_size > vocab_size:
        raise CheckpointError(
            f"{source}: the tokenizer has {found.vocab_size} ids and the model rows for {vocab_size}; put the "
            "tokenizer beside it that it was trained with, or give tokenizer=false"
        )
    return found


def copy_tokenizer(source: Path, folder: Path) -> None:
    for name in TOKENIZER:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
