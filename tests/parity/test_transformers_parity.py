"""Our models against those of the transformers library: the same random weights, through folders in both directions."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from legollm.checkpoints import huggingface
from legollm.checkpoints.huggingface import load_hf_folder, save_hf_folder, to_hf
from legollm.components.decoder import Decoder
from tiny_models import some_tokens, tiny_config, tiny_model

transformers = pytest.importorskip("transformers")

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("gpt2", {}),
    "gpt2 untied": ("gpt2", {"tie_embeddings": False, "n_layers": 1}),
    "llama3 as 3.2": ("llama3", {"tie_embeddings": True}),
    "llama3 as 3": ("llama3", {"rope_scaling": None, "n_kv_heads": 1}),
    "qwen3": ("qwen3", {}),
    "qwen3 with local layers": ("qwen3", {"n_layers": 3, "local_layers": (0, 2), "window": 5}),
    "qwen3 untied": ("qwen3", {"tie_embeddings": False, "n_heads": 2}),
}


def exact(other: nn.Module) -> nn.Module:
    """Their model in float64 throughout: they compute norms and angles in float32 whatever the weights are."""

    def rotary(module: nn.Module) -> Any:
        def forward(x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
            angles = position_ids[..., None].double() * module.inv_freq.double()
            return torch.cat([angles, angles], -1).cos(), torch.cat([angles, angles], -1).sin()

        return forward

    def rms_norm(module: nn.Module) -> Any:
        return lambda x: module.weight * x / (x.pow(2).mean(-1, keepdim=True) + module.variance_epsilon).sqrt()

    frequencies = {name: buffer.clone() for name, buffer in other.named_buffers() if name.endswith("inv_freq")}
    other = other.double()
    for name, module in other.named_modules():
        kind = type(module).__name__
        if kind.endswith("RotaryEmbedding"):
            module.inv_freq = frequencies[f"{name}.inv_freq"]
            module.forward = rotary(module)
        elif kind.endswith("RMSNorm"):
            module.forward = rms_norm(module)
    return other


@pytest.fixture(params=CASES)
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Any, Decoder, nn.Module]:
    """Ours, and what AutoModelForCausalLM makes of the folder we wrote."""
    name, changes = CASES[request.param]
    model, cfg = tiny_model(name, **changes), tiny_config(name, **changes)
    save_hf_folder(tmp_path, name, cfg, model)
    other, report = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    return name, cfg, model, other.eval()


def test_logits_in_float32(pair) -> None:
    _, _, model, other = pair
    tokens = some_tokens(3, 33)
    torch.testing.assert_close(model(tokens), other(tokens).logits, rtol=0, atol=1e-5)


def test_logits_and_gradients_in_float64(pair) -> None:
    name, _, model, other = pair
    model, other, tokens = model.double(), exact(other), some_tokens(3, 33)
    torch.testing.assert_close(model(tokens), other(tokens).logits, rtol=0, atol=1e-9)
    for one in (model(tokens), other(tokens).logits):
        F.cross_entropy(one[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).backward()
    ours = to_hf(name, {n: p.grad for n, p in model.named_parameters()})
    theirs = {n: p.grad for n, p in other.named_parameters()}
    assert ours.keys() == theirs.keys()
    for key in ours:
        torch.testing.assert_close(ours[key], theirs[key], rtol=0, atol=1e-9, msg=key)


def test_greedy_continuations(pair) -> None:
    _, _, model, other = pair
    model, other, tokens = model.double(), exact(other), some_tokens(1, 5)
    theirs = other.generate(tokens, max_new_tokens=24, do_sample=False, eos_token_id=None, pad_token_id=0)
    with torch.no_grad():
        for place in range(5, 29):
            logits = model(theirs[:, :place])[0, -1]
            chosen = logits[theirs[0, place]]  # equal to our best, or tied with it
            assert chosen >= logits.max() - 1e-9


def test_their_folder_is_ours(pair, tmp_path: Path) -> None:
    name, cfg, model, other = pair
    other.save_pretrained(tmp_path / "theirs", max_shard_size="20KB")
    arch, found, loaded = load_hf_folder(tmp_path / "theirs")
    assert (arch, found) == (name, cfg)
    assert torch.equal(loaded.eval()(some_tokens(2, 9)), model(some_tokens(2, 9)))


def test_their_fresh_models_load(tmp_path: Path) -> None:
    """With the configuration keys their own defaults write."""
    sizes = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 8}
    sizes |= {"num_key_value_heads": 2, "intermediate_size": 64}
    for cls, config in [
        (transformers.GPT2LMHeadModel, transformers.GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=4)),
        (transformers.LlamaForCausalLM, transformers.LlamaConfig(**sizes)),
        (transformers.Qwen3ForCausalLM, transformers.Qwen3Config(**sizes)),
    ]:
        other = cls(config).eval()
        folder = tmp_path / cls.__name__
        other.save_pretrained(folder)
        _, _, loaded = load_hf_folder(folder)
        tokens = some_tokens(2, 9)
        torch.testing.assert_close(loaded.eval()(tokens), other(tokens).logits, rtol=0, atol=1e-5)


def test_our_shards_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface, "MAX_SHARD_BYTES", 20_000)
    model = tiny_model("qwen3")
    save_hf_folder(tmp_path, "qwen3", tiny_config("qwen3"), model, special_ids={"eos_token_id": 3})
    other = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert other.generation_config.eos_token_id == 3
    torch.testing.assert_close(model(some_tokens(1, 9)), other(some_tokens(1, 9)).logits, rtol=0, atol=1e-5)


def test_bfloat16_stays_bfloat16(tmp_path: Path) -> None:
    model = tiny_model("llama3", dtype=torch.bfloat16)
    save_hf_folder(tmp_path, "llama3", tiny_config("llama3"), model)
    other = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert other.dtype == torch.bfloat16
    theirs = dict(other.named_parameters())
    assert all(
        torch.equal(theirs[key], tensor) for key, tensor in to_hf("llama3", dict(model.named_parameters())).items()
    )
