"""Positions against transformers: rotary frequencies under every scaling, T5's buckets, ALiBi's slopes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from legollm.architectures.hf_keys import rope_from_hf
from legollm.checkpoints.huggingface import config_from_hf, save_hf_folder
from legollm.components.positions import (
    Alibi,
    LinearScaling,
    Llama3Scaling,
    NtkScaling,
    RopeScaling,
    RotaryEmbedding,
    T5Bias,
    YarnScaling,
)
from legollm.errors import CheckpointError
from tiny_models import some_tokens, tiny_config, tiny_model

pytest.importorskip("transformers")
from transformers import AutoModelForCausalLM, LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb
from transformers.models.t5.modeling_t5 import T5Attention

SCALINGS: dict[str, tuple[RopeScaling, dict[str, Any]]] = {
    "linear": (LinearScaling(factor=3.0), {"rope_type": "linear", "factor": 3.0}),
    "llama3": (
        Llama3Scaling(original_max_seq_len=256),
        {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
        | {"original_max_position_embeddings": 256},
    ),
    "yarn": (
        YarnScaling(factor=4.0, original_max_seq_len=256),
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256},
    ),
    "yarn with all its settings": (
        YarnScaling(factor=16.0, original_max_seq_len=64, beta_fast=8.0, beta_slow=2.0, attention_factor=1.5),
        {"rope_type": "yarn", "factor": 16.0, "beta_fast": 8.0, "beta_slow": 2.0, "attention_factor": 1.5}
        | {"original_max_position_embeddings": 64},
    ),
}


def llama_config(d_head: int, theta: float, rope: dict[str, Any], max_len: int = 1024) -> LlamaConfig:
    rope = {**rope, "rope_theta": theta}
    return LlamaConfig(
        hidden_size=2 * d_head, num_attention_heads=2, max_position_embeddings=max_len, rope_parameters=rope
    )


@pytest.mark.parametrize("theta", [10_000.0, 500_000.0])
@pytest.mark.parametrize("d_head", [16, 128])
@pytest.mark.parametrize("name", SCALINGS)
def test_frequencies_are_transformers(name: str, d_head: int, theta: float) -> None:
    scaling, rope = SCALINGS[name]
    ours = RotaryEmbedding(d_head, theta=theta, scaling=scaling)
    theirs, magnitude = ROPE_INIT_FUNCTIONS[rope["rope_type"]](llama_config(d_head, theta, rope), "cpu")
    torch.testing.assert_close(ours.inv_freq, theirs, rtol=1e-6, atol=0)
    assert ours.magnitude == pytest.approx(magnitude, abs=1e-12)


@pytest.mark.parametrize("name", SCALINGS)
def test_turned_queries_and_keys_are_transformers(name: str) -> None:
    scaling, rope = SCALINGS[name]
    q, k, positions = torch.randn(2, 4, 9, 16), torch.randn(2, 2, 9, 16), torch.arange(40, 49)
    cos, sin = LlamaRotaryEmbedding(llama_config(16, 10_000.0, rope))(q, positions[None])
    theirs = apply_rotary_pos_emb(q, k, cos, sin)
    ours = RotaryEmbedding(16, theta=10_000.0, scaling=scaling)(q, k, positions)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_fixed_ntk_is_the_dynamic_kind_at_the_length_where_its_base_is_the_same() -> None:
    rope = {"rope_type": "dynamic", "factor": 2.0}
    config = llama_config(32, 10_000.0, rope, max_len=100)
    theirs, _ = ROPE_INIT_FUNCTIONS["dynamic"](config, "cpu", seq_len=250)  # grows the base by 2 * 250 / 100 - 1 = 4
    ours = RotaryEmbedding(32, theta=10_000.0, scaling=NtkScaling(factor=4.0)).inv_freq
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0)


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("n_buckets", "max_distance"), [(32, 128), (8, 20), (16, 1000)])
def test_buckets_are_t5s(n_buckets: int, max_distance: int, bidirectional: bool) -> None:
    bias = T5Bias(4, n_buckets=n_buckets, max_distance=max_distance, bidirectional=bidirectional)
    offsets = torch.arange(-1500, 1501)
    theirs = T5Attention._relative_position_bucket(offsets, bidirectional, n_buckets, max_distance)
    assert torch.equal(bias.buckets(offsets), theirs)
    assert len(theirs.unique()) > n_buckets // 2


@pytest.mark.parametrize("n_heads", [1, 4, 8, 12])
def test_slopes_are_blooms(n_heads: int) -> None:
    theirs = build_alibi_tensor(torch.ones(1, 7), n_heads, torch.float32)  # (H, 1, S): slope times key position
    here = torch.arange(7)
    ours = Alibi(n_heads)(here, here)
    last = ours[:, -1:] + 6 * -ours[:, 1:2, :1]  # up to one number per query, which softmax does not see
    torch.testing.assert_close(last, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("arch", ["llama3", "qwen3"])
@pytest.mark.parametrize("name", [*SCALINGS, "ntk", "none"])
def test_a_stretched_model_is_the_same_model_over_there_and_back(name: str, arch: str, tmp_path: Path) -> None:
    scaling = {"ntk": NtkScaling(factor=3.0), "none": None}.get(name) or SCALINGS.get(name, (None,))[0]
    model, cfg = tiny_model(arch, rope_scaling=scaling), tiny_config(arch, rope_scaling=scaling)
    save_hf_folder(tmp_path, arch, cfg, model)
    other = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    tokens = some_tokens(2, 50)
    torch.testing.assert_close(model(tokens), other(tokens).logits, rtol=0, atol=2e-5)
    plain = tiny_model(arch, rope_scaling=None)(tokens)
    assert (name == "none") == torch.allclose(model(tokens), plain, rtol=0, atol=1e-3)
    assert config_from_hf(json.loads((tmp_path / "config.json").read_text())) == (arch, cfg)


def test_other_kinds_of_yarn_are_refused() -> None:
    for key, value in {"mscale": 0.7, "truncate": False}.items():
        with pytest.raises(CheckpointError, match=f"{key} is {value}"):
            rope_from_hf({"rope_parameters": {**SCALINGS["yarn"][1], key: value}})
