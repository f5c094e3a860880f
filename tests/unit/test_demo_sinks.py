"""The demo of a text without end: its texts, and that a model trained for it keeps the thread by its first tokens."""

from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from legollm.cli import main
from legollm.commands.demo_sinks import CHARACTERS, SinksRun, Texts, picture, text_of, trained, written
from legollm.generation.complete import Decoding


def test_texts_go_round_in_steps_of_their_digit() -> None:
    assert text_of(3, 20, 2, 6) == "  3uxadgj"
    tokens, targets = next(Texts(SinksRun()))
    assert tokens.shape == (16, 48)
    assert torch.equal(tokens[:, 1:], targets[:, :-1])
    for row in tokens.tolist():
        text = "".join(CHARACTERS[i] for i in row)
        stride, letters = int(text.lstrip()[0]), text.lstrip()[1:]
        assert all((ord(b) - ord(a)) % 26 == stride for a, b in pairwise(letters))


@pytest.mark.slow
def test_the_first_tokens_keep_the_thread() -> None:
    """What a window alone makes of it is chance: two letters say what the digit said, if a model learns to look."""
    cfg = SinksRun(strides=2, steps=150, n_tokens=300)
    decoding = Decoding(cache="sinks", window=32, sinks=4)
    _, is_right = written(trained(cfg), cfg, decoding, place=0)
    assert float(is_right.float().mean()) >= 0.99


def test_the_command_prints_a_table_and_writes_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["steps=2", "n_tokens=20", "window=12", "sinks=1", f"svg={tmp_path / 'a.svg'}"]
    assert main(["demo", "sinks", *words]) == 0
    printed = capsys.readouterr().out
    assert "window and sinks" in printed
    assert "re-prefill" in printed
    ElementTree.parse(tmp_path / "a.svg")


def test_a_picture_is_by_itself() -> None:
    assert ElementTree.fromstring(picture({"a": [(1, 2.0), (2, 3.0)]})).tag == "{http://www.w3.org/2000/svg}svg"


def test_what_cannot_be_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "sinks", "strides=10"]) == 2
    assert "strides: a number from 1 to 9, found 10" in capsys.readouterr().err
