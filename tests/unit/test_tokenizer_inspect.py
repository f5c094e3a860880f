"""Looking into a tokenizer: trees that spell their token, and nothing a text holds can steer terminal or page."""

import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from legollm.commands.tokenizer_view import coloured, page
from legollm.errors import TokenizerError
from legollm.tokenizers import (
    ByteTokenizer,
    CharBPETokenizer,
    CharTokenizer,
    NaiveBPETokenizer,
    RegexBPETokenizer,
    WordTokenizer,
)
from legollm.tokenizers.inspect_merges import MergeTrees, find_token, readable, tree_lines
from walker import legollm

TEXT = "low low low lower lower newest newest "
HOSTILE = "</span><script src='x'>alert(\"1\")</script>\x1b[31m\x00\r\n\u202e\u200b\U000e0001 & \\n <!-- é日🙂"


def trained(*special_tokens: str) -> RegexBPETokenizer:
    tokenizer = RegexBPETokenizer()
    tokenizer.train(TEXT, vocab_size=260 + len(special_tokens), special_tokens=special_tokens)
    return tokenizer


# Readable


@pytest.mark.parametrize(
    ("token", "shown"),
    [
        (b" the", " the"),
        ("é日🙂".encode(), "é日🙂"),
        (b"\x1b[31m\x00\x07\r\n\t", r"\x1b[31m\x00\x07\r\n\t"),
        ("\u202e\u200b\u2028\xa0\xad".encode(), r"\u202e\u200b\u2028\u00a0\u00ad"),
        ("\U000e0001".encode(), r"\U000e0001"),
        ("日".encode()[:2], r"\xe6\x97"),
        ("\ud800".encode("utf-8", "surrogatepass"), r"\xed\xa0\x80"),
        (b"\\n", r"\\n"),
        (b"", ""),
    ],
)
def test_what_cannot_be_printed_is_escaped_as_python_does(token: bytes, shown: str) -> None:
    assert readable(token) == shown


def test_every_single_byte_and_character_reads_differently_and_harmlessly() -> None:
    tokens = [bytes([value]) for value in range(256)] + [chr(code).encode() for code in range(0x80, 0xD800)]
    shown = [readable(token) for token in tokens]
    assert len(set(shown)) == len(tokens)
    assert all(text.isprintable() for text in shown)


# Trees


def test_a_token_is_the_merges_that_made_it() -> None:
    trees = MergeTrees(trained())  # merges: o w, l ow, " " low, w e
    assert list(tree_lines(trees.tree(b" low"))) == [
        "' low'  merge 2",
        "├─ ' '",
        "└─ 'low'  merge 1",
        "   ├─ 'l'",
        "   └─ 'ow'  merge 0",
        "      ├─ 'o'",
        "      └─ 'w'",
    ]
    assert list(tree_lines(trees.tree(b"x"))) == ["'x'"]
    assert trees.rank(b"we") == 3
    assert trees.rank(b"x") is None


def test_left_halves_are_joined_to_what_follows_them() -> None:
    tokenizer = NaiveBPETokenizer()
    tokenizer.merges = [(b"a", b"b"), (b"ab", b"c"), (b"abc", b"d")]
    lines = list(tree_lines(MergeTrees(tokenizer).tree(b"abcd")))
    assert [line[:7] for line in lines[1:]] == ["├─ 'abc", "│  ├─ '", "│  │  ├", "│  │  └", "│  └─ '", "└─ 'd'"]


def test_every_tree_spells_its_token_out_of_bytes_and_earlier_merges() -> None:
    tokenizer = RegexBPETokenizer()
    tokenizer.train([Path(__file__).read_text(encoding="utf-8")], vocab_size=500)
    trees = MergeTrees(tokenizer)
    assert len(tokenizer.merges) > 200
    for rank, (left, right) in enumerate(tokenizer.merges):
        nodes = list(trees.tree(left + right))
        leaves = [node.token for node in nodes if node.rank is None]
        assert b"".join(leaves) == left + right
        assert {len(leaf) for leaf in leaves} == {1}
        assert len(nodes) == 2 * len(leaves) - 1
        above = {node.path: node for node in nodes}
        assert above[""].rank == rank
        for node in nodes[1:]:
            parent = above[node.path[:-1]]
            assert parent.rank is not None
            assert node.rank is None or node.rank < parent.rank


