"""`legollm inspect FOLDER text=...`: one page that holds all figures, runs nothing of the text and fetches nothing."""

import json
import re
import struct
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch

from legollm.architectures import ARCHITECTURES
from legollm.checkpoints.huggingface import save_hf_folder
from legollm.commands.xray_style import SCRIPT
from legollm.evaluation.png import png
from legollm.interfaces import Tokenizer
from legollm.tokenizers import ByteTokenizer, NaiveBPETokenizer
from tiny_models import tiny_config
from walker import legollm

HOSTILE = "a</span><script>alert(1)</script><img src=x onerror=alert(2)>\x1b\n&\u202e"


def folder(name: str, path: Path, tokenizer: Tokenizer | None = None, **changes: Any) -> None:
    cfg = tiny_config(name, **{"vocab_size": 256, **changes})
    save_hf_folder(path, name, cfg, ARCHITECTURES[name].build(cfg))
    (tokenizer or ByteTokenizer()).save(path / "tokenizer.json")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder("mixtral", tmp_path / "model")
    return tmp_path


class Page(HTMLParser):
    """The elements of a page, each with its attributes and its own text; refuses what is not closed in order."""

    VOID = frozenset({"meta", "img"})

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open, self.elements = list[int](), list[tuple[str, dict[str, str], list[str]]]()
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}, []))
        if tag not in self.VOID:
            self.open.append(len(self.elements) - 1)

    def handle_endtag(self, tag: str) -> None:
        assert self.elements[self.open.pop()][0] == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.elements[self.open[-1]][2].append(data)

    def of(self, tag: str, kind: str | None = None) -> list[tuple[dict[str, str], str]]:
        return [
            (attributes, "".join(text))
            for name, attributes, text in self.elements
            if name == tag and (kind is None or kind in attributes.get("class", "").split())
        ]


def test_the_page_runs_nothing_of_the_text_and_fetches_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tokenizer = NaiveBPETokenizer()
    tokenizer.train(["<script>alert(1)</script>"] * 9 + ["<img src=x onerror=alert(2)>"] * 7, vocab_size=300)
    folder("mixtral", tmp_path / "model", tokenizer, vocab_size=300)
    legollm("inspect", "model", "hostile.html", f"text={HOSTILE}")
    text = Path("hostile.html").read_text(encoding="utf-8")
    parsed = Page(text)
    assert [code for _, code in parsed.of("script")] == [SCRIPT]
    keys = {key for _, attributes, _ in parsed.elements for key in attributes}
    assert keys <= {
        "alt", "aria-live", "charset", "class", "content", "data-first", "data-name", "hidden", "id", "lang", "name",
        "open", "scope", "src", "style", "tabindex",
    }  # fmt: skip
    assert all(attributes["src"].startswith("data:image/png;base64,") for attributes, _ in parsed.of("img"))
    assert not re.search(r"https?:|href=|@import|url\(|<link|<iframe", text)
    assert all(character.isprintable() or character == "\n" for character in text)
    tokens = [name for _, name in parsed.of("span", "tok")]
    assert "<script>alert(1)</script>" in tokens
    assert "".join(tokens) == HOSTILE.encode().decode("ascii", "backslashreplace").replace("\x1b", r"\x1b").replace(
        "\n", r"\n"
    )


def test_the_page_has_every_token_head_block_and_expert(home: Path) -> None:
    said = legollm("inspect", "model", "page.html", "text=key 1, key 2, key").out
    figures = json.loads(legollm("inspect", "model", "--json", "text=key 1, key 2, key").out)
    text = Path("page.html").read_text(encoding="utf-8")
    parsed = Page(text)
    tips = [tip for _, tip in parsed.of("span", "tip")]
    assert len(parsed.of("span", "tok")) == len(figures["tokens"]) == 17
    assert len(parsed.of("div", "map")) == len(figures["heads"]) == 8
    assert len(parsed.of("td", "cell")) == 17 * len(figures["depths"]) == 17 * 3
    assert len(parsed.of("td", "way")) == 17 * len(figures["mixtures"]) == 17 * 2
    for i, one in enumerate(figures["after"][:-1], start=1):
        assert any(tip.startswith(f"token {i}, ") and f"loss {one['loss']:.2f} nats" in tip for tip in tips)
    for head in figures["heads"]:
        name = f"Block {head['block']} head {head['head']}: copying {head['copy']:.2f}, previous"
        assert any(tip.startswith(name) for tip in tips)
        assert any(attributes["alt"].startswith(name) for attributes, _ in parsed.of("img"))
    assert figures["depths"][-1]["after"] == [{**one, "guesses": one["guesses"][:1]} for one in figures["after"]]
    assert said.startswith(f"page.html: 17 tokens, {figures['loss']:.3f} nats each, 8 heads in 2 blocks\n  copying: ")
    assert all("tabindex" in attributes for kind in ("tok", "map") for attributes, _ in parsed.of("span", kind))


