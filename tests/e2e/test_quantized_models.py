"""A model that was trained here, quantised: what its perplexity loses; and how little memory a folder takes to load."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from legollm.architectures import ARCHITECTURES
from legollm.checkpoints.huggingface import adopt
from legollm.checkpoints.manifest import write_manifest
from legollm.checkpoints.quantized import save_quantized, tensors_of
from legollm.cli import main
from legollm.device import without_memory
from legollm.transforms.quantize import QuantizeConfig, prepare


def perplexity_of(folder: Path, capsys: pytest.CaptureFixture[str]) -> float:
    capsys.readouterr()
    assert main(["eval", str(folder), "--json"]) == 0
    found: float = json.loads(capsys.readouterr().out)["perplexity"]
    return found


@pytest.mark.slow
def test_what_a_trained_model_loses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small = ["data.read.world_bytes=400000", "tokenizer.vocab_size=512", "train.max_steps=200", "train.eval_every=0"]
    assert main(["train", "preset=tiny", "run=run", *small]) == 0
    before = perplexity_of(Path("run"), capsys)
    assert before < 60  # of 512 tokens
    found = {}
    for bits, method in (("int8", "rtn"), ("int4", "rtn"), ("int4", "gptq"), ("int4", "awq")):
        target = Path(f"{bits}-{method}")
        assert main(["quantize", "run", str(target), f"precision={bits}", f"method={method}", "samples=32"]) == 0
    for folder in tmp_path.glob("int*"):
        write_eval_text_beside(folder, tmp_path / "run")
        found[folder.name] = perplexity_of(folder, capsys) / before - 1
    assert abs(found["int8-rtn"]) < 0.001
    assert 0 < found["int4-gptq"] <= found["int4-rtn"] < 0.05
    assert found["int4-awq"] < 0.05


def write_eval_text_beside(folder: Path, run: Path) -> None:
    """Let `eval` find the run's own validation text beside a folder that was made from it."""
    (folder / "data").symlink_to(run / "data")


LOAD = """
import re, sys
import legollm.checkpoints.loading, torch
peak = lambda: 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
torch.nn.Linear(512, 512)(torch.ones(1, 512))
before = peak()
lm = legollm.checkpoints.loading.load(sys.argv[1])
with torch.inference_mode():
    lm.model(torch.zeros(1, 4, dtype=torch.long))
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
def test_a_folder_is_loaded_in_about_its_own_size(tmp_path: Path) -> None:
    """And when it runs, one matrix at a time in float32, never the whole model."""
    cfg = ARCHITECTURES["qwen3"].config(
        vocab_size=512, n_layers=4, n_heads=8, n_kv_heads=8, d_head=128, d_model=1024, d_ff=4096
    )
    quantization = QuantizeConfig(precision="int4")
    with without_memory():
        model = ARCHITECTURES["qwen3"].build(cfg)
        as_floats = 4 * sum(parameter.numel() for parameter in model.parameters())
        prepare(model, quantization)
    adopt(model, {name: torch.zeros(one.shape, dtype=one.dtype) for name, one in tensors_of(model).items()})
    save_quantized(tmp_path, "qwen3", cfg, model, quantization, {})
    write_manifest(tmp_path)
    del model
    on_disk = (tmp_path / "model.safetensors").stat().st_size
    done = subprocess.run([sys.executable, "-c", LOAD, str(tmp_path)], capture_output=True, text=True, check=True)
    allowed = on_disk + 6 * 4 * cfg.d_model * cfg.d_ff  # a matrix and its stages on the way to float32
    assert as_floats > 250_000_000 > 1.5 * allowed
    assert int(done.stdout) < allowed
