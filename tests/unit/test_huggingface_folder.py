"""Folders that are right load; each of those that are wrong is refused with a line that says what to do."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from legollm.checkpoints import huggingface
from legollm.checkpoints.huggingface import config_from_hf, config_to_hf, load_hf_folder, load_weights, save_hf_folder
from legollm.checkpoints.reader import TensorFile
from legollm.components.positions import Llama3Scaling
from legollm.errors import CheckpointError
from tiny_models import TINY, some_tokens, tiny_config, tiny_model

Change = Callable[[Path], None]


def saved(folder: Path, name: str = "llama3", **changes: Any) -> Path:
    save_hf_folder(folder, name, tiny_config(name, **changes), tiny_model(name, **changes))
    return folder


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("name", TINY)
def test_a_saved_model_is_the_same_when_loaded(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    model, cfg = tiny_model(name, dtype=dtype), tiny_config(name)
    save_hf_folder(tmp_path, name, cfg, model)
    arch, found, loaded = load_hf_folder(tmp_path)
    assert (arch, found) == (name, cfg)
    assert {p.dtype for p in loaded.parameters()} == {dtype}
    assert torch.equal(loaded.eval()(some_tokens(2, 7)), model(some_tokens(2, 7)))
    assert [n for n, _ in loaded.named_parameters()] == [n for n, _ in model.named_parameters()]  # ties are ties again
    assert all(p.requires_grad for p in loaded.parameters())
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["dtype"] == config["torch_dtype"] == str(dtype).removeprefix("torch.")


def test_weights_can_be_widened_and_filled_in(tmp_path: Path) -> None:
    model = tiny_model("qwen3", dtype=torch.bfloat16)
    save_hf_folder(tmp_path, "qwen3", tiny_config("qwen3"), model)
    _, _, wide = load_hf_folder(tmp_path, dtype=torch.float32)
    other = tiny_model("qwen3", seed=5)
    memory = [p.data_ptr() for p in other.parameters()]
    load_weights(other, "qwen3", tiny_config("qwen3"), tmp_path)
    assert [p.data_ptr() for p in other.parameters()] == memory  # an optimizer that knows them still does
    assert torch.equal(other(some_tokens(1, 5)), wide.eval()(some_tokens(1, 5)))
    assert other(some_tokens(1, 5)).dtype == torch.float32


def test_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface, "MAX_SHARD_BYTES", 20_000)
    saved(tmp_path, tie_embeddings=True)
    files = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert len(files) > 2
    assert files[0] == f"model-00001-of-{len(files):05}.safetensors"
    assert all((tmp_path / name).stat().st_size < 25_000 for name in files)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert sorted(set(index["weight_map"].values())) == files
    assert index["metadata"]["total_size"] == sum(
        t.nbytes for name in files for t in load_file(tmp_path / name).values()
    )
    _, _, loaded = load_hf_folder(tmp_path)
    model = tiny_model("llama3", tie_embeddings=True)
    assert torch.equal(loaded.eval()(some_tokens(1, 5)), model(some_tokens(1, 5)))


def test_special_ids_are_written_for_other_programs(tmp_path: Path) -> None:
    save_hf_folder(tmp_path, "gpt2", tiny_config("gpt2"), tiny_model("gpt2"), special_ids={"eos_token_id": 3})
    for name in ("config.json", "generation_config.json"):
        values = json.loads((tmp_path / name).read_text())
        assert (values["bos_token_id"], values["eos_token_id"]) == (None, 3)


def test_old_gpt2_files(tmp_path: Path) -> None:
    """No prefix, stored masks, and a head that is the embedding again."""
    saved(tmp_path, "gpt2")
    path = tmp_path / "model.safetensors"
    tensors = {name.removeprefix("transformer."): tensor for name, tensor in load_file(path).items()}
    tensors |= {"h.0.attn.bias": torch.ones(1, 1, 40, 40), "lm_head.weight": tensors["wte.weight"].clone()}
    save_file(tensors, path)
    _, _, loaded = load_hf_folder(tmp_path)
    assert torch.equal(loaded.eval()(some_tokens(1, 5)), tiny_model("gpt2")(some_tokens(1, 5)))


@pytest.mark.parametrize("name", TINY)
def test_configurations_go_there_and_back(name: str) -> None:
    for changes in ({}, {} if name == "bigram" else {"tie_embeddings": True, "n_layers": 3}):
        cfg = tiny_config(name, **changes)
        assert config_from_hf(json.loads(json.dumps(config_to_hf(name, cfg)))) == (name, cfg)


@pytest.mark.parametrize("version", [4, 5])
def test_the_keys_of_either_version_are_enough(version: int) -> None:
    cfg = tiny_config("llama3", rope_scaling=Llama3Scaling(factor=32.0))
    config = config_to_hf("llama3", cfg)
    for key in ["rope_parameters"] if version == 4 else ["rope_theta", "rope_scaling"]:
        del config[key]
    assert config_from_hf(config) == ("llama3", cfg)


def edit(**changes: Any) -> Change:
    def apply(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return apply


def tensors(change: Callable[[dict[str, torch.Tensor]], Any]) -> Change:
    def apply(folder: Path) -> None:
        path = folder / "model.safetensors"
        found = load_file(path)
        change(found)
        save_file(found, path)

    return apply


def index(content: Any) -> Change:
    def apply(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "a.safetensors")
        (folder / "model.safetensors.index.json").write_text(json.dumps(content))

    return apply


def write(name: str, content: str | bytes) -> Change:
    return lambda folder: (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def twice(folder: Path) -> None:
    names = load_file(folder / "model.safetensors")
    index({"weight_map": dict.fromkeys(names, "a.safetensors") | {"x": "b.safetensors"}})(folder)
    (folder / "b.safetensors").write_bytes((folder / "a.safetensors").read_bytes())


NORM, Q = "model.norm.weight", "model.layers.0.self_attn.q_proj.weight"
LONGROPE = {"rope_type": "longrope", "rope_theta": 500_000.0, "factor": 2.0}
WRONG: dict[str, tuple[Change, str]] = {
    "no config": (lambda folder: (folder / "config.json").unlink(), "no such file"),
    "config is no JSON": (write("config.json", "{"), "cannot be read as JSON"),
    "config is no text": (write("config.json", b"\xff\xfe\x00"), "cannot be read as JSON"),
    "config is a list": (write("config.json", "[]"), "expected a JSON object, found list"),
    "unknown model": (edit(model_type="mamba"), "model_type 'mamba' is not supported; supported: .*gpt2, llama, qwen3"),
    "model type of a wrong kind": (edit(model_type=None), "model_type None is not supported"),
    "own code": (edit(auto_map={"AutoModelForCausalLM": "evil.Model"}), "auto_map asks to run code"),
    "missing key": (edit(hidden_size=None), "hidden_size is missing; llama models need it"),
    "number as text": (edit(num_hidden_layers="2"), "n_layers: expected a whole number"),
    "zero heads": (edit(num_attention_heads=0), "n_heads: expected a whole number from 1, found 0"),
    "impossible heads": (edit(num_key_value_heads=3), "n_kv_heads: 3 does not divide n_heads = 4"),
    "list as number": (edit(rope_theta=[1]), "config.json: "),
    "other activation": (edit(hidden_act="gelu"), "hidden_act is 'gelu', and only 'silu' or 'swish' is supported"),
    "biases": (edit(attention_bias=True), "attention_bias is True, and only False is supported"),
    "other head width": (edit(head_dim=16), "head_dim is 16, and only 8 or None is supported"),
    "two rotary bases": (edit(rope_theta=10_000.0), "rope_theta is given twice"),
    "other scaling": (
        edit(rope_parameters=LONGROPE),
        "rope_type is 'longrope', and only 'default', 'linear', 'yarn' or 'llama3'",
    ),
    "partly rotary": (edit(partial_rotary_factor=0.5), "partial_rotary_factor is 0.5"),
    "tensor missing": (tensors(lambda t: t.pop(NORM)), f"1 missing: {NORM}"),
    "tensor too many": (tensors(lambda t: t.update(x=torch.ones(1))), "1 unexpected: x"),
    "another shape": (tensors(lambda t: t.update({NORM: torch.ones(31)})), rf"1 of another shape: {NORM} \[31\]"),
    "transposed": (tensors(lambda t: t.update({Q: torch.ones(32, 31)})), r"q_proj.weight \[32, 31\] instead of \[32"),
    "whole numbers": (tensors(lambda t: t.update({NORM: torch.ones(32).to(torch.int8)})), "norm.weight I8"),
    "more layers": (edit(num_hidden_layers=9), r"63 missing: .*, model.*, .* and 53 more"),
    "fewer layers": (edit(num_hidden_layers=1), "9 unexpected: "),
    "tied, with another head": (edit(tie_word_embeddings=True, vocab_size=90), "embed_tokens.weight"),
    "cut short": (cut, "not a safetensors file, or cut short"),
    "not safetensors": (write("model.safetensors", b"PK\x03\x04 a pickle in a zip"), "not a safetensors file"),
    "empty": (write("model.safetensors", b""), "not a safetensors file"),
    "pointer": (write("model.safetensors", b"version https://git-lfs.example/spec/v1\n"), "a pointer to a large file"),
    "pickled": (pickled, r"no weights; expected model.safetensors or .* \(pickled .bin files are not read\)"),
    "index without map": (index({}), "has no weight_map"),
    "index of a wrong kind": (index({"weight_map": [1]}), "has no weight_map"),
    "path upwards": (index({"weight_map": {"x": "../a.safetensors"}}), "is not the plain name"),
    "absolute path": (index({"weight_map": {"x": "/etc/a.safetensors"}}), "is not the plain name"),
    "another kind of file": (index({"weight_map": {"x": "config.json"}}), "is not the plain name"),
    "shard missing": (index({"weight_map": {"x": "b.safetensors"}}), "b.safetensors: missing; .* lists it"),
    "shard twice": (twice, r"lm_head.weight, .* and 11 more also in another shard"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_folder_is_refused(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change, message = WRONG[case]
    change(saved(tmp_path))
    monkeypatch.setattr(TensorFile, "read", lambda *_: pytest.fail("tensors were loaded before the check"))
    with pytest.raises(CheckpointError, match=message) as caught:
        load_hf_folder(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("gpt2", {"activation_function": "relu"}, "activation_function is 'relu'"),
        ("gpt2", {"n_inner": 100}, "n_inner is 100, and only None or 128 is supported"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True"),
        ("gpt2", {"attn_pdrop": 0.3}, "attn_pdrop is 0.3, and only 0.0 is supported"),
        ("qwen3", {"rope_parameters": LONGROPE, "rope_theta": 500_000.0}, "rope_type is 'longrope'"),
        ("bigram", {"vocab_size": 0}, "vocab_size: expected a whole number"),
    ],
)
def test_what_the_bricks_do_not_compute_is_refused(name: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        config_from_hf(config_to_hf(name, tiny_config(name)) | change)


def test_a_run_continues_only_its_own_model(tmp_path: Path) -> None:
    saved(tmp_path)
    with pytest.raises(CheckpointError, match="another model"):
        load_weights(tiny_model("llama3"), "llama3", tiny_config("llama3", d_ff=65), tmp_path)