def test_a_model_without_attention_has_its_tokens_and_depths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder("bigram", tmp_path / "model")
    legollm("inspect", "model", "text=some text")
    parsed = Page(Path("inspect.html").read_text(encoding="utf-8"))
    assert [title for _, title in parsed.of("h2")] == ["The text, token by token", "What the model would say sooner"]


def test_a_long_text_is_cut_and_says_how_to_see_more(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert ": 5 tokens, " in legollm("inspect", "model", "max_tokens=5", "text=a long text").out
    assert caplog.messages == ["text: 11 tokens, of which the first 5 are shown; max_tokens=11 shows all"]
    folder("gpt2", Path("short"), max_seq_len=8)
    caplog.clear()
    assert ": 8 tokens, " in legollm("inspect", "short", "text=a long text").out
    assert caplog.messages == ["text: 11 tokens, of which the first 8 are shown; the model reads 8"]


def test_maps_of_chosen_blocks_only(home: Path) -> None:
    legollm("inspect", "model", "layers=1", "text=some text")
    parsed = Page(Path("inspect.html").read_text(encoding="utf-8"))
    assert [attributes["data-name"][:7] for attributes, _ in parsed.of("div", "map")] == ["Block 1"] * 4


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("model layers=2 text=abc", "layers: block 2 has no attention to draw; possible: 0, 1"),
        ("model text=a", "text: has 1 tokens; at least 2 are needed"),
        ("model text=abc n_sinks=3", "text: has 3 tokens; at least 4 are needed"),
        ("model text=abc max_tokens=1", "max_tokens, n_sinks: at least two tokens"),
        ("model text=abc --diagram", "text: makes a page, and diagram a picture"),
        ("gpt2-xl text=abc", "text: gpt2-xl is a kind of model without weights"),
        ("nowhere text=abc", "nowhere: no such folder"),
    ],
)
def test_what_cannot_be_looked_at_is_one_line(home: Path, words: str, why: str) -> None:
    assert why in legollm("inspect", *words.split(), status=2 if "nowhere" not in words else 1).err
    assert not Path("inspect.html").exists()


def test_a_picture_holds_the_numbers() -> None:
    """Read by the format's rules: signature, chunks with sums of their own, lines that start with their filter."""
    amounts = torch.rand(5, 3, generator=torch.Generator().manual_seed(0))
    data, place, chunks = png(amounts, (1, 2, 3)), 8, {}
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    while place < len(data):
        size, kind = struct.unpack(">I4s", data[place : place + 8])
        chunks[kind] = data[place + 8 : place + 8 + size]
        assert struct.unpack(">I", data[place + 8 + size :][:4])[0] == zlib.crc32(kind + chunks[kind])
        place += 12 + size
    assert list(chunks) == [b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"]
    assert struct.unpack(">IIBBBBB", chunks[b"IHDR"]) == (3, 5, 8, 3, 0, 0, 0)
    assert (chunks[b"PLTE"], chunks[b"tRNS"]) == (bytes([1, 2, 3]) * 256, bytes(range(256)))
    lines = zlib.decompress(chunks[b"IDAT"])
    found = [[value / 255 for value in lines[4 * row + 1 : 4 * row + 4]] for row in range(5)]
    assert {lines[4 * row] for row in range(5)} == {0}
    torch.testing.assert_close(torch.tensor(found), amounts, rtol=0, atol=0.5 / 255 + 1e-6)


@pytest.mark.slow
def test_a_page_of_144_heads_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder("gpt2", tmp_path / "model", n_layers=12, n_heads=12, d_model=96, max_seq_len=64)
    legollm("inspect", "model", "text=" + HOSTILE[:8] * 8)
    parsed = Page(Path("inspect.html").read_text(encoding="utf-8"))
    assert len(parsed.of("img")) == 144
    assert Path("inspect.html").stat().st_size < 2_000_000
