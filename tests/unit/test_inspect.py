"""`legollm inspect`: the tree of parts adds up, the picture is wired as the code is, and every model has one."""

import json
import re
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from torch import Tensor, nn

from legollm.architectures import ARCHITECTURES
from legollm.architectures.ngram import NGramConfig, counted
from legollm.checkpoints.huggingface import save_hf_folder
from legollm.cli import main
from legollm.commands.diagram import diagram
from legollm.components.blocks import ParallelBlock, PostNormBlock, PreNormBlock
from legollm.evaluation.anatomy import Part, anatomy
from legollm.evaluation.wiring import ADD, Step, levels, wiring

SVG = "{http://www.w3.org/2000/svg}"

Capture = pytest.CaptureFixture[str]


def parts_of(arch: str, preset: str | None = None) -> tuple[nn.Module, Part]:
    row = ARCHITECTURES[arch]
    with torch.device("meta"):
        model = row.build(row.presets[preset] if preset else row.config())
    return model, anatomy(model)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_the_parts_are_the_model(arch: str) -> None:
    model, parts = parts_of(arch)
    assert parts.n_parameters == sum(parameter.numel() for parameter in model.parameters())
    for _, part in parts.walk():
        own = sum(parameter.numel() for parameter in part.module.parameters(recurse=False))
        if part.times == 1 and not part.shared_with:
            assert part.n_parameters == own + sum(child.n_parameters for child in part.children)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_architecture_can_be_drawn(arch: str) -> None:
    _, parts = parts_of(arch)
    svg = ElementTree.fromstring(diagram(parts, arch))
    words = [text.text or "" for text in svg.iter(f"{SVG}text")]
    assert words[:2] == [arch, f"{parts.n_parameters:,} parameters"]
    for part in parts.children:
        if part.kind != "Encoder":
            assert any(part.kind in line for line in words)
    _, _, width, height = map(float, svg.attrib["viewBox"].split())
    for box in svg.iter(f"{SVG}rect"):
        assert 0 <= float(box.get("x", 0)) <= width - float(box.attrib["width"])
        assert 0 <= float(box.get("y", 0)) <= height - float(box.attrib["height"])
    assert max(float(text.attrib["y"]) for text in svg.iter(f"{SVG}text")) < height


def test_equal_blocks_are_one_part_and_others_are_not() -> None:
    row = ARCHITECTURES["qwen3"]
    parts = anatomy(row.build(row.config(vocab_size=9, n_layers=5, local_layers=(1, 2), window=4)))
    assert [(part.name, part.times) for part in parts.children[1:-2]] == [
        ("blocks.0", 1),
        ("blocks.1-2", 2),
        ("blocks.3-4", 2),
    ]


def test_a_tied_head_counts_once_and_says_so() -> None:
    _, parts = parts_of("gpt2")
    head = parts.children[-1]
    assert (head.n_parameters, head.shared_with) == (0, "embed.tokens")


def halves() -> dict[str, nn.Module]:
    return {name: nn.Linear(4, 4) for name in ("norm1", "attn", "norm2", "ffn")}


def test_a_block_is_wired_as_its_forward_says() -> None:
    assert wiring(PreNormBlock(**halves())) == [
        Step("input", ()),
        Step("norm1", (0,)),
        Step("attn", (1,)),
        Step(ADD, (0, 2)),
        Step("norm2", (3,)),
        Step("ffn", (4,)),
        Step(ADD, (3, 5)),
    ]
    assert [step.name for step in wiring(PostNormBlock(**halves()))] == [
        "input", "attn", ADD, "norm1", "ffn", ADD, "norm2",
    ]  # fmt: skip
    parallel = wiring(ParallelBlock(norm=nn.Linear(4, 4), attn=nn.Linear(4, 4), ffn=nn.Linear(4, 4)))
    assert levels(parallel) == [0, 1, 2, 2, 3, 4]


class Undecided(nn.Module):
    """A block whose way depends on its numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return x + (self.one(x) if x.sum() > 0 else self.other(x))  # type: ignore[no-any-return]


def test_a_block_that_cannot_be_followed_is_a_row_of_its_bricks() -> None:
    assert wiring(Undecided()) == [Step("input", ()), Step("one", (0,)), Step("other", (1,))]


def test_cross_attention_reads_the_memory() -> None:
    _, parts = parts_of("t5")
    (block,) = [part for part in parts.children if part.kind == "PreNormCrossBlock"]
    assert [step.name for step in wiring(block.module) if step.reads_memory] == ["cross_attn"]


def test_the_table_is_aligned_and_the_figures_add_up(capsys: Capture) -> None:
    assert main(["inspect", "gpt2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[1].split() == ["model", "Decoder", "124,439,808"]
    assert any(re.fullmatch(r"  blocks\.0-11 +12 x PreNormBlock +85,054,464", line) for line in lines)


def test_counts_that_wait_for_a_text_have_no_size(tmp_path: Path, capsys: Capture) -> None:
    assert main(["inspect", "ngram"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("as large as what a text has to count: ")
    assert main(["inspect", "ngram", "--diagram", str(tmp_path / "ngram.svg")]) == 0
    assert "parameters" not in capsys.readouterr().out
    cfg, model = counted(NGramConfig(vocab_size=4, order=2), torch.tensor([0, 1, 0, 2]))
    save_hf_folder(tmp_path / "model", "ngram", cfg, model)
    assert main(["inspect", str(tmp_path / "model")]) == 0
    found = capsys.readouterr().out
    assert found.splitlines()[1].split()[-1] == str(sum(p.numel() for p in model.parameters()))
    assert "counted" not in found


def test_json_has_every_part(capsys: Capture) -> None:
    assert main(["inspect", "llama-3.2-1b", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["arch"] == "llama3"
    assert found["parts"][0]["parameters"] == 1_235_814_400
    assert all(below["depth"] - above["depth"] <= 1 for above, below in pairwise(found["parts"]))


def test_a_folder_is_shown_without_its_weights(tmp_path: Path, capsys: Capture) -> None:
    row = ARCHITECTURES["qwen3"]
    cfg = row.config(vocab_size=9, n_layers=1)
    save_hf_folder(tmp_path / "model", "qwen3", cfg, row.build(cfg))
    (tmp_path / "model" / "model.safetensors").unlink()
    out = tmp_path / "model.svg"
    assert main(["inspect", str(tmp_path / "model"), "--diagram", str(out)]) == 0
    assert out.read_text(encoding="utf-8").startswith("<svg ")
    assert "parameters" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "hint"), [("gpt2-xk", "did you mean gpt2-xl?"), ("zzz", "architectures: ngram, ")])
def test_a_name_of_nothing_is_refused(name: str, hint: str, capsys: Capture) -> None:
    assert main(["inspect", name]) == 2
    assert hint in capsys.readouterr().err
