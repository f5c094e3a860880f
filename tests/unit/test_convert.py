"""Import and export: a model goes from folder to folder, and the receipt says how far its logits moved."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from legollm.architectures import ARCHITECTURES
from legollm.checkpoints import huggingface
from legollm.checkpoints.convert import convert
from legollm.checkpoints.huggingface import load_hf_folder, open_hf_folder, save_hf_folder
from legollm.checkpoints.loading import load
from legollm.checkpoints.manifest import sha256, verify
from legollm.checkpoints.receipt import logits_from_disk, probe
from legollm.cli import main
from legollm.components.encoder_decoder import EncoderDecoder
from legollm.errors import CheckpointError, TokenizerError
from legollm.tokenizers import ByteTokenizer, save_to_folder
from tiny_models import TINY, VOCAB, some_tokens, tiny_config, tiny_model

ROUNDING = {torch.float32: 0.0, torch.bfloat16: 2**-8, torch.float16: 2**-11}


def saved(folder: Path, name: str = "llama3", dtype: torch.dtype = torch.float32, **changes: Any) -> Path:
    save_hf_folder(folder, name, tiny_config(name, **changes), tiny_model(name, dtype=dtype, **changes))
    return folder


@pytest.mark.parametrize("name", TINY)
def test_a_folder_is_copied_bit_by_bit(name: str, tmp_path: Path) -> None:
    receipt = convert(saved(tmp_path / "a", name), tmp_path / "b")
    assert receipt.max_difference == 0 < receipt.max_logit
    assert (tmp_path / "b" / "model.safetensors").read_bytes() == (tmp_path / "a" / "model.safetensors").read_bytes()
    for file in ("config.json", "generation_config.json"):
        assert (tmp_path / "b" / file).read_text() == (tmp_path / "a" / file).read_text()
    verify(tmp_path / "b")
    assert load(tmp_path / "b").arch == name


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_weights_on_the_disk_compute_as_in_memory(name: str, tmp_path: Path) -> None:
    known = [field.name for field in dataclasses.fields(ARCHITECTURES[name].config)]
    sizes = {"vocab_size": VOCAB, "n_layers": 2, "d_model": 64, "max_seq_len": 40}
    cfg = ARCHITECTURES[name].config(**{key: value for key, value in sizes.items() if key in known})
    model = ARCHITECTURES[name].build(cfg, 3).eval()
    save_hf_folder(tmp_path, name, cfg, model)
    tokens = probe(VOCAB, 40)
    with torch.no_grad():
        expected = model(tokens, tokens) if isinstance(model, EncoderDecoder) else model(tokens)
    found = logits_from_disk(name, cfg, open_hf_folder(tmp_path).stored.read, tokens)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("there", ROUNDING)
@pytest.mark.parametrize("here", ROUNDING)
@pytest.mark.parametrize("name", ["gpt2", "llama3"])
def test_every_dtype_becomes_every_other(name: str, here: torch.dtype, there: torch.dtype, tmp_path: Path) -> None:
    receipt = convert(saved(tmp_path / "a", name, here), tmp_path / "b", dtype=there)
    before, after = (load_file(tmp_path / one / "model.safetensors") for one in "ab")
    assert all(torch.equal(after[key], before[key].to(there)) for key in before | after)
    exact = ROUNDING[there] <= ROUNDING[here]
    assert (receipt.max_difference == 0) is exact
    assert receipt.max_difference < 10 * ROUNDING[there] * receipt.max_logit or exact
    assert json.loads((tmp_path / "b" / "config.json").read_text())["dtype"] == str(there).removeprefix("torch.")


@pytest.mark.parametrize("name", TINY)
def test_shards_in_and_shards_out(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface, "MAX_SHARD_BYTES", 20_000)
    convert(saved(tmp_path / "a", name), tmp_path / "b")
    assert len(list((tmp_path / "b").glob("*.safetensors"))) == len(list((tmp_path / "a").glob("*.safetensors")))
    monkeypatch.undo()
    convert(tmp_path / "b", tmp_path / "c")
    assert [path.name for path in (tmp_path / "c").glob("*.safetensors")] == ["model.safetensors"]
    tokens = some_tokens(1, 7)
    assert torch.equal(load_hf_folder(tmp_path / "c")[2].eval()(tokens), tiny_model(name)(tokens))


def test_pieces_smaller_than_a_tensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("legollm.checkpoints.shards.PIECE", 300)
    monkeypatch.setattr("legollm.checkpoints.receipt.PIECE", 100)
    receipt = convert(saved(tmp_path / "a", "gpt2"), tmp_path / "b", dtype=torch.float32)
    assert receipt.max_difference == 0
    assert (tmp_path / "b" / "model.safetensors").read_bytes() == (tmp_path / "a" / "model.safetensors").read_bytes()


def test_the_receipt_holds_what_was_read_and_written(tmp_path: Path) -> None:
    receipt = convert(saved(tmp_path / "a"), tmp_path / "b", dtype=torch.bfloat16)
    document = json.loads((tmp_path / "b" / "receipt.json").read_text())
    assert document["max_abs_logit_difference"] == receipt.max_difference > 0
    assert document["source"]["model.safetensors"] == sha256(tmp_path / "a" / "model.safetensors")
    assert document["files"]["model.safetensors"] == sha256(tmp_path / "b" / "model.safetensors")
    assert document["dtype"] == "bfloat16"
    assert document["versions"]["torch"] == torch.__version__
    tokens = torch.tensor([document["tokens"]])
    logits = [load_hf_folder(tmp_path / one, dtype=torch.float32)[2].eval()(tokens) for one in "ab"]
    assert (logits[0] - logits[1]).abs().max().item() == pytest.approx(receipt.max_difference, rel=1e-3)


def test_a_tied_head_that_was_stored_is_dropped_and_the_rest_renamed(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = saved(tmp_path / "a", "gpt2") / "model.safetensors"
    tensors = {name.removeprefix("transformer."): tensor for name, tensor in load_file(path).items()}
    save_file(tensors | {"lm_head.weight": tensors["wte.weight"].clone()}, path)
    assert convert(tmp_path / "a", tmp_path / "b").max_difference == 0
    saved(tmp_path / "c", "gpt2")
    assert (tmp_path / "b" / "model.safetensors").read_bytes() == (tmp_path / "c" / "model.safetensors").read_bytes()


def test_what_other_programs_read_comes_along(tmp_path: Path) -> None:
    folder = saved(tmp_path / "a", vocab_size=256)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"eos_token_id": [3, 5], "bos_token_id": 1}))
    (folder / "generation_config.json").write_text('{"eos_token_id": [3, 5], "temperature": 0.6}')
    save_to_folder(ByteTokenizer(), folder, chat_template="{{ messages }}")
    convert(folder, tmp_path / "b")
    assert json.loads((tmp_path / "b" / "config.json").read_text())["eos_token_id"] == [3, 5]
    assert json.loads((tmp_path / "b" / "generation_config.json").read_text())["temperature"] == 0.6
    lm = load(tmp_path / "b")
    assert (lm.chat_template, lm.tokenizer.kind if lm.tokenizer else None) == ("{{ messages }}", "byte")


def test_a_tokenizer_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    save_to_folder(ByteTokenizer(), saved(tmp_path / "a"))
    with pytest.raises(CheckpointError, match=f"256 ids and the model rows for {VOCAB}; .* or give tokenizer=false"):
        convert(tmp_path / "a", tmp_path / "b")
    (tmp_path / "a" / "tokenizer.json").write_text("{}")
    with pytest.raises(TokenizerError):
        convert(tmp_path / "a", tmp_path / "b")
    assert not (tmp_path / "b").exists()
    convert(tmp_path / "a", tmp_path / "b", tokenizer=False)
    assert not (tmp_path / "b" / "tokenizer.json").exists()


def test_numbers_too_large_for_float16(tmp_path: Path) -> None:
    model = tiny_model("llama3")
    with torch.no_grad():
        model.get_parameter("norm.weight")[3] = 1e5
    save_hf_folder(tmp_path / "a", "llama3", tiny_config("llama3"), model)
    with pytest.raises(CheckpointError, match=r"model.norm.weight: holds numbers that are not finite in float16; use"):
        convert(tmp_path / "a", tmp_path / "b", dtype=torch.float16)
    assert not (tmp_path / "b").exists()
    assert convert(tmp_path / "a", tmp_path / "b", dtype=torch.bfloat16).max_difference > 0


def test_a_target_that_exists_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    with pytest.raises(CheckpointError, match="exists already"):
        convert(saved(tmp_path / "a"), tmp_path / "b")
    assert list((tmp_path / "b").iterdir()) == []


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b, c, d = (str(tmp_path / name) for name in "abcd")
    saved(tmp_path / "a")
    assert main(["import", a, b]) == 0
    assert capsys.readouterr().out == f"{b}: logits differ by at most 0 (largest 5.4)\n"
    assert main(["export", b, c, "dtype=bfloat16"]) == 0
    assert main(["export", b, d, "format=gguf", "dtype=q8_0"]) == 0
    assert sorted(path.name for path in Path(d).iterdir()) == ["manifest.json", "model.gguf", "receipt.json"]
    assert main(["export", b, str(tmp_path / "e"), "dtype=q8_0"]) == 2
    assert "dtype: q8_0 is a format of GGUF; give format=gguf" in capsys.readouterr().err
    weights = Path(b) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert main(["export", b, str(tmp_path / "e")]) == 5


def test_the_format_of_our_own_folders(tmp_path: Path) -> None:
    """Without a number (the oldest), with this one, and with one to come, which says who made it."""
    folder = saved(tmp_path / "a")
    path = folder / "config.json"
    config = json.loads(path.read_text())
    assert config["legollm"]["format"] == huggingface.FORMAT
    path.write_text(json.dumps({key: value for key, value in config.items() if key != "legollm"}))
    assert load_hf_folder(folder)[0] == "llama3"
    for made, message in [
        ({"format": 2, "version": "9.9.0"}, r"format 2, written by legollm 9\.9\.0; this is .* up to format 1; update"),
        ({"format": "1"}, "no format and version; remove the key"),
        (7, "legollm is 7, no format and version"),
    ]:
        path.write_text(json.dumps(config | {"legollm": made}))
        with pytest.raises(CheckpointError, match=message):
            load_hf_folder(folder)
