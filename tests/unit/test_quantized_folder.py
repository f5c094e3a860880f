"""`legollm quantize` and the folder it writes: bit for bit the same again, for every verb, or refused in one line."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from legollm.checkpoints.loading import load
from legollm.checkpoints.manifest import verify, write_manifest
from legollm.checkpoints.quantized import load_quantized, quantization_of, save_quantized, tensors_of
from legollm.checkpoints.state import save_model
from legollm.cli import main
from legollm.errors import CheckpointError
from legollm.tokenizers import ByteTokenizer
from legollm.transforms.quantize import QuantizeConfig, quantize
from tiny_models import TINY, some_tokens, tiny_config, tiny_model

SIZES = {"vocab_size": 256, "max_seq_len": 40}
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_model(folder, tiny_model("llama3", **SIZES), "llama3", tiny_config("llama3", **SIZES), ByteTokenizer())
    text = folder.parent / "text.txt"
    text.write_text("Whatever is read here decides what is rounded with care.\n" * 20, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def small(source: Path) -> Path:
    """An int4 folder."""
    folder = source.parent / "small"
    assert main(["quantize", str(source), str(folder), "precision=int4"]) == 0
    return folder


@pytest.mark.parametrize("precision", ["int8", "int4"])
@pytest.mark.parametrize("name", [name for name in TINY if name != "bigram"])
def test_a_round_trip_changes_no_bit(name: str, precision: Any, tmp_path: Path) -> None:
    model, cfg = tiny_model(name), QuantizeConfig(precision=precision, group_size=64 if precision == "int4" else 32)
    quantize(model, cfg)
    save_quantized(tmp_path, name, tiny_config(name), model, cfg, {})
    said = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert quantization_of(said) == cfg
    arch, config, again = load_quantized(tmp_path, cfg)
    assert (arch, config) == (name, tiny_config(name))
    before, after = tensors_of(model), tensors_of(again)
    assert before.keys() == after.keys()
    assert all(one.equal(after[key]) and one.dtype == after[key].dtype for key, one in before.items())
    assert again.eval()(some_tokens(1, 7)).equal(model(some_tokens(1, 7)))


@pytest.mark.parametrize("method", ["rtn", "gptq", "awq"])
def test_the_command_writes_what_every_verb_takes(source: Path, tmp_path: Path, method: str, capsys: Capture) -> None:
    target, text = tmp_path / "small", source.parent / "text.txt"
    words = [f"calibration={text}", "samples=4", "seq_len=16"]
    assert main(["quantize", str(source), str(target), f"method={method}", "precision=int4", *words]) == 0
    assert "MB of weights instead of" in capsys.readouterr().out
    verify(target)
    assert (target / "model.safetensors").stat().st_size < 0.6 * (source / "model.safetensors").stat().st_size
    assert main(["eval", str(target), f"data.source={text}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n_tokens"] > 0
    assert main(["inspect", str(target)]) == 0
    after = capsys.readouterr().out
    assert main(["inspect", str(source)]) == 0
    before = capsys.readouterr().out
    assert "QuantizedLinear" in after
    assert [line.split()[-1] for line in after.splitlines()] == [line.split()[-1] for line in before.splitlines()]
    texts = {load(target, engine=engine).generate("W", temperature=0, max_new_tokens=4) for engine in ("torch", "auto")}
    assert len(texts) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["export", "small", "new"], "quantised weights can be used, but neither trained nor converted"),
        (["export", "small", "new", "format=gguf"], "quantised weights can be used, but neither trained nor converted"),
        (["import", "small", "new"], "quantised weights can be used, but neither trained nor converted"),
        (
            ["sft", "model=small", "run=tuned"],
            "quantised weights cannot be trained; give lora.rank=8 to train adapters",
        ),
        (["quantize", "small", "new"], "quantised weights can be used, but neither trained nor converted"),
        (["quantize", "tiny", "small"], "target: small exists already; remove it, or choose another folder"),
        (["quantize", "tiny", "new", "method=gptq", "calibration=text.txt", "samples=0"], "samples: must be at least"),
        (["quantize", "tiny", "new", "precision=int4", "group_size=5"], "group_size: 5 is no even number"),
    ],
)
def test_what_cannot_be_is_one_line(
    source: Path, small: Path, words: list[str], message: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(source.parent)
    assert main(words) in (1, 2)
    assert message in capsys.readouterr().err
    assert not Path("new").exists()


def changed(small: Path, tmp_path: Path, config: dict[str, Any], tensors: dict[str, Any] | None = None) -> Path:
    """The folder with another config.json, or other tensors, and a manifest that agrees."""
    said = json.loads((small / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(said | config), encoding="utf-8")
    save_file(load_file(small / "model.safetensors") | (tensors or {}), tmp_path / "model.safetensors")
    write_manifest(tmp_path)
    return tmp_path


BLOCK = {
    "format": 1,
    "method": "rtn",
    "precision": "int4",
    "group_size": 32,
    "skip": ["lm_head", "*.router.proj"],
    "activations": "float",
}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"quantization": BLOCK | {"format": 2}}, "quantization of format 2, and this reads 1; update it"),
        ({"quantization": BLOCK | {"precision": "int3"}}, "which no legollm wrote; quantise it again"),
        ({"quantization": BLOCK | {"codebook": 1}}, "which no legollm wrote; quantise it again"),
        ({"quantization": BLOCK | {"skip": [1]}}, "which no legollm wrote; quantise it again"),
        ({"quantization": "int4"}, "which no legollm wrote; quantise it again"),
        ({"quantization": BLOCK | {"group_size": 0}}, "quantization: group_size: 0 is no even number"),
        ({"quantization": BLOCK | {"group_size": 64}}, "of another shape: blocks.0.ffn.down_proj.scales"),
        ({"quantization": BLOCK | {"precision": "int8"}}, "of another shape: blocks.0.attn"),
        ({"quantization": BLOCK | {"skip": ["*"]}}, "quantization: model: no linear map that could be quantised"),
        ({"quantization": BLOCK | {"skip": []}}, "missing: lm_head.numbers"),
        ({"quantization": None}, "do not fit config.json"),
        ({"quantization": None, "quantization_config": {"quant_method": "gptq"}}, "quantised by another program"),
    ],
)
def test_a_folder_that_says_something_else_is_refused(
    small: Path, tmp_path: Path, config: dict[str, Any], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message.replace("(", r"\(")):
        load(changed(small, tmp_path, config))


def test_tensors_of_another_kind_are_refused(small: Path, tmp_path: Path) -> None:
    scales = load_file(small / "model.safetensors")["blocks.0.attn.q_proj.scales"]
    with pytest.raises(CheckpointError, match=r"q_proj.scales is stored as torch.float32 instead of bfloat16"):
        load(changed(small, tmp_path, {}, {"blocks.0.attn.q_proj.scales": scales.float()}))


def test_a_flipped_bit_is_found(small: Path, tmp_path: Path) -> None:
    folder = changed(small, tmp_path, {})
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-5] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match="damaged"):
        load(folder)


def test_weights_of_other_dtypes_stay(tmp_path: Path) -> None:
    model, cfg = tiny_model("gpt2", dtype=torch.bfloat16), QuantizeConfig()
    quantize(model, cfg)
    save_quantized(tmp_path, "gpt2", tiny_config("gpt2"), model, cfg, {})
    again = load_quantized(tmp_path, cfg)[2]
    assert {one.dtype for one in again.parameters()} == {torch.bfloat16}
    assert again.eval()(some_tokens(1, 7)).equal(model(some_tokens(1, 7)))
