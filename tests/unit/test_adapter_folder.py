"""Folders of adapters: they find their base and know it again, become one model, and are refused where they cannot."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from legollm.checkpoints.adapter import fingerprint, write_adapter
from legollm.checkpoints.huggingface import load_hf_folder, save_hf_folder
from legollm.checkpoints.loading import load
from legollm.checkpoints.quantized import save_quantized
from legollm.cli import main
from legollm.commands.start_from import Reference, Start, prepared
from legollm.components.quantized import QuantizedLinear
from legollm.errors import CheckpointError, ConfigError
from legollm.transforms.lora import LoraConfig, adapters, merge, without_adapters
from legollm.transforms.quantize import QuantizeConfig, quantize
from tiny_models import some_tokens, tiny_config, tiny_model

TOKENS = some_tokens(2, 9)


def base_in(folder: Path, arch: str = "gpt2", seed: int = 0) -> Path:
    model = tiny_model(arch, seed=seed)
    model.lm_head.weight.data *= 0.3  # logits of about 3
    save_hf_folder(folder, arch, tiny_config(arch), model)
    return folder


def learned(base: Path, folder: Path, labels: tuple[str, ...] = (), **settings: Any) -> Start:
    """Adapters that count, and their folder."""
    start = prepared(base, LoraConfig(**{"rank": 2} | settings), seed=1, labels=labels)
    rng = torch.Generator().manual_seed(1)
    for parameter in start.model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=rng)
    assert start.adapter
    write_adapter(folder, start.adapter, start.arch, start.model)
    return start


def assert_same(found: nn.Module, wanted: nn.Module) -> None:
    torch.testing.assert_close(found(TOKENS), wanted(TOKENS), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("rounded", ["none", "int4"])
@pytest.mark.parametrize("arch", ["gpt2", "llama3", "mixtral"])
def test_what_was_saved_is_loaded(tmp_path: Path, arch: str, rounded: str, kind: str) -> None:
    base = base_in(tmp_path / "base", arch)
    start = learned(base, tmp_path / "adapter", kind=kind, quantize=rounded)
    lm = load(tmp_path / "adapter")
    assert (lm.arch, lm.config, lm.base) == (arch, tiny_config(arch), base)
    assert_same(lm.model, start.model)
    assert not adapters(lm.model)
    apart = load(tmp_path / "adapter", merged=False).model
    assert torch.equal(apart(TOKENS), start.model(TOKENS))
    with without_adapters(apart), without_adapters(start.model):
        assert torch.equal(apart(TOKENS), start.model(TOKENS))


def test_a_quantised_folder_can_be_a_base(tmp_path: Path) -> None:
    model, cfg = tiny_model("llama3"), QuantizeConfig(precision="int4", group_size=16)
    quantize(model, cfg)
    (tmp_path / "base").mkdir()
    save_quantized(tmp_path / "base", "llama3", tiny_config("llama3"), model, cfg, {})
    start = learned(tmp_path / "base", tmp_path / "adapter", targets=("q_proj", "v_proj"))
    lm = load(tmp_path / "adapter")
    torch.testing.assert_close(lm.model(TOKENS), start.model(TOKENS), rtol=1e-4, atol=1e-4)  # logits of about 30
    assert main(["merge", str(tmp_path / "adapter"), f"out={tmp_path / 'merged'}"]) == 0
    assert not any(isinstance(one, QuantizedLinear) for one in load(tmp_path / "merged").model.modules())


@pytest.mark.parametrize("arch", ["gpt2", "llama3"])
def test_a_head_for_scores_comes_along(tmp_path: Path, arch: str) -> None:
    start = learned(base_in(tmp_path / "base", arch), tmp_path / "adapter", labels=("bad", "good"))
    lm = load(tmp_path / "adapter")
    assert (lm.arch, lm.config) == (f"{arch}+score", start.config)
    assert lm.model(TOKENS).shape == (2, 9, 2)
    assert_same(lm.model, start.model)


def test_the_merged_folder_is_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = base_in(tmp_path / "base")
    start = learned(base, tmp_path / "adapter", kind="rslora")
    assert main(["merge", str(tmp_path / "adapter"), str(tmp_path / "merged")]) == 0
    assert "logits differ by at most" in capsys.readouterr().out
    arch, cfg, model = load_hf_folder(tmp_path / "merged")
    assert (arch, cfg) == ("gpt2", tiny_config("gpt2"))
    assert_same(model, start.model)
    assert {name for name, _ in model.named_parameters()} == {name for name, _ in tiny_model("gpt2").named_parameters()}
    assert main(["merge", str(base), str(tmp_path / "again")]) == 2
    assert "is a whole model already" in capsys.readouterr().err
    assert main(["merge", str(tmp_path / "adapter"), str(tmp_path / "merged")]) == 2
    assert "exists already" in capsys.readouterr().err


def test_moved_together_they_find_each_other(tmp_path: Path) -> None:
    start = learned(base_in(tmp_path / "here" / "base"), tmp_path / "here" / "runs" / "adapter")
    shutil.move(tmp_path / "here", tmp_path / "there")
    assert_same(load(tmp_path / "there" / "runs" / "adapter").model, start.model)


def test_a_base_that_is_gone_or_another_is_named(tmp_path: Path) -> None:
    base, folder = base_in(tmp_path / "base"), tmp_path / "adapter"
    start = learned(base, folder)
    base.rename(tmp_path / "moved")
    with pytest.raises(CheckpointError, match=r"adapter: the base of this adapter is not at .*base; put it back, or "):
        load(folder)
    assert_same(load(folder, base=tmp_path / "moved").model, start.model)
    base_in(base, seed=1)
    with pytest.raises(CheckpointError, match=r"adapter: was trained on other weights than those of .*base \("):
        load(folder)


def test_the_fingerprint_is_of_the_numbers() -> None:
    model = tiny_model("llama3")
    before = fingerprint(model)
    assert fingerprint(tiny_model("llama3")) == before
    model.norm.weight.data[3] += 1e-6
    assert fingerprint(model) != before
    assert fingerprint(tiny_model("llama3").to(torch.float64)) != before


def test_an_adapter_is_no_base_for_another(tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    learned(base_in(tmp_path / "base"), folder)
    with pytest.raises(CheckpointError, match=r"holds an adapter; `legollm merge .* out=FOLDER` makes a base of it"):
        prepared(folder, LoraConfig(rank=2), seed=1)
    settings = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(settings | {"base_model_name_or_path": str(folder)}))
    with pytest.raises(CheckpointError, match="is an adapter itself; `legollm merge` that one first"):
        load(folder)


@pytest.mark.parametrize("verb", ["export", "quantize", "import"])
def test_verbs_that_want_a_model_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str) -> None:
    learned(base_in(tmp_path / "base"), tmp_path / "adapter")
    assert main([verb, str(tmp_path / "adapter"), str(tmp_path / "new")]) == 1
    assert "holds an adapter, not a model; `legollm merge" in capsys.readouterr().err


def spoil(folder: Path, name: str, **changes: Any) -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def shorten(folder: Path) -> None:
    tensors = load_file(folder / "adapter_model.safetensors")
    name = next(name for name in tensors if name.endswith("lora_B.weight"))
    save_file(tensors | {name: tensors[name][:-1].contiguous()}, folder / "adapter_model.safetensors")


def forget(folder: Path) -> None:
    tensors = load_file(folder / "adapter_model.safetensors")
    del tensors[next(name for name in tensors if name.endswith("lora_B.weight"))]
    save_file(tensors, folder / "adapter_model.safetensors")


def pickled(folder: Path) -> None:
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")


SPOILED: dict[str, Any] = {
    "format 2 of legollm 9; this version reads 1": lambda f: spoil(f, "adapter_base.json", format=2, version="9"),
    "no note that legollm wrote": lambda f: spoil(f, "adapter_base.json", base=3),
    "adapter: adapter_base.json: rank: expected a whole number": lambda f: spoil(
        f, "adapter_base.json", lora={"rank": "wide"}
    ),
    "peft_type: 'IA3' is not supported": lambda f: spoil(f, "adapter_config.json", peft_type="IA3"),
    "does not say which model": lambda f: spoil(f, "adapter_config.json", base_model_name_or_path=None),
    "lora_alpha: 'much' is no number": lambda f: spoil(f, "adapter_config.json", lora_alpha="much"),
    "the tensors of the adapter do not fit: ": shorten,
    "the tensors of the adapter do not fit: base_model": forget,
    "may hold a program and is never read": pickled,
}


@pytest.mark.parametrize("problem", SPOILED)
def test_a_spoiled_folder_is_one_line(tmp_path: Path, problem: str) -> None:
    learned(base_in(tmp_path / "base"), tmp_path / "adapter")
    SPOILED[problem](tmp_path / "adapter")
    with pytest.raises(CheckpointError) as caught:
        load(tmp_path / "adapter")
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


def test_adapters_and_frozen_parts_are_either_or(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^freeze: with lora.rank the whole base stands still already"):
        prepared(base_in(tmp_path / "base"), LoraConfig(rank=2), ("embed",), seed=1)


@pytest.mark.parametrize("rank", [0, 2])
def test_a_reference_stays_what_the_model_was(tmp_path: Path, rank: int) -> None:
    start = prepared(base_in(tmp_path / "base"), LoraConfig(rank=rank), seed=1)
    before = start.model(TOKENS)
    reference = Reference(start)
    for parameter in start.model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1
    start.model.train()
    for is_merged in (False, True):
        if is_merged:
            merge(start.model)
        with reference.as_it_was() as model:
            assert torch.equal(model(TOKENS), before)
        assert not torch.equal(start.model(TOKENS), before)
    assert start.model.training
    assert (reference.model is start.model) == bool(rank)
