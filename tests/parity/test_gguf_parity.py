"""GGUF files written here, read by others: transformers opens them, and the gguf package takes them apart."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from legollm.checkpoints.gguf import decode, quantize
from legollm.checkpoints.gguf_models import export_gguf
from legollm.checkpoints.huggingface import load_hf_folder, save_hf_folder
from legollm.components.positions import Llama3Scaling
from legollm.errors import CheckpointError
from legollm.tokenizers import CharTokenizer, RegexBPETokenizer, save_to_folder
from tiny_models import some_tokens, tiny_config, tiny_model

transformers = pytest.importorskip("transformers")
gguf = pytest.importorskip("gguf")
pytest.importorskip("accelerate")  # transformers wants it to open such a file

N_TOKENS = 290
# What transformers does not read from such a file it takes to be usual: the head width of Qwen 3, 128; the positions of
# GPT-2, 1024; and that LLaMA 3 scales no frequencies.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama3": ("llama3", {"rope_scaling": None}),
    "llama3 tied, multi-head": ("llama3", {"rope_scaling": None, "tie_embeddings": True, "n_kv_heads": 4}),
    "qwen3": ("qwen3", {"d_head": 128}),
    "qwen3 untied": ("qwen3", {"d_head": 128, "tie_embeddings": False}),
    "gpt2": ("gpt2", {"max_seq_len": 1024}),
    "gpt2 untied": ("gpt2", {"max_seq_len": 1024, "tie_embeddings": False}),
}


@pytest.fixture(scope="module")
def tokenizer() -> RegexBPETokenizer:
    found = RegexBPETokenizer(pattern="qwen")
    found.train("the cat sat on the mat, the cat sat " * 20, vocab_size=280, special_tokens=["<|endoftext|>"])
    return found


def source(folder: Path, name: str, tokenizer: RegexBPETokenizer, **changes: Any) -> Path:
    changes = {"vocab_size": N_TOKENS} | changes
    ids = {"eos_token_id": tokenizer.special_tokens["<|endoftext|>"]}
    save_hf_folder(folder, name, tiny_config(name, **changes), tiny_model(name, **changes), special_ids=ids)
    save_to_folder(tokenizer, folder, eos="<|endoftext|>", chat_template="{{ messages }}")
    return folder


def theirs(folder: Path, tokens: torch.Tensor) -> torch.Tensor:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file="model.gguf", dtype=torch.float32)
    with torch.no_grad():
        logits: torch.Tensor = model.eval()(tokens).logits
    return logits


@pytest.mark.parametrize("case", CASES)
def test_float32_is_the_same_model_there(case: str, tokenizer: RegexBPETokenizer, tmp_path: Path) -> None:
    name, changes = CASES[case]
    folder = source(tmp_path / "source", name, tokenizer, **changes)
    receipt = export_gguf(folder, tmp_path / "out")
    assert receipt.max_difference == 0
    _, _, ours = load_hf_folder(folder)
    tokens = some_tokens(2, 21, vocab_size=N_TOKENS)
    torch.testing.assert_close(theirs(tmp_path / "out", tokens), ours.eval()(tokens), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("encoding", "share"), [("float16", 0.003), ("bfloat16", 0.02), ("q8_0", 0.05)])
@pytest.mark.parametrize("case", ["llama3", "qwen3", "gpt2"])
def test_fewer_bits_move_the_logits_a_little(
    case: str, encoding: str, share: float, tokenizer: RegexBPETokenizer, tmp_path: Path
) -> None:
    """By a share of the largest one, here with weights of two tiny layers."""
    name, changes = CASES[case]
    folder = source(tmp_path / "source", name, tokenizer, **changes)
    receipt = export_gguf(folder, tmp_path / "out", encoding=encoding)
    assert 0 < receipt.max_difference < share * receipt.max_logit
    _, _, ours = load_hf_folder(folder)
    tokens = some_tokens(2, 21, vocab_size=N_TOKENS)
    difference = (theirs(tmp_path / "out", tokens) - ours.eval()(tokens)).abs().max()
    assert difference < share * receipt.max_logit


@pytest.mark.parametrize("case", ["llama3", "qwen3", "gpt2"])
def test_q8_0_computes_with_the_rounded_weights(case: str, tokenizer: RegexBPETokenizer, tmp_path: Path) -> None:
    name, changes = CASES[case]
    folder = source(tmp_path / "source", name, tokenizer, **changes)
    export_gguf(folder, tmp_path / "out", encoding="q8_0")
    _, _, ours = load_hf_folder(folder)
    for key, weight in ours.named_parameters():
        if weight.dim() == 2 and key != "embed.positions.weight":
            weight.data = decode(quantize(weight.data).tobytes(), "q8_0").view(weight.shape)
    tokens = some_tokens(2, 21, vocab_size=N_TOKENS)
    torch.testing.assert_close(theirs(tmp_path / "out", tokens), ours.eval()(tokens), rtol=0, atol=1e-5)


@pytest.mark.parametrize("encoding", ["float32", "float16", "bfloat16", "q8_0"])
def test_every_tensor_is_what_their_reader_finds(encoding: str, tokenizer: RegexBPETokenizer, tmp_path: Path) -> None:
    export_gguf(source(tmp_path / "source", "gpt2", tokenizer), tmp_path / "out", encoding=encoding)
    _, _, ours = load_hf_folder(tmp_path / "source")
    weights = dict(ours.named_parameters())
    found = {t.name: t for t in gguf.GGUFReader(tmp_path / "out" / "model.gguf").tensors}
    assert len(found) == 4 + 12 * len(ours.blocks)
    assert found["blk.1.attn_norm.bias"].tensor_type == found["position_embd.weight"].tensor_type == 0
    parts = [weights[f"blocks.1.attn.{part}_proj.weight"] for part in "qkv"]
    for name, expected in [
        ("token_embd.weight", weights["embed.tokens.weight"]),
        ("blk.1.attn_qkv.weight", torch.cat(parts)),
        ("blk.0.ffn_down.weight", weights["blocks.0.ffn.down_proj.weight"]),
        ("output_norm.bias", weights["norm.bias"]),
    ]:
        numbers = gguf.dequantize(found[name].data, found[name].tensor_type)
        step = {"float32": 0, "float16": 2**-11, "bfloat16": 2**-8, "q8_0": 0.5 / 127 + 2**-11}[encoding]
        assert numbers.shape == tuple(expected.shape)
        assert np.abs(numbers - expected.detach().numpy()).max() <= step * expected.abs().max().item()


def test_quantizing_is_theirs_bit_by_bit() -> None:
    numbers = torch.randn(64, 96, generator=torch.Generator().manual_seed(0))
    numbers[3], numbers[5] = 0, numbers[5] * 1e-4
    numbers[7, :32] = torch.arange(32) / 2 * (127 / 15.5)  # halves, which are rounded away from zero
    expected = gguf.quantize(numbers.numpy(), gguf.GGMLQuantizationType.Q8_0)
    encoded = quantize(numbers).tobytes()
    assert encoded == expected.tobytes()
    read = gguf.dequantize(expected, gguf.GGMLQuantizationType.Q8_0)
    assert np.array_equal(decode(encoded, "q8_0").numpy(), read.reshape(-1))


def test_llama3_scaling_becomes_factors(tokenizer: RegexBPETokenizer, tmp_path: Path) -> None:
    scaling = Llama3Scaling(factor=4.0, original_max_seq_len=32)
    folder = source(tmp_path / "source", "llama3", tokenizer, rope_scaling=scaling)
    export_gguf(folder, tmp_path / "out")
    (factors,) = [t for t in gguf.GGUFReader(tmp_path / "out" / "model.gguf").tensors if t.name == "rope_freqs.weight"]
    plain = 1 / tiny_config("llama3").rope_theta ** (torch.arange(0, 8, 2) / 8)
    torch.testing.assert_close(plain / torch.from_numpy(factors.data.copy()), scaling.apply(plain))


def test_metadata_is_what_their_reader_finds(tokenizer: RegexBPETokenizer, tmp_path: Path) -> None:
    export_gguf(source(tmp_path / "source", "qwen3", tokenizer), tmp_path / "out", encoding="q8_0")
    fields = {key: one.contents() for key, one in gguf.GGUFReader(tmp_path / "out" / "model.gguf").fields.items()}
    cfg, eos = tiny_config("qwen3"), tokenizer.special_tokens["<|endoftext|>"]
    expected = {
        "general.architecture": "qwen3",
        "general.file_type": gguf.LlamaFileType.MOSTLY_Q8_0,
        "qwen3.block_count": cfg.n_layers,
        "qwen3.attention.key_length": cfg.d_head,
        "qwen3.rope.freq_base": cfg.rope_theta,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.eos_token_id": eos,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": "{{ messages }}",
    }
    assert {key: fields[key] for key in expected} == expected
    assert fields["qwen3.attention.layer_norm_rms_epsilon"] == pytest.approx(cfg.norm_eps)
    assert (fields["tokenizer.ggml.tokens"][eos], fields["tokenizer.ggml.token_type"][eos]) == ("<|endoftext|>", 3)
    assert fields["tokenizer.ggml.token_type"][N_TOKENS - 1] == gguf.TokenType.UNUSED


def test_the_tokenizer_cuts_as_ours(tokenizer: RegexBPETokenizer, tmp_path: Path) -> None:
    export_gguf(source(tmp_path / "source", "qwen3", tokenizer), tmp_path / "out")
    other = transformers.AutoTokenizer.from_pretrained(tmp_path / "out", gguf_file="model.gguf")
    text = "the cat sat on THE mat 12, größer"
    assert other.encode(text) == tokenizer.encode(text)


def test_the_receipt_says_what_was_done(tokenizer: RegexBPETokenizer, tmp_path: Path) -> None:
    receipt = export_gguf(source(tmp_path / "source", "llama3", tokenizer), tmp_path / "out", encoding="q8_0")
    document = json.loads((tmp_path / "out" / "receipt.json").read_text())
    assert (document["format"], document["dtype"]) == ("gguf", "q8_0")
    assert document["max_abs_logit_difference"] == receipt.max_difference > 0
    assert set(document["files"]) == {"model.gguf"}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "manifest.json",
        "model.gguf",
        "receipt.json",
    ]


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("bigram", {}, "GGUF is written of llama3, qwen3, gpt2 models, and this is bigram"),
        ("qwen3", {"local_layers": (0,)}, "no place for local_layers"),
    ],
)
def test_what_the_format_has_no_place_for_is_refused(
    name: str, changes: dict[str, Any], message: str, tokenizer: RegexBPETokenizer, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=message):
        export_gguf(source(tmp_path / "source", name, tokenizer, **changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_it_has_no_place_for_is_left_out_only_on_request(tmp_path: Path) -> None:
    letters = CharTokenizer()
    letters.train("abc", vocab_size=97)
    save_hf_folder(tmp_path / "source", "llama3", tiny_config("llama3"), tiny_model("llama3"))
    save_to_folder(letters, tmp_path / "source")
    with pytest.raises(CheckpointError, match="tokenizer of kind char, only for byte-level BPE; give tokenizer=false"):
        export_gguf(tmp_path / "source", tmp_path / "out")
    export_gguf(tmp_path / "source", tmp_path / "out", tokenizer=False)
    fields = gguf.GGUFReader(tmp_path / "out" / "model.gguf").fields
    assert not [key for key in fields if key.startswith("tokenizer.")]


def test_too_large_for_float16(tmp_path: Path) -> None:
    model = tiny_model("llama3")
    with torch.no_grad():
        model.get_parameter("blocks.1.ffn.down_proj.weight")[3, 4] = 1e5
    save_hf_folder(tmp_path / "source", "llama3", tiny_config("llama3"), model)
    with pytest.raises(CheckpointError, match=r"ffn_down.weight: holds numbers that are not finite in float16; use"):
        export_gguf(tmp_path / "source", tmp_path / "out", encoding="float16")
    assert not (tmp_path / "out").exists()