def test_a_chain_of_thousands_of_merges_has_a_tree() -> None:
    tokenizer = NaiveBPETokenizer()
    tokenizer.merges = [(b"a" * n, b"a") for n in range(1, 3000)]
    assert sum(1 for _ in MergeTrees(tokenizer).tree(b"a" * 3000)) == 5999


def test_where_two_merges_make_the_same_bytes_the_earlier_one_counts() -> None:
    tokenizer = NaiveBPETokenizer()
    tokenizer.merges = [(b"a", b"b"), (b"b", b"c"), (b"ab", b"c"), (b"a", b"bc")]
    assert [node.token for node in MergeTrees(tokenizer).tree(b"abc")] == [b"abc", b"ab", b"a", b"b", b"c"]


def test_trees_over_characters_end_in_characters() -> None:
    tokenizer = CharBPETokenizer()
    tokenizer.train("日本 日本 日本", vocab_size=300)
    leaves = [node.token for node in MergeTrees(tokenizer).tree("日本".encode()) if node.rank is None]
    assert leaves == ["日".encode(), "本".encode()]


def test_tokenizers_without_merges_have_trees_of_one_node() -> None:
    word, char = WordTokenizer(), CharTokenizer()
    word.train("the cat")
    char.train("the cat")
    for tokenizer in (word, char, ByteTokenizer()):
        assert [node.rank for node in MergeTrees(tokenizer).tree(b"the")] == [None]


# Finding a token


def test_a_token_is_found_by_its_id_and_by_its_text() -> None:
    tokenizer = trained("<|end|>")
    assert find_token(tokenizer, "257") == 257
    assert find_token(tokenizer, " low") == 258
    assert find_token(tokenizer, "<|end|>") == 260
    assert find_token(tokenizer, "l") == ord("l")


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        ("261", "no token has id 261"),
        ("low x", "'low x' is not one token but 3: 'low' ' ' 'x'; give one of these, or an id"),
        ("", "'' is not one token but 0: "),
        ("a\x1b", r"'a\x1b' is not one token but 2: 'a' '\x1b'"),
        ("abcdefghi", "'g' 'h' ...; give"),
        ("abcdefgh", "'g' 'h'; give"),
    ],
)
def test_what_is_not_one_token_is_said_to_be_several(wanted: str, why: str) -> None:
    with pytest.raises(TokenizerError, match=re.escape(why)):
        find_token(trained("<|end|>"), wanted)


# The views


