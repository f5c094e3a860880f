"""From settings to batches: mixtures, packing, reading ahead, and what is refused or warned of."""

import logging
import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch

from legollm.architectures.gpt2 import GPT2Config
from legollm.commands.material import Material, TokenizerConfig, TrainData, gather, short_names, warn_of_repetition
from legollm.commands.train import TrainRun, pretrain
from legollm.data.loader import IGNORED
from legollm.data.prepare import PrepareOptions, prepare
from legollm.data.readers import SourceOptions
from legollm.data.sources import open_source
from legollm.errors import ConfigError
from legollm.tokenizers import ByteTokenizer, CharTokenizer
from legollm.training.metrics import read_rows
from legollm.training.train import TrainConfig


@pytest.fixture
def texts(tmp_path: Path) -> dict[str, str]:
    """Three sources that can be told apart by their letters."""
    paths = {}
    for name, letters in {"a": "abc ", "b": "xyz ", "c": "123 "}.items():
        (tmp_path / f"{name}.txt").write_text(letters * 200)
        paths[name] = str(tmp_path / f"{name}.txt")
    return paths


def prepared(text: str, folder: Path, tokenizer: Any = None) -> str:
    source = open_source(text, SourceOptions())
    return str(prepare(source, tokenizer or ByteTokenizer(), folder, options=PrepareOptions()).folder)


def test_sources_of_a_mixture_come_by_their_weights_prepared_or_not(texts: dict[str, str], tmp_path: Path) -> None:
    ready = prepared(texts["c"], tmp_path / "ready")
    data = TrainData(mixture=(f"2 {texts['a']}", f"1 {texts['b']}", f"1 {ready}"))
    material = gather(data, TokenizerConfig(kind="char"), tmp_path / "run")
    assert material.tokenizer.kind == "byte"  # that of the prepared folder
    assert [(part.name, part.weight) for part in material.parts] == [("a", 2), ("b", 1), ("ready", 1)]
    batch = next(material.batches(16, 8, seed=1))
    rows = [material.tokenizer.decode(row.tolist()) for row in batch.tokens]
    assert [sum(letter in row for row in rows) for letter in "ax1"] == [8, 4, 4]
    assert (tmp_path / "run/data/a/train.bin").exists()


def test_tokenizer_learns_from_every_source_by_its_weight(texts: dict[str, str], tmp_path: Path) -> None:
    data = TrainData(mixture=(f"3 {texts['a']}", f"1 {texts['b']}"))
    material = gather(data, TokenizerConfig(kind="char", train_bytes=100), tmp_path / "run")
    assert set("abcxyz ") == set(material.tokenizer.decode(range(material.tokenizer.vocab_size), skip_special=True))
    assert gather(data, TokenizerConfig(kind="char"), tmp_path / "run").tokenizer.fingerprint == (
        material.tokenizer.fingerprint
    )


def test_validation_of_a_mixture_reads_all_splits_or_a_share_of_each(texts: dict[str, str], tmp_path: Path) -> None:
    data = TrainData(mixture=(f"3 {texts['a']}", f"1 {texts['b']}"))
    material = gather(data, TokenizerConfig(kind="byte"), tmp_path / "run")
    whole = list(material.validation(2, 8))
    assert sum((batch.targets != IGNORED).sum() for batch in whole) == sum(len(part.val) - 1 for part in material.parts)
    some = list(material.validation(2, 8, 4))
    assert ["x" in material.tokenizer.decode(batch.tokens.flatten().tolist()) for batch in some] == [False] * 3 + [True]
    assert material.bytes_per_token == pytest.approx(160 / 158)


def test_sources_of_two_tokenizers_do_not_mix(texts: dict[str, str], tmp_path: Path) -> None:
    one = prepared(texts["a"], tmp_path / "one")
    other_tokenizer = CharTokenizer()
    other_tokenizer.train("xyz ")
    other = prepared(texts["b"], tmp_path / "other", other_tokenizer)
    with pytest.raises(ConfigError, match=r"other was written by another tokenizer than .*one; prepare both"):
        gather(TrainData(mixture=(f"1 {one}", f"1 {other}")), TokenizerConfig(), tmp_path / "run")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mixture": ("a.txt",)}, r"mixture: 'a\.txt' is no weight and source; write \[3 books"),
        ({"mixture": ("-1 a.txt",)}, "is no weight and source"),
        ({"mixture": ("1/0 a.txt",)}, "is no weight and source"),
        ({"mixture": ("nan a.txt",)}, "is no weight and source"),
        ({"mixture": ("1 a.txt", "2 a.txt")}, r"mixture: a\.txt occurs twice"),
        ({"mixture": ("1 a.txt",), "source": "b.txt"}, "names all the text, and source names another"),
        ({"mixture": ("1 a.txt",), "prepared": Path("b")}, "names all the text, and prepared names another"),
        ({"prefetch": -1}, "prefetch: must not be negative, found -1"),
        ({"shard_bytes": 3}, "shard_bytes: 3 bytes hold no id"),
    ],
)
def test_what_makes_no_sense_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainData(**settings)


