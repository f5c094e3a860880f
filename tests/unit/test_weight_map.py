import re

import pytest
import torch

from legollm.architectures import ARCHITECTURES
from legollm.architectures.weight_map import Row, from_theirs, resolve_rows, their_shapes, to_theirs
from legollm.checkpoints.huggingface import from_hf, to_hf
from legollm.errors import CheckpointError
from tiny_models import TINY, tiny_model


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", TINY)
def test_there_and_back_changes_nothing(name: str, tied: bool) -> None:
    model = tiny_model(name, **({} if name == "bigram" else {"tie_embeddings": tied}))
    ours = dict(model.named_parameters())
    theirs = to_hf(name, ours)
    back = from_hf(name, theirs, model)
    assert back.keys() == ours.keys()
    assert all(torch.equal(back[key], ours[key]) and back[key].is_contiguous() for key in ours)
    assert sum(t.numel() for t in theirs.values()) == sum(p.numel() for p in ours.values())
    rows = resolve_rows(ARCHITECTURES[name].hugging_face.rows, ours)
    shapes = their_shapes(rows, {key: tuple(p.shape) for key, p in ours.items()})
    assert shapes == {key: tuple(t.shape) for key, t in theirs.items()}
    again = to_hf(name, back)
    assert all(torch.equal(again[key], theirs[key]) for key in theirs)


def test_projections_are_stacked_and_transposed() -> None:
    ours = {f"blocks.7.{part}": torch.full((2, 3), float(i)) for i, part in enumerate("qkv")}
    rows = resolve_rows([Row("h.{}.qkv", tuple(f"blocks.{{}}.{part}" for part in "qkv"), transpose=True)], ours)
    theirs = to_theirs(rows, ours)
    assert their_shapes(rows, {name: tuple(t.shape) for name, t in ours.items()}) == {"h.7.qkv": (3, 6)}
    assert theirs["h.7.qkv"].tolist() == [[0, 0, 1, 1, 2, 2]] * 3
    assert torch.equal(from_theirs(rows, theirs, dict.fromkeys(ours, 2))["blocks.7.k"], ours["blocks.7.k"])


def test_names_may_have_two_numbers() -> None:
    row = Row("layers.{}.experts.{}.w1.weight", ("blocks.{}.ffn.experts.{}.gate_proj.weight",))
    (resolved,) = resolve_rows([row], ["blocks.3.ffn.experts.12.gate_proj.weight"])
    assert resolved.theirs == "layers.3.experts.12.w1.weight"


def test_what_was_added_to_a_model_is_named() -> None:
    extra = {f"blocks.0.attn.q_proj.lora_{i:02}": torch.zeros(1) for i in range(12)}
    with pytest.raises(CheckpointError, match=r"lora_00, .*lora_09 and 2 more: no place for them"):
        to_hf("llama3", dict(tiny_model("llama3").named_parameters()) | extra)


@pytest.mark.parametrize("name", sorted(TINY.keys() - {"vanilla"}))  # of whose rows each placement of norms uses some
def test_every_row_is_used(name: str) -> None:
    model = tiny_model(name, **({} if name == "bigram" else {"tie_embeddings": False}))
    if name == "moe":  # the rule with a weight of its own
        model = tiny_model(name, tie_embeddings=False, rule="sigmoid")
    rows = ARCHITECTURES[name].hugging_face.rows
    resolved = resolve_rows(rows, dict(model.named_parameters()))
    patterns = [re.compile(re.escape(row.theirs).replace(r"\{\}", r"\d+")) for row in rows]
    used = [sum(bool(pattern.fullmatch(one.theirs)) for one in resolved) for pattern in patterns]
    assert all(used)
    assert sum(used) == len(resolved)  # none matches two
