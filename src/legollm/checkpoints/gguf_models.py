"""Our models in a GGUF file: the keys and names that programs for it expect, and the way back for the receipt."""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from legollm.architectures.weight_map import Row, resolve_rows
from legollm.checkpoints.convert import fitting_tokenizer, special_ids
from legollm.checkpoints.gguf import ENCODINGS, Layout, Value, read_rows, write_gguf
from legollm.checkpoints.gguf_tokenizer import tokenizer_keys
from legollm.checkpoints.huggingface import Opened, Stored, open_hf_folder
from legollm.checkpoints.manifest import atomic_folder
from legollm.checkpoints.reader import DTYPES
from legollm.checkpoints.receipt import Receipt, logits_from_disk, probe, write_receipt
from legollm.checkpoints.shards import PIECE
from legollm.components.positions import RotaryEmbedding
from legollm.errors import CheckpointError

log = logging.getLogger(__name__)

FILE = "model.gguf"
FACTORS = "rope_freqs.weight"


@dataclass(frozen=True, kw_only=True)
class Kind:
    """An architecture as GGUF knows it."""

    name: str
    rows: list[Row]
    """Their tensors out of ours; matrices are (outputs, inputs) on both sides."""
    keys: Callable[[Any], dict[str, Value]]
    """Its metadata, without the prefix."""
    turns_pairs: bool = False
    """Whether rotary positions turn neighbouring channels there, not channels half a head apart as here."""


def block_rows(*names: tuple[str, str], kinds: tuple[str, ...] = ("weight",)) -> list[Row]:
    return [Row(f"blk.{{}}.{theirs}.{k}", (f"blocks.{{}}.{ours}.{k}",)) for theirs, ours in names for k in kinds]


BLOCK = [("attn_norm", "norm1"), ("attn_output", "attn.o_proj"), ("ffn_norm", "norm2")]
GATED = [*BLOCK, ("ffn_gate", "ffn.gate_proj"), ("ffn_up", "ffn.up_proj"), ("ffn_down", "ffn.down_proj")]
SEPARATE = [("attn_q", "attn.q_proj"), ("attn_k", "attn.k_proj"), ("attn_v", "attn.v_proj")]
NORMED = [("attn_q_norm", "attn.q_norm"), ("attn_k_norm", "attn.k_norm")]
HEAD = Row("output.weight", ("lm_head.weight",))
ENDS = [Row("token_embd.weight", ("embed.weight",)), Row("output_norm.weight", ("norm.weight",)), HEAD]
BOTH = ("weight", "bias")


def qwen3_keys(cfg: Any) -> dict[str, Value]:
    if cfg.local_layers:
        raise CheckpointError("GGUF has no place for local_layers of a qwen3 model; export format=hf")
    return rotary_keys(cfg)


def rotary_keys(cfg: Any) -> dict[str, Value]:
    return {
        "block_count": cfg.n_layers,
        "context_length": cfg.max_seq_len,
        "embedding_length": cfg.d_model,
        "feed_forward_length": cfg.d_ff,
        "attention.head_count": cfg.n_heads,
        "attention.head_count_kv": cfg.n_kv_heads,
        "attention.key_length": cfg.d_head,
        "attention.value_length": cfg.d_head,
        "attention.layer_norm_rms_epsilon": float(cfg.norm_eps),
        "rope.dimension_count": cfg.d_head,
        "rope.freq_base": float(cfg.rope_theta),
        "vocab_size": cfg.vocab_size,
    }


def gpt2_keys(cfg: Any) -> dict[str, Value]:
    return {
        "block_count": cfg.n_layers,
        "context_length": cfg.max_seq_len,
        "embedding_length": cfg.d_model,
        "feed_forward_length": 4 * cfg.d_model,
        "attention.head_count": cfg.n_heads,
        "attention.layer_norm_epsilon": float(cfg.norm_eps),
        "vocab_size": cfg.vocab_size,
    }