def test_weights_are_exact_and_names_short() -> None:
    data = TrainData(mixture=("0.1 my books.txt", "1/3 world"))
    assert data.weighted_sources() == [(Fraction(1, 10), "my books.txt"), (Fraction(1, 3), "world")]
    assert short_names(["x/a.txt", "b.txt", "y/a.jsonl"]) == ["a-1", "b", "a-3"]


def test_more_than_four_epochs_are_warned_of_with_the_figure(
    texts: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    mixed = gather(TrainData(mixture=(f"3 {texts['a']}", f"1 {texts['b']}")), TokenizerConfig(kind="byte"), tmp_path)
    rows = mixed.rows(8, seed=1)  # 720 tokens of each: 90 rows
    warn_of_repetition(rows, 470)
    assert not caplog.messages
    warn_of_repetition(rows, 600)
    assert caplog.messages == [
        "a will be read 5.0 times, and more than 4 teaches little; give more text, or fewer steps or a smaller weight"
    ]
    warn_of_repetition(Material(mixed.tokenizer, mixed.parts[:1]).rows(8, seed=1), 450)
    assert caplog.messages[-1].startswith("the text will be read 5.0 times")


def tiny(folder: Path, data: TrainData, division: tuple[int, int] = (3, 2), dropout: float = 0.1) -> TrainRun:
    """division: rows of a micro-batch and micro-batches of a step."""
    model = GPT2Config(max_seq_len=16, n_layers=1, n_heads=2, d_model=8, dropout=dropout)
    loop = TrainConfig(
        max_steps=10,
        batch_size=division[0],
        grad_accum=division[1],
        log_every=1,
        eval_every=0,
        save_every=5,
        precision="float32",
    )
    return TrainRun(run=folder, data=data, tokenizer=TokenizerConfig(kind="byte"), model=model, train=loop)


@pytest.mark.parametrize("packing", ["windows", "best_fit"])
@pytest.mark.parametrize("prefetch", [0, 3])
def test_run_of_a_mixture_continued_in_the_middle_is_the_run_in_one_go(
    packing: Any, prefetch: int, texts: dict[str, str], tmp_path: Path
) -> None:
    for name, letters in {"a": "abc ", "b": "xyz "}.items():
        (tmp_path / f"{name}.txt").write_text("".join(f"{letters * (i % 7 + 1)}|" for i in range(200)))
    data = TrainData(
        mixture=(f"3 {texts['a']}", f"1 {texts['b']}"),
        read=SourceOptions(separator="|"),
        packing=packing,
        prefetch=prefetch,
    )
    folder = tmp_path / "run"
    pretrain(tiny(folder, data))
    last = folder / "checkpoints/step-00000010"
    whole = {name: (last / name).read_bytes() for name in ("model.safetensors", "optim.safetensors", "state.json")}
    rows = read_rows(folder / "metrics.jsonl")
    assert {"epochs_a", "epochs_b"} <= rows[0].keys()
    assert rows[4]["epochs_a"] > rows[0]["epochs_a"]
    shutil.rmtree(last)
    torch.manual_seed(99)
    pretrain(tiny(folder, data))
    for name in ("model.safetensors", "optim.safetensors"):
        assert (last / name).read_bytes() == whole[name], name
    again = read_rows(folder / "metrics.jsonl")
    assert [row["loss"] for row in again if "loss" in row] == [row["loss"] for row in rows if "loss" in row]


@pytest.mark.parametrize("packing", ["windows", "best_fit"])
def test_run_continued_with_smaller_batches_learns_from_the_same_rows(
    packing: Any, texts: dict[str, str], tmp_path: Path
) -> None:
    """Batches of 8 rows, and from step 6 on two of 4."""
    Path(texts["a"]).write_text("".join(f"{'abc ' * (i % 7 + 1)}{i}|" for i in range(200)))
    data = TrainData(source=texts["a"], read=SourceOptions(separator="|"), packing=packing)
    folder = tmp_path / "run"
    pretrain(tiny(folder, data, (8, 1), dropout=0.0))
    losses = [row["loss"] for row in read_rows(folder / "metrics.jsonl") if "loss" in row]
    shutil.rmtree(folder / "checkpoints/step-00000010")
    pretrain(tiny(folder, data, (4, 2), dropout=0.0))
    again = [row["loss"] for row in read_rows(folder / "metrics.jsonl") if "loss" in row]
    assert again[:5] == losses[:5]
    assert again[5:] == pytest.approx(losses[5:], rel=1e-6)


def test_counting_models_take_one_text_as_it_lies(texts: dict[str, str], tmp_path: Path) -> None:
    from legollm.architectures.ngram import NGramConfig

    for data, key in (
        (TrainData(mixture=(f"1 {texts['a']}",)), "mixture"),
        (TrainData(source=texts["a"], packing="best_fit"), "packing"),
    ):
        with pytest.raises(ConfigError, match=f"data.{key}: ngram counts one text as it lies"):
            pretrain(
                TrainRun(run=tmp_path / "run", data=data, model=NGramConfig(), tokenizer=TokenizerConfig(kind="byte"))
            )
