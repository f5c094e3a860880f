"""The figures of `tokenizer compare` and `tokenizer sizes`, where they can be known beforehand, and their pictures."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from legollm.commands.tokenizer_pictures import HEIGHT, LEFT, RIGHT, WIDTH, bars
from legollm.errors import TokenizerError
from legollm.tokenizers import (
    ByteTokenizer,
    CharTokenizer,
    NaiveBPETokenizer,
    RegexBPETokenizer,
    WordPieceTokenizer,
    WordTokenizer,
)
from legollm.tokenizers.compare import at_sizes, compare, first_merges
from walker import legollm

SVG = "{http://www.w3.org/2000/svg}"
TEXT = "the cat sat on the mat, the rat ate the oat; " * 30


def test_figures_of_a_text_one_can_count() -> None:
    char, word = CharTokenizer(), WordTokenizer()
    char.train("über den")
    word.train("über")
    texts = {"t": ["über", "den", ""]}
    rows = {row.name: row for row in compare({"b": ByteTokenizer(), "c": char, "w": word}, texts)}
    assert list(rows) == ["b", "c", "w"]
    assert [row.kind for row in rows.values()] == ["byte", "char", "word"]
    assert {row.text for row in rows.values()} == {"t"}
    assert [row.n_tokens for row in rows.values()] == [8, 7, 2]
    assert [(row.n_bytes, row.n_words) for row in rows.values()] == [(8, 2)] * 3
    assert rows["c"].bytes_per_token == pytest.approx(8 / 7)
    assert rows["c"].tokens_per_word == 3.5
    assert [row.oov_rate for row in rows.values()] == [0.0, 0.0, 0.5]
    assert [row.vocab_size for row in rows.values()] == [256, 7, 2]
    assert [row.ids_used for row in rows.values()] == [7, 6, 2]  # "e" occurs twice; of char's ids the space is missing
    assert rows["c"].vocab_used == pytest.approx(6 / 7)
    assert all(row.megabytes_per_s > 0 for row in rows.values())


def test_words_that_wordpiece_cannot_cut_are_unknown() -> None:
    tokenizer = WordPieceTokenizer({"[UNK]": 0, "play": 1, "##ing": 2, ",": 3})
    (row,) = compare({"w": tokenizer}, {"t": ["playing, plays play"]})
    assert (row.n_tokens, row.oov_rate) == (5, 0.25)  # play ##ing , [UNK] play


def test_several_texts_have_rows_each_and_rows_over_all() -> None:
    rows = compare({"b": ByteTokenizer()}, {"x": ["ab"], "y": ["bc d", "e"]})
    assert [(row.text, row.n_tokens, row.n_words, row.ids_used) for row in rows] == [
        ("x", 2, 1, 2),
        ("y", 5, 3, 5),
        ("all", 7, 4, 6),
    ]


@pytest.mark.parametrize("texts", [{"t": [""]}, {"full": ["x"], "t": []}, {}])
def test_no_text_no_figures(texts: dict[str, list[str]]) -> None:
    with pytest.raises(TokenizerError, match=r"nothing to compare on: (t|the texts) is empty"):
        compare({"b": ByteTokenizer()}, texts)


def trained(vocab_size: int) -> RegexBPETokenizer:
    tokenizer = RegexBPETokenizer()
    tokenizer.train(TEXT, vocab_size=vocab_size, special_tokens=[])
    return tokenizer


def test_the_first_merges_are_what_a_smaller_vocabulary_learns() -> None:
    large = trained(270)
    for size in (256, 257, 265, 270):
        smaller, small = first_merges(large, size - 256), trained(size)
        assert smaller.fingerprint == small.fingerprint
        assert smaller.vocab_size == size


def test_lengths_at_sizes_are_those_of_tokenizers_trained_for_them() -> None:
    rows = list(at_sizes(trained(270), (270, 256, 10, 260, 9999, 260), [TEXT, "matte"]))
    assert [row.vocab_size for row in rows] == [256, 260, 270]
    n_bytes = len(TEXT) + 5
    assert {row.n_bytes for row in rows} == {n_bytes}
    for row in rows:
        oracle = NaiveBPETokenizer(pattern="gpt4")
        oracle.train(TEXT, vocab_size=row.vocab_size)
        assert row.n_tokens == len(oracle.encode(TEXT)) + len(oracle.encode("matte"))
    assert rows[0].bytes_per_token == 1.0
    assert rows[2].bytes_per_token == n_bytes / rows[2].n_tokens > 2


# The commands


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("one.txt").write_text(TEXT, encoding="utf-8")
    Path("zwei.txt").write_text("Grüße, die Katze saß auf der Matte. " * 20, encoding="utf-8")
    return tmp_path


SMALL = ("vocab_size=300",)


def test_files_one_after_the_other_or_as_a_list_are_the_same(home: Path) -> None:
    words = ("tokenizer", "compare", "--json", "tokenizers=[byte, char, word]", *SMALL)
    ways = [
        legollm(*words, "one.txt", "zwei.txt").json,
        legollm("tokenizer", "compare", "one.txt", "--json", "zwei.txt", *words[3:]).json,
        legollm(*words, "texts=[one.txt, zwei.txt]").json,
    ]
    figures = [[(row["text"], row["name"], row["n_tokens"]) for row in rows] for rows in ways]
    assert figures[0] == figures[1] == figures[2]
    assert [row["text"] for row in ways[0]] == ["one"] * 3 + ["zwei"] * 3 + ["all"] * 3
    alone = legollm(*words, "one.txt").json
    assert alone[0]["n_tokens"] == ways[0][0]["n_tokens"] == len(TEXT)
    assert [row["n_tokens"] for row in legollm(*words, "data=one.txt").json] == [row["n_tokens"] for row in alone]


def test_the_table_has_a_line_per_text_and_tokenizer(home: Path) -> None:
    table = legollm("tokenizer", "compare", "one.txt", "zwei.txt", "tokenizers=[byte, word]", *SMALL).out
    lines = [line.split() for line in table.splitlines()]
    assert lines[0] == ["text", "tokenizer", "vocabulary", "used", "bytes/token", "tokens/word", "unknown", "MB/s"]
    assert [line[:2] for line in lines[1:]] == [
        [text, name] for text in ("one", "zwei", "all") for name in ("byte", "word")
    ]
    assert len({len(line) for line in table.splitlines()}) == 1


def test_files_of_one_name_are_told_apart(home: Path) -> None:
    Path("more").mkdir()
    Path("more/one.txt").write_text("x", encoding="utf-8")
    rows = legollm("tokenizer", "compare", "one.txt", "more/one.txt", "tokenizers=byte", "--json").json
    assert [row["text"] for row in rows] == ["one.txt", "more/one.txt", "all"]
    Path("all.txt").write_text("x", encoding="utf-8")
    rows = legollm("tokenizer", "compare", "one.txt", "all.txt", "tokenizers=byte", "--json").json
    assert [row["text"] for row in rows] == ["one.txt", "all.txt", "all"]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("compare one.txt one.txt", "texts: one.txt is given twice"),
        ("compare one.txt texts=zwei.txt", "'one.txt': expected key=value"),
        ("compare one.txt n_bytes=0", "n_bytes: 0 bytes are no text"),
        ("compare one.txt missing.txt", "missing.txt"),
        ("compare one.txt tokenizers=[byte,nothing]", "nothing"),
        ("sizes one.txt sizes=[]", "sizes: found none; give at least one"),
        ("sizes one.txt sizes=[300,255]", "sizes: found 255"),
        ("sizes one.txt n_bytes=1", "one: 1 characters cannot be divided"),
        ("sizes one.txt sizes=[30000]", "sizes: one fills 2"),
    ],
)
def test_what_cannot_be_compared_is_one_line(home: Path, words: str, why: str) -> None:
    assert why in legollm("tokenizer", *words.split(), status=2).err


def test_sizes_measure_text_that_was_not_learned_from(home: Path) -> None:
    Path("two.txt").write_text("ab " * 20 + "xyz " * 135, encoding="utf-8")
    words = ("tokenizer", "sizes", "two.txt", "sizes=[256, 258]", "data.val_fraction=0.9")
    rows = legollm(*words, "--json").json
    assert [row["vocab_size"] for row in rows] == [256, 258]
    assert [row["n_tokens"] for row in rows] == [540, 540]  # "ab" and " ab" do not help with xyz
    assert {row["n_bytes"] for row in rows} == {540}
    assert len(legollm(*words).out.splitlines()) == 3


# Pictures


def test_bars_are_drawn_to_scale() -> None:
    root = ET.fromstring(bars("t", "x", "y", ["a", "b"], {"p": [1.0, 2.0], "q": [3.0, 4.0]}))
    drawn = [rect for rect in root.findall(f"{SVG}rect") if rect.find(f"{SVG}title") is not None]
    assert [rect.findtext(f"{SVG}title") for rect in drawn] == ["a, p: 1.00", "a, q: 3.00", "b, p: 2.00", "b, q: 4.00"]
    heights = [float(rect.attrib["height"]) for rect in drawn]
    assert [height / heights[0] for height in heights] == pytest.approx([1, 3, 2, 4], abs=0.01)
    feet = {round(float(rect.attrib["y"]) + float(rect.attrib["height"]), 1) for rect in drawn}
    assert len(feet) == 1
    starts = [float(rect.attrib["x"]) for rect in drawn]
    assert LEFT < min(starts) < max(starts) < WIDTH - RIGHT
    assert feet.pop() < HEIGHT
    assert starts == sorted(starts)
    assert len({rect.attrib["fill"] for rect in drawn}) == 2


def test_names_in_a_picture_are_text_and_nothing_is_fetched() -> None:
    hostile = "</text><script>alert(1)</script> & \"<image href='http://x.example'>"
    picture = bars(hostile, hostile, hostile, [hostile, "b"], {hostile: [1.0, 2.0], "q": [1.0, 0.0]})
    root = ET.fromstring(picture)
    assert {element.tag.removeprefix(SVG) for element in root.iter()} == {
        "svg",
        "title",
        "style",
        "rect",
        "text",
        "line",
    }
    texts = [element.text for element in root.iter(f"{SVG}text")]
    assert texts.count(hostile) == 5  # title, both axes, legend, group
    assert not any("href" in key or "src" in key for element in root.iter() for key in element.attrib)
    assert "url(" not in picture.replace("http://www.w3.org/2000/svg", "")


def test_commands_write_pictures(home: Path) -> None:
    Path("<&>\x07.txt").write_text(TEXT, encoding="utf-8")
    words = ("one.txt", "<&>\x07.txt", "tokenizers=[byte, word]", "vocab_size=8", "svg=figures/c.svg")
    legollm("tokenizer", "compare", *words)
    root = ET.parse("figures/c.svg").getroot()
    texts = [element.text for element in root.iter(f"{SVG}text")]
    assert {"one", "<&>\\x07", "all", "byte", "bytes per token"} <= set(texts)
    (word,) = [text for text in texts if text is not None and text.startswith("word (")]
    assert word.endswith("% unknown)")
    legollm("tokenizer", "sizes", "one.txt", "sizes=[256, 270]", "svg=s.svg")
    texts = [element.text for element in ET.parse("s.svg").getroot().iter(f"{SVG}text")]
    assert {"256", "270", "vocabulary size", "tokens"} <= set(texts)
    assert sorted(path.name for path in Path("figures").iterdir()) == ["c.svg"]


def test_figures_are_json_that_a_program_can_read(home: Path) -> None:
    out = legollm("tokenizer", "compare", "one.txt", "tokenizers=byte", "--json").out
    (row,) = json.loads(out)
    assert row.pop("megabytes_per_s") > 0
    assert row == {
        "text": "one",
        "name": "byte",
        "kind": "byte",
        "vocab_size": 256,
        "n_bytes": len(TEXT),
        "n_words": len(TEXT.split()),
        "n_tokens": len(TEXT),
        "bytes_per_token": 1.0,
        "tokens_per_word": len(TEXT) / len(TEXT.split()),
        "vocab_used": len(set(TEXT)) / 256,
        "oov_rate": 0.0,
    }
