"""Any checkpoint folder as a model that writes."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from legollm.architectures import ARCHITECTURES, build
from legollm.checkpoints.huggingface import save_hf_folder
from legollm.checkpoints.loading import Loaded, load
from legollm.checkpoints.state import save_model
from legollm.cli import main
from legollm.errors import CheckpointError, ConfigError, IntegrityError
from legollm.tokenizers import ByteTokenizer, CharTokenizer
from tiny_run import MODEL, go


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    go(folder, max_steps=40, save_every=0)  # enough to know that the text is letters
    return folder


def exported(folder: Path, *, specials: tuple[str, ...] = (), **extra: str) -> Path:
    tokenizer = ByteTokenizer()
    if specials:
        tokenizer.add_special_tokens(specials)
    model = build("gpt2", vocab_size=tokenizer.vocab_size, max_seq_len=32, n_layers=1, n_heads=2, d_model=8)
    config = type(MODEL)(vocab_size=tokenizer.vocab_size, max_seq_len=32, n_layers=1, n_heads=2, d_model=8)
    save_model(folder, model, "gpt2", config, tokenizer, **extra)
    return folder


@pytest.mark.parametrize("command", [["eval"], ["generate", "prompt=hi"], ["chat"]])
def test_a_model_of_pairs_is_sent_to_its_command(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was once told that its tokenizer did not know the letters of another corpus."""
    letters = CharTokenizer()
    letters.train("ab")
    config = ARCHITECTURES["t5"].config(vocab_size=letters.vocab_size, n_layers=1, d_model=8, n_heads=2, d_ff=8)
    save_model(tmp_path / "pairs", ARCHITECTURES["t5"].build(config), "t5", config, letters)
    verb, *words = command
    assert main([verb, str(tmp_path / "pairs"), *words]) == 1
    assert "t5 does not continue texts; `legollm seq2seq write` uses it" in capsys.readouterr().err


def test_a_run_its_link_and_its_step_are_the_same_model(run: Path) -> None:
    by = [load(path) for path in (run, run / "checkpoint", run / "checkpoints" / "step-00000040", str(run))]
    tokens = torch.tensor([[97, 98, 99]])
    with torch.no_grad():
        logits = [lm.model(tokens) for lm in by]
    assert all(torch.equal(one, logits[0]) for one in logits)
    assert not by[0].model.training
    assert by[0].arch == "gpt2"
    assert by[0].config == MODEL


