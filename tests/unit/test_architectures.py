import ast
import inspect
import itertools
from typing import Any

import pytest
import torch

from legollm.architectures import ARCHITECTURES, build
from legollm.errors import ConfigError

PUBLISHED = {
    ("gpt2", "gpt2"): 124_439_808,
    ("gpt2", "gpt2-medium"): 354_823_168,
    ("gpt2", "gpt2-large"): 774_030_080,
    ("gpt2", "gpt2-xl"): 1_557_611_200,
    ("gpt2", "gpt3-125m"): 125_226_240,
    ("gpt2", "gpt3-350m"): 355_871_744,
    ("gpt2", "gpt3-760m"): 760_300_032,
    ("gpt2", "gpt3-1.3b"): 1_315_723_264,
    ("gpt2", "gpt3-2.7b"): 2_651_553_280,
    ("gpt2", "gpt3-6.7b"): 6_658_404_352,
    ("gpt2", "gpt3-13b"): 12_853_386_240,
    ("gpt2", "gpt3-175b"): 174_604_259_328,
    ("llama3", "llama-2-7b"): 6_738_415_616,
    ("llama3", "llama-2-13b"): 13_015_864_320,
    ("llama3", "llama-2-70b"): 68_976_648_192,
    ("llama3", "llama-3-8b"): 8_030_261_248,
    ("llama3", "llama-3-70b"): 70_553_706_496,
    ("llama3", "llama-3.1-8b"): 8_030_261_248,
    ("llama3", "llama-3.1-70b"): 70_553_706_496,
    ("llama3", "llama-3.1-405b"): 405_853_388_800,
    ("llama3", "llama-3.2-1b"): 1_235_814_400,
    ("llama3", "llama-3.2-3b"): 3_212_749_824,
    ("qwen3", "qwen3-0.6b"): 596_049_920,
    ("qwen3", "qwen3-1.7b"): 1_720_574_976,
    ("qwen3", "qwen3-4b"): 4_022_468_096,
    ("qwen3", "qwen3-8b"): 8_190_735_360,
}


def count(name: str, preset: str | None = None, **overrides: Any) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build(name, preset, **overrides).parameters())


@pytest.mark.parametrize(("name", "preset"), PUBLISHED, ids=lambda word: word)
def test_published_sizes(name: str, preset: str) -> None:
    assert count(name, preset) == PUBLISHED[name, preset]


GPT3_TABLE = {"125m": 125, "350m": 356, "760m": 760, "1.3b": 1320, "2.7b": 2650, "6.7b": 6660, "13b": 12_850}
GPT3_TABLE["175b"] = 174_600  # millions, as Brown et al. 2020 count them in their table D.1


@pytest.mark.parametrize("size", GPT3_TABLE)
def test_gpt3_has_the_size_of_its_paper(size: str) -> None:
    assert PUBLISHED["gpt2", f"gpt3-{size}"] / 1e6 == pytest.approx(GPT3_TABLE[size], rel=4e-3)


def test_bigram_of_65_characters_is_a_table() -> None:
    assert count("bigram", vocab_size=65) == 4225


@pytest.mark.parametrize(("preset", "n"), [("one-block", 60_353), ("two-blocks", 110_145), ("decoder", 618_817)])
def test_the_rungs_of_65_characters(preset: str, n: int) -> None:
    assert count("vanilla", preset) == n


def test_overrides_change_a_preset() -> None:
    per_layer = 2048 * (2 * 2048 + 2 * 512) + 3 * 2048 * 8192 + 2 * 2048
    assert count("llama3", "llama-3.2-1b", n_layers=4) == PUBLISHED["llama3", "llama-3.2-1b"] - 12 * per_layer


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_field_is_documented_and_the_tag_is_the_name(name: str) -> None:
    cls = ARCHITECTURES[name].config
    assert cls().arch == name
    assert all(preset.arch == name for preset in ARCHITECTURES[name].presets.values())
    (tree,) = ast.parse(inspect.getsource(cls)).body
    assert isinstance(tree, ast.ClassDef)
    for field, below in itertools.pairwise(tree.body):
        if isinstance(field, ast.AnnAssign):
            assert isinstance(below, ast.Expr), f"{ast.unparse(field)} has no documentation"


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("lama3", {}, "name: 'lama3' does not exist; did you mean llama3?"),
        ("zzz", {}, "name: 'zzz' does not exist; possible: " + ", ".join(ARCHITECTURES)),
        ("llama3", {"preset": "llama-3.2-1"}, "preset: 'llama-3.2-1' does not exist; did you mean llama-3.2-1b?"),
        ("bigram", {"preset": "big"}, "preset: 'big' does not exist; possible: none"),
        ("llama3", {"n_layer": 3}, "setting: 'n_layer' does not exist; did you mean n_layers?"),
        ("llama3", {"n_heads": 8, "n_kv_heads": 3}, "n_kv_heads: 3 does not divide n_heads = 8; use 1, 2, 4 or 8"),
        ("qwen3", {"n_heads": 2, "n_kv_heads": 4}, "n_kv_heads: 4 does not divide n_heads = 2; use 1 or 2"),
        ("gpt2", {"n_heads": 3, "d_model": 4}, "n_heads: 3 does not divide d_model = 4; use 1, 2 or 4"),
        ("gpt2", {"n_layers": 0}, "n_layers: expected a whole number from 1, found 0"),
        ("gpt2", {"n_layers": "4"}, "n_layers: expected a whole number from 1, found '4'"),
        ("gpt2", {"n_layers": True}, "n_layers: expected a whole number from 1, found True"),
        ("gpt2", {"dropout": 1.0}, "dropout: expected a share from 0 to below 1, found 1.0"),
        ("qwen3", {"d_head": 5}, "d_head: makes heads of 5 channels; rotary positions need an even number"),
        ("llama3", {"d_model": 12}, "n_heads: makes heads of 3 channels; rotary positions need an even number"),
    ],
)
def test_what_cannot_be_is_refused(name: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(name, **given)
    assert str(caught.value) == message