KINDS: Mapping[str, Kind] = {
    "llama3": Kind(
        name="llama", rows=[*ENDS, HEAD, *block_rows(*GATED, *SEPARATE)], keys=rotary_keys, turns_pairs=True
    ),
    "qwen3": Kind(name="qwen3", rows=[*ENDS, HEAD, *block_rows(*GATED, *SEPARATE, *NORMED)], keys=qwen3_keys),
    "gpt2": Kind(
        name="gpt2",
        rows=[
            Row("token_embd.weight", ("embed.tokens.weight",)),
            Row("position_embd.weight", ("embed.positions.weight",)),
            *[Row(f"output_norm.{kind}", (f"norm.{kind}",)) for kind in BOTH],
            *[Row(f"blk.{{}}.attn_qkv.{k}", tuple(f"blocks.{{}}.attn.{p}_proj.{k}" for p in "qkv")) for k in BOTH],
            *block_rows(*BLOCK, ("ffn_up", "ffn.up_proj"), ("ffn_down", "ffn.down_proj"), kinds=BOTH),
            HEAD,
        ],
        keys=gpt2_keys,
    ),
}


def export_gguf(source: Path, target: Path, *, encoding: str | None = None, tokenizer: bool = True) -> Receipt:
    """Write the model of a folder as target/model.gguf, with receipt and manifest.

    encoding: float32, float16, bfloat16 or q8_0; None is what most of the source is. Vectors and position tables
    stay float32. tokenizer: whether it goes into the file.

    Raises:
        CheckpointError: a source that is no model; a model or tokenizer that GGUF has no place for.
    """
    opened = open_hf_folder(source)
    if opened.arch not in KINDS:
        raise CheckpointError(f"{source}: GGUF is written of {', '.join(KINDS)} models, and this is {opened.arch}")
    kind, cfg = KINDS[opened.arch], opened.config
    encoding = encoding or usual_encoding(opened.stored)
    metadata: dict[str, Value] = {"general.architecture": kind.name, "general.name": target.name}
    metadata |= {"general.file_type": ENCODINGS[encoding].file_type, "general.quantization_version": 2}
    metadata |= {f"{kind.name}.{key}": value for key, value in kind.keys(cfg).items()}
    if tokenizer and (found := fitting_tokenizer(source, cfg.vocab_size)) is not None:
        metadata |= tokenizer_keys(source, found, cfg.vocab_size, special_ids(source))
    with atomic_folder(target) as folder:
        written = InFile(folder / FILE, kind, opened, encoding)
        written.write(metadata)
        tokens = probe(cfg.vocab_size, cfg.max_seq_len)
        before = logits_from_disk(opened.arch, cfg, opened.stored.read, tokens)
        after = logits_from_disk(opened.arch, cfg, written.read, tokens)
        return write_receipt(folder, source, before, after, tokens, format="gguf", dtype=encoding)


def usual_encoding(stored: Stored) -> str:
    """The dtype that most bytes of a model have."""
    weights = [stored.entry(name) for name in stored.shapes]
    dtype = DTYPES[max(weights, key=lambda one: one.n_bytes).dtype]
    return "float32" if dtype == torch.float64 else str(dtype).removeprefix("torch.")


