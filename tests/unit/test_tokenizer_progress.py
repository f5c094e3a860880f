"""Training a tokenizer from the command line: what it learns from, and what is seen of it."""

import io
import sys
from pathlib import Path

import pytest

from legollm.commands.material import TokenizerConfig, size_of, train_tokenizer, training_texts
from legollm.commands.tokenizer import with_sizes
from legollm.commands.tokenizer_progress import bars
from legollm.data import cutting, decoding
from legollm.data.readers import SourceOptions
from legollm.data.sources import documents, open_source

TEXT = "The cat's hat,\nthat 123 cats saw! Ein Hut, größer\n  als die Tür.\n\nLine <|im_start|> after line.\n" * 30


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_each_stage_is_a_bar_with_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with bars() as show:
        show("reading", 5, 10)
        show("learning", 3, 4)
        show("learning", 4, 4)
    shown = terminal.getvalue()
    assert "reading" in shown
    assert "learning" in shown
    assert shown.count("100%") >= 2  # reading has ended, too


def test_elsewhere_nothing_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with bars() as show:
        show("reading", 5, 10)
    assert "".join(capsys.readouterr()) == ""


def test_bytes_are_counted_as_they_go_by() -> None:
    seen: list[int] = []
    assert list(with_sizes(["abc", "é", "\udcff"], seen.append)) == ["abc", "é", "\udcff"]
    assert seen == [3, 5, 8]


@pytest.mark.parametrize("kind", ["bpe", "char_bpe", "unigram", "word", "naive_bpe", "char"])
@pytest.mark.parametrize("pattern", ["gpt4", r"\S+\s+\S+|\s"])
def test_pieces_teach_the_same_as_whole_documents(
    kind: str, pattern: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "BLOCK_BYTES", 64)
    monkeypatch.setattr(cutting, "MAX_BYTES", 100)
    (tmp_path / "a.txt").write_text(TEXT)
    source = open_source(str(tmp_path / "a.txt"), SourceOptions())
    cfg = TokenizerConfig(kind=kind, vocab_size=300, pattern=pattern)
    pieces = list(training_texts(source, cfg))
    whole = [document.text for document in documents(source)]
    assert "".join(pieces) == TEXT == whole[0]
    cuts = kind in ("word", "char") or (pattern == "gpt4" and kind != "naive_bpe")
    assert (len(pieces) > 5) == cuts
    assert train_tokenizer(cfg, pieces).fingerprint == train_tokenizer(cfg, whole).fingerprint


def test_the_size_of_a_source_is_known(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("é" * 10)
    (tmp_path / "b.txt").write_text("abc")
    assert size_of(open_source(str(tmp_path), SourceOptions())) == 23
    assert size_of(open_source("world", SourceOptions(world_bytes=7))) == 7