class Balanced(HTMLParser):
    """Refuses an end tag that ends something else; keeps the tags, the attributes and the text of each tag."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.keys = list[str](), set[str](), set[str]()
        self.titles, self.cut = list[str](), ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.keys.update(key for key, _ in attrs)
        self.titles += [value or "" for key, value in attrs if key == "title"]
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["span"]:
            self.cut += data


def test_the_page_shows_the_text_and_runs_nothing_of_it() -> None:
    tokenizer = trained("<script>")
    text = page(tokenizer, "<b>&", tokenizer.encode(HOSTILE + "<script>", allowed_special="all"))
    parsed = Balanced(text)
    plain = Balanced(page(tokenizer, "x", tokenizer.encode(TEXT)))
    assert parsed.tags == plain.tags - {"details", "summary", "pre"}  # nothing of this text was merged
    assert plain.keys == parsed.keys == {"charset", "class", "content", "lang", "name", "title"}
    assert "&lt;script src=" not in text  # one token a byte: it lies in pieces, none of them a tag
    assert not re.search(r"https?:|//|src=|href=|@import|url\(|<script|<link|<b>", text)
    assert all(character.isprintable() or character == "\n" for character in text)


def test_the_page_has_every_token_in_order_and_its_tree() -> None:
    tokenizer = trained()
    text = page(tokenizer, "tok.json", tokenizer.encode("low low\n\x1b"))
    parsed = Balanced(text)
    assert parsed.titles == ["id 257, merge 1: 6c 6f 77", "id 258, merge 2: 20 6c 6f 77", "id 10: 0a", "id 27: 1b"]
    assert parsed.cut == "low low\\n\n\\x1b"
    assert "├─ &#x27;l&#x27;\n└─ &#x27;ow&#x27;  merge 0" in text
    assert "4 tokens, 9 bytes, 2.25 bytes per token, 4 of 260 ids used. Kind: bpe." in text
    assert "prefers-color-scheme: dark" in text


def test_the_page_of_no_text() -> None:
    assert "0 tokens, 0 bytes, 0.00 bytes per token" in page(ByteTokenizer(), "b", [])


def test_the_terminal_gets_colours_of_ours_and_no_code_of_the_text() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, color_system="standard", highlight=False, soft_wrap=True)
    console.print(coloured([b"low", b" [red]\x1b[2J", b"\n", b"x"]))
    shown = out.getvalue()
    assert re.sub(r"\x1b\[[0-9;]*m", "", shown) == "low [red]\\x1b[2J\\n\nx\n"
    assert shown.count("\x1b[37;") == 4  # one colour per token
    assert len(set(re.findall(r"\x1b\[37;(\d+)m", shown))) == 4


# The command


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    trained("<|end|>").save("tok.json")
    return tmp_path


def test_a_text_on_the_command_line_or_on_standard_input(home: Path) -> None:
    said = legollm("tokenizer", "inspect", "tok.json", "low low<|end|>\n").out
    assert said == legollm("tokenizer", "inspect", "tok.json", given="low low<|end|>\n").out
    lines = said.splitlines()
    assert lines[0] == r"low| low|<|||e|n|d|||>|\n"
    assert lines[2].split() == ["id", "merge", "times", "token"]
    assert lines[3].split(maxsplit=3) == ["257", "1", "1", "'low'"]
    assert lines[-1] == "10 tokens, 15 bytes, 1.50 bytes/token"
    special = legollm("tokenizer", "inspect", "tok.json", "low<|end|>", "allow_special=true").out
    assert special.splitlines()[0] == "low|<|end|>"


def test_one_token_on_the_command_line(home: Path) -> None:
    said = legollm("tokenizer", "inspect", "tok.json", "token= low").out.splitlines()
    assert said[:2] == ["id 258, 4 bytes: 20 6c 6f 77", "' low'  merge 2"]
    assert len(said) == 8
    assert legollm("tokenizer", "inspect", "tok.json", "token=260").out.startswith("id 260, special, 7 bytes: ")


def test_the_page_on_the_command_line(home: Path) -> None:
    said = legollm("tokenizer", "inspect", "tok.json", HOSTILE.replace("\x00", ""), "html=pages/i.html").out
    assert said.startswith("pages/i.html: ")
    Balanced(Path("pages/i.html").read_text(encoding="utf-8"))
    assert [path.name for path in Path("pages").iterdir()] == ["i.html"]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("tok.json low token=257", "token: shows one token on the terminal"),
        ("tok.json token=257 html=i.html", "token: shows one token on the terminal"),
        ("tok.json token=lower", "'lower' is not one token but 3"),
        ("tok.json token=-1", "'-1' is not one token but 2"),
        ("nowhere.json low", "nowhere.json"),
    ],
)
def test_what_cannot_be_inspected_is_one_line(home: Path, words: str, why: str) -> None:
    assert why in legollm("tokenizer", "inspect", *words.split(), status=2).err
    assert not Path("i.html").exists()


def test_encode_shows_no_control_characters_either(home: Path) -> None:
    pieces, ids, _ = legollm("tokenizer", "encode", "tok.json", "low\x1b[2J\n").out.splitlines()
    assert pieces == r"low|\x1b|[|2|J|\n"
    assert ids == "257 27 91 50 74 10"