def test_where_there_are_no_links_the_newest_is_found(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    go(copy)
    (copy / "checkpoint").unlink()
    assert load(copy / "checkpoint").folder.name == "step-00000012"


def test_tied_weights_share_their_memory_after_every_way_back(run: Path) -> None:
    model: Any = load(run).model
    assert model.lm_head.weight is model.embed.tokens.weight
    assert model.lm_head.weight.data_ptr() == model.embed.tokens.weight.data_ptr()
    assert sum(p.numel() for p in model.parameters()) == sum(
        p.numel() for p in build("gpt2", vocab_size=256, max_seq_len=8, n_layers=1, n_heads=2, d_model=8).parameters()
    )


def test_writing_is_the_same_whole_in_pieces_and_as_ids(run: Path) -> None:
    lm = load(run)
    settings: dict[str, Any] = {"max_new_tokens": 20, "top_k": 5, "seed": 3, "on_overflow": "re-prefill"}
    text = lm.generate("abc", **settings)
    assert len(text) == 20
    assert "".join(lm.stream("abc", **settings)) == text
    ids = list(lm.stream("abc", as_ids=True, **settings))
    assert lm.text_side().decode(ids) == text
    assert lm.generate(lm.text_side().encode("abc"), **settings) == text
    assert lm.generate("abc", **(settings | {"seed": 4})) != text
    cropped = lm.generate("abc", **(settings | {"on_overflow": "crop"}))
    assert 0 < len(cropped) < 8  # the window ends it


def test_ids_without_text_are_not_written_either(tmp_path: Path) -> None:
    config = type(MODEL)(vocab_size=500, max_seq_len=64, n_layers=1, n_heads=2, d_model=8)
    save_model(tmp_path / "wide", ARCHITECTURES["gpt2"].build(config, seed=0), "gpt2", config, ByteTokenizer())
    ids = list(load(tmp_path / "wide").stream("abc", as_ids=True, max_new_tokens=50))
    assert len(ids) == 50
    assert max(ids) < 256


def test_one_stop_or_several(run: Path) -> None:
    lm = load(run)
    text = lm.generate("abc", max_new_tokens=20, top_k=5, seed=3)
    stop = text[2:4]
    assert lm.generate("abc", max_new_tokens=20, top_k=5, seed=3, stop=stop) == text[: text.index(stop)]
    assert lm.generate("abc", max_new_tokens=20, top_k=5, seed=3, stop=("\x00", stop)) == text[: text.index(stop)]


def test_an_unknown_setting_is_refused_with_the_near_miss(run: Path) -> None:
    with pytest.raises(ConfigError, match="temprature: no such setting; did you mean temperature"):
        load(run).generate("abc", temprature=1.0)


def test_damage_is_an_error_that_names_the_file_and_a_whole_checkpoint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    go(tmp_path)
    newest = tmp_path / "checkpoints" / "step-00000012"
    content = bytearray((newest / "model.safetensors").read_bytes())
    content[-5] ^= 1
    (newest / "model.safetensors").write_bytes(content)
    with pytest.raises(IntegrityError, match=r"model\.safetensors: damaged.*; use .*step-00000010 instead$"):
        load(newest)
    with caplog.at_level(logging.WARNING):
        assert load(tmp_path).folder.name == "step-00000010"  # of a run, the newest whole one; and a warning
    assert "step-00000010 instead" in caplog.text


def test_a_folder_that_is_not_there_or_holds_no_model(run: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"tinny: no such folder; did you mean .*tiny\?"):
        load(run.with_name("tinny"))
    with pytest.raises(CheckpointError, match=r"no config\.json in it, so no model"):
        load(tmp_path)


def test_a_folder_without_tokenizer_reads_and_writes_ids(tmp_path: Path) -> None:
    model = build("gpt2", vocab_size=256, max_seq_len=8, n_layers=1, n_heads=2, d_model=8)
    save_hf_folder(tmp_path, "gpt2", type(MODEL)(**(vars(MODEL) | {"dropout": 0.0})), model)
    lm = load(tmp_path)
    assert lm.tokenizer is None
    assert lm.stop_ids() == ()
    with pytest.raises(CheckpointError, match=r"has no tokenizer\.json"):
        lm.text_side()
    assert len(list(lm.stream([1, 2], as_ids=True, max_new_tokens=3))) == 3


def test_what_ends_a_text_and_what_ends_an_answer(tmp_path: Path) -> None:
    specials = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    plain = load(exported(tmp_path / "plain", specials=specials))
    assert plain.stop_ids() == (256,)
    template = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
    chat: Loaded = load(exported(tmp_path / "chat", specials=specials, chat_template=template, eos="<|im_end|>"))
    assert chat.chat_template == template
    assert chat.stop_ids() == (256, 258)
    assert load(exported(tmp_path / "none")).stop_ids() == ()


def test_a_tokenizer_with_more_ids_than_the_model_has_rows_is_refused(tmp_path: Path) -> None:
    model = build("gpt2", vocab_size=256, max_seq_len=32, n_layers=1, n_heads=2, d_model=8)
    config = type(MODEL)(vocab_size=256, max_seq_len=32, n_layers=1, n_heads=2, d_model=8)
    save_hf_folder(tmp_path, "gpt2", config, model)
    tokenizer = ByteTokenizer()
    tokenizer.save(tmp_path / "tokenizer.json")
    assert load(tmp_path).text_side().vocab_size == 256
    tokenizer.add_special_tokens(["<|x|>"])
    tokenizer.save(tmp_path / "tokenizer.json")
    with pytest.raises(CheckpointError, match="the tokenizer has 257 ids and the model rows for 256"):
        load(tmp_path)