class InFile:
    """The weights of a folder on their way into a file, and, once it is written, back under our names."""

    def __init__(self, path: Path, kind: Kind, opened: Opened, encoding: str) -> None:
        self.path, self.kind, self.cfg, self.stored = path, kind, opened.config, opened.stored
        shapes = {name: tuple(p.shape) for name, p in opened.model.named_parameters()}
        self.n_rows = {name: shape[0] for name, shape in shapes.items()}
        self.rows = {row.theirs: row for row in resolve_rows(kind.rows, shapes)}
        self.layouts: dict[str, Layout] = {}
        for theirs, row in self.rows.items():
            shape = (sum(self.n_rows[name] for name in row.ours), *shapes[row.ours[0]][1:])
            self.layouts[theirs] = Layout(shape, encoding_of(theirs, shape, encoding))
        if odd := [name for name, one in self.layouts.items() if one.encoding == "float16" != encoding]:
            log.warning("%d tensors stay float16, as their rows are no multiple of 32; first %s", len(odd), odd[0])
        self.factors = frequency_factors(opened.model, opened.config, kind)
        if self.factors is not None:
            self.layouts[FACTORS] = Layout(tuple(self.factors.shape), "float32")

    def write(self, metadata: Mapping[str, Value]) -> None:
        self.layouts = write_gguf(self.path, metadata, self.layouts, self.pieces)

    def pieces(self, theirs: str) -> Iterator[Tensor]:
        """A tensor of the file, some rows at a time; heads whose channels change places, all at once."""
        if theirs == FACTORS:
            assert self.factors is not None
            yield self.factors
            return
        step = max(1, PIECE // (4 * self.layouts[theirs].shape[-1]))
        for name in self.rows[theirs].ours:
            if heads := self.paired_heads(name):
                yield to_pairs(self.stored.read(name), heads)
            else:
                for start in range(0, self.n_rows[name], step):
                    yield self.stored.read(name, start, min(start + step, self.n_rows[name]))

    def paired_heads(self, name: str) -> int:
        """How many heads of a weight have their channels in another order there; 0 where none has."""
        if not self.kind.turns_pairs:
            return 0
        heads = {"attn.q_proj.weight": self.cfg.n_heads, "attn.k_proj.weight": self.cfg.n_kv_heads}
        return next((n for end, n in heads.items() if name.endswith(end)), 0)

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Tensor:
        """Rows of one of our weights, out of the file, as float32."""
        (row,) = [row for row in self.rows.values() if name in row.ours]
        before = sum(self.n_rows[one] for one in row.ours[: row.ours.index(name)])
        stop = self.n_rows[name] if stop is None else stop
        layout = self.layouts[row.theirs]
        if len(layout.shape) == 1:
            return read_rows(self.path, layout)[before + start : before + stop]
        if heads := self.paired_heads(name):
            return from_pairs(read_rows(self.path, layout), heads)[start:stop]
        return read_rows(self.path, layout, before + start, before + stop)


def encoding_of(name: str, shape: tuple[int, ...], wanted: str) -> str:
    """Vectors and position tables are float32 always; rows that do not make whole blocks are float16."""
    if len(shape) == 1 or name == "position_embd.weight":
        return "float32"
    return "float16" if shape[-1] % ENCODINGS[wanted].n_block else wanted


def to_pairs(weight: Tensor, heads: int) -> Tensor:
    """Output channels i and i + Dh/2 of each head, which rotary positions turn together, become neighbours."""
    return weight.view(heads, 2, -1, weight.size(1)).transpose(1, 2).flatten(0, 2)


def from_pairs(weight: Tensor, heads: int) -> Tensor:
    """The inverse of `to_pairs`."""
    return weight.view(heads, -1, 2, weight.size(1)).transpose(1, 2).flatten(0, 2)


def frequency_factors(model: nn.Module, cfg: Any, kind: Kind) -> Tensor | None:
    """What rotary frequencies are divided by, (Dh/2,); None where they are as theta alone makes them.

    Raises:
        CheckpointError: positions that the format cannot express.
    """
    ropes = [module for module in model.modules() if isinstance(module, RotaryEmbedding)]
    if not ropes:
        return None
    plain = RotaryEmbedding(cfg.d_head, theta=cfg.rope_theta).inv_freq
    rope = ropes[0]
    if type(rope) is RotaryEmbedding and rope.magnitude == 1 and rope.inv_freq.shape == plain.shape:
        if torch.equal(rope.inv_freq, plain):
            return None
        if kind.name == "llama":
            return plain / rope.inv_freq
    raise CheckpointError(f"GGUF has no place for these rotary positions of a {kind.name} model; export format=hf")
